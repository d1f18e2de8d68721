/* SPDX-License-Identifier: Apache-2.0 */
/* The formats that programs read, byte by byte: they are stable. */
#include "bench/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* What is printed for these rows; the caller frees it. */
static char *printed(enum bench_format format, const struct bench_row *rows, size_t count)
{
    struct bench_setting setting = {.collective = rows[0].collective,
                                    .format = format,
                                    .transport = "shm",
                                    .ranks = 4,
                                    .hosts = 1,
                                    .check = true,
                                    .cpus_min = 1,
                                    .cpus_max = 1,
                                    .cpus = 8};
    char *text;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    bench_report_begin(&setting, out);
    uint64_t wrong = 0;
    for (size_t i = 0; i < count; i++) {
        bench_report_row(&setting, &rows[i], i == 0, out);
        wrong += rows[i].wrong;
    }
    bench_report_end(&setting, wrong, true, out);
    fclose(out);
    return text;
}

static struct bench_row allreduce_row(void)
{
    return (struct bench_row){.collective = bench_collective_find("allreduce"),
                              .bytes = 4000000,
                              .count = 1000000,
                              .dtype = KOLO_FP32,
                              .op = KOLO_SUM,
                              .in_place = true,
                              .p50 = 0.001,
                              .p99 = 0.0025,
                              .checked = true,
                              .wrong = 3};
}

/* 4 MB in 1 ms are 4 GB/s, and 2 * 3 / 4 of that on the bus. */
static void csv(void **state)
{
    (void)state;
    struct bench_row rows[] = {allreduce_row(), allreduce_row()};
    rows[1].checked = false;
    char *text = printed(BENCH_CSV, rows, 2);
    assert_string_equal(
        text, "collective,transport,ranks,bytes,dtype,op,inplace,time_us_p50,time_us_p99,"
              "algbw_GBps,busbw_GBps,wrong\n"
              "allreduce,shm,4,4000000,fp32,sum,1,1000.000,2500.000,4.000000,6.000000,3\n"
              "allreduce,shm,4,4000000,fp32,sum,1,1000.000,2500.000,4.000000,6.000000,\n");
    free(text);
}

static void json(void **state)
{
    (void)state;
    struct bench_row rows[] = {allreduce_row(), allreduce_row()};
    rows[1].checked = false;
    char *text = printed(BENCH_JSON, rows, 2);
    assert_string_equal(
        text,
        "[\n"
        "{\"collective\": \"allreduce\", \"transport\": \"shm\", \"ranks\": 4, \"bytes\": 4000000, "
        "\"dtype\": \"fp32\", \"op\": \"sum\", \"inplace\": true, \"time_us_p50\": 1000.000, "
        "\"time_us_p99\": 2500.000, \"algbw_GBps\": 4.000000, \"busbw_GBps\": 6.000000, "
        "\"wrong\": 3},\n"
        "{\"collective\": \"allreduce\", \"transport\": \"shm\", \"ranks\": 4, \"bytes\": 4000000, "
        "\"dtype\": \"fp32\", \"op\": \"sum\", \"inplace\": true, \"time_us_p50\": 1000.000, "
        "\"time_us_p99\": 2500.000, \"algbw_GBps\": 4.000000, \"busbw_GBps\": 6.000000, "
        "\"wrong\": null}\n"
        "]\n");
    free(text);
}

static void table_says_how_and_ends_with_wrong_results(void **state)
{
    (void)state;
    struct bench_row row = allreduce_row();
    char *text = printed(BENCH_TABLE, &row, 1);
    assert_non_null(strstr(text, "allreduce, 4 ranks on 1 host, transport shm"));
    assert_non_null(strstr(text, "pinned: each rank to one of 8 CPUs"));
    assert_non_null(strstr(text, "4.000     6.000       3\n"));
    assert_string_equal(text + strlen(text) - strlen("# wrong results: 3\n"),
                        "# wrong results: 3\n");
    free(text);
}

static void a_barrier_has_neither_dtype_nor_bytes(void **state)
{
    (void)state;
    struct bench_row row = {.collective = bench_collective_find("barrier"),
                            .dtype = KOLO_FP32,
                            .op = BENCH_MOVE,
                            .p50 = 2e-6,
                            .p99 = 3e-6,
                            .checked = true};
    char *text = printed(BENCH_CSV, &row, 1);
    assert_non_null(
        strstr(text, "\nbarrier,shm,4,0,none,none,0,2.000,3.000,0.000000,0.000000,0\n"));
    free(text);
}

/* nccl-tests, doc/PERFORMANCE.md. */
static void bus_factors(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double factor;
    } FACTORS[] = {{"allreduce", 1.5}, {"allgather", 0.75}, {"reduce_scatter", 0.75},
                   {"alltoall", 0.75}, {"broadcast", 1},    {"reduce", 1},
                   {"sendrecv", 1}};
    for (size_t i = 0; i < sizeof FACTORS / sizeof *FACTORS; i++)
        assert_true(bench_collective_find(FACTORS[i].name)->bus_factor(4) == FACTORS[i].factor);
}

/* 1 KiB of fp32 over 4 ranks: whole buffers of 256 elements, slices of 64; never none. */
static void bytes_are_of_all_slices(void **state)
{
    (void)state;
    const struct bench_collective *whole = bench_collective_find("allreduce");
    const struct bench_collective *sliced = bench_collective_find("allgather");
    assert_int_equal(bench_collective_count(whole, 1024, KOLO_FP32, 4), 256);
    assert_int_equal(bench_collective_count(sliced, 1024, KOLO_FP32, 4), 64);
    assert_int_equal(bench_collective_bytes(sliced, 64, KOLO_FP32, 4), 1024);
    assert_int_equal(bench_collective_count(whole, 4, KOLO_FP64, 4), 1);
    assert_int_equal(bench_collective_count(sliced, 4, KOLO_FP32, 4), 1);
    assert_int_equal(bench_collective_bytes(sliced, 1, KOLO_FP32, 4), 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv),
        cmocka_unit_test(json),
        cmocka_unit_test(table_says_how_and_ends_with_wrong_results),
        cmocka_unit_test(a_barrier_has_neither_dtype_nor_bytes),
        cmocka_unit_test(bus_factors),
        cmocka_unit_test(bytes_are_of_all_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
