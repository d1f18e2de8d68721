/* SPDX-License-Identifier: Apache-2.0 */
/* The search for bucket sizes, on ranks whose steps take what a simulation says: noise, outliers,
 * machines that drift and that have a slow mode, by seed. No time is measured here. */
#include "runtime/reducer/tune.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

enum { RANKS = 3, SEEDS = 1000 };

struct machine {
    double costs[KOLO__TUNE_CHOICES_MAX]; /* true seconds of a step, by choice */
    uint32_t choices;
    double noise;   /* a step is longer by up to this part */
    double drift;   /* over 100 steps, linearly, of the cost */
    double outlier; /* probability that a step takes up to six times as long */
    double turns;   /* probability that the machine becomes 30 % slower, or what it was */
};

static double roll(struct kolo__random *dice)
{
    return (double)(kolo__random_u64(dice) >> 11) * 0x1p-53;
}

struct run {
    struct kolo__tuner tuners[RANKS];
    uint32_t steps, decisions, chosen;
};

static uint32_t choice_of(const struct kolo__tuner *tuner)
{
    return (uint32_t)(kolo__tuner_choice(tuner) - tuner->choices);
}

/* As runtime/reducer/tuning.c does: each score is the largest of all ranks'. */
static void decide(struct run *run)
{
    double largest[KOLO__TUNE_CHOICES_MAX] = {0}, own[KOLO__TUNE_CHOICES_MAX];
    uint32_t count = 0, counts[RANKS] = {0};
    for (int r = 0; r < RANKS; r++) {
        bool wants = kolo__tuner_wants_decision(&run->tuners[r], own, &counts[r]);
        assert_true(r == 0 || counts[r] == count);
        count = counts[r];
        if (!wants)
            continue;
        assert_true(count > 0 && count <= KOLO__TUNE_CHOICES_MAX);
        for (uint32_t i = 0; i < count; i++)
            largest[i] = own[i] > largest[i] || isnan(own[i]) ? own[i] : largest[i];
    }
    if (count == 0)
        return;
    run->decisions++;
    for (int r = 0; r < RANKS; r++)
        kolo__tuner_decide(&run->tuners[r], largest);
}

/* A step with new sizes makes plans: three times as long. */
static void simulate(const struct machine *machine, uint64_t seed, struct run *run)
{
    struct kolo__random dice = {seed};
    struct kolo__tuning choices[KOLO__TUNE_CHOICES_MAX];
    double slower = 1;
    uint32_t before = 0;
    *run = (struct run){.steps = 0};
    for (uint32_t i = 0; i < machine->choices; i++)
        choices[i] = (struct kolo__tuning){.bucket_bytes = (size_t)1 << (20 + i)};
    for (int r = 0; r < RANKS; r++)
        kolo__tuner_begin(&run->tuners[r], choices, machine->choices);
    while (run->tuners[0].phase != KOLO__TUNE_DONE && run->steps <= KOLO__TUNE_STEPS_MAX) {
        uint32_t choice = choice_of(&run->tuners[0]);
        if (roll(&dice) < machine->turns)
            slower = slower > 1 ? 1 : 1.3;
        double seconds = machine->costs[choice] * slower * (1 + machine->drift * run->steps / 100) *
                         (1 + machine->noise * roll(&dice));
        if (roll(&dice) < machine->outlier)
            seconds *= 1 + 5 * roll(&dice);
        if (choice != before)
            seconds *= 3;
        before = choice;
        for (int r = 0; r < RANKS; r++) {
            assert_int_equal(choice_of(&run->tuners[r]), choice);
            kolo__tuner_record(&run->tuners[r], seconds * (1 + 0.01 * roll(&dice)));
        }
        run->steps++;
        decide(run);
    }
    assert_true(run->steps <= KOLO__TUNE_STEPS_MAX && run->decisions <= 2);
    run->chosen = choice_of(&run->tuners[0]);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(run->tuners[r].phase, KOLO__TUNE_DONE);
        assert_int_equal(choice_of(&run->tuners[r]), run->chosen);
    }
}

/* In how many seeds the choice ended there. */
static uint32_t times_chosen(const struct machine *machine, uint32_t choice)
{
    struct run run;
    uint32_t times = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        simulate(machine, seed, &run);
        times += run.chosen == choice;
    }
    return times;
}

/* The default costs 1, all others `cost`. */
static void set_others(struct machine *machine, double cost)
{
    machine->choices = KOLO__TUNE_CHOICES_MAX;
    for (uint32_t i = 0; i < machine->choices; i++)
        machine->costs[i] = i == 0 ? 1 : cost;
}

/* The default is neither the best nor the worst. */
static const double different[][KOLO__TUNE_CHOICES_MAX] = {
    {1, 0.9, 1.1, 1.2, 1.05},
    {1, 1.1, 0.9, 1.2, 1.05},
    {1, 1.05, 1.1, 0.9, 1.2},
    {1, 1.05, 1.2, 1.1, 0.9},
};

/* At least so many seeds find the best, wherever it is. */
static void finds_best(struct machine machine, uint32_t least)
{
    machine.choices = 5;
    for (uint32_t best = 1; best < 5; best++) {
        for (int i = 0; i < 5; i++)
            machine.costs[i] = different[best - 1][i];
        uint32_t times = times_chosen(&machine, best);
        if (times < least)
            fail_msg("choice %u, a tenth better, was found by %u of %d seeds", best, times, SEEDS);
    }
}

static void the_best_is_found(void **state)
{
    (void)state;
    finds_best((struct machine){.noise = 0}, SEEDS);
    finds_best((struct machine){.noise = 0.05}, SEEDS);
    finds_best((struct machine){.noise = 0.1}, 990);
}

static void drift_does_not_hide_it(void **state)
{
    (void)state;
    finds_best((struct machine){.noise = 0.03, .drift = 3}, SEEDS);
    finds_best((struct machine){.noise = 0.03, .drift = -0.6}, SEEDS);
}

static void outliers_do_not_hide_it(void **state)
{
    (void)state;
    finds_best((struct machine){.noise = 0.03, .outlier = 0.05}, 990);
    finds_best((struct machine){.noise = 0.03, .outlier = 0.1}, 970);
}

static void a_slow_mode_seldom_hides_it(void **state)
{
    (void)state;
    finds_best((struct machine){.noise = 0.03, .turns = 0.03}, 700);
}

/* ---- never worse than the default ----------------------------------------------------------- */

static void noise_does_not_replace_the_default(void **state)
{
    (void)state;
    struct machine machine = {.noise = 0};
    set_others(&machine, 1);
    assert_int_equal(times_chosen(&machine, 0), SEEDS);
    machine.noise = 0.05;
    assert_int_equal(times_chosen(&machine, 0), SEEDS);
    machine.drift = -0.8;
    assert_int_equal(times_chosen(&machine, 0), SEEDS);
    machine.drift = 3;
    assert_int_equal(times_chosen(&machine, 0), SEEDS);
    machine.drift = 0;
    machine.noise = 0.3;
    assert_true(times_chosen(&machine, 0) >= 950);
    machine.outlier = 0.1;
    assert_true(times_chosen(&machine, 0) >= 950);
}

static void the_worse_is_never_chosen(void **state)
{
    (void)state;
    const struct machine machines[] = {
        {.noise = 0.02},
        {.noise = 0.1},
        {.noise = 0.1, .outlier = 0.1},
        {.noise = 0.02, .drift = 0.6},
        {.noise = 0.02, .drift = -0.6},
        {.noise = 0.02, .turns = 0.03},
        {.noise = 0.02, .turns = 0.1},
    };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        struct machine machine = machines[i];
        set_others(&machine, 1.02);
        uint32_t times = times_chosen(&machine, 0);
        if (times != SEEDS)
            fail_msg("machine %zu: only %u of %d seeds kept the default", i, times, SEEDS);
    }
}

static void too_little_is_not_worth_it(void **state)
{
    (void)state;
    struct run run;
    struct machine machine = {.costs = {1, 0.99}, .choices = 2};
    assert_int_equal(times_chosen(&machine, 0), SEEDS);
    machine.costs[1] = 0.96;
    assert_int_equal(times_chosen(&machine, 1), SEEDS);
    /* The trials decide for the default: there is nothing to verify. */
    machine.costs[1] = 1.5;
    simulate(&machine, 1, &run);
    assert_int_equal(run.decisions, 1);
}

/* ---- limits --------------------------------------------------------------------------------- */

static void every_number_of_choices_ends_in_time(void **state)
{
    (void)state;
    struct run run;
    struct machine machine = {.costs = {1, 0.9, 0.8, 0.7, 0.6}, .noise = 0.05};
    for (machine.choices = 1; machine.choices <= KOLO__TUNE_CHOICES_MAX; machine.choices++) {
        simulate(&machine, machine.choices, &run);
        assert_int_equal(run.chosen, machine.choices - 1);
        assert_int_equal(run.decisions, machine.choices == 1 ? 0 : 2);
        assert_true(machine.choices > 1 || run.steps == 0);
    }
}

/* Clocks that stand, and none at all: the default, or at least an end. */
static void nonsense_ends_in_the_default(void **state)
{
    (void)state;
    static const double odd[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct run run;
        const struct machine machine = {.costs = {odd[i], odd[i], odd[i]}, .choices = 3};
        simulate(&machine, 1, &run);
        assert_int_equal(run.chosen, 0);
    }
}

/* Steps of 1 second with the default, of `other` with the second choice, up to a decision. */
static void run_until_decision(struct kolo__tuner *tuner, double other, double *score)
{
    double scores[KOLO__TUNE_CHOICES_MAX];
    uint32_t count;
    for (int i = 0; i < KOLO__TUNE_STEPS_MAX; i++) {
        kolo__tuner_record(tuner, choice_of(tuner) == 0 ? 1 : other);
        if (kolo__tuner_wants_decision(tuner, scores, &count)) {
            *score = scores[0];
            kolo__tuner_decide(tuner, scores);
            return;
        }
    }
    fail_msg("no decision");
}

static void a_verification_by_nonsense_fails(void **state)
{
    (void)state;
    static const struct kolo__tuning choices[] = {{1 << 20, 0}, {2 << 20, 0}};
    struct kolo__tuner tuner;
    double score;
    kolo__tuner_begin(&tuner, choices, 2);
    run_until_decision(&tuner, 0.5, &score);
    assert_int_equal(tuner.phase, KOLO__TUNE_VERIFICATION);
    run_until_decision(&tuner, NAN, &score);
    assert_true(isnan(score));
    assert_int_equal(tuner.phase, KOLO__TUNE_DONE);
    assert_int_equal(choice_of(&tuner), 0);
}

static void what_is_found_stays(void **state)
{
    (void)state;
    struct run run;
    double scores[KOLO__TUNE_CHOICES_MAX];
    uint32_t count;
    const struct machine machine = {.costs = {1, 0.5}, .choices = 2};
    simulate(&machine, 1, &run);
    for (int i = 0; i < 200; i++) {
        kolo__tuner_record(&run.tuners[0], i % 2 == 0 ? 1e-9 : 1e9);
        assert_false(kolo__tuner_wants_decision(&run.tuners[0], scores, &count));
        assert_int_equal(choice_of(&run.tuners[0]), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_is_found),
        cmocka_unit_test(drift_does_not_hide_it),
        cmocka_unit_test(outliers_do_not_hide_it),
        cmocka_unit_test(a_slow_mode_seldom_hides_it),
        cmocka_unit_test(noise_does_not_replace_the_default),
        cmocka_unit_test(the_worse_is_never_chosen),
        cmocka_unit_test(too_little_is_not_worth_it),
        cmocka_unit_test(every_number_of_choices_ends_in_time),
        cmocka_unit_test(nonsense_ends_in_the_default),
        cmocka_unit_test(a_verification_by_nonsense_fails),
        cmocka_unit_test(what_is_found_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
