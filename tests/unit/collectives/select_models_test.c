/* SPDX-License-Identifier: Apache-2.0 */
/* Measured constants may change which algorithm is chosen, but never the bits of a result. */
#include "collectives/select.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { RANKS_MAX = 48 };

static struct kolo__random dice = {20261125};

/* From a thousandth of `typical` to a thousand times it. */
static double about(double typical)
{
    double factor = 1;
    for (uint64_t steps = kolo__random_below(&dice, 11); steps > 0; steps--)
        factor *= 2;
    return kolo__random_below(&dice, 2) == 0 ? typical * factor : typical / factor;
}

static struct kolo__cost_model random_model(void)
{
    const struct kolo__cost_model *typical = &kolo__default_cost_model;
    struct kolo__cost_model model = {
        .message_local = about(typical->message_local),
        .message_remote = about(typical->message_remote),
        .byte_local = about(typical->byte_local),
        .byte_remote = about(typical->byte_remote),
        .fence = about(typical->fence),
        .next_fence = about(typical->next_fence),
        .fence_rank = about(typical->fence_rank),
    };
    for (int level = 0; level < KOLO__COST_LEVELS; level++)
        model.memory[level] = (struct kolo__memory_cost){
            .bytes = (double)((uint64_t)32768 << 5 * level),
            .mapped = about(typical->memory[level].mapped),
            .slot = about(typical->memory[level].slot),
            .reduced = about(typical->memory[level].reduced),
        };
    return model;
}

static const struct kolo__algorithm *choose(const struct kolo__select_input *input,
                                            const struct kolo__cost_model *model)
{
    struct kolo__select_input by_model = *input;
    const struct kolo__algorithm *algorithm = NULL;
    by_model.model = model;
    assert_int_equal(kolo__select(&by_model, NULL, false, &algorithm), KOLO_OK);
    return algorithm;
}

/* As the documentation says it, not as select.c does. */
static bool is_sum_of_floats(const struct kolo__select_input *input)
{
    bool reduces = input->problem->collective == KOLO__ALLREDUCE ||
                   input->problem->collective == KOLO__REDUCE_SCATTER ||
                   input->problem->collective == KOLO__REDUCE_TO_ROOT;
    return reduces && input->dtype != KOLO_INT32 && input->op != KOLO_MAX;
}

/* How often two models chose two algorithms. */
struct changes {
    unsigned of_sums, of_others;
};

static void compare(const struct kolo__select_input *input, struct changes *changes)
{
    const struct kolo__cost_model one = random_model(), other = random_model();
    const struct kolo__algorithm *a = choose(input, &one), *b = choose(input, &other);
    const struct kolo__algorithm *fixed = choose(input, &kolo__default_cost_model);
    if (!is_sum_of_floats(input) || input->problem->size <= 2) {
        changes->of_others += a != b;
        return;
    }
    changes->of_sums += a != b;
    bool alike = a == fixed || (a->rounds_once && fixed->rounds_once);
    if (!alike || (a != b && !(a->rounds_once && b->rounds_once)))
        fail_msg("%s of %u ranks, %zu x %s: %s, by other models %s and %s",
                 kolo__collective_name(input->problem->collective), input->problem->size,
                 input->problem->count, kolo_dtype_name(input->dtype), fixed->name, a->name,
                 b->name);
}

static void models_never_change_the_bits(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {2, 3, 4, 7, 48};
    static const kolo_dtype dtypes[] = {KOLO_FP32, KOLO_FP64, KOLO_BF16, KOLO_FP16, KOLO_INT32};
    static const kolo_op ops[] = {KOLO_SUM, KOLO_AVERAGE, KOLO_PRODUCT, KOLO_PREMUL_SUM, KOLO_MAX};
    struct changes changes = {0, 0};
    for (int hosts = 1; hosts <= 2; hosts++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int c = 0; c < KOLO__BARRIER; c++)
                for (size_t d = 0; d < 5; d++)
                    for (size_t o = 0; o < 5; o++)
                        for (size_t count = 1; count < (size_t)1 << 26; count *= 5) {
                            uint32_t host_of[RANKS_MAX];
                            for (uint32_t r = 0; r < sizes[s]; r++)
                                host_of[r] = r % (uint32_t)hosts;
                            struct kolo__problem problem = {.collective = (enum kolo__collective)c,
                                                            .size = sizes[s],
                                                            .count = count,
                                                            .window_count = 1 << 16,
                                                            .host_of = host_of};
                            const struct kolo__select_input input = {.problem = &problem,
                                                                     .dtype = dtypes[d],
                                                                     .op = ops[o],
                                                                     .mapped = hosts == 1,
                                                                     .remote = hosts > 1,
                                                                     .slot_bytes = 32768};
                            compare(&input, &changes);
                        }
    /* A model that decides nothing would prove nothing. */
    assert_true(changes.of_sums > 100 && changes.of_others > 100);
}

/* Within what gives the same bits, the model decides. */
static void the_model_decides_where_bits_are_equal(void **state)
{
    (void)state;
    struct kolo__problem problem = {
        .collective = KOLO__ALLREDUCE, .size = 4, .count = 1024, .window_count = 1 << 16};
    struct kolo__select_input input = {.problem = &problem,
                                       .dtype = KOLO_FP32,
                                       .op = KOLO_SUM,
                                       .mapped = true,
                                       .slot_bytes = 32768};
    struct kolo__cost_model model = kolo__default_cost_model;
    assert_string_equal(choose(&input, &model)->name, "shm_one_shot");
    model.next_fence = model.fence_rank = 0;
    assert_string_equal(choose(&input, &model)->name, "shm_direct");
    /* Messages need no fence; but whether to send any the fixed model has decided. */
    model.fence = 1;
    assert_string_equal(choose(&input, &model)->name, "shm_direct");
    /* Among themselves it is the model's again. */
    problem.size = 2;
    problem.count = 1;
    input.mapped = false;
    model.message_local = 1;
    assert_string_equal(choose(&input, &model)->name, "recursive_doubling");
}

static void the_working_set_chooses_the_level(void **state)
{
    (void)state;
    struct kolo__cost_model model = {
        .memory = {{.bytes = 1000}, {.bytes = 5000}, {.bytes = 9000}, {.bytes = 0}}};
    static const struct {
        double working_set;
        int level;
    } rows[] = {{0, 0}, {1000, 0}, {1001, 1}, {5000, 1}, {8999, 2}, {9001, 3}, {1e15, 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_ptr_equal(kolo__cost_memory(&model, rows[i].working_set),
                         &model.memory[rows[i].level]);

    /* A slot's bytes are read by all: the one-shot algorithm leaves the first cache earlier. */
    struct kolo__problem problem = {
        .collective = KOLO__ALLREDUCE, .size = 4, .count = 100, .window_count = 1 << 16};
    const struct kolo__select_input input = {.problem = &problem,
                                             .dtype = KOLO_FP32,
                                             .op = KOLO_SUM,
                                             .mapped = true,
                                             .slot_bytes = 32768,
                                             .model = &model};
    model.memory[1].slot = model.memory[1].mapped = 1;
    assert_true(kolo__select_cost(&input, kolo__algorithm_find("shm_one_shot")) == 7 * 400);
    assert_true(kolo__select_cost(&input, kolo__algorithm_find("shm_direct")) == 0);
    problem.count = 200;
    assert_true(kolo__select_cost(&input, kolo__algorithm_find("shm_direct")) == 2 * 800);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_never_change_the_bits),
        cmocka_unit_test(the_model_decides_where_bits_are_equal),
        cmocka_unit_test(the_working_set_chooses_the_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
