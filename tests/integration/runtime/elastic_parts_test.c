/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of sharded training, of which each rank writes its part: the job ends, in good order
 * or by force, at whatever moment, and goes on with another number of ranks, or nobody trains. */
#include "elastic_sharded.h"
#include "tests/fresh_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NEVER = 1000 };

static char folder[] = "/tmp/kolo-parts-XXXXXX";
static char path[sizeof folder + 64];

/* What a run does. */
static struct plan {
    uint64_t begins, leaves, dies, every;
    unsigned moment_us; /* 0: dies in step `dies` */
    unsigned pause_us;  /* in each step: time for the disk */
} plan;

static int begin(void **state)
{
    (void)state;
    return fresh_folder(folder);
}

static int end(void **state)
{
    (void)state;
    return remove_folder(folder);
}

static const char *path_of(uint64_t step, const char *part)
{
    snprintf(path, sizeof path, "%s/step-%lu%s.kolo", folder, (unsigned long)step, part);
    return path;
}

static bool is_there(uint64_t step, const char *part)
{
    return access(path_of(step, part), F_OK) == 0;
}

/* The step of the last checkpoint up to `end`; 0: there is none. */
static uint64_t last_saved(uint64_t end)
{
    while (end > 0 && !is_there(end, ""))
        end--;
    return end;
}

/* A checkpoint is whole once its ranks have come to a boundary at which all parts are written, and
 * the disk may be slow: the steps from `from` on take ever longer until there is one. */
static void give_time(uint64_t from, uint64_t step)
{
    for (uint64_t i = 0; step >= from && i >> 3 * (step - from) == 0 && last_saved(step - 1) == 0;
         i++)
        usleep(10000);
}

static int create(void)
{
    const kolo_elastic_options options = {.checkpoint_folder = folder,
                                          .checkpoint_every = plan.every,
                                          .copy_every = 4,
                                          .leave_on_sigterm = 1};
    sharded.place = world_rank() == 0 ? 0 : 55;
    return sharded_create(&options);
}

static int trains(void)
{
    uint64_t step, first = UINT64_MAX;
    pthread_t killer = 0;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(sharded.loop, &step)) {
        if (first == UINT64_MAX && plan.moment_us > 0)
            CHECK(die_later(plan.moment_us, &killer) == 0);
        first = first == UINT64_MAX ? step : first;
        if (plan.dies < SHARDED_STEPS)
            give_time(plan.every + 1, step);
        if (step == plan.dies)
            die();
        if (step == plan.leaves && rank == size - 1)
            raise(SIGTERM);
        usleep(plan.pause_us);
        kolo_elastic_end_step(sharded.loop, sharded_step(step));
    }
    if (plan.moment_us > 0)
        pthread_join(killer, NULL);
    CHECK(first == plan.begins);
    if (plan.leaves >= SHARDED_STEPS)
        return sharded_ends_well();
    CHECK(kolo_elastic_result(sharded.loop) == KOLO_OK && kolo_elastic_left(sharded.loop));
    CHECK(step == plan.leaves + 1 && sharded_state_is_right(plan.leaves + 1) == 0);
    return sharded_free();
}

static void run(int ranks, struct plan how)
{
    plan = how;
    struct world_result result = world_run(ranks, NULL, trains);
    if (how.dies >= SHARDED_STEPS && how.moment_us == 0)
        world_assert_all_passed(&result, ranks);
}

static void test_ended_in_good_order(void **state)
{
    (void)state;
    run(4, (struct plan){.leaves = 9, .dies = NEVER});
    assert_true(is_there(10, "") && is_there(10, ".part-3-of-4"));
    run(3, (struct plan){.begins = 10, .leaves = 15, .dies = NEVER});
    run(1, (struct plan){.begins = 16, .leaves = 20, .dies = NEVER});
    assert_true(!is_there(10, "") && !is_there(10, ".part-3-of-4") && is_there(16, ""));
    run(2, (struct plan){.begins = 21, .leaves = NEVER, .dies = NEVER});
}

/* In step 14, before which they have begun to write: there are parts, of which nobody could know
 * that all are written. */
static void test_ended_between_parts(void **state)
{
    (void)state;
    run(3, (struct plan){.every = 7, .leaves = NEVER, .dies = 14});
    assert_true(is_there(7, "") && !is_there(14, ""));
    run(2, (struct plan){.begins = 7, .every = 7, .leaves = NEVER, .dies = NEVER});
}

static void test_ended_at_moments(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        run(2 + (int)i % 2, (struct plan){.every = 1,
                                          .leaves = NEVER,
                                          .dies = NEVER,
                                          .moment_us = 3000 + 13000 * i,
                                          .begins = last_saved(SHARDED_STEPS)});
        run(3 - (int)i % 2,
            (struct plan){
                .begins = last_saved(SHARDED_STEPS), .every = 7, .leaves = NEVER, .dies = NEVER});
        assert_int_equal(end(NULL), 0);
        assert_int_equal(begin(NULL), 0);
    }
}

/* Rank 1's part of step 7 cannot be written: there is no such checkpoint, and training goes on. */
static void test_part_is_not_written(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path_of(7, ".part-1-of-2"), 0777), 0);
    run(2, (struct plan){.every = 7, .leaves = 12, .dies = NEVER, .pause_us = 50000});
    assert_true(!is_there(7, "") && is_there(13, ""));
}

/* At the end of the loop it is an error, on rank 0 and on the rank that failed. */
static int last_part_is_not_written(void)
{
    uint64_t step;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(sharded.loop, &step))
        kolo_elastic_end_step(sharded.loop, sharded_step(step));
    kolo_status status = kolo_elastic_result(sharded.loop);
    CHECK(status == (rank == 2 ? KOLO_OK : KOLO_ERR_SYSTEM));
    CHECK(rank != 0 || error_has("rank 1 could not write its part"));
    CHECK(rank != 1 || error_has("checkpoints cannot be written into"));
    return sharded_free();
}

static void test_last_part_is_not_written(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path_of(SHARDED_STEPS, ".part-1-of-3"), 0777), 0);
    plan = (struct plan){0};
    struct world_result result = world_run(3, NULL, last_part_is_not_written);
    world_assert_all_passed(&result, 3);
    assert_true(!is_there(SHARDED_STEPS, ""));
}

/* ---- what a disk may have made of it ----------------------------------------------------------
 */

static void flip(const char *file, long at)
{
    FILE *stream = fopen(file, "r+b");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, at, SEEK_SET), 0);
    int byte = fgetc(stream);
    assert_int_equal(fseek(stream, at, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 4, stream), byte ^ 4);
    assert_int_equal(fclose(stream), 0);
}

static void copy_file(uint64_t from, uint64_t to, const char *part)
{
    char command[3 * sizeof path], source[sizeof path];
    strcpy(source, path_of(from, part));
    snprintf(command, sizeof command, "cp %s %s", source, path_of(to, part));
    assert_int_equal(system(command), 0);
}

/* The folder as it is, to be put back after each damage. */
static void copy_folder(bool back)
{
    char kept[sizeof folder + 8], command[4 * sizeof kept];
    snprintf(kept, sizeof kept, "%s.kept", folder);
    snprintf(command, sizeof command, "rm -rf %s && cp -r %s %s", back ? folder : kept,
             back ? kept : folder, back ? folder : kept);
    assert_int_equal(system(command), 0);
}

/* Each time that of step 14 is damaged in one way, and that of step 7 taken up. */
static void test_damaged(void **state)
{
    (void)state;
    enum { FLIPPED, TORN, GONE, ANOTHER, MANIFEST, WAYS };
    run(3, (struct plan){.every = 7, .leaves = 6, .dies = NEVER});
    run(3, (struct plan){.begins = 7, .every = 7, .leaves = 13, .dies = NEVER});
    assert_true(is_there(7, "") && is_there(14, ""));
    copy_folder(false);
    for (int way = 0; way < WAYS; way++) {
        if (way == FLIPPED)
            flip(path_of(14, ".part-2-of-3"), 5000);
        if (way == TORN)
            assert_int_equal(truncate(path_of(14, ".part-1-of-3"), 4000), 0);
        if (way == GONE)
            assert_int_equal(unlink(path_of(14, ".part-0-of-3")), 0);
        if (way == ANOTHER)
            copy_file(7, 14, ".part-1-of-3");
        if (way == MANIFEST)
            flip(path_of(14, ""), 150);
        run(2, (struct plan){.begins = 7, .leaves = 8, .dies = NEVER});
        copy_folder(true);
    }
    char kept[sizeof folder + 16];
    snprintf(kept, sizeof kept, "rm -rf %s.kept", folder);
    assert_int_equal(system(kept), 0);
}

/* ---- nobody trains ----------------------------------------------------------------------------
 */

static const char *expected;

static int nobody_begins(void)
{
    const kolo_elastic_options options = {.checkpoint_folder = folder};
    uint64_t step;
    CHECK(sharded_create(&options) == 0);
    CHECK(kolo_elastic_begin_step(sharded.loop, &step) == 0);
    CHECK(kolo_elastic_result(sharded.loop) == KOLO_ERR_CONFIG && error_has(expected));
    return sharded_free();
}

/* As on hosts that share no folder: the last rank's is another. */
static int has_a_folder_of_its_own(void)
{
    if (world_rank() == 2)
        strcpy(folder, "/tmp");
    return nobody_begins();
}

static int has_another_state(void)
{
    sharded.retyped = 1;
    return nobody_begins();
}

static void test_refused(void **state)
{
    (void)state;
    expected = "give options->checkpoint_folder a folder that all hosts share";
    struct world_result result = world_run(3, NULL, has_a_folder_of_its_own);
    world_assert_all_passed(&result, 3);
    run(2, (struct plan){.leaves = 6, .dies = NEVER});
    expected = "of another state: its tensor 4 is '', 1 x int64; here it is '', 1 x uint64";
    result = world_run(3, NULL, has_another_state);
    world_assert_all_passed(&result, 3);
}

/* ---- in a job that goes on --------------------------------------------------------------------
 */

/* A rank and the one behind it: what the first had is on the disk. */
static int neighbours_are_lost(void)
{
    uint64_t step;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(sharded.loop, &step)) {
        give_time(plan.every + 1, step);
        if (step == 9 && (world_rank() == 1 || world_rank() == 2))
            die();
        kolo_elastic_end_step(sharded.loop, sharded_step(step));
    }
    CHECK(size == 2);
    return sharded_ends_well();
}

static void test_neighbours_are_lost(void **state)
{
    (void)state;
    plan = (struct plan){.every = 3};
    setenv("KOLO_MIN_RANKS", "1", 1);
    for (int i = 0; i < 3; i++) {
        expect_on(elastic_ways[i % 2], 4, 0, (int[]){1, 2, -1}, neighbours_are_lost);
        assert_true(is_there(SHARDED_STEPS, ".part-1-of-2"));
        assert_int_equal(end(NULL), 0);
        assert_int_equal(begin(NULL), 0);
    }
    unsetenv("KOLO_MIN_RANKS");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ended_in_good_order, begin, end),
        cmocka_unit_test_setup_teardown(test_ended_between_parts, begin, end),
        cmocka_unit_test_setup_teardown(test_ended_at_moments, begin, end),
        cmocka_unit_test_setup_teardown(test_part_is_not_written, begin, end),
        cmocka_unit_test_setup_teardown(test_last_part_is_not_written, begin, end),
        cmocka_unit_test_setup_teardown(test_damaged, begin, end),
        cmocka_unit_test_setup_teardown(test_refused, begin, end),
        cmocka_unit_test_setup_teardown(test_neighbours_are_lost, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
