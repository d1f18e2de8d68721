/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs in a simulated machine room, one for each seed: world.h says what is in it, ../README.md
 * what must hold. SIM_FIRST and SIM_SEEDS choose others; `./dev sim` sets them. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct world one, two;

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void test_seeds(void **state)
{
    (void)state;
    uint64_t first = number("SIM_FIRST", 1), seeds = number("SIM_SEEDS", 2000), broken = 0;
    struct world sum = {0};
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        if (!world_run(seed, NULL, &one)) {
            print_message("seed %llu: %s\n", (unsigned long long)seed, one.broken);
            broken++;
        }
        sum.kills += one.kills;
        sum.lost_silently += one.lost_silently;
        sum.pauses += one.pauses;
        sum.cuts += one.cuts;
        sum.jumps += one.jumps;
        sum.slowed += one.slowed;
        sum.newcomers += one.newcomers;
        sum.epochs_formed += one.epochs_formed;
        sum.right += one.right;
        sum.overlapped += one.overlapped;
        sum.failed += one.failed;
        sum.left += one.left;
        sum.ended_well += one.ended_well;
        sum.ended_badly += one.ended_badly;
    }
    print_message(
        "%llu jobs from seed %llu: %u epochs; %u processes killed, %u with their hosts, "
        "%u pauses, %u links cut, %u slow, %u clocks moved, %u newcomers, %u left; %u "
        "steps of a rank right, %u begun by threads of reducers, %u failed and were repeated; "
        "%u processes ended well, %u with an error\n",
        (unsigned long long)seeds, (unsigned long long)first, sum.epochs_formed, sum.kills,
        sum.lost_silently, sum.pauses, sum.cuts, sum.slowed, sum.jumps, sum.newcomers, sum.left,
        sum.right, sum.overlapped, sum.failed, sum.ended_well, sum.ended_badly);
    if (broken > 0)
        fail_msg("%llu of them broken; again: SIM_LOG=1 ./dev sim --first N --seeds 1",
                 (unsigned long long)broken);
}

static void test_kept(void **state)
{
    (void)state;
    unsigned broken = 0;
    for (size_t k = 0; k < world_kept_count; k++)
        for (uint64_t seed = 1; seed <= world_kept[k].seeds; seed++) {
            const struct scenario *scenario = &world_kept[k];
            bool good = world_run(seed, scenario, &one);
            if (good && one.ended_well >= scenario->well)
                continue;
            print_message("%s, seed %llu: %u processes ended well. %s\n", scenario->name,
                          (unsigned long long)seed, one.ended_well, one.broken);
            broken++;
        }
    assert_int_equal(broken, 0);
}

static void test_same_seed_same_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        world_run(seed, NULL, &one);
        world_run(seed, NULL, &two);
        assert_true(one.trace == two.trace);
        world_run(seed + 1000, NULL, &two);
        assert_true(one.trace != two.trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds), cmocka_unit_test(test_kept),
                                       cmocka_unit_test(test_same_seed_same_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
