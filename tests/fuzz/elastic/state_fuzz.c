/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Head and records of a checkpoint, as a disk may give them back. The first byte of an input is
 * none of the file: when it is odd the sum is replaced by the right one, or else no mutation would
 * get past it. What is good is what kolo would write, but for the step and the sums of data.
 */
#include "state.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "kernels/crc32c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint64_t step = 0;
    uint32_t sums[STATE_COUNT] = {0};
    size_t claimed = 0;
    char why[KOLO__CHECKPOINT_WHY_BYTES] = "";
    if (bytes < 1)
        return 0;
    unsigned char *list = malloc(bytes); /* of its size, so that a sanitizer sees its end */
    KOLO__ASSERT(list != NULL && kolo__checkpoint_list_bytes(state, STATE_COUNT) == LIST_BYTES);
    memcpy(list, data + 1, --bytes);
    if ((data[0] & 1) != 0 && bytes >= 8) {
        kolo__store_u32(list + bytes - 8, kolo__crc32c(0, list, bytes - 8));
        kolo__store_u32(list + bytes - 4, 0);
    }
    if (bytes >= KOLO__CHECKPOINT_HEAD_BYTES && kolo__checkpoint_head(list, &claimed, why))
        KOLO__ASSERT(claimed <= KOLO__CHECKPOINT_LIST_BYTES_MAX);
    enum kolo__checkpoint_verdict verdict =
        kolo__checkpoint_read_list(list, bytes, state, STATE_COUNT, &step, sums, why);
    KOLO__ASSERT(memchr(why, '\0', sizeof why) != NULL);
    KOLO__ASSERT(verdict == KOLO__CHECKPOINT_GOOD || why[0] != '\0');
    if (verdict == KOLO__CHECKPOINT_GOOD)
        KOLO__ASSERT(bytes == LIST_BYTES && memcmp(list + 32 + 24, "weights", 7) == 0);
    free(list);
    return 0;
}
