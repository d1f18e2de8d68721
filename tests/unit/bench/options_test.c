/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, the series they make, and arguments that make no sense. */
#include "bench/argument.h"
#include "bench/options.h"
#include "kernels/kernels.h"

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

static void sizes_have_units_of_two(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
    } GOOD[] = {{"0", 0},
                {"4", 4},
                {"64K", 65536},
                {"64k", 65536},
                {"256M", 268435456},
                {"3G", 3221225472},
                {"18446744073709551615", SIZE_MAX},
                {"17179869183G", SIZE_MAX - 1073741823}};
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        size_t bytes = 1;
        assert_true(bench_parse_bytes(GOOD[i].text, &bytes));
        assert_true(bytes == GOOD[i].bytes);
    }
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    static const char *const BAD[] = {"",
                                      "K",
                                      "-1",
                                      " 4",
                                      "+4",
                                      "4KB",
                                      "4 K",
                                      "0x10",
                                      "1.5M",
                                      "4T",
                                      "4KK",
                                      "18446744073709551616",
                                      "17179869184G"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        size_t bytes = 77;
        if (bench_parse_bytes(BAD[i], &bytes))
            fail_msg("'%s' was taken for %zu bytes", BAD[i], bytes);
        assert_int_equal(bytes, 77);
    }
}

static void the_series_ends_at_max(void **state)
{
    (void)state;
    struct bench_options options = {.min_bytes = 4, .max_bytes = 100, .factor = 4};
    assert_int_equal(bench_next_bytes(&options, 4), 16);
    assert_int_equal(bench_next_bytes(&options, 16), 64);
    assert_int_equal(bench_next_bytes(&options, 64), 0);
    options.max_bytes = 256; /* reached exactly: it belongs to the series */
    assert_int_equal(bench_next_bytes(&options, 64), 256);
    assert_int_equal(bench_next_bytes(&options, 256), 0);
    options.max_bytes = SIZE_MAX; /* nothing wraps */
    assert_int_equal(bench_next_bytes(&options, SIZE_MAX / 2), 0);
}

/* bench sees the public header only, so it repeats a rule of the kernels. */
static void the_same_ops_are_defined_as_in_the_library(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++)
        for (int op = 0; op < KOLO_OP_COUNT; op++)
            assert_int_equal(bench_is_defined((kolo_dtype)dtype, (kolo_op)op),
                             kolo__reduction_defined((kolo_dtype)dtype, (kolo_op)op));
}

enum { ARGUMENTS_MAX = 16 };

static int split(char *line, char **argv)
{
    int argc = 0;
    for (char *word = strtok(line, " "); word != NULL && argc < ARGUMENTS_MAX;
         word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    return argc;
}

static void parse(const char *line, struct bench_options *options)
{
    static char copy[256]; /* the options borrow from it */
    char *argv[ARGUMENTS_MAX + 1];
    strncpy(copy, line, sizeof copy - 1);
    int argc = split(copy, argv);
    bench_parse_options(argc, argv, options);
}

/* The exit code of a process that parses the line; 0 when it gets past. */
static int exit_code(const char *line)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        struct bench_options options;
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        parse(line, &options);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void defaults(void **state)
{
    (void)state;
    struct bench_options options;
    parse("bench allgather", &options);
    assert_string_equal(options.collective->name, "allgather");
    assert_int_equal(options.op, BENCH_MOVE);
    assert_int_equal(options.dtype, KOLO_FP32);
    assert_true(options.check);
    assert_false(options.in_place);
    assert_null(options.transport);
    assert_int_equal(options.format, BENCH_TABLE);
}

static void options_and_collective_in_any_order(void **state)
{
    (void)state;
    struct bench_options options;
    parse("bench -n 3 reduce_scatter --dtype all --op=all --format csv", &options);
    assert_string_equal(options.collective->name, "reduce_scatter");
    assert_int_equal(options.ranks, 3);
    assert_int_equal(options.dtype, BENCH_ALL);
    assert_int_equal(options.op, BENCH_ALL);
    assert_int_equal(options.format, BENCH_CSV);
}

static void nonsense_is_a_usage_error(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "bench",
        "bench allreduce broadcast",
        "bench allred",
        "bench allreduce --min 1K --max 1",
        "bench allreduce --min 0",
        "bench allreduce --factor 1",
        "bench allreduce -n 0",
        "bench allreduce -n 2x",
        "bench allreduce --dtype fp31",
        "bench allreduce --op plus",
        "bench allreduce --op xor --dtype fp32",
        "bench allreduce --op premul_sum --dtype int8",
        "bench allgather --op sum",
        "bench alltoall --in-place",
        "bench barrier --dtype int8",
        "bench allreduce --transport udp",
        "bench allreduce --format xml",
        "bench allreduce --seconds 0",
        "bench allreduce --seconds nan",
        "bench allreduce --iters -1",
        "bench allreduce --colour",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        int code = exit_code(BAD[i]);
        if (code != 64)
            fail_msg("'%s': exit code %d, expected 64", BAD[i], code);
    }
    assert_int_equal(exit_code("bench allreduce --op xor --dtype all"), 0);
    assert_int_equal(exit_code("bench broadcast --in-place --op all"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_have_units_of_two),
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(the_series_ends_at_max),
        cmocka_unit_test(the_same_ops_are_defined_as_in_the_library),
        cmocka_unit_test(defaults),
        cmocka_unit_test(options_and_collective_in_any_order),
        cmocka_unit_test(nonsense_is_a_usage_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
