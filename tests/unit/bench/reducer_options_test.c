/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `kolo bench reducer`. */
#include "bench/reducer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { ARGUMENTS_MAX = 16 };

static void parse(const char *line, struct bench_reducer_options *options)
{
    static char copy[256]; /* the options borrow from it */
    char *argv[ARGUMENTS_MAX + 1] = {NULL};
    int argc = 0;
    strncpy(copy, line, sizeof copy - 1);
    for (char *word = strtok(copy, " "); word != NULL && argc < ARGUMENTS_MAX;
         word = strtok(NULL, " "))
        argv[argc++] = word;
    bench_parse_reducer_options(argc, argv, options);
}

static int exit_code(const char *line)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        struct bench_reducer_options options;
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        parse(line, &options);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void defaults_are_everything(void **state)
{
    (void)state;
    struct bench_reducer_options options;
    parse("reducer", &options);
    assert_int_equal(options.model, BENCH_ALL);
    assert_int_equal(options.mode, BENCH_ALL);
    assert_int_equal(options.wire, KOLO_WIRE_SAME);
    assert_true(options.check);
    assert_false(options.overlap);
    assert_int_equal(options.bucket_bytes, 0);
    assert_int_equal(options.rounds, 5);
}

static void words_have_their_values(void **state)
{
    (void)state;
    struct bench_reducer_options options;
    parse("reducer -n 3 --model gpt2 --mode pack --wire fp8_e4m3 --overlap --bucket 4M "
          "--no-check --format json",
          &options);
    assert_int_equal(options.ranks, 3);
    assert_string_equal(bench_models[options.model].name, "gpt2");
    assert_int_equal(options.mode, BENCH_PACK);
    assert_int_equal(options.wire, KOLO_WIRE_FP8_E4M3);
    assert_true(options.overlap);
    assert_int_equal(options.bucket_bytes, 4 << 20);
    assert_false(options.check);
    assert_int_equal(options.format, BENCH_JSON);
}

static void nonsense_is_a_usage_error(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "reducer allreduce",      "reducer --model vgg", "reducer --mode copy",
        "reducer --wire fp4",     "reducer --bucket 0",  "reducer --bucket 4X",
        "reducer --rounds 0",     "reducer --iters -1",  "reducer --seconds 0",
        "reducer --format xml",   "reducer --sizes",     "reducer -n 0",
        "reducer --transport ib",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        int code = exit_code(BAD[i]);
        if (code != 64)
            fail_msg("'%s': exit code %d, expected 64", BAD[i], code);
    }
    assert_int_equal(exit_code("reducer --sizes --model small"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_everything),
        cmocka_unit_test(words_have_their_values),
        cmocka_unit_test(nonsense_is_a_usage_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
