/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The corpus against a folder of known files: sorted, split the same way each time, windows that
 * equal the stream they are cut from, held-out text that is never trained on.
 */
#include "corpus.h"
#include "random.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILES = 200 };

static char folder[] = "corpus_XXXXXX";

static void write_file(const char *name, int bytes, char letter)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    for (int i = 0; i < bytes; i++)
        fputc(letter, file);
    assert_int_equal(fclose(file), 0);
}

/* File i holds i % 50 copies of one letter; so some are empty. */
static int make_files(void **unused)
{
    (void)unused;
    if (!mkdtemp(folder) || chdir(folder) != 0 || mkdir("b", 0700) != 0 || mkdir("a", 0700) != 0)
        return -1;
    for (int i = 0; i < FILES; i++) {
        char name[64];
        snprintf(name, sizeof(name), "%s/file%03d", i % 2 ? "a" : "b", i);
        write_file(name, i % 50, (char)('A' + i % 26));
    }
    return symlink("../a/file049", "b/link");
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int remove_files(void **unused)
{
    (void)unused;
    return chdir("..") != 0 ? -1 : nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static struct corpus opened(const char *first, const char *second, uint64_t held_out_bytes)
{
    char one[64], two[64];
    snprintf(one, sizeof(one), "%s", first);
    snprintf(two, sizeof(two), "%s", second ? second : "");
    char *paths[] = {one, second ? two : NULL, NULL};
    struct corpus corpus;
    assert_int_equal(corpus_open(paths, held_out_bytes, &corpus), 0);
    return corpus;
}

static void files_are_sorted_and_none_is_lost(void **unused)
{
    (void)unused;
    struct corpus corpus = opened("b", "a", 1 << 20);
    const struct span_list *training = &corpus.training, *held_out = &corpus.held_out;
    uint64_t bytes = 0;
    for (int i = 0; i < FILES; i++)
        bytes += (uint64_t)(i % 50);
    assert_int_equal(training->count + held_out->count,
                     FILES - FILES / 50); /* without empty ones */
    assert_int_equal(training->bytes + held_out->bytes, bytes);
    assert_true(held_out->count > 0 && held_out->count < FILES / 5);
    for (size_t i = 1; i < training->count; i++)
        assert_true(strcmp(training->spans[i - 1].path, training->spans[i].path) < 0);
    for (size_t i = 0; i < training->count; i++) {
        assert_null(strstr(training->spans[i].path, "link"));
        for (size_t k = 0; k < held_out->count; k++)
            assert_string_not_equal(training->spans[i].path, held_out->spans[k].path);
    }
    struct corpus again = opened("a", "b", 1 << 20);
    assert_int_equal(again.fingerprint, corpus.fingerprint);
    corpus_close(&again);
    corpus_close(&corpus);
}

static void windows_are_parts_of_the_stream(void **unused)
{
    (void)unused;
    struct corpus corpus = opened("a", "b", 1 << 20);
    uint64_t total = corpus_stream_bytes(&corpus);
    char *stream = malloc(total);
    assert_non_null(stream);
    uint64_t at = 0;
    for (size_t i = 0; i < corpus.training.count; i++) {
        const struct span *span = &corpus.training.spans[i];
        int number = atoi(strstr(span->path, "file") + 4);
        stream[at++] = 0;
        memset(stream + at, 'A' + number % 26, span->bytes);
        at += span->bytes;
    }
    assert_int_equal(at, total);

    const size_t lengths[] = {1, 2, 49, 50, 51, 500, (size_t)total};
    for (size_t k = 0; k < sizeof(lengths) / sizeof(*lengths); k++) {
        size_t length = lengths[k];
        uint8_t *window = malloc(length); /* its size is exact: a sanitizer sees one byte more */
        assert_non_null(window);
        for (uint64_t step = 0; step < 100; step++) {
            uint64_t place = random_at(1, step, 3) % (total - length + 1);
            assert_int_equal(corpus_training_window(&corpus, 1, step, 3, length, window), 0);
            assert_memory_equal(window, stream + place, length);
        }
        free(window);
    }
    free(stream);
    corpus_close(&corpus);
}

static void held_out_text_is_cut_and_exported(void **unused)
{
    (void)unused;
    struct corpus corpus = opened("a", "b", 60);
    assert_true(corpus.held_out.bytes <= 60 && corpus.held_out.bytes > 20);
    uint64_t bytes = 0;
    for (size_t i = 0; i < corpus.held_out.count; i++)
        bytes += corpus.held_out.spans[i].bytes;
    assert_int_equal(bytes, corpus.held_out.bytes);
    assert_int_equal(corpus_export_held_out(&corpus, "exported"), 0);
    struct stat status;
    assert_int_equal(stat("exported", &status), 0);
    assert_int_equal(status.st_size, bytes);
    assert_int_equal(unlink("exported"), 0);
    corpus_close(&corpus);
}

static void one_file_gives_its_tail(void **unused)
{
    (void)unused;
    struct corpus corpus = opened("a/file049", NULL, 1 << 20);
    assert_int_equal(corpus.training.count, 1);
    assert_int_equal(corpus.training.bytes, 45);
    assert_int_equal(corpus.held_out.count, 1);
    assert_int_equal(corpus.held_out.bytes, 4);
    assert_int_equal(corpus.held_out.spans[0].offset, 45);
    corpus_close(&corpus);
}

static void what_is_missing_or_shrinks_is_an_error(void **unused)
{
    (void)unused;
    char absent[] = "absent", name[] = "shrinking";
    char *paths[] = {absent, NULL};
    struct corpus corpus;
    assert_int_equal(corpus_open(paths, 0, &corpus), -1);

    write_file(name, 100, 'x');
    corpus = opened(name, NULL, 0);
    assert_int_equal(truncate(name, 10), 0);
    uint8_t window[91];
    assert_int_equal(corpus_read(&corpus.training.spans[0], 0, 11, window), 0);
    assert_int_equal(corpus_read(&corpus.training.spans[0], 0, 12, window), -1);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(corpus_read(&corpus.training.spans[0], 0, 11, window), -1);
    corpus_close(&corpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_sorted_and_none_is_lost),
        cmocka_unit_test(windows_are_parts_of_the_stream),
        cmocka_unit_test(held_out_text_is_cut_and_exported),
        cmocka_unit_test(one_file_gives_its_tail),
        cmocka_unit_test(what_is_missing_or_shrinks_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
