/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm at every size from 5 to 42. From 6 ranks on it takes minutes to prove all that
 * prove_pair lists: one in SAMPLE of it is proved, always the same, and as much again drawn anew in
 * each run. PROVE_SEED repeats a run. All of it is proved by algorithms_to_42_soak_test.c and those
 * after it, up to 64 ranks; larger worlds: algorithms_samples_slow_test.c. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

enum { SAMPLE = 8 };

static void prove_sizes(uint64_t seed)
{
    unsigned proved = 0;
    print_message("PROVE_SEED=%llu\n", (unsigned long long)seed);
    prove_sample(seed, SAMPLE);
    for (uint32_t size = 6; size <= 42; size++)
        proved += prove_size(size, size <= 16);
    print_message("%u problems proved\n", proved);
}

static void all_of_5_ranks(void **state)
{
    (void)state;
    prove_sample(0, 1);
    assert_true(prove_size(5, true) > 8000);
}

static void the_same_sample(void **state)
{
    (void)state;
    prove_sizes(1);
}

static void another_sample(void **state)
{
    (void)state;
    struct timespec now;
    const char *seed = getenv("PROVE_SEED");
    clock_gettime(CLOCK_REALTIME, &now);
    prove_sizes(seed != NULL ? strtoull(seed, NULL, 10)
                             : (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_5_ranks),
        cmocka_unit_test(the_same_sample),
        cmocka_unit_test(another_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
