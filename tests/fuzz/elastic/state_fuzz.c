/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of checkpoints, of manifests and of parts, as a disk may give them back. The first byte of
 * an input is none of the file: when it is odd the sum is replaced by the right one, or else no
 * mutation would get past it. What is good is what kolo would write, but for the step, the sums of
 * data, and how a manifest's parts and a part's pieces are cut.
 */
#include "state.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "kernels/crc32c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void read_whole(const unsigned char *list, size_t bytes)
{
    struct kolo__checkpoint_piece pieces[STATE_COUNT];
    uint64_t step;
    uint32_t parts = 0;
    char why[KOLO__CHECKPOINT_WHY_BYTES] = "";
    enum kolo__checkpoint_verdict verdict =
        kolo__checkpoint_read_list(list, bytes, state, STATE_COUNT, &step, &parts, pieces, why);
    KOLO__ASSERT(memchr(why, '\0', sizeof why) != NULL);
    KOLO__ASSERT(verdict == KOLO__CHECKPOINT_GOOD || why[0] != '\0');
    if (verdict != KOLO__CHECKPOINT_GOOD)
        return;
    KOLO__ASSERT(bytes == LIST_BYTES + 16 * (size_t)parts &&
                 memcmp(list + 32 + 24, "weights", 7) == 0);
    for (uint32_t i = 0; i < parts; i++)
        (void)kolo__checkpoint_part_at(list, bytes, parts, i);
}

static void read_part(const unsigned char *list, size_t bytes)
{
    /* of its size, so that a sanitizer sees its end */
    struct kolo__checkpoint_piece *pieces = calloc(bytes / 32 + 1, sizeof *pieces);
    uint64_t file = 0;
    char why[KOLO__CHECKPOINT_WHY_BYTES] = "";
    KOLO__ASSERT(pieces != NULL);
    enum kolo__checkpoint_verdict verdict =
        kolo__part_read_list(list, bytes, state, STATE_COUNT, pieces, &file, why);
    KOLO__ASSERT(memchr(why, '\0', sizeof why) != NULL);
    KOLO__ASSERT(verdict == KOLO__CHECKPOINT_GOOD || why[0] != '\0');
    for (uint32_t k = 0; verdict == KOLO__CHECKPOINT_GOOD && k < kolo__checkpoint_records(list);
         k++) {
        const struct kolo__checkpoint_piece *piece = &pieces[k];
        KOLO__ASSERT(piece->tensor < STATE_COUNT && piece->at >= bytes && piece->at <= file);
        KOLO__ASSERT(piece->first + piece->count <= state[piece->tensor].count);
    }
    free(pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
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
    read_whole(list, bytes);
    read_part(list, bytes);
    free(list);
    return 0;
}
