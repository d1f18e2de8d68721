/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint comes back bit for bit, or is refused: cut anywhere, with any bit turned, of another
 * run or of another kind. A refused file is left as it was.
 */
#include "checkpoint.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { COUNT = 100 };
static const char PATH[] = "checkpoint_test.ckpt";
static const struct run_identity IDENTITY = {.layers = 1,
                                             .width = 8,
                                             .heads = 2,
                                             .context = 4,
                                             .batch = 3,
                                             .seed = 5,
                                             .learning_rate = 0.25,
                                             .corpus = 99};

static struct training_state created(bool filled)
{
    struct training_state state;
    assert_int_equal(training_state_create(COUNT, &state), 0);
    for (size_t i = 0; i < 3 * COUNT && filled; i++)
        state.parameters[i] = (float)random_unit(1, i, 0);
    return state;
}

static void save(void)
{
    struct training_state state = created(true);
    state.step = 77;
    state.seconds = 1.5;
    assert_int_equal(checkpoint_save(PATH, &IDENTITY, &state), 0);
    training_state_destroy(&state);
}

static enum checkpoint_result loads(const struct run_identity *identity)
{
    struct training_state state = created(false);
    enum checkpoint_result result = checkpoint_load(PATH, identity, &state);
    training_state_destroy(&state);
    return result;
}

static char *contents(size_t *bytes)
{
    struct stat status;
    assert_int_equal(stat(PATH, &status), 0);
    *bytes = (size_t)status.st_size;
    char *data = malloc(*bytes + 1);
    FILE *file = fopen(PATH, "rb");
    assert_true(data && file);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    fclose(file);
    return data;
}

static void put(const char *data, size_t bytes)
{
    FILE *file = fopen(PATH, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void comes_back_bit_for_bit(void **unused)
{
    (void)unused;
    save();
    struct training_state state = created(true), loaded = created(false);
    assert_int_equal(checkpoint_load(PATH, &IDENTITY, &loaded), CHECKPOINT_OK);
    assert_int_equal(loaded.step, 77);
    assert_true(loaded.seconds == 1.5);
    assert_memory_equal(loaded.parameters, state.parameters, 3 * COUNT * sizeof(float));
    training_state_destroy(&state);
    training_state_destroy(&loaded);
    assert_int_equal(access("checkpoint_test.ckpt.tmp", F_OK), -1);
}

static void replaces_an_older_one_and_a_torn_temporary_file(void **unused)
{
    (void)unused;
    save();
    FILE *torn = fopen("checkpoint_test.ckpt.tmp", "wb");
    assert_non_null(torn);
    assert_int_equal(fclose(torn), 0);
    save();
    assert_int_equal(loads(&IDENTITY), CHECKPOINT_OK);
    unlink(PATH);
    assert_int_equal(loads(&IDENTITY), CHECKPOINT_ABSENT);
}

static void a_torn_or_longer_file_is_refused(void **unused)
{
    (void)unused;
    save();
    size_t bytes, left;
    char *data = contents(&bytes);
    data[bytes] = 0;
    for (size_t cut = 0; cut < bytes; cut++) {
        put(data, cut);
        assert_int_equal(loads(&IDENTITY), CHECKPOINT_REFUSED);
    }
    free(contents(&left));
    assert_int_equal(left, bytes - 1); /* not changed by being refused */
    put(data, bytes + 1);
    assert_int_equal(loads(&IDENTITY), CHECKPOINT_REFUSED);
    put(data, bytes);
    assert_int_equal(loads(&IDENTITY), CHECKPOINT_OK);
    free(data);
}

static void a_turned_bit_is_refused(void **unused)
{
    (void)unused;
    save();
    size_t bytes;
    char *data = contents(&bytes);
    for (size_t at = 0; at < bytes; at++) {
        data[at] ^= (char)(1 << at % 8);
        put(data, bytes);
        assert_int_equal(loads(&IDENTITY), CHECKPOINT_REFUSED);
        data[at] ^= (char)(1 << at % 8);
    }
    free(data);
}

static void another_run_or_kind_is_refused(void **unused)
{
    (void)unused;
    save();
    struct run_identity other[8];
    for (size_t i = 0; i < 8; i++)
        other[i] = IDENTITY;
    other[0].layers++;
    other[1].width++;
    other[2].heads++;
    other[3].context++;
    other[4].batch++;
    other[5].seed++;
    other[6].learning_rate *= 2;
    other[7].corpus++;
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(loads(&other[i]), CHECKPOINT_REFUSED);

    struct training_state larger;
    assert_int_equal(training_state_create(COUNT + 1, &larger), 0);
    assert_int_equal(checkpoint_load(PATH, &IDENTITY, &larger), CHECKPOINT_REFUSED);
    training_state_destroy(&larger);

    char foreign[4096] = "#!/bin/sh\n";
    put(foreign, sizeof(foreign));
    assert_int_equal(loads(&IDENTITY), CHECKPOINT_REFUSED);
    unlink(PATH);
}

static void a_place_that_cannot_be_written_is_an_error(void **unused)
{
    (void)unused;
    struct training_state state = created(true);
    assert_int_equal(checkpoint_save("absent/folder.ckpt", &IDENTITY, &state), -1);
    training_state_destroy(&state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_bit_for_bit),
        cmocka_unit_test(replaces_an_older_one_and_a_torn_temporary_file),
        cmocka_unit_test(a_torn_or_longer_file_is_refused),
        cmocka_unit_test(a_turned_bit_is_refused),
        cmocka_unit_test(another_run_or_kind_is_refused),
        cmocka_unit_test(a_place_that_cannot_be_written_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
