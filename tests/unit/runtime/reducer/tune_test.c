/* SPDX-License-Identifier: Apache-2.0 */
/* The search over simulated step times: finds what is clearly better, and never ends worse. */
#include "runtime/reducer/tune.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct kolo__tuning choices[] = {
    {4000, 0}, {1000, 0}, {16000, 0}, {4000, 1}, {250, 0}};

/* Noise of the given size, now and then an outlier; the machine's speed drifts. */
static double step_time(double cost, double noise, int step, struct kolo__random *random)
{
    double unit = (double)kolo__random_below(random, 1000001) / 1e6;
    double outlier = kolo__random_below(random, 20) == 0 ? 3 : 1;
    double drift = 1 + 0.3 * (double)step / 100;
    return cost * (1 + noise * unit) * outlier * drift;
}

/* The choice that stays, by index; *steps: how many it took. */
static uint32_t search(const double *costs, uint32_t count, double noise, uint64_t seed, int *steps)
{
    struct kolo__tuner tuner;
    struct kolo__random random = {seed};
    kolo__tuner_begin(&tuner, choices, count);
    for (*steps = 0; tuner.phase != KOLO__TUNE_DONE; ++*steps) {
        double scores[KOLO__TUNE_CHOICES_MAX];
        uint32_t scored;
        uint32_t now = (uint32_t)(kolo__tuner_choice(&tuner) - tuner.choices);
        assert_true(*steps < KOLO__TUNE_STEPS_MAX);
        kolo__tuner_record(&tuner, step_time(costs[now], noise, *steps, &random));
        if (kolo__tuner_wants_decision(&tuner, scores, &scored))
            kolo__tuner_decide(&tuner, scores);
    }
    return (uint32_t)(kolo__tuner_choice(&tuner) - tuner.choices);
}

static void test_finds_the_best(void **state)
{
    (void)state;
    for (uint32_t best = 0; best < 5; best++) {
        double costs[] = {1, 1, 1, 1, 1};
        int found = 0, steps;
        costs[best] = best == 0 ? 1 : 0.8;
        for (uint64_t seed = 1; seed <= 200; seed++)
            found += search(costs, 5, 0.05, seed, &steps) == best;
        assert_true(found >= 190);
    }
}

static void test_never_ends_worse(void **state)
{
    (void)state;
    int moved = 0;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        struct kolo__random random = {seed + 5000};
        double costs[5] = {1};
        int steps;
        for (int i = 1; i < 5; i++)
            costs[i] = 0.99 + 0.2 * (double)kolo__random_below(&random, 1000) / 1000;
        uint32_t stays = search(costs, 5, 0.1, seed, &steps);
        assert_true(costs[stays] <= 1.02);
        moved += stays != 0;
    }
    assert_true(moved < 100);
}

static void test_equal_choices_keep_the_default(void **state)
{
    const double costs[] = {1, 1, 1, 1, 1};
    int moved = 0, steps;
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++)
        moved += search(costs, 5, 0, seed, &steps) != 0;
    assert_int_equal(moved, 0);
}

static void test_one_choice_is_no_search(void **state)
{
    struct kolo__tuner tuner;
    (void)state;
    kolo__tuner_begin(&tuner, choices, 1);
    assert_int_equal(tuner.phase, KOLO__TUNE_DONE);
    assert_int_equal(kolo__tuner_choice(&tuner)->bucket_bytes, 4000);
}

/* Whatever each rank measures: with the same scores they go the same way. */
static void test_ranks_agree(void **state)
{
    struct kolo__tuner a, b;
    struct kolo__random random = {3};
    (void)state;
    kolo__tuner_begin(&a, choices, 5);
    kolo__tuner_begin(&b, choices, 5);
    while (a.phase != KOLO__TUNE_DONE) {
        double scores[2][KOLO__TUNE_CHOICES_MAX];
        uint32_t counts[2];
        assert_int_equal(kolo__tuner_choice(&a) - a.choices, kolo__tuner_choice(&b) - b.choices);
        kolo__tuner_record(&a, step_time(1, 0.5, 0, &random));
        kolo__tuner_record(&b, step_time(1, 0.5, 0, &random));
        bool wants = kolo__tuner_wants_decision(&a, scores[0], &counts[0]);
        assert_int_equal(wants, kolo__tuner_wants_decision(&b, scores[1], &counts[1]));
        if (!wants)
            continue;
        for (uint32_t i = 0; i < counts[0]; i++)
            scores[0][i] = scores[0][i] > scores[1][i] ? scores[0][i] : scores[1][i];
        kolo__tuner_decide(&a, scores[0]);
        kolo__tuner_decide(&b, scores[0]);
    }
    assert_int_equal(b.phase, KOLO__TUNE_DONE);
    assert_int_equal(a.best, b.best);
}

static void test_file(void **state)
{
    char folder[] = "/tmp/kolo-tune-XXXXXX", text[KOLO__TUNE_TEXT_BYTES], path[200];
    struct kolo__tuning tuning = {123456, 65536}, read = {0, 0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    assert_false(kolo__tune_load("plan 1", &read));
    assert_true(kolo__tune_save("plan 1", &tuning));
    assert_true(kolo__tune_load("plan 1", &read));
    assert_int_equal(read.bucket_bytes, 123456);
    assert_int_equal(read.segment_bytes, 65536);
    assert_false(kolo__tune_load("plan 2", &read));
    /* Every byte counts, and so does every byte more or less. */
    size_t length = kolo__tune_text("plan 1", &tuning, text);
    for (size_t i = 0; i < length; i++) {
        text[i] ^= 1;
        assert_false(kolo__tune_parse(text, length, "plan 1", &read));
        text[i] ^= 1;
        assert_false(kolo__tune_parse(text, i, "plan 1", &read));
    }
    assert_true(kolo__tune_parse(text, length, "plan 1", &read));
    setenv("XDG_CACHE_HOME", "/proc/nowhere", 1);
    assert_false(kolo__tune_save("plan 1", &tuning));
    snprintf(path, sizeof path, "rm -r %s", folder);
    assert_int_equal(system(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_the_best),
        cmocka_unit_test(test_never_ends_worse),
        cmocka_unit_test(test_equal_choices_keep_the_default),
        cmocka_unit_test(test_one_choice_is_no_search),
        cmocka_unit_test(test_ranks_agree),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
