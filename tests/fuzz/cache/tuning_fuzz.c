/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of tuned sizes, which anybody may have written. The first byte of an input says whether
 * the rest is the whole file, or lacks a last line with the right sum, which is then put there: so
 * that it is not the sum alone that refuses nonsense. What is believed is what kolo writes.
 */
#include "summed.h"

#include "base/assert.h"
#include "runtime/reducer/tune.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char KEY[] = "plan 0123456789abcdef; ranks 2 on 1 hosts; shm; Processor 5; kolo 0.1.0";

static void check(const char *text, size_t bytes)
{
    char again[KOLO__TUNE_TEXT_BYTES];
    struct kolo__tuning read = {7, 7};
    if (!kolo__tune_parse(text, bytes, KEY, &read)) {
        KOLO__ASSERT(read.bucket_bytes == 7 && read.segment_bytes == 7);
        return;
    }
    KOLO__ASSERT(read.bucket_bytes >= 1024 && read.bucket_bytes <= UINT64_C(1) << 40);
    KOLO__ASSERT(read.segment_bytes <= UINT64_C(1) << 40);
    KOLO__ASSERT(kolo__tune_text(KEY, &read, again) == bytes && memcmp(text, again, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    check_summed(data, bytes, check);
    return 0;
}
