/* SPDX-License-Identifier: Apache-2.0 */
/* From pipes to lines: what two ranks write, in any pieces, and what comes out. */
#include "launcher/output.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { RANKS = 2, RESULT_BYTES = 1 << 20 };

/* Two ranks' pipes in, one file for stdout and another for stderr. */
struct fixture {
    struct kolo__output *output;
    int out, err;
    int stdout_of[RANKS], stderr_of[RANKS]; /* writing ends */
    char *result;
};

static void make_pipe(int *reading, int *writing)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    *reading = ends[0];
    *writing = ends[1];
}

static struct fixture *make(bool prefix, int out, int err)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->out = out;
    f->err = err;
    f->result = malloc(RESULT_BYTES);
    assert_non_null(f->result);
    assert_int_equal(kolo__output_create(RANKS, &(struct kolo__output_style){.prefix = prefix}, out,
                                         err, &f->output),
                     KOLO_OK);
    for (uint32_t r = 0; r < RANKS; r++) {
        int reading_out, reading_err;
        make_pipe(&reading_out, &f->stdout_of[r]);
        make_pipe(&reading_err, &f->stderr_of[r]);
        kolo__output_add(f->output, r, reading_out, reading_err);
    }
    return f;
}

static struct fixture *make_with_files(bool prefix)
{
    int out = memfd_create("stdout", MFD_CLOEXEC), err = memfd_create("stderr", MFD_CLOEXEC);
    assert_true(out >= 0 && err >= 0);
    return make(prefix, out, err);
}

static void step(struct fixture *f)
{
    struct pollfd fds[2 + 2 * RANKS];
    assert_int_equal(kolo__output_poll_count(f->output), 2 + 2 * RANKS);
    kolo__output_poll_fill(f->output, fds);
    assert_true(poll(fds, 2 + 2 * RANKS, 0) >= 0);
    kolo__output_step(f->output, fds);
}

static void put(struct fixture *f, int fd, const char *text)
{
    size_t bytes = strlen(text);
    assert_int_equal(write(fd, text, bytes), bytes);
    step(f);
}

static void close_ranks(struct fixture *f)
{
    for (int r = 0; r < RANKS; r++) {
        close(f->stdout_of[r]);
        close(f->stderr_of[r]);
    }
    for (int i = 0; i < 64 && kolo__output_is_reading(f->output); i++)
        step(f);
    assert_false(kolo__output_is_reading(f->output));
}

static const char *contents(struct fixture *f, int fd)
{
    ssize_t bytes = pread(fd, f->result, RESULT_BYTES - 1, 0);
    assert_true(bytes >= 0);
    f->result[bytes] = '\0';
    return f->result;
}

static void unmake(struct fixture *f)
{
    kolo__output_free(f->output);
    close(f->out);
    if (f->err != f->out)
        close(f->err);
    free(f->result);
    free(f);
}

static void lines_wait_until_they_are_whole(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(true);
    put(f, f->stdout_of[0], "one ");
    put(f, f->stdout_of[1], "uno ");
    assert_string_equal(contents(f, f->out), "");
    put(f, f->stdout_of[0], "two\nthree\nfo");
    put(f, f->stdout_of[1], "dos\n");
    put(f, f->stderr_of[1], "oh\n");
    put(f, f->stdout_of[0], "ur\n\n");
    close_ranks(f);
    assert_string_equal(contents(f, f->out),
                        "[0] one two\n[0] three\n[1] uno dos\n[0] four\n[0] \n");
    assert_string_equal(contents(f, f->err), "[1] oh\n");
    unmake(f);
}

static void a_last_line_is_completed(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(true);
    put(f, f->stdout_of[0], "end");
    put(f, f->stdout_of[1], "50%\r");
    close_ranks(f);
    assert_string_equal(contents(f, f->out), "[1] 50%\r\n[0] end\n");
    unmake(f);
}

static void progress_lines_pass_at_once(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(true);
    put(f, f->stdout_of[0], "10%\r20%\r");
    assert_string_equal(contents(f, f->out), "[0] 10%\r[0] 20%\r");
    put(f, f->stdout_of[1], "hello\n");
    put(f, f->stdout_of[0], "30%\r");
    put(f, f->stdout_of[0], "\ndone\r\n");
    close_ranks(f);
    assert_string_equal(contents(f, f->out),
                        "[0] 10%\r[0] 20%\r\n[1] hello\n[0] 30%\r\n[0] done\r\n");
    unmake(f);
}

static void a_late_newline_is_not_a_line(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(true);
    put(f, f->stdout_of[0], "text\r");
    put(f, f->stdout_of[1], "other\n");
    put(f, f->stdout_of[0], "\nnext\n");
    close_ranks(f);
    assert_string_equal(contents(f, f->out), "[0] text\r\n[1] other\n[0] next\n");
    unmake(f);
}

/* A long line goes out in pieces: nothing is added while nobody else speaks. */
static void a_long_line_stays_one_line(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(true);
    char piece[1001];
    memset(piece, 'x', 1000);
    piece[1000] = '\0';
    for (int i = 0; i < 200; i++)
        put(f, f->stdout_of[0], piece);
    assert_true(strlen(contents(f, f->out)) >= 64 << 10);
    put(f, f->stdout_of[0], "\n");
    close_ranks(f);
    const char *result = contents(f, f->out);
    assert_int_equal(strlen(result), 4 + 200000 + 1);
    assert_int_equal(strspn(result + 4, "x"), 200000);
    unmake(f);
}

static void a_long_line_is_cut_for_others_between_characters(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(true);
    char piece[1001];
    memset(piece, 'x', 1000);
    piece[1000] = '\0';
    for (int i = 0; i < 65; i++)
        put(f, f->stdout_of[0], piece);
    piece[536] = '\0'; /* 65,536 bytes in all with what follows, its last byte amid a character */
    put(f, f->stdout_of[0], piece + 1);
    put(f, f->stdout_of[0], "\xC3");
    put(f, f->stdout_of[1], "other\n");
    put(f, f->stdout_of[0], "\xA9t\xC3\xA9\n");
    close_ranks(f);
    const char *result = contents(f, f->out);
    assert_int_equal(strspn(result + 4, "x"), 65535);
    assert_string_equal(result + 4 + 65535, "\n[1] other\n[0] \xC3\xA9t\xC3\xA9\n");
    unmake(f);
}

static void without_prefix_bytes_stay_as_they_are(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(false);
    put(f, f->stdout_of[0], "a,b\r\nc,d");
    close_ranks(f);
    assert_string_equal(contents(f, f->out), "a,b\r\nc,d");
    unmake(f);
}

static void one_file_for_both_keeps_lines_apart(void **state)
{
    (void)state;
    int file = memfd_create("both", MFD_CLOEXEC);
    assert_true(file >= 0);
    struct fixture *f = make(true, file, file);
    put(f, f->stdout_of[0], "out\r");
    put(f, f->stderr_of[0], "err\n");
    kolo__output_say(f->output, "launcher");
    close_ranks(f);
    assert_string_equal(contents(f, file), "[0] out\r\n[0] err\nlauncher\n");
    unmake(f);
}

/* A full pipe stops the reading, so that memory stays bounded; nothing is lost once it is emptied.
 */
static void a_slow_reader_stops_the_ranks(void **state)
{
    (void)state;
    int reading, out, err = memfd_create("stderr", MFD_CLOEXEC);
    make_pipe(&reading, &out);
    struct fixture *f = make(true, out, err);
    char line[1024], buffer[65536];
    memset(line, 'y', sizeof line);
    line[sizeof line - 1] = '\n';
    size_t written = 0, taken = 0;
    for (int idle = 0; idle < 4;) {
        ssize_t bytes = write(f->stdout_of[0], line, sizeof line);
        idle = bytes < 0 ? idle + 1 : 0;
        written += bytes > 0 ? (size_t)bytes : 0;
        assert_true(written < 4 << 20);
        step(f);
    }
    close(f->stdout_of[0]);
    for (int turns = 0; turns < 10000 && (kolo__output_is_writing(f->output) || turns < 100);
         turns++) {
        ssize_t bytes = read(reading, buffer, sizeof buffer);
        taken += bytes > 0 ? (size_t)bytes : 0;
        step(f);
    }
    for (ssize_t bytes; (bytes = read(reading, buffer, sizeof buffer)) > 0;)
        taken += (size_t)bytes;
    assert_int_equal(taken, written + written / sizeof line * strlen("[0] "));
    close(reading);
    f->stdout_of[0] = memfd_create("closed already", MFD_CLOEXEC);
    close_ranks(f);
    unmake(f);
}

static void a_closed_reader_is_noticed(void **state)
{
    (void)state;
    int reading, out, err = memfd_create("stderr", MFD_CLOEXEC);
    make_pipe(&reading, &out);
    struct fixture *f = make(true, out, err);
    close(reading);
    put(f, f->stdout_of[0], "nobody hears\n");
    assert_int_equal(kolo__output_failure(f->output), EPIPE);
    put(f, f->stdout_of[1], "still drained\n");
    put(f, f->stderr_of[1], "and heard\n");
    assert_false(kolo__output_is_writing(f->output));
    close_ranks(f);
    assert_string_equal(contents(f, err), "[1] and heard\n");
    unmake(f);
}

/* Somebody who is none of ours keeps the pipe open: what is in it counts, and no more is awaited.
 */
static void finishes_though_a_pipe_stays_open(void **state)
{
    (void)state;
    struct fixture *f = make_with_files(true);
    assert_int_equal(write(f->stdout_of[1], "last\nwords", 10), 10);
    kolo__output_finish(f->output);
    for (int i = 0; i < 4 && kolo__output_is_reading(f->output); i++)
        step(f);
    assert_false(kolo__output_is_reading(f->output));
    assert_string_equal(contents(f, f->out), "[1] last\n[1] words\n");
    close_ranks(f);
    unmake(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_wait_until_they_are_whole),
        cmocka_unit_test(a_last_line_is_completed),
        cmocka_unit_test(progress_lines_pass_at_once),
        cmocka_unit_test(a_late_newline_is_not_a_line),
        cmocka_unit_test(a_long_line_stays_one_line),
        cmocka_unit_test(a_long_line_is_cut_for_others_between_characters),
        cmocka_unit_test(without_prefix_bytes_stay_as_they_are),
        cmocka_unit_test(one_file_for_both_keeps_lines_apart),
        cmocka_unit_test(a_slow_reader_stops_the_ranks),
        cmocka_unit_test(a_closed_reader_is_noticed),
        cmocka_unit_test(finishes_though_a_pipe_stays_open),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
