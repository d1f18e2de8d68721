/* SPDX-License-Identifier: Apache-2.0 */
/* Which algorithm a problem gets, and why: the least cost, one rounding of 16-bit sums, what was
 * asked for. */
#include "collectives/select.h"

#include "base/status.h"
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { RANKS_MAX = 512, SLOT_BYTES = 32 * 1024, WINDOW_BYTES = 1024 * 1024 };

/* Ranks lie on hosts in runs that are as long as they can be alike. All on one host share memory;
 * others use the network. */
struct world {
    uint32_t ranks, hosts;
    bool tcp; /* nobody shares memory, but who is alone with others on one host */
};

struct question {
    struct kolo__problem problem;
    struct kolo__select_input input;
    uint32_t host_of[RANKS_MAX];
};

static const struct kolo__select_input *ask(struct question *q, struct world world,
                                            enum kolo__collective collective, size_t bytes,
                                            kolo_dtype dtype, kolo_op op)
{
    bool mapped = world.hosts == 1;
    size_t element = kolo_dtype_bytes(dtype);
    assert_true(world.ranks <= RANKS_MAX);
    for (uint32_t rank = 0; rank < world.ranks; rank++)
        q->host_of[rank] = rank * world.hosts / world.ranks;
    q->problem = (struct kolo__problem){.collective = collective,
                                        .size = world.ranks,
                                        .count = bytes / element,
                                        .window_count = mapped ? WINDOW_BYTES / element : 1,
                                        .host_of = q->host_of};
    q->input = (struct kolo__select_input){.problem = &q->problem,
                                           .dtype = dtype,
                                           .op = op,
                                           .mapped = mapped,
                                           .hosts_mapped = !world.tcp,
                                           .remote = !mapped,
                                           .slot_bytes = mapped ? SLOT_BYTES : 0,
                                           .model = &kolo__default_cost_model};
    return &q->input;
}

static const struct kolo__algorithm *choose(const struct kolo__select_input *input)
{
    const struct kolo__algorithm *algorithm = NULL;
    assert_int_equal(kolo__select(input, NULL, false, &algorithm), KOLO_OK);
    return algorithm;
}

/* ---- what is chosen ------------------------------------------------------------------------- */

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* bytes: of the caller's count. */
static const struct {
    const char *expected;
    struct world world;
    enum kolo__collective collective;
    size_t bytes;
    kolo_dtype dtype;
    kolo_op op;
} rows[] = {
    {"shm_one_shot", {2, 1}, KOLO__ALLREDUCE, 64, KOLO_FP32, KOLO_SUM},
    {"shm_one_shot", {3, 1}, KOLO__ALLREDUCE, 4 * KIB, KOLO_FP32, KOLO_SUM},
    {"shm_direct", {3, 1}, KOLO__ALLREDUCE, SLOT_BYTES, KOLO_FP32, KOLO_SUM},
    {"shm_direct", {3, 1}, KOLO__ALLREDUCE, SLOT_BYTES + 4, KOLO_FP32, KOLO_SUM},
    {"shm_direct", {4, 1}, KOLO__ALLREDUCE, 4 * MIB, KOLO_FP32, KOLO_AVERAGE},
    {"shm_direct", {8, 1}, KOLO__ALLREDUCE, 64 * MIB, KOLO_BF16, KOLO_SUM},
    {"shm_direct", {8, 1}, KOLO__REDUCE_TO_ROOT, 4 * MIB, KOLO_FP32, KOLO_SUM},
    {"shm_one_shot", {8, 1}, KOLO__BROADCAST, 64, KOLO_FP32, KOLO_SUM},
    {"shm_one_shot", {4, 1}, KOLO__ALLTOALL, 64, KOLO_FP32, KOLO_SUM},
    {"shm_one_shot", {8, 1}, KOLO__BARRIER, 0, KOLO_UINT8, KOLO_SUM},
    {"shm_direct", {2, 1}, KOLO__ALLREDUCE, 4 * MIB, KOLO_FP32, KOLO_SUM},

    {"recursive_doubling", {8, 8}, KOLO__ALLREDUCE, 4 * KIB, KOLO_FP32, KOLO_SUM},
    {"recursive_doubling", {2, 2}, KOLO__ALLREDUCE, 4 * KIB, KOLO_BF16, KOLO_SUM},
    {"recursive_doubling", {8, 8}, KOLO__BARRIER, 0, KOLO_UINT8, KOLO_SUM},
    {"halving_doubling", {8, 8}, KOLO__ALLREDUCE, 4 * MIB, KOLO_FP32, KOLO_SUM},
    {"halving_doubling", {64, 64}, KOLO__ALLREDUCE, 1 * MIB, KOLO_FP32, KOLO_SUM},
    {"pairwise", {6, 6}, KOLO__ALLREDUCE, 256 * KIB, KOLO_FP32, KOLO_SUM},
    {"ring", {6, 6}, KOLO__ALLREDUCE, 64 * MIB, KOLO_FP32, KOLO_SUM},
    {"two_level", {8, 2, true}, KOLO__ALLREDUCE, 64 * MIB, KOLO_FP32, KOLO_SUM},
    {"two_level", {48, 6, true}, KOLO__ALLREDUCE, 1 * MIB, KOLO_FP32, KOLO_SUM},
    {"two_level_shm", {4, 2}, KOLO__ALLREDUCE, 256 * KIB, KOLO_FP32, KOLO_SUM},
    {"two_level_shm", {8, 2}, KOLO__ALLREDUCE, 64 * MIB, KOLO_FP32, KOLO_SUM},
    {"two_level_shm", {48, 6}, KOLO__ALLREDUCE, 1 * MIB, KOLO_FP32, KOLO_SUM},
    {"two_level_shm", {100, 7}, KOLO__ALLREDUCE, 1 * MIB, KOLO_FP32, KOLO_SUM},
    {"double_binary_tree", {60, 60}, KOLO__ALLREDUCE, 512 * KIB, KOLO_FP32, KOLO_SUM},
    {"double_binary_tree", {100, 7, true}, KOLO__ALLREDUCE, 1 * MIB, KOLO_FP32, KOLO_SUM},
    {"double_binary_tree", {500, 500}, KOLO__ALLREDUCE, 16 * MIB, KOLO_FP32, KOLO_SUM},
    {"tree", {8, 8}, KOLO__BROADCAST, 4 * KIB, KOLO_FP32, KOLO_SUM},
    {"ring", {8, 8}, KOLO__BROADCAST, 4 * MIB, KOLO_FP32, KOLO_SUM},
    {"tree", {8, 8}, KOLO__REDUCE_TO_ROOT, 4 * KIB, KOLO_FP32, KOLO_SUM},
    {"ring", {8, 8}, KOLO__REDUCE_TO_ROOT, 64 * MIB, KOLO_FP32, KOLO_SUM},
    {"halving_doubling", {8, 8}, KOLO__REDUCE_SCATTER, 4 * MIB, KOLO_FP32, KOLO_SUM},
    {"ring", {6, 6}, KOLO__REDUCE_SCATTER, 4 * MIB, KOLO_FP32, KOLO_SUM},
    {"halving_doubling", {8, 8}, KOLO__ALLGATHER, 4 * KIB, KOLO_FP32, KOLO_SUM},
    {"pairwise", {6, 6}, KOLO__ALLGATHER, 4 * MIB, KOLO_FP32, KOLO_SUM},
    {"pairwise", {8, 8}, KOLO__ALLTOALL, 4 * KIB, KOLO_FP32, KOLO_SUM},

    {"pairwise", {8, 8}, KOLO__ALLREDUCE, 4 * KIB, KOLO_BF16, KOLO_SUM},
    {"pairwise", {8, 8}, KOLO__ALLREDUCE, 64 * MIB, KOLO_FP16, KOLO_AVERAGE},
    {"pairwise", {8, 2}, KOLO__ALLREDUCE, 64 * MIB, KOLO_BF16, KOLO_PREMUL_SUM},
    {"pairwise", {8, 8}, KOLO__REDUCE_TO_ROOT, 4 * KIB, KOLO_FP16, KOLO_PRODUCT},
    {"recursive_doubling", {8, 8}, KOLO__ALLREDUCE, 4 * KIB, KOLO_BF16, KOLO_MAX},
    {"tree", {8, 8}, KOLO__BROADCAST, 4 * KIB, KOLO_BF16, KOLO_SUM},
};

static void each_problem_gets_its_algorithm(void **state)
{
    (void)state;
    struct question q;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct kolo__algorithm *chosen = choose(
            ask(&q, rows[i].world, rows[i].collective, rows[i].bytes, rows[i].dtype, rows[i].op));
        if (strcmp(chosen->name, rows[i].expected) != 0)
            fail_msg("%s of %zu bytes, %s, %u ranks on %u hosts: %s instead of %s",
                     kolo__collective_name(rows[i].collective), rows[i].bytes,
                     kolo_dtype_name(rows[i].dtype), rows[i].world.ranks, rows[i].world.hosts,
                     chosen->name, rows[i].expected);
    }
}

static void each_algorithm_has_its_problem(void **state)
{
    (void)state;
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        assert_non_null(kolo__algorithms[a]->seconds);
        bool found = false;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            found |= strcmp(rows[i].expected, kolo__algorithms[a]->name) == 0;
        if (!found)
            fail_msg("%s wins nowhere", kolo__algorithms[a]->name);
    }
}

/* ---- over all problems ---------------------------------------------------------------------- */

typedef void check_problem(const struct kolo__select_input *input);

static void for_all_problems(check_problem *check)
{
    static const struct world worlds[] = {{1, 1},       {2, 1},   {3, 1},   {8, 1},   {48, 1},
                                          {2, 2},       {3, 3},   {8, 8},   {8, 2},   {7, 2},
                                          {8, 2, true}, {48, 48}, {64, 64}, {100, 9}, {128, 16}};
    static const kolo_dtype dtypes[] = {KOLO_UINT8, KOLO_FP16, KOLO_BF16, KOLO_FP32, KOLO_FP64};
    static const kolo_op ops[] = {KOLO_SUM, KOLO_AVERAGE, KOLO_PRODUCT, KOLO_MIN, KOLO_PREMUL_SUM};
    struct question q;
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++)
        for (int collective = 0; collective < KOLO__POINT_TO_POINT; collective++)
            for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
                for (size_t o = 0; o < sizeof ops / sizeof *ops; o++)
                    for (size_t bytes = 0; bytes <= (size_t)1 << 32; bytes = 4 * bytes + 8)
                        check(ask(&q, worlds[w], (enum kolo__collective)collective,
                                  collective == KOLO__BARRIER ? 0 : bytes, dtypes[d], ops[o]));
}

static void check_least(const struct kolo__select_input *input)
{
    const struct kolo__algorithm *chosen = choose(input);
    double least = kolo__select_cost(input, chosen);
    assert_true(least >= 0 && chosen->accepts(input->problem));
    for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
        double cost = kolo__select_cost(input, kolo__algorithms[i]);
        if (cost >= 0 && cost < least)
            fail_msg("%s for %s of %u ranks, %zu x %s: %s costs less", chosen->name,
                     kolo__collective_name(input->problem->collective), input->problem->size,
                     input->problem->count, kolo_dtype_name(input->dtype),
                     kolo__algorithms[i]->name);
    }
}

static void the_least_cost_wins(void **state)
{
    (void)state;
    for_all_problems(check_least);
}

static void check_rounding(const struct kolo__select_input *input)
{
    bool half = input->dtype == KOLO_FP16 || input->dtype == KOLO_BF16;
    if (half && input->op != KOLO_MIN && input->problem->size > 2 &&
        kolo__collective_reduces(input->problem->collective))
        assert_true(choose(input)->rounds_once);
}

static void sums_of_16_bits_round_once(void **state)
{
    (void)state;
    for_all_problems(check_rounding);
}

/* Who does it is left out only for a reason. */
static void check_candidates(const struct kolo__select_input *input)
{
    for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
        const struct kolo__algorithm *algorithm = kolo__algorithms[i];
        bool can =
            algorithm->accepts(input->problem) && (input->mapped || !algorithm->needs_mapping) &&
            (input->hosts_mapped || !algorithm->needs_host_mapping) && !algorithm->fills_slot;
        if (can && kolo_dtype_bytes(input->dtype) != 2)
            assert_true(kolo__select_cost(input, algorithm) >= 0);
        if (!algorithm->accepts(input->problem) || (algorithm->needs_mapping && !input->mapped) ||
            (algorithm->needs_host_mapping && !input->hosts_mapped))
            assert_true(kolo__select_cost(input, algorithm) < 0);
    }
}

static void all_who_can_are_considered(void **state)
{
    (void)state;
    for_all_problems(check_candidates);
}

/* SLOT holds all slices of a rank's contribution. */
static void a_contribution_has_to_fit_its_slot(void **state)
{
    (void)state;
    static const struct {
        enum kolo__collective collective;
        size_t largest;
    } limits[] = {{KOLO__ALLREDUCE, SLOT_BYTES},
                  {KOLO__REDUCE_SCATTER, SLOT_BYTES / 8},
                  {KOLO__ALLGATHER, SLOT_BYTES},
                  {KOLO__BROADCAST, SLOT_BYTES},
                  {KOLO__ALLTOALL, SLOT_BYTES / 8}};
    const struct kolo__algorithm *one_shot = kolo__algorithm_find("shm_one_shot");
    struct question q;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        for (size_t more = 0; more <= 4; more += 4) {
            const struct kolo__select_input *input =
                ask(&q, (struct world){8, 1}, limits[i].collective, limits[i].largest + more,
                    KOLO_FP32, KOLO_SUM);
            assert_true((kolo__select_cost(input, one_shot) >= 0) == (more == 0));
        }
}

/* ---- KOLO_DETERMINISTIC ---------------------------------------------------------------------- */

static void assert_refused(const struct kolo__select_input *input, const char *forced,
                           const char *text);

static bool is_inexact(const struct kolo__select_input *input)
{
    return input->dtype != KOLO_UINT8 && input->op != KOLO_MIN &&
           kolo__collective_reduces(input->problem->collective);
}

static void check_order(const struct kolo__select_input *input)
{
    struct kolo__select_input ordered = *input;
    ordered.deterministic = true;
    const struct kolo__algorithm *chosen = choose(&ordered);
    if (is_inexact(input) && input->problem->size > 2)
        assert_true(chosen->rounds_once);
    else
        assert_ptr_equal(chosen, choose(input));
}

static void deterministic_sums_are_in_the_order_of_ranks(void **state)
{
    (void)state;
    for_all_problems(check_order);
}

static void who_breaks_the_order_says_so(void **state)
{
    (void)state;
    struct question q;
    const struct kolo__algorithm *algorithm;
    ask(&q, (struct world){4, 4}, KOLO__ALLREDUCE, 400, KOLO_FP32, KOLO_SUM);
    q.input.deterministic = true;
    assert_refused(&q.input, "ring",
                   "algorithm ring cannot do this allreduce (4 ranks, 100 x fp32): it would "
                   "combine in another order than that of ranks, which KOLO_DETERMINISTIC=1 "
                   "demands: force none, or one of pairwise, shm_one_shot, shm_direct");
    assert_string_equal(kolo__select_obstacle(&q.input, kolo__algorithm_find("ring")),
                        "it would combine in another order");
    /* Who cannot do it anyway is told that. */
    assert_refused(&q.input, "tree",
                   "algorithm tree cannot do this allreduce (4 ranks, 100 x fp32): not for this "
                   "collective, with so many ranks on so many hosts");
    q.input.op = KOLO_MAX;
    assert_int_equal(kolo__select(&q.input, "ring", false, &algorithm), KOLO_OK);
}

/* ---- properties against schedules ----------------------------------------------------------- */

/* What an algorithm says of itself, its steps show. */
static void properties_are_true(void **state)
{
    (void)state;
    const uint32_t size = 6, host_of[6] = {0, 0, 1, 1, 2, 2};
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++)
        for (int c = 0; c < KOLO__POINT_TO_POINT; c++) {
            struct prove_problem problem = {.algorithm = kolo__algorithms[a],
                                            .collective = (enum kolo__collective)c,
                                            .size = size,
                                            .count = c == KOLO__BARRIER ? 0 : 36,
                                            .window_count = 12,
                                            .host_of = host_of};
            if (!prove_accepts(&problem))
                continue;
            struct kolo__schedule *schedules = prove_build(&problem);
            bool partly = false, mapped = false;
            size_t slot = 0;
            for (uint32_t rank = 0; rank < size; rank++) {
                for (uint32_t i = 0; i < schedules[rank].step_count; i++) {
                    const struct kolo__step *step = &schedules[rank].steps[i];
                    partly |= step->kind == KOLO__RECV_REDUCE ||
                              (step->kind == KOLO__REDUCE && step->source_count < size);
                }
                mapped |= schedules[rank].mapped;
                slot += schedules[rank].slot_count;
            }
            assert_true(!(partly && problem.algorithm->rounds_once));
            assert_true(partly || problem.algorithm->rounds_once ||
                        !kolo__collective_reduces(problem.collective));
            assert_true(mapped == (problem.algorithm->needs_mapping ||
                                   problem.algorithm->needs_host_mapping));
            assert_true(slot == 0 || problem.algorithm->fills_slot);
            prove_free(schedules, size);
        }
}

/* Some formulas are not about the chain: messages of pairwise and of lanes overlap, and the ring's
 * to a root is charged twice, as the model has no term for the first segment on its way through all
 * ranks. */
static bool counts_messages(const struct prove_problem *problem)
{
    return !problem->algorithm->needs_mapping && !problem->algorithm->needs_host_mapping &&
           strcmp(problem->algorithm->name, "pairwise") != 0 &&
           !(strcmp(problem->algorithm->name, "ring") == 0 &&
             problem->collective == KOLO__REDUCE_TO_ROOT);
}

/* With messages as the only cost, the formula is the longest chain of them that verify finds, or
 * one more where folded ranks do not happen to meet. */
static void formulas_count_the_messages_of_schedules(void **state)
{
    (void)state;
    const struct kolo__cost_model messages = {.message_local = 1, .message_remote = 1};
    for (uint32_t size = 2; size <= 33; size++)
        for (size_t a = 0; kolo__algorithms[a] != NULL; a++)
            for (int c = 0; c < KOLO__BARRIER; c++) {
                struct question q;
                struct kolo__cost cost;
                struct world world = {size, size % 2 == 0 ? size / 2 : size};
                ask(&q, world, (enum kolo__collective)c, 8 * (size_t)size, KOLO_UINT8, KOLO_SUM);
                struct prove_problem problem = {.algorithm = kolo__algorithms[a],
                                                .collective = q.problem.collective,
                                                .size = size,
                                                .count = q.problem.count,
                                                .window_count = 1,
                                                .host_of = q.host_of};
                if (!counts_messages(&problem) || !prove_accepts(&problem))
                    continue;
                prove(&problem, &cost);
                q.input.model = &messages;
                double predicted = kolo__select_cost(&q.input, problem.algorithm);
                if (predicted < cost.rounds || predicted > cost.rounds + 1)
                    fail_msg("%s of %u ranks by %s: predicted %g messages, %u are",
                             kolo__collective_name(q.problem.collective), size,
                             problem.algorithm->name, predicted, cost.rounds);
            }
}

/* ---- forced --------------------------------------------------------------------------------- */

static void who_is_asked_for_does_it(void **state)
{
    (void)state;
    struct question q;
    const struct kolo__algorithm *algorithm;
    for (uint32_t hosts = 1; hosts <= 2; hosts++) {
        const struct kolo__select_input *input =
            ask(&q, (struct world){4, hosts}, KOLO__ALLREDUCE, 1000, KOLO_BF16, KOLO_SUM);
        for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
            const struct kolo__algorithm *forced = kolo__algorithms[i];
            if (!forced->accepts(input->problem) || (forced->needs_mapping && hosts > 1))
                continue;
            for (int prefer_only = 0; prefer_only < 2; prefer_only++) {
                assert_int_equal(kolo__select(input, forced->name, prefer_only, &algorithm),
                                 KOLO_OK);
                assert_ptr_equal(algorithm, forced);
            }
        }
    }
    const struct kolo__select_input *input =
        ask(&q, (struct world){4, 1}, KOLO__ALLREDUCE, 1000, KOLO_FP32, KOLO_SUM);
    assert_int_equal(kolo__select(input, "", false, &algorithm), KOLO_OK);
    assert_ptr_equal(algorithm, choose(input));
}

static void assert_refused(const struct kolo__select_input *input, const char *forced,
                           const char *text)
{
    const struct kolo__algorithm *algorithm;
    assert_int_equal(kolo__select(input, forced, false, &algorithm), KOLO_ERR_INVALID);
    assert_string_equal(kolo_error_text(), text);
    assert_int_equal(kolo__select(input, forced, true, &algorithm), KOLO_OK); /* only a wish */
    assert_ptr_equal(algorithm, choose(input));
}

static void who_cannot_do_it_says_so(void **state)
{
    (void)state;
    struct question q;
    const struct world one = {4, 1}, two = {4, 2};
    assert_refused(ask(&q, one, KOLO__ALLREDUCE, 400, KOLO_FP32, KOLO_SUM), "tree",
                   "algorithm tree cannot do this allreduce (4 ranks, 100 x fp32): not for this "
                   "collective, with so many ranks on so many hosts");
    assert_refused(ask(&q, one, KOLO__ALLREDUCE, SLOT_BYTES + 4, KOLO_FP32, KOLO_SUM),
                   "shm_one_shot",
                   "algorithm shm_one_shot cannot do this allreduce (4 ranks, 8193 x fp32): a "
                   "contribution is larger than its slot");
    assert_refused(ask(&q, two, KOLO__BROADCAST, 400, KOLO_FP32, KOLO_SUM), "shm_direct",
                   "algorithm shm_direct cannot do this broadcast (4 ranks, 100 x fp32): it needs "
                   "shared memory between all ranks");
    assert_refused(
        ask(&q, one, KOLO__ALLREDUCE, 400, KOLO_FP32, KOLO_SUM), "two_level",
        "algorithm two_level cannot do this allreduce (4 ranks, 100 x fp32): not for this "
        "collective, with so many ranks on so many hosts");
}

static void who_does_not_exist_is_a_mistake(void **state)
{
    (void)state;
    struct question q;
    const struct kolo__algorithm *algorithm;
    const struct kolo__select_input *input =
        ask(&q, (struct world){4, 1}, KOLO__ALLREDUCE, 400, KOLO_FP32, KOLO_SUM);
    for (int prefer_only = 0; prefer_only < 2; prefer_only++) {
        assert_int_equal(kolo__select(input, "rings", prefer_only, &algorithm), KOLO_ERR_CONFIG);
        assert_non_null(strstr(kolo_error_text(), "no algorithm 'rings'"));
        for (size_t i = 0; kolo__algorithms[i] != NULL; i++)
            assert_non_null(strstr(kolo_error_text(), kolo__algorithms[i]->name));
    }
    ask(&q, (struct world){4, 1}, KOLO__ALLTOALL, 400, KOLO_FP32, KOLO_SUM);
    q.problem.in_place = true; /* nobody does that */
    assert_int_equal(kolo__select(&q.input, NULL, false, &algorithm), KOLO_ERR_UNSUPPORTED);
    assert_string_equal(kolo_error_text(), "no algorithm can do alltoall with 4 ranks");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_problem_gets_its_algorithm),
        cmocka_unit_test(each_algorithm_has_its_problem),
        cmocka_unit_test(the_least_cost_wins),
        cmocka_unit_test(sums_of_16_bits_round_once),
        cmocka_unit_test(all_who_can_are_considered),
        cmocka_unit_test(a_contribution_has_to_fit_its_slot),
        cmocka_unit_test(deterministic_sums_are_in_the_order_of_ranks),
        cmocka_unit_test(who_breaks_the_order_says_so),
        cmocka_unit_test(properties_are_true),
        cmocka_unit_test(formulas_count_the_messages_of_schedules),
        cmocka_unit_test(who_is_asked_for_does_it),
        cmocka_unit_test(who_cannot_do_it_says_so),
        cmocka_unit_test(who_does_not_exist_is_a_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
