/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated jobs, one for each seed: README.md beside it says what must hold. SIM_FIRST and
 * SIM_SEEDS choose others; `./dev sim` sets them.
 */
#include "job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void test_seeds(void **state)
{
    (void)state;
    uint64_t first = number("SIM_FIRST", 1), seeds = number("SIM_SEEDS", 2000);
    struct job sum = {0};
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        struct job job;
        if (!job_run(seed, &job))
            fail_msg("seed %llu: %s\nagain: ./dev sim --first %llu --seeds 1",
                     (unsigned long long)seed, job.broken, (unsigned long long)seed);
        sum.epochs += job.epochs;
        sum.deaths += job.deaths;
        sum.expulsions += job.expulsions;
        sum.newcomers += job.newcomers;
        sum.right += job.right;
        sum.failed += job.failed;
        sum.refused += job.refused;
        sum.ends += job.ends;
    }
    print_message("%llu seeds from %llu: %u epochs, %u deaths, %u expelled, %u newcomers, %u "
                  "allreduces of a rank right, %u failed with the cause, %u old messages refused, "
                  "%u jobs ended for "
                  "too few ranks\n",
                  (unsigned long long)seeds, (unsigned long long)first, sum.epochs, sum.deaths,
                  sum.expulsions, sum.newcomers, sum.right, sum.failed, sum.refused, sum.ends);
    if (seeds >= 1000) /* nothing of it is left out */
        assert_true(sum.epochs > seeds && sum.deaths > seeds / 2 && sum.expulsions > seeds / 20 &&
                    sum.newcomers > seeds / 10 && sum.right > seeds && sum.failed > seeds / 10 &&
                    sum.refused > seeds / 50 && sum.ends > seeds / 50);
}

static void test_same_seed_same_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct job one, two, other;
        job_run(seed, &one);
        job_run(seed, &two);
        job_run(seed + 1000, &other);
        assert_true(one.trace == two.trace);
        assert_true(one.trace != other.trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds),
                                       cmocka_unit_test(test_same_seed_same_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
