/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints in a folder: what was written is read; what a disk may have made of it is not. */
#include "runtime/elastic/checkpoint.h"
#include "tests/fresh_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WEIGHTS = 33 };

static float weights[WEIGHTS];
static int64_t place;
static const kolo_tensor state[] = {
    {.data = weights, .count = WEIGHTS, .dtype = KOLO_FP32, .name = "weights"},
    {.data = &place, .count = 1, .dtype = KOLO_INT64},
    {.data = NULL, .count = 0, .dtype = KOLO_FP16, .name = "nothing"},
};
enum { COUNT = sizeof state / sizeof *state };

static char folder[] = "/tmp/kolo-checkpoint-XXXXXX";
static char path[sizeof folder + 64];

static const char *path_of(uint64_t step)
{
    snprintf(path, sizeof path, "%s/step-%lu.kolo", folder, (unsigned long)step);
    return path;
}

static void set_state(uint64_t step)
{
    for (int i = 0; i < WEIGHTS; i++)
        weights[i] = (float)(step * 100) + (float)i;
    place = (int64_t)step;
}

static int begin(void **unused)
{
    (void)unused;
    return fresh_folder(folder);
}

static int end(void **unused)
{
    (void)unused;
    return remove_folder(folder);
}

static void offer(struct kolo__checkpoint_writer *writer, uint64_t step)
{
    unsigned char *file =
        kolo__checkpoint_writer_file(writer, kolo__checkpoint_file_bytes(state, COUNT));
    assert_non_null(file);
    kolo__checkpoint_lay_out(file, state, COUNT, step);
    kolo__checkpoint_writer_offer(writer, step, 0, 0);
}

/* The states of steps first, first + 1, ... by a job that has taken up that of step `since`. */
static void save_since(uint64_t since, uint64_t first, int files, int keep)
{
    struct kolo__checkpoint_writer *writer;
    assert_int_equal(kolo__checkpoint_writer_create(folder, keep, since, &writer), KOLO_OK);
    for (int i = 0; i < files; i++) {
        set_state(first + (uint64_t)i);
        offer(writer, first + (uint64_t)i);
        set_state(9999); /* training goes on: the copy does not */
        assert_int_equal(kolo__checkpoint_writer_wait(writer, NULL), KOLO_OK);
    }
    kolo__checkpoint_writer_free(writer);
}

static void save(uint64_t first, int files, int keep)
{
    save_since(0, first, files, keep);
}

/* 0: none is found. */
static void assert_loads(uint64_t expected)
{
    bool found;
    uint64_t step = 0;
    memset(weights, 0, sizeof weights);
    place = 0;
    assert_int_equal(kolo__checkpoint_load(folder, state, COUNT, &found, &step), KOLO_OK);
    assert_int_equal(found, expected > 0);
    assert_int_equal(step, expected);
    assert_int_equal(place, expected);
    for (int i = 0; i < WEIGHTS; i++)
        assert_true(weights[i] == (expected > 0 ? (float)(expected * 100) + (float)i : 0));
}

static void test_last_one_is_loaded(void **unused)
{
    (void)unused;
    assert_loads(0);
    save(9, 3, 2);
    assert_loads(11);
    assert_int_equal(access(path_of(10), F_OK), 0);
    assert_int_not_equal(access(path_of(9), F_OK), 0); /* two are kept */
}

static size_t read_file(unsigned char *file, size_t size)
{
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    size_t bytes = fread(file, 1, size, stream);
    fclose(stream);
    return bytes;
}

static void write_file(const unsigned char *file, size_t bytes)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(file, 1, bytes, stream), bytes);
    fclose(stream);
}

/* A place in a file where nothing is: between the list and tensors, and behind them. */
static bool is_hole(size_t at)
{
    size_t list = kolo__checkpoint_list_bytes(state, COUNT);
    size_t first = kolo__checkpoint_data_at(state, COUNT, 0);
    size_t second = kolo__checkpoint_data_at(state, COUNT, 1);
    return (at >= list && at < first) || (at >= first + sizeof weights && at < second) ||
           at >= second + sizeof place;
}

static void test_damaged_one_is_left_out(void **unused)
{
    unsigned char file[1024];
    (void)unused;
    save(9, 2, 2);
    path_of(10);
    size_t bytes = read_file(file, sizeof file);
    assert_int_equal(bytes, kolo__checkpoint_file_bytes(state, COUNT));
    for (size_t i = 0; i < bytes; i++) {
        file[i] ^= 16;
        write_file(file, bytes);
        file[i] ^= 16;
        assert_loads(is_hole(i) ? 10 : 9);
    }
    for (size_t i = 0; i < bytes; i += 7) {
        write_file(file, i);
        assert_loads(9);
    }
    write_file(file, bytes);
    assert_loads(10);
}

static void test_other_state_is_refused(void **unused)
{
    kolo_tensor other[COUNT];
    bool found;
    uint64_t step;
    (void)unused;
    save(5, 1, 1);
    for (int way = 0; way < 5; way++) {
        memcpy(other, state, sizeof state);
        if (way == 0)
            other[0].count--;
        if (way == 1)
            other[1].dtype = KOLO_UINT64;
        if (way == 2)
            other[0].name = "weight";
        if (way == 4)
            other[0].name = "weights2";
        set_state(1);
        assert_int_equal(
            kolo__checkpoint_load(folder, other, way == 3 ? COUNT - 1 : COUNT, &found, &step),
            KOLO_ERR_CONFIG);
        assert_non_null(strstr(kolo_error_text(), "of another state"));
        assert_true(place == 1 && weights[0] == 100); /* nothing was taken */
    }
}

static void test_other_files_do_not_count(void **unused)
{
    (void)unused;
    static const char *const names[] = {"step-12.kolo.host.7.tmp", "step-012.kolo", "step-.kolo",
                                        "step-13.kolo~", "notes"};
    save(4, 1, 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        write_file((const unsigned char *)"x", 1);
    }
    assert_loads(4);
}

/* ---- parts ------------------------------------------------------------------------------------
 */

enum { PARTS = 3 };

/* Part `index` of the state after `step` steps: weights are cut in the middle of nothing, the last
 * one has the rest of the state. */
static void save_part(struct kolo__checkpoint_writer *writer, uint64_t step, uint32_t index,
                      struct kolo__checkpoint_part *written)
{
    static const size_t cuts[PARTS + 1] = {0, 7, 7, WEIGHTS}; /* the second has none */
    kolo_elastic_piece pieces[2] = {{.tensor = 0,
                                     .first = cuts[index],
                                     .count = cuts[index + 1] - cuts[index],
                                     .data = weights + cuts[index]},
                                    {.tensor = 1, .count = 1, .data = &place}};
    size_t count = index + 1 == PARTS ? 2 : 1;
    set_state(step);
    unsigned char *file =
        kolo__checkpoint_writer_file(writer, kolo__part_file_bytes(state, pieces, count));
    assert_non_null(file);
    kolo__part_lay_out(file, state, pieces, count, step);
    kolo__checkpoint_writer_offer(writer, step, index, PARTS);
    assert_int_equal(kolo__checkpoint_writer_wait(writer, written), KOLO_OK);
}

static void save_manifest(struct kolo__checkpoint_writer *writer, uint64_t step,
                          const struct kolo__checkpoint_part *parts, uint32_t count)
{
    unsigned char *file =
        kolo__checkpoint_writer_file(writer, kolo__manifest_bytes(state, COUNT, count));
    assert_non_null(file);
    kolo__manifest_lay_out(file, state, COUNT, step, parts, count);
    kolo__checkpoint_writer_offer(writer, step, 0, 0);
    assert_int_equal(kolo__checkpoint_writer_wait(writer, NULL), KOLO_OK);
}

static void test_parts_are_a_checkpoint(void **unused)
{
    struct kolo__checkpoint_writer *writer;
    struct kolo__checkpoint_part parts[PARTS];
    (void)unused;
    save(4, 1, 2);
    assert_int_equal(kolo__checkpoint_writer_create(folder, 2, 0, &writer), KOLO_OK);
    for (uint32_t i = 0; i < PARTS; i++) {
        save_part(writer, 8, i, &parts[i]);
        assert_loads(4); /* they are none yet */
    }
    save_manifest(writer, 8, parts, PARTS);
    assert_loads(8);
    save_manifest(writer, 8, parts, PARTS - 1); /* that is not the whole state */
    assert_loads(4);
    save_manifest(writer, 8, parts, PARTS);
    save_part(writer, 9, 1, &parts[1]); /* of another step */
    char from[sizeof path];
    snprintf(from, sizeof from, "%s/step-9.part-1-of-3.kolo", folder);
    snprintf(path, sizeof path, "%s/step-8.part-1-of-3.kolo", folder);
    assert_int_equal(rename(from, path), 0);
    assert_loads(4);
    save_part(writer, 8, 1, &parts[1]);
    assert_loads(8);
    kolo__checkpoint_writer_free(writer);
}

/* With the last two checkpoints stay their parts, and those of one that is under way. */
static void test_old_parts_are_removed(void **unused)
{
    struct kolo__checkpoint_writer *writer;
    struct kolo__checkpoint_part parts[PARTS];
    (void)unused;
    assert_int_equal(kolo__checkpoint_writer_create(folder, 2, 0, &writer), KOLO_OK);
    for (uint64_t step = 1; step < 6; step++) {
        for (uint32_t i = 0; i < PARTS; i++)
            save_part(writer, step, i, &parts[i]);
        if (step == 4) /* is left without a manifest */
            continue;
        save_part(writer, step + 1, 0, &(struct kolo__checkpoint_part){0});
        save_manifest(writer, step, parts, PARTS);
    }
    kolo__checkpoint_writer_free(writer);
    for (uint64_t step = 1; step < 7; step++) {
        bool stays = step == 3 || step == 5;
        assert_int_equal(access(path_of(step), F_OK) == 0, stays);
        for (int i = 0; i < PARTS; i++) {
            snprintf(path, sizeof path, "%s/step-%lu.part-%d-of-3.kolo", folder,
                     (unsigned long)step, i);
            assert_int_equal(access(path, F_OK) == 0, stays || (step == 6 && i == 0));
        }
    }
    assert_loads(5);
}

/* Step 10's is torn: while 12's and 13's are not both there, 9's stays. */
static void test_damaged_one_takes_no_place(void **unused)
{
    (void)unused;
    save(8, 3, 3);
    assert_int_equal(truncate(path_of(10), 100), 0);
    assert_loads(9);
    save_since(9, 12, 1, 2);
    assert_int_equal(truncate(path_of(12), 100), 0);
    assert_loads(9);
    assert_int_not_equal(access(path_of(8), F_OK), 0);
    save_since(9, 12, 2, 2);
    assert_int_not_equal(access(path_of(10), F_OK), 0);
    assert_int_not_equal(access(path_of(9), F_OK), 0);
    assert_loads(13);
}

static void test_pipe_is_left_out(void **unused)
{
    (void)unused;
    save(9, 1, 2);
    assert_int_equal(mkfifo(path_of(10), 0600), 0);
    alarm(10);
    assert_loads(9);
    alarm(0);
}

static void test_folder_is_needed(void **unused)
{
    char inside[sizeof path + 16];
    struct kolo__checkpoint_writer *writer;
    (void)unused;
    snprintf(inside, sizeof inside, "%s/new", folder);
    assert_int_equal(kolo__checkpoint_prepare(inside), KOLO_OK);
    assert_int_equal(kolo__checkpoint_prepare(inside), KOLO_OK);
    snprintf(path, sizeof path, "%s/file", folder);
    write_file((const unsigned char *)"x", 1);
    assert_int_equal(kolo__checkpoint_prepare(path), KOLO_ERR_SYSTEM);
    assert_non_null(strstr(kolo_error_text(), "cannot be written into"));
    /* What cannot be written is an error of that one alone. */
    assert_int_equal(kolo__checkpoint_writer_create(inside, 1, 0, &writer), KOLO_OK);
    assert_int_equal(rmdir(inside), 0);
    offer(writer, 1);
    assert_int_equal(kolo__checkpoint_writer_wait(writer, NULL), KOLO_ERR_SYSTEM);
    assert_int_equal(mkdir(inside, 0777), 0);
    offer(writer, 2);
    assert_int_equal(kolo__checkpoint_writer_wait(writer, NULL), KOLO_OK);
    kolo__checkpoint_writer_free(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_last_one_is_loaded, begin, end),
        cmocka_unit_test_setup_teardown(test_damaged_one_is_left_out, begin, end),
        cmocka_unit_test_setup_teardown(test_other_state_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(test_other_files_do_not_count, begin, end),
        cmocka_unit_test_setup_teardown(test_parts_are_a_checkpoint, begin, end),
        cmocka_unit_test_setup_teardown(test_old_parts_are_removed, begin, end),
        cmocka_unit_test_setup_teardown(test_damaged_one_takes_no_place, begin, end),
        cmocka_unit_test_setup_teardown(test_pipe_is_left_out, begin, end),
        cmocka_unit_test_setup_teardown(test_folder_is_needed, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
