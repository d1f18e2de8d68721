/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of progress where there is no terminal, as under `kolo run` with several ranks: one for
 * each second of training whatever a step takes, or one for each so many steps if that was asked
 * for.
 */
#include "progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* Runs `steps` steps of `seconds` each; returns how many lines were on stdout. */
static int lines_of(uint64_t every, int steps, double seconds)
{
    char name[] = "progress_XXXXXX";
    int file = mkstemp(name), kept = dup(STDOUT_FILENO);
    assert_true(file >= 0 && kept >= 0);
    assert_int_equal(unlink(name), 0);
    fflush(stdout);
    assert_int_equal(dup2(file, STDOUT_FILENO), STDOUT_FILENO);

    struct progress progress;
    struct step_report report = {.loss = 1, .tokens = 100, .seconds = seconds};
    int opened = progress_open(NULL, 0, every, &progress);
    for (int i = 0; i < steps; i++) {
        report.step++;
        progress_step(&progress, &report);
    }
    int closed = progress_close(&progress, &report);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    assert_int_equal(opened, 0);
    assert_int_equal(closed, 0);

    int lines = 0;
    char byte;
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    while (read(file, &byte, 1) == 1)
        lines += byte == '\n';
    close(file);
    return lines;
}

static void a_line_comes_every_second(void **unused)
{
    (void)unused;
    assert_int_equal(lines_of(0, 80, 0.125), 10);
    assert_int_equal(lines_of(0, 5, 7), 5); /* a slow step is a line of its own */
    assert_int_equal(lines_of(0, 12, 0.125), 2);
}

static void or_every_so_many_steps(void **unused)
{
    (void)unused;
    assert_int_equal(lines_of(20, 80, 0.125), 4);
    assert_int_equal(lines_of(20, 81, 7), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_comes_every_second),
        cmocka_unit_test(or_every_so_many_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
