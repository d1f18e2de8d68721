/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo sim`: which links are in the way, and that a network without any form gives what the
 * formulas say, by which kolo chooses. */
#include "launcher/sim/predict.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* 1 GB/s a link, ranks never in the way, messages that cost nothing. */
static struct kolo__network network(uint32_t per_host, const char *form)
{
    struct kolo__network result = {.per_host = per_host,
                                   .rails = 1,
                                   .link_rate = 1e9,
                                   .rank_rate = 1e12,
                                   .local_rate = 1e12,
                                   .slow_factor = 1};
    assert_null(kolo__network_parse(&result, form));
    return result;
}

static void expect_load(const struct kolo__load *load, double milliseconds, const char *slowest)
{
    char where[64];
    assert_float_equal(kolo__load_seconds(load, where, sizeof where) * 1e3, milliseconds, 1e-6);
    assert_string_equal(where, slowest);
}

static void links_add_up(void **state)
{
    (void)state;
    struct kolo__network flat = network(4, "flat");
    struct kolo__load *load = kolo__load_create(&flat, 16);
    expect_load(load, 0, "nothing");
    kolo__load_add(load, 0, 1, 1e9); /* inside host 0 */
    expect_load(load, 1, "inside host 0");
    kolo__load_add(load, 4, 8, 1e6);
    kolo__load_add(load, 5, 12, 1e6);
    expect_load(load, 2, "link of host 1");
    kolo__load_add(load, 0, 12, 2e6);
    expect_load(load, 3, "link to host 3");
    kolo__load_free(load);
}

static void rails_share_what_a_host_sends(void **state)
{
    (void)state;
    struct kolo__network two = network(4, "flat");
    two.rails = 2;
    struct kolo__load *load = kolo__load_create(&two, 8);
    kolo__load_add(load, 0, 4, 1e6);
    kolo__load_add(load, 1, 5, 1e6);
    expect_load(load, 1, "link of host 0");
    kolo__load_add(load, 2, 6, 1e6); /* by the interface of rank 0 */
    expect_load(load, 2, "link of host 0");
    kolo__load_free(load);
}

static void what_one_rank_can_send_counts(void **state)
{
    (void)state;
    struct kolo__network slow = network(1, "flat");
    slow.rank_rate = 0.5e9;
    struct kolo__load *load = kolo__load_create(&slow, 2);
    kolo__load_add(load, 0, 1, 1e6);
    expect_load(load, 2, "what rank 0 can send");
    kolo__load_free(load);
}

/* Two hosts a leaf, whose ways up carry as much as one of four such links. */
static void leaves_limit_what_leaves_them(void **state)
{
    (void)state;
    struct kolo__network tree = network(1, "fat-tree:leaf=2,over=4");
    struct kolo__load *load = kolo__load_create(&tree, 8);
    kolo__load_add(load, 0, 1, 1e6); /* within the leaf */
    expect_load(load, 1, "link of host 0");
    kolo__load_add(load, 2, 4, 1e6);
    expect_load(load, 2, "uplinks of leaf 1");
    kolo__load_add(load, 6, 5, 1e6);
    expect_load(load, 4, "downlinks of leaf 2");
    kolo__load_free(load);
}

/* Interfaces of one number meet on a leaf; of two numbers, over the spine. */
static void rails_have_leaves_of_their_own(void **state)
{
    (void)state;
    struct kolo__network rails = network(2, "rails:leaf=2,over=8");
    rails.rails = 2;
    rails.message_s = 10e-6;
    rails.switch_s = 1e-6;
    rails.local_message_s = 2e-6;
    assert_float_equal(kolo__network_latency(&rails, 0, 1) * 1e6, 2, 1e-9);
    assert_float_equal(kolo__network_latency(&rails, 0, 2) * 1e6, 11, 1e-9);
    assert_float_equal(kolo__network_latency(&rails, 0, 3) * 1e6, 13, 1e-9);
    assert_float_equal(kolo__network_latency(&rails, 0, 4) * 1e6, 13, 1e-9);
    struct kolo__load *load = kolo__load_create(&rails, 8);
    kolo__load_add(load, 0, 2, 1e6);
    expect_load(load, 1, "link of host 0");
    kolo__load_add(load, 1, 2, 1e6);
    expect_load(load, 4, "uplinks of leaf 1");
    kolo__load_free(load);
}

static void slow_hosts_are_spread(void **state)
{
    (void)state;
    struct kolo__network slow = network(1, "flat");
    slow.slow_hosts = 2;
    slow.slow_factor = 3;
    struct kolo__load *load = kolo__load_create(&slow, 8);
    kolo__load_add(load, 1, 2, 1e6);
    kolo__load_add(load, 6, 7, 1e6);
    expect_load(load, 1, "link of host 1");
    kolo__load_add(load, 3, 4, 1e6);
    expect_load(load, 3, "link to host 4");
    kolo__load_add(load, 0, 5, 2e6);
    expect_load(load, 6, "link of host 0");
    kolo__load_free(load);
}

static void forms_that_are_none_are_told(void **state)
{
    (void)state;
    static const char *const WRONG[] = {"",
                                        "ring",
                                        "flat:leaf=2",
                                        "fat-tree:",
                                        "fat-tree:leaf",
                                        "fat-tree:leaf=0",
                                        "fat-tree:leaf=2,",
                                        "fat-tree:over=nan",
                                        "fat-tree:leaf=2;over=2",
                                        "rails:width=2"};
    struct kolo__network ignored = {0};
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++)
        assert_non_null(kolo__network_parse(&ignored, WRONG[i]));
}

/* ---- predictions -------------------------------------------------------------------------------
 */

static const struct kolo__prediction *find(const struct kolo__prediction *predictions, size_t count,
                                           const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(predictions[i].algorithm->name, name) == 0)
            return &predictions[i];
    fail_msg("no prediction of %s", name);
    return NULL;
}

/* Each rank has a host with a link as the model's: what the network adds is nothing. */
static void without_a_form_it_is_the_formula(void **state)
{
    (void)state;
    const struct kolo__cost_model *model = &kolo__default_cost_model;
    struct kolo__network plain = network(1, "flat");
    plain.rank_rate = plain.link_rate = 1 / model->byte_remote;
    plain.message_s = model->message_remote;
    static const size_t SIZES[] = {1 << 10, 1 << 20, 1 << 28};
    for (uint32_t ranks = 4; ranks <= 64; ranks *= 2) {
        for (size_t s = 0; s < 3; s++) {
            struct kolo__prediction predictions[KOLO__PREDICTIONS_MAX];
            struct kolo__prediction_question question = {.ranks = ranks,
                                                         .bytes = SIZES[s],
                                                         .dtype = KOLO_FP32,
                                                         .model = model,
                                                         .network = &plain};
            uint32_t host_of[64];
            size_t count;
            for (uint32_t rank = 0; rank < ranks; rank++)
                host_of[rank] = rank;
            struct kolo__problem problem = {.collective = KOLO__ALLREDUCE,
                                            .size = ranks,
                                            .count = SIZES[s] / 4,
                                            .host_of = host_of};
            struct kolo__select_input input = {.problem = &problem,
                                               .dtype = KOLO_FP32,
                                               .op = KOLO_SUM,
                                               .remote = true,
                                               .model = model};
            assert_int_equal(kolo__predict(&question, predictions, &count), KOLO_OK);
            assert_true(count == 7);
            for (size_t i = 0; i < count; i++) {
                const struct kolo__algorithm *algorithm = predictions[i].algorithm;
                double formula = kolo__select_cost(&input, algorithm);
                assert_int_equal(formula < 0, predictions[i].obstacle != NULL);
                /* The tree's formula has the start of its pipeline, and no leaves. */
                double from = strcmp(algorithm->name, "double_binary_tree") == 0 ? 0.4 : 0.999;
                if (formula >= 0 && (predictions[i].seconds < from * formula ||
                                     predictions[i].seconds > 1.001 * formula))
                    fail_msg("%s, %u ranks, %zu bytes: %g s by flows, %g s by the formula",
                             algorithm->name, ranks, SIZES[s], predictions[i].seconds, formula);
            }
        }
    }
}

/* A ring in blocks crosses each leaf once; halving crosses them with half of everything. */
static void thin_uplinks_hurt_halving_more_than_rings(void **state)
{
    (void)state;
    struct kolo__prediction predictions[KOLO__PREDICTIONS_MAX];
    struct kolo__network thin = network(1, "fat-tree:leaf=8,over=8");
    struct kolo__prediction_question question = {.ranks = 64,
                                                 .bytes = 1 << 28,
                                                 .dtype = KOLO_FP32,
                                                 .model = &kolo__default_cost_model,
                                                 .network = &thin};
    size_t count;
    assert_int_equal(kolo__predict(&question, predictions, &count), KOLO_OK);
    const struct kolo__prediction *ring = find(predictions, count, "ring"),
                                  *halving = find(predictions, count, "halving_doubling");
    assert_true(halving->links_s > 5 * ring->links_s);
    assert_true(strncmp(halving->slowest, "uplinks of leaf", 15) == 0);
    for (size_t i = 0; i < count; i++)
        assert_float_equal(
            predictions[i].seconds,
            predictions[i].messages_s + predictions[i].links_s + predictions[i].memory_s, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_add_up),
        cmocka_unit_test(rails_share_what_a_host_sends),
        cmocka_unit_test(what_one_rank_can_send_counts),
        cmocka_unit_test(leaves_limit_what_leaves_them),
        cmocka_unit_test(rails_have_leaves_of_their_own),
        cmocka_unit_test(slow_hosts_are_spread),
        cmocka_unit_test(forms_that_are_none_are_told),
        cmocka_unit_test(without_a_form_it_is_the_formula),
        cmocka_unit_test(thin_uplinks_hurt_halving_more_than_rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
