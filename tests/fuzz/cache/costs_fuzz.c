/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of measured costs, which anybody may have written. As in tuning_fuzz.c the first byte of
 * an input says whether the rest is the whole file, or lacks a last line with the right sum. What
 * is believed is within bounds, and is what kolo would write.
 */
#include "summed.h"

#include "base/assert.h"
#include "runtime/costs.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char KEY[] = "Processor 5; caches 1 2 3; cpus 2; Linux 6.1.0; ranks 2, bound";

/* Seconds of a byte. */
static bool is_byte(double seconds)
{
    return seconds >= 1e-15 && seconds <= 1.0001e-6;
}

static bool is_event(double seconds)
{
    return seconds >= 1e-12 && seconds <= 1.0001;
}

static void check(const char *text, size_t bytes)
{
    struct kolo__cost_model read = {.fence = 7}, again;
    char written[KOLO__COSTS_TEXT_BYTES], rewritten[KOLO__COSTS_TEXT_BYTES];
    if (!kolo__costs_parse(text, bytes, KEY, &read)) {
        KOLO__ASSERT(read.fence == 7 && read.next_fence == 0);
        return;
    }
    KOLO__ASSERT(is_event(read.message_local) && is_event(read.fence) && is_event(read.next_fence));
    KOLO__ASSERT(is_byte(read.byte_local));
    for (int level = 0; level < KOLO__COST_LEVELS; level++) {
        const struct kolo__memory_cost *memory = &read.memory[level];
        KOLO__ASSERT(memory->bytes >= 0 && memory->bytes <= 0x1p50);
        KOLO__ASSERT(is_byte(memory->mapped) && is_byte(memory->slot) && is_byte(memory->reduced));
    }
    size_t length = kolo__costs_text(KEY, &read, written);
    KOLO__ASSERT(length < sizeof written && kolo__costs_parse(written, length, KEY, &again));
    KOLO__ASSERT(kolo__costs_text(KEY, &again, rewritten) == length);
    KOLO__ASSERT(memcmp(written, rewritten, length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    check_summed(data, bytes, check);
    return 0;
}
