/* SPDX-License-Identifier: Apache-2.0 */
/* Tuned sizes in files: what was written is read, nothing else is believed, and old ones go. */
#include "runtime/cache_file.h"
#include "runtime/reducer/tune.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char KEY[] = "plan 0123456789abcdef; ranks 2 on 1 hosts; shm; Processor 5; kolo 0.1.0";
static const struct kolo__tuning tuning = {.bucket_bytes = 1 << 20, .segment_bytes = 65536};

static void assert_same(const struct kolo__tuning *a, const struct kolo__tuning *b)
{
    assert_true(a->bucket_bytes == b->bucket_bytes && a->segment_bytes == b->segment_bytes);
}

/* ---- the text ------------------------------------------------------------------------------- */

static void refuse(const char *text, size_t bytes, const char *key)
{
    struct kolo__tuning read = {7, 7};
    if (kolo__tune_parse(text, bytes, key, &read))
        fail_msg("believed: %.*s", (int)bytes, text);
    assert_true(read.bucket_bytes == 7 && read.segment_bytes == 7);
}

static void damage_is_refused(void **state)
{
    (void)state;
    char text[KOLO__TUNE_TEXT_BYTES];
    struct kolo__tuning read;
    size_t bytes = kolo__tune_text(KEY, &tuning, text);
    assert_true(kolo__tune_parse(text, bytes, KEY, &read));
    assert_same(&read, &tuning);
    refuse(text, bytes, "plan 0123456789abcdef; ranks 3 on 1 hosts");
    refuse(text, bytes, "");
    for (size_t i = 0; i < bytes; i++) {
        refuse(text, i, KEY);
        for (int bit = 0; bit < 8; bit++) {
            text[i] = (char)(text[i] ^ 1 << bit);
            refuse(text, bytes, KEY);
            text[i] = (char)(text[i] ^ 1 << bit);
        }
    }
    text[bytes] = '\n';
    refuse(text, bytes + 1, KEY);
}

/* Under a check that is right: who wrote it means to be believed. */
static bool is_believed(const char *bucket, const char *segment)
{
    char text[KOLO__TUNE_TEXT_BYTES];
    struct kolo__tuning read;
    int length =
        snprintf(text, sizeof text, "kolo tuning 1\n%s\nbucket_bytes %s\nsegment_bytes %s\n", KEY,
                 bucket, segment);
    length += snprintf(text + length, sizeof text - (size_t)length, "check %016" PRIx64 "\n",
                       kolo__cache_hash(text, (size_t)length));
    return kolo__tune_parse(text, (size_t)length, KEY, &read);
}

static void numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    static const char *const numbers[] = {"",
                                          "-4096",
                                          "4096.5",
                                          "4e6",
                                          " 4096",
                                          "0x1000",
                                          "+4096",
                                          "4096 ",
                                          "04096",
                                          "1099511627777",
                                          "99999999999999999999999999"};
    assert_true(is_believed("4096", "0"));
    assert_true(is_believed("1099511627776", "1099511627776"));
    assert_false(is_believed("0", "0"));
    assert_false(is_believed("1023", "0"));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_false(is_believed(numbers[i], "0"));
        assert_false(is_believed("4096", numbers[i]));
    }
}

/* ---- the folder ----------------------------------------------------------------------------- */

static char folder[PATH_MAX];

/* A cache of its own for each test; absolute, or it would be ignored. */
static int make_folder(void **state)
{
    (void)state;
    char here[PATH_MAX - 32];
    if (getcwd(here, sizeof here) == NULL)
        return 1;
    snprintf(folder, sizeof folder, "%s/tunings-XXXXXX", here);
    return mkdtemp(folder) == NULL || setenv("XDG_CACHE_HOME", folder, 1) != 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static unsigned count_files(const char *prefix)
{
    char path[PATH_MAX + 8];
    unsigned count = 0;
    snprintf(path, sizeof path, "%s/kolo", folder);
    DIR *opened = opendir(path);
    assert_non_null(opened);
    for (const struct dirent *entry; (entry = readdir(opened)) != NULL;)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(opened);
    return count;
}

/* What goes to stderr while it loads, in lines. */
static bool load_and_count_lines(struct kolo__tuning *read, unsigned *lines)
{
    char text[1024];
    int before = dup(STDERR_FILENO);
    int log = open(folder, O_TMPFILE | O_RDWR, 0600);
    assert_true(before >= 0 && log >= 0 && dup2(log, STDERR_FILENO) >= 0);
    bool loaded = kolo__tune_load(KEY, read);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    ssize_t length = pread(log, text, sizeof text, 0);
    *lines = 0;
    for (ssize_t i = 0; i < length; i++)
        *lines += text[i] == '\n';
    close(log);
    close(before);
    return loaded;
}

static void what_is_saved_is_loaded(void **state)
{
    (void)state;
    struct kolo__tuning read, other = {.bucket_bytes = 4096};
    unsigned lines;
    assert_false(load_and_count_lines(&read, &lines));
    assert_int_equal(lines, 0);
    assert_true(kolo__tune_save(KEY, &tuning));
    assert_true(load_and_count_lines(&read, &lines));
    assert_int_equal(lines, 0);
    assert_same(&read, &tuning);
    assert_false(kolo__tune_load("another plan", &read));
    assert_true(kolo__tune_save(KEY, &other));
    assert_true(kolo__tune_load(KEY, &read));
    assert_same(&read, &other);
    assert_int_equal(count_files("tuning-"), 1); /* drafts are gone */
}

static void a_broken_file_costs_a_line(void **state)
{
    (void)state;
    char path[PATH_MAX];
    struct kolo__tuning read = {7, 7};
    unsigned lines;
    assert_true(kolo__tune_save(KEY, &tuning));
    assert_true(kolo__cache_path("tuning", KEY, path));
    assert_true(kolo__cache_write(path, "kolo", 4));
    assert_false(load_and_count_lines(&read, &lines));
    assert_int_equal(lines, 1);
    assert_int_equal(read.bucket_bytes, 7);
    /* The next search repairs it. */
    assert_true(kolo__tune_save(KEY, &tuning));
    assert_true(load_and_count_lines(&read, &lines));
    assert_int_equal(lines, 0);
}

static void where_nobody_may_write_nothing_is_saved(void **state)
{
    (void)state;
    struct kolo__tuning read;
    setenv("XDG_CACHE_HOME", "/proc/nowhere", 1);
    assert_false(kolo__tune_save(KEY, &tuning));
    assert_false(kolo__tune_load(KEY, &read));
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    assert_false(kolo__tune_save(KEY, &tuning));
    assert_false(kolo__tune_load(KEY, &read));
}

/* Whoever reads finds what one of them wrote, whole. */
static void two_writers_do_no_harm(void **state)
{
    (void)state;
    const struct kolo__tuning written[] = {{4096, 0}, {UINT64_C(1) << 40, UINT64_C(1) << 40}};
    pid_t writers[2];
    assert_true(kolo__tune_save(KEY, &written[0]));
    for (int i = 0; i < 2; i++) {
        writers[i] = fork();
        assert_true(writers[i] >= 0);
        if (writers[i] == 0) {
            int failed = 0;
            for (int k = 0; k < 300; k++)
                failed |= !kolo__tune_save(KEY, &written[i]);
            _exit(failed);
        }
    }
    for (int k = 0; k < 1000; k++) {
        struct kolo__tuning read;
        assert_true(kolo__tune_load(KEY, &read));
        assert_same(&read, &written[read.bucket_bytes == 4096 ? 0 : 1]);
    }
    for (int i = 0; i < 2; i++) {
        int how;
        assert_int_equal(waitpid(writers[i], &how, 0), writers[i]);
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
    assert_int_equal(count_files("tuning-"), 1);
}

/* As if it had been written that long ago. */
static void make_older(const char *path, time_t seconds)
{
    const struct timespec times[] = {{.tv_sec = 1000000000 - seconds},
                                     {.tv_sec = 1000000000 - seconds}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void the_oldest_go(void **state)
{
    (void)state;
    char key[32], path[PATH_MAX], costs[PATH_MAX];
    struct kolo__tuning read;
    /* Of another kind, and older than all. */
    assert_true(kolo__cache_path("costs", KEY, costs));
    assert_true(kolo__cache_write(costs, "x", 1));
    make_older(costs, 10000);
    for (int i = 0; i < KOLO__TUNE_FILES_MAX + 5; i++) {
        snprintf(key, sizeof key, "plan %d", i);
        assert_true(kolo__tune_save(key, &tuning));
        assert_true(kolo__cache_path("tuning", key, path));
        /* Not in the order of their names, nor of their making: plan 50 is the oldest. */
        make_older(path, i == 50 ? 9999 : i < 50 ? i : 1000 - i);
    }
    assert_int_equal(count_files("tuning-"), KOLO__TUNE_FILES_MAX);
    assert_int_equal(count_files("costs-"), 1);
    assert_false(kolo__tune_load("plan 50", &read));
    assert_false(kolo__tune_load("plan 51", &read));
    assert_true(kolo__tune_load("plan 0", &read));
    /* What was saved just now stays, even when its clock stands wrong. */
    assert_true(kolo__tune_load(key, &read));
    make_older(path, 99999);
    kolo__cache_trim(path, 1);
    assert_int_equal(count_files("tuning-"), 1);
    assert_true(kolo__tune_load(key, &read));
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(numbers_out_of_range_are_refused),
        FOLDER_TEST(what_is_saved_is_loaded),
        FOLDER_TEST(a_broken_file_costs_a_line),
        FOLDER_TEST(where_nobody_may_write_nothing_is_saved),
        FOLDER_TEST(two_writers_do_no_harm),
        FOLDER_TEST(the_oldest_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
