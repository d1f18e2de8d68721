/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/report.h"

#include <inttypes.h>

static const char *dtype_word(const struct bench_row *row)
{
    return row->collective->moves_data ? kolo_dtype_name(row->dtype) : "none";
}

static const char *op_word(const struct bench_row *row)
{
    return row->op == BENCH_MOVE ? "none" : kolo_op_name((kolo_op)row->op);
}

static const char *bytes_meaning(const struct bench_collective *collective)
{
    if (!collective->moves_data)
        return "none are moved";
    if (collective->send_slices && collective->recv_slices)
        return "all ranks' slices, sent and received by each rank";
    if (collective->send_slices)
        return "all ranks' slices, the input of each rank";
    if (collective->recv_slices)
        return "all ranks' slices, the output of each rank";
    return "the buffer of each rank";
}

static void table_begin(const struct bench_setting *setting, FILE *out)
{
    static const char *const memories[] = {"kolo_alloc", "malloc", "a GPU's memory"};
    fprintf(out, "# kolo %s: %s, %d rank%s on %d host%s, transport %s\n", kolo_version(),
            setting->collective->name, setting->ranks, setting->ranks == 1 ? "" : "s",
            setting->hosts, setting->hosts == 1 ? "" : "s", setting->transport);
    if (setting->cpus_max == 1)
        fprintf(out, "# pinned: each rank to one of %d CPUs", setting->cpus);
    else if (setting->cpus_min < setting->cpus)
        fprintf(out, "# pinned: each rank to %d to %d of %d CPUs", setting->cpus_min,
                setting->cpus_max, setting->cpus);
    else
        fprintf(out, "# not pinned: each rank may use all %d CPUs", setting->cpus);
    fprintf(out, "; buffers from %s; inputs %s\n", memories[setting->memory],
            setting->rewrite ? "rewritten before each operation" : "left alone between operations");
    fprintf(out, "# bytes: %s; times: the slowest rank's; GB = 1e9 bytes\n",
            bytes_meaning(setting->collective));
    fprintf(out, "#%13s %13s %6s %10s %5s %10s %12s %9s %9s %7s\n", "bytes", "count", "dtype", "op",
            "in", "p50 us", "p99 us", "algbw", "busbw", "wrong");
    fprintf(out, "#%13s %13s %6s %10s %5s %10s %12s %9s %9s %7s\n", "", "elements", "", "", "place",
            "", "", "GB/s", "GB/s", "");
}

static void table_row(const struct bench_setting *setting, const struct bench_row *row, FILE *out)
{
    char wrong[24] = "-";
    if (row->checked)
        snprintf(wrong, sizeof wrong, "%" PRIu64, row->wrong);
    fprintf(out, " %13zu %13zu %6s %10s %5s %10.2f %12.2f %9.3f %9.3f %7s\n", row->bytes,
            row->count, dtype_word(row), op_word(row), row->in_place ? "yes" : "no", row->p50 * 1e6,
            row->p99 * 1e6, bench_algorithm_bandwidth(row),
            bench_bus_bandwidth(row, setting->ranks), wrong);
}

static void csv_row(const struct bench_setting *setting, const struct bench_row *row, FILE *out)
{
    fprintf(out, "%s,%s,%d,%zu,%s,%s,%d,%.3f,%.3f,%.6f,%.6f,", row->collective->name,
            setting->transport, setting->ranks, row->bytes, dtype_word(row), op_word(row),
            row->in_place, row->p50 * 1e6, row->p99 * 1e6, bench_algorithm_bandwidth(row),
            bench_bus_bandwidth(row, setting->ranks));
    if (row->checked)
        fprintf(out, "%" PRIu64, row->wrong);
    fputc('\n', out);
}

static void json_row(const struct bench_setting *setting, const struct bench_row *row, FILE *out)
{
    fprintf(out,
            "{\"collective\": \"%s\", \"transport\": \"%s\", \"ranks\": %d, \"bytes\": %zu, "
            "\"dtype\": \"%s\", \"op\": \"%s\", \"inplace\": %s, \"time_us_p50\": %.3f, "
            "\"time_us_p99\": %.3f, \"algbw_GBps\": %.6f, \"busbw_GBps\": %.6f, \"wrong\": ",
            row->collective->name, setting->transport, setting->ranks, row->bytes, dtype_word(row),
            op_word(row), row->in_place ? "true" : "false", row->p50 * 1e6, row->p99 * 1e6,
            bench_algorithm_bandwidth(row), bench_bus_bandwidth(row, setting->ranks));
    if (row->checked)
        fprintf(out, "%" PRIu64 "}", row->wrong);
    else
        fputs("null}", out);
}

void bench_report_begin(const struct bench_setting *setting, FILE *out)
{
    if (setting->format == BENCH_CSV)
        fputs("collective,transport,ranks,bytes,dtype,op,inplace,time_us_p50,time_us_p99,"
              "algbw_GBps,busbw_GBps,wrong\n",
              out);
    else if (setting->format == BENCH_JSON)
        fputs("[", out);
    else
        table_begin(setting, out);
    fflush(out);
}

void bench_report_row(const struct bench_setting *setting, const struct bench_row *row, bool first,
                      FILE *out)
{
    if (setting->format == BENCH_CSV) {
        csv_row(setting, row, out);
    } else if (setting->format == BENCH_JSON) {
        fputs(first ? "\n" : ",\n", out);
        json_row(setting, row, out);
    } else {
        table_row(setting, row, out);
    }
    fflush(out);
}

void bench_report_end(const struct bench_setting *setting, uint64_t wrong, bool complete, FILE *out)
{
    if (setting->format == BENCH_JSON)
        fputs("\n]\n", out);
    else if (setting->format == BENCH_TABLE && !complete)
        fputs("# cut short by an error\n", out);
    else if (setting->format == BENCH_TABLE && setting->check)
        fprintf(out, "# wrong results: %" PRIu64 "\n", wrong);
    fflush(out);
}
