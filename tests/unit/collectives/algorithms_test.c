/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm is proved for small sizes, and costs what its formula says. More sizes and all
 * that is proved of them: algorithms_slow_test.c and algorithms_to_64_soak_test.c; samples up to
 * 4,096 ranks: algorithms_samples_slow_test.c. */
#include "collectives/algorithm/algorithm.h"
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void all_are_right(void **state)
{
    (void)state;
    unsigned proved = 0;
    for (uint32_t size = 1; size <= 4; size++)
        proved += prove_size(size, true);
    assert_true(proved > 20000);
    prove_sample(0, 16); /* the rest is for algorithms_slow_test.c */
    for (uint32_t size = 5; size <= 17; size++)
        proved += prove_size(size, false);
    prove_sample(0, 1);
    print_message("%u problems proved\n", proved);
}

static struct kolo__cost cost_of(const char *algorithm, enum kolo__collective collective,
                                 uint32_t size, size_t count, size_t window)
{
    struct prove_problem problem = {.algorithm = kolo__algorithm_find(algorithm),
                                    .collective = collective,
                                    .size = size,
                                    .root = size / 2,
                                    .count = count,
                                    .window_count = window};
    struct kolo__cost cost;
    assert_non_null(problem.algorithm);
    assert_true(prove_accepts(&problem));
    prove(&problem, &cost);
    return cost;
}

static uint32_t floor_log2(uint32_t n)
{
    return n < 2 ? 0 : 1 + floor_log2(n / 2);
}

static uint32_t ceil_log2(uint32_t n)
{
    return floor_log2(n) + ((n & (n - 1)) != 0);
}

/* Folding adds two steps, but to the longest chain of messages only where it leads from one folded
 * node to the opposite one, which is folded too. */
static uint32_t folds_in_chain(uint32_t p)
{
    uint32_t nodes = 1u << floor_log2(p), extra = p - nodes;
    return extra == 0 ? 0 : extra > nodes / 2 ? 2 : 1;
}

static void ring_costs(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 20; p++) {
        size_t n = 3 * p + p / 2;
        struct kolo__cost cost = cost_of("ring", KOLO__ALLREDUCE, p, n, 1);
        assert_int_equal(cost.rounds, 2 * (p - 1));
        assert_int_equal(cost.elements_sent_all, 2 * (p - 1) * n);
        assert_int_equal(cost.messages_all, 2 * (p - 1) * p);
        for (int half = 0; half < 2; half++) {
            cost = cost_of("ring", half == 0 ? KOLO__REDUCE_SCATTER : KOLO__ALLGATHER, p, 5, 1);
            assert_int_equal(cost.rounds, p - 1);
            assert_int_equal(cost.elements_sent_max, (p - 1) * 5);
        }
        cost = cost_of("ring", KOLO__BROADCAST, p, 5, 1);
        assert_int_equal(cost.rounds, p - 1);
        assert_int_equal(cost.elements_sent_max, 5);
        cost = cost_of("ring", KOLO__REDUCE_TO_ROOT, p, 5, 1);
        assert_int_equal(cost.rounds, p - 1);
        assert_int_equal(cost.elements_sent_max, 5);
    }
}

/* Rank r sends 2n - own(r) - own(r+1). */
static void ring_sends_of_each_rank(void **state)
{
    (void)state;
    const uint32_t p = 7;
    const size_t n = 31;
    struct prove_problem problem = {.algorithm = kolo__algorithm_find("ring"),
                                    .collective = KOLO__ALLREDUCE,
                                    .size = p,
                                    .count = n};
    struct kolo__schedule *schedules = prove_build(&problem);
    for (uint32_t rank = 0; rank < p; rank++) {
        size_t sent = 0;
        for (uint32_t i = 0; i < schedules[rank].step_count; i++)
            if (schedules[rank].steps[i].kind == KOLO__SEND)
                sent += schedules[rank].steps[i].count;
        assert_int_equal(sent, 2 * n - kolo__slice_count(n, p, rank) -
                                   kolo__slice_count(n, p, (rank + 1) % p));
    }
    prove_free(schedules, p);
}

static void recursive_doubling_costs(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 40; p++) {
        uint32_t steps = floor_log2(p);
        bool folded = steps != ceil_log2(p);
        struct kolo__cost cost = cost_of("recursive_doubling", KOLO__ALLREDUCE, p, 3, 1);
        assert_int_equal(cost.rounds, steps + folds_in_chain(p));
        assert_int_equal(cost.elements_sent_max, 3 * (steps + (folded ? 1 : 0)));
        cost = cost_of("recursive_doubling", KOLO__BARRIER, p, 0, 1);
        assert_true(cost.rounds >= floor_log2(p) && cost.rounds <= ceil_log2(p));
        assert_int_equal(cost.messages_all, p * ceil_log2(p));
        assert_int_equal(cost.elements_sent_max, p - 1);
    }
}

static void halving_doubling_costs(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 40; p++) {
        uint32_t nodes = 1u << floor_log2(p);
        size_t n = 2 * nodes;
        bool folded = nodes != p;
        struct kolo__cost cost = cost_of("halving_doubling", KOLO__ALLREDUCE, p, n, 1);
        assert_true(cost.rounds <= 2 * floor_log2(p) + (folded ? 2 : 0));
        assert_true(cost.rounds >= 2 * floor_log2(p) + (folded ? 1 : 0));
        assert_int_equal(cost.elements_sent_max, 2 * n * (nodes - 1) / nodes + (folded ? n : 0));
        if (folded)
            continue;
        cost = cost_of("halving_doubling", KOLO__REDUCE_SCATTER, p, 3, 1);
        assert_int_equal(cost.rounds, floor_log2(p));
        assert_int_equal(cost.elements_sent_max, 3 * (p - 1));
        cost = cost_of("halving_doubling", KOLO__ALLGATHER, p, 3, 1);
        assert_int_equal(cost.rounds, floor_log2(p));
        assert_int_equal(cost.elements_sent_max, 3 * (p - 1));
    }
}

static void tree_costs(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 40; p++) {
        struct kolo__cost cost = cost_of("tree", KOLO__BROADCAST, p, 3, 1);
        assert_true(cost.rounds <= ceil_log2(p) && cost.rounds >= floor_log2(p));
        assert_int_equal(cost.elements_sent_all, 3 * (p - 1));
        assert_int_equal(cost.elements_sent_max, 3 * ceil_log2(p));
        cost = cost_of("tree", KOLO__REDUCE_TO_ROOT, p, 3, 1);
        assert_true(cost.rounds <= ceil_log2(p) && cost.rounds >= floor_log2(p));
        assert_int_equal(cost.elements_sent_max, 3);
    }
}

static void double_binary_tree_costs(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 70; p++) {
        const size_t n = 8;
        struct kolo__cost cost = cost_of("double_binary_tree", KOLO__ALLREDUCE, p, n, 1);
        assert_true(cost.rounds <= 2 * floor_log2(p));
        assert_true(cost.elements_sent_max <= 2 * n);
        assert_int_equal(cost.elements_sent_all, 2 * (p - 1) * n);

        struct prove_problem problem = {.algorithm = kolo__algorithm_find("double_binary_tree"),
                                        .collective = KOLO__ALLREDUCE,
                                        .size = p,
                                        .count = n};
        struct kolo__schedule *schedules = prove_build(&problem);
        for (uint32_t rank = 0; rank < p; rank++) {
            bool inner[2] = {false, false};
            for (uint32_t i = 0; i < schedules[rank].step_count; i++)
                if (schedules[rank].steps[i].kind == KOLO__RECV_REDUCE)
                    inner[schedules[rank].steps[i].to.offset >= n / 2] = true;
            assert_false(inner[0] && inner[1]);
        }
        prove_free(schedules, p);
    }
}

static void two_level_costs(void **state)
{
    (void)state;
    for (uint32_t hosts = 2; hosts <= 5; hosts++)
        for (uint32_t local = 1; local <= 4; local++) {
            uint32_t p = hosts * local, host_of[20];
            for (uint32_t rank = 0; rank < p; rank++)
                host_of[rank] = 900 - 100 * (rank % hosts);
            struct prove_problem problem = {.algorithm = kolo__algorithm_find("two_level"),
                                            .collective = KOLO__ALLREDUCE,
                                            .size = p,
                                            .count = 2 * p,
                                            .host_of = host_of};
            assert_true(prove_accepts(&problem));
            struct kolo__cost cost;
            prove(&problem, &cost);
            assert_int_equal(cost.rounds, 2 * (local - 1) + 2 * (hosts - 1));

            struct kolo__schedule *schedules = prove_build(&problem);
            for (uint32_t rank = 0; rank < p; rank++) {
                size_t across = 0;
                for (uint32_t i = 0; i < schedules[rank].step_count; i++) {
                    const struct kolo__step *step = &schedules[rank].steps[i];
                    if (step->kind == KOLO__SEND && host_of[step->peer] != host_of[rank])
                        across += step->count;
                }
                assert_int_equal(across, 2 * (hosts - 1) * (problem.count / local) / hosts);
            }
            prove_free(schedules, p);
        }
}

static void two_level_needs_even_hosts(void **state)
{
    (void)state;
    const uint32_t even[] = {1, 2, 1, 2}, uneven[] = {1, 2, 1, 1}, one[] = {3, 3, 3, 3};
    struct kolo__problem problem = {.collective = KOLO__ALLREDUCE, .size = 4, .count = 4};
    const struct kolo__algorithm *two_level = kolo__algorithm_find("two_level");
    assert_false(two_level->accepts(&problem));
    problem.host_of = even;
    assert_true(two_level->accepts(&problem));
    problem.host_of = uneven;
    assert_false(two_level->accepts(&problem));
    problem.host_of = one;
    assert_false(two_level->accepts(&problem));
}

/* Rows of what algorithm.h draws: leaders by lane, their number on the host; and lanes that a rank
 * leads are neighbours. */
static void lanes_have_leaders_on_every_host(void **state)
{
    (void)state;
    const uint32_t host_of[] = {5, 5, 5, 5, 9, 9, 9, 2};
    const uint32_t leaders[3][4] = {{0, 1, 2, 3}, {4, 4, 5, 6}, {7, 7, 7, 7}};
    for (uint32_t rank = 0; rank < 8; rank++) {
        struct kolo__problem problem = {
            .collective = KOLO__ALLREDUCE, .rank = rank, .size = 8, .host_of = host_of};
        struct kolo__levels levels = {0};
        assert_true(kolo__levels_exist(&problem) && kolo__levels_init(&problem, &levels));
        assert_int_equal(levels.hosts, 3);
        assert_int_equal(levels.lanes, 4);
        for (uint32_t host = 0; host < 3; host++)
            for (uint32_t lane = 0; lane < 4; lane++) {
                bool own = lane >= levels.first_lane && lane < levels.lane_end;
                assert_int_equal(kolo__levels_leader(&levels, host, lane), leaders[host][lane]);
                if (host == levels.host)
                    assert_true(own == (leaders[host][lane] == rank));
            }
        assert_int_equal(kolo__levels_local(&levels, levels.local), rank);
        kolo__levels_free(&levels);
    }
}

/* Between hosts a rank sends its lanes, twice but for what stays; whatever its neighbours send. */
static void two_level_shm_costs(void **state)
{
    (void)state;
    for (uint32_t hosts = 2; hosts <= 4; hosts++)
        for (uint32_t local = 2; local <= 4; local++) {
            uint32_t p = hosts * local, host_of[16];
            for (uint32_t rank = 0; rank < p; rank++)
                host_of[rank] = rank % hosts;
            size_t n = 12 * local; /* lanes of 12, parts of 12 / hosts */
            struct prove_problem problem = {.algorithm = kolo__algorithm_find("two_level_shm"),
                                            .collective = KOLO__ALLREDUCE,
                                            .size = p,
                                            .count = n,
                                            .window_count = n,
                                            .host_of = host_of};
            struct kolo__cost cost;
            prove(&problem, &cost);
            assert_int_equal(cost.elements_sent_max, 2 * (hosts - 1) * n / local / hosts);
            assert_int_equal(cost.elements_sent_all, p * cost.elements_sent_max);
            assert_int_equal(cost.rounds, hosts == 2 ? 1 : 2);
            assert_int_equal(cost.waits_max, 2);
            assert_int_equal(cost.window_waits_max, 0);
            /* Longer than the windows: fences that only windows need. */
            problem.window_count = n / 4;
            prove(&problem, &cost);
            assert_true(cost.waits_max > 4 && cost.waits_max == cost.window_waits_max + 2);
        }
}

static void pairwise_costs(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 20; p++) {
        struct kolo__cost cost = cost_of("pairwise", KOLO__ALLREDUCE, p, 3 * p, 1);
        assert_int_equal(cost.rounds, 2);
        assert_int_equal(cost.elements_sent_max, 2 * 3 * (p - 1));
        assert_int_equal(cost.messages_all, 2 * p * (p - 1));
        cost = cost_of("pairwise", KOLO__ALLTOALL, p, 4, 1);
        assert_int_equal(cost.rounds, 1);
        assert_int_equal(cost.elements_sent_max, 4 * (p - 1));
    }
}

static void shared_memory_costs(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 12; p++) {
        size_t n = 4 * p + 3, window = p + 1, rounds = (n + window - 1) / window;
        struct kolo__cost cost = cost_of("shm_one_shot", KOLO__ALLREDUCE, p, n, 1);
        assert_int_equal(cost.waits_max, 1);
        assert_int_equal(cost.messages_all, 0);
        /* n into the own SLOT, (p-1)n out of the others'; INPUT read twice, OUTPUT written once. */
        assert_int_equal(cost.remote_loads_all, p * (p - 1) * n);
        assert_int_equal(cost.remote_stores_all, 0);
        assert_int_equal(cost.mapped_loads_all, p * (p - 1) * n + p * 2 * n);
        assert_int_equal(cost.mapped_stores_all, p * n + p * n);

        cost = cost_of("shm_direct", KOLO__ALLREDUCE, p, n, window);
        assert_int_equal(cost.waits_max, rounds + 1);
        assert_int_equal(cost.window_waits_max, rounds - 1);
        assert_int_equal(cost.mapped_loads_all, p * n); /* with the stores: 2pn, direct push */
        assert_int_equal(cost.mapped_stores_all, p * n);
        assert_int_equal(cost.window_copies_all, 2 * (p - 1) * n);

        cost = cost_of("shm_direct", KOLO__REDUCE_SCATTER, p, n, p * n);
        assert_int_equal(cost.waits_max, 2);
        assert_int_equal(cost.mapped_loads_all, p * p * n);
        assert_int_equal(cost.mapped_stores_all, p * n);

        cost = cost_of("shm_direct", KOLO__ALLGATHER, p, n, window);
        assert_int_equal(cost.waits_max, rounds + 1);
        assert_int_equal(cost.window_waits_max, rounds - 1);
        assert_int_equal(cost.mapped_stores_all, p * p * n);
    }
}

/* In each round of the combining algorithms all ranks do the same share, whoever owns the result.
 */
static void shm_direct_shares_the_work(void **state)
{
    (void)state;
    const enum kolo__collective collectives[] = {KOLO__ALLREDUCE, KOLO__REDUCE_SCATTER,
                                                 KOLO__REDUCE_TO_ROOT};
    for (unsigned c = 0; c < 3; c++) {
        struct prove_problem problem = {.algorithm = kolo__algorithm_find("shm_direct"),
                                        .collective = collectives[c],
                                        .size = 4,
                                        .count = 64,
                                        .window_count = 32};
        struct kolo__schedule *schedules = prove_build(&problem);
        for (uint32_t rank = 0; rank < 4; rank++) {
            size_t combined = 0;
            for (uint32_t i = 0; i < schedules[rank].step_count; i++)
                if (schedules[rank].steps[i].kind == KOLO__REDUCE)
                    combined += schedules[rank].steps[i].count;
            assert_int_equal(combined, collectives[c] == KOLO__REDUCE_SCATTER ? 64 : 16);
        }
        prove_free(schedules, 4);
    }
}

/* Root pushes as much in a mapped broadcast as each of the others reads; else it only fills
 * windows. */
static void shm_direct_broadcast_shares_the_work(void **state)
{
    (void)state;
    for (uint32_t p = 2; p <= 12; p++) {
        const size_t n = 6 * p;
        struct prove_problem problem = {.algorithm = kolo__algorithm_find("shm_direct"),
                                        .collective = KOLO__BROADCAST,
                                        .size = p,
                                        .root = p / 2,
                                        .in_place = IN_PLACE,
                                        .count = n,
                                        .window_count = 2 * p};
        struct kolo__cost cost;
        prove(&problem, &cost);
        assert_int_equal(cost.waits_max, 4);
        assert_int_equal(cost.window_waits_max, 2);
        assert_int_equal(cost.mapped_stores_all, (p - 1) * n);
        assert_int_equal(cost.remote_stores_all, (p - 1) * n / p);
        assert_int_equal(cost.window_copies_all, n);

        struct kolo__schedule *schedules = prove_build(&problem);
        for (uint32_t rank = 0; rank < p; rank++) {
            size_t mapped = 0, unmapped = 0;
            for (uint32_t i = 0; i < schedules[rank].step_count; i++) {
                const struct kolo__step *step = &schedules[rank].steps[i];
                bool fills = step->kind == KOLO__COPY && step->to.buffer == KOLO__EXPOSED_IN;
                mapped += (step->flags & KOLO__UNMAPPED_ONLY) != 0 || fills ? 0 : step->count;
                unmapped += (step->flags & KOLO__MAPPED_ONLY) != 0 || fills ? 0 : step->count;
            }
            assert_int_equal(mapped, (p - 1) * n / p);
            assert_int_equal(unmapped, rank == problem.root ? 0 : n);
        }
        prove_free(schedules, p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_right),
        cmocka_unit_test(ring_costs),
        cmocka_unit_test(ring_sends_of_each_rank),
        cmocka_unit_test(recursive_doubling_costs),
        cmocka_unit_test(halving_doubling_costs),
        cmocka_unit_test(tree_costs),
        cmocka_unit_test(double_binary_tree_costs),
        cmocka_unit_test(two_level_costs),
        cmocka_unit_test(two_level_needs_even_hosts),
        cmocka_unit_test(lanes_have_leaders_on_every_host),
        cmocka_unit_test(two_level_shm_costs),
        cmocka_unit_test(pairwise_costs),
        cmocka_unit_test(shared_memory_costs),
        cmocka_unit_test(shm_direct_shares_the_work),
        cmocka_unit_test(shm_direct_broadcast_shares_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
