/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two ranks say of themselves in a new data connection: join and answer. The first byte of an
 * input says which; what can be read is written as it was.
 */
#include "base/assert.h"
#include "collectives/transport/join.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What is missing is zero. */
static void read_as(unsigned char *fixed, size_t wanted, const uint8_t *data, size_t bytes)
{
    memset(fixed, 0, wanted);
    if (bytes > 0)
        memcpy(fixed, data, bytes < wanted ? bytes : wanted);
}

static void check_join(const uint8_t *data, size_t bytes)
{
    static const struct kolo__join own = {.epoch = 1, .comm = 2, .rank = 0, .size = 3, .job = "j"};
    unsigned char fixed[KOLO__JOIN_BYTES], again[KOLO__JOIN_BYTES];
    struct kolo__join join;
    char text[160];
    read_as(fixed, sizeof fixed, data, bytes);
    if (kolo__join_decode(fixed, &join) != KOLO_OK)
        return;
    KOLO__ASSERT(memchr(join.job, '\0', sizeof join.job) != NULL);
    kolo__join_encode(&join, again);
    KOLO__ASSERT(memcmp(again, fixed, 24 + strlen(join.job)) == 0);
    enum kolo__join_verdict verdict = kolo__join_judge(&own, &join);
    kolo__join_verdict_text(verdict, &own, &join, text, sizeof text);
    KOLO__ASSERT(strlen(text) > 0 && strlen(text) < sizeof text);
    if (verdict == KOLO__JOIN_ACCEPTED)
        KOLO__ASSERT(strcmp(join.job, "j") == 0 && join.epoch == 1 && join.comm == 2);
}

static void check_answer(const uint8_t *data, size_t bytes)
{
    unsigned char fixed[KOLO__JOIN_ANSWER_BYTES], again[KOLO__JOIN_ANSWER_BYTES];
    enum kolo__join_verdict verdict;
    struct kolo__join other;
    read_as(fixed, sizeof fixed, data, bytes);
    if (kolo__join_answer_decode(fixed, &verdict, &other) != KOLO_OK)
        return;
    kolo__join_answer_encode(verdict, &other, again);
    KOLO__ASSERT(memcmp(again, fixed, sizeof fixed) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 0)
        (data[0] % 2 == 0 ? check_join : check_answer)(data + 1, bytes - 1);
    return 0;
}
