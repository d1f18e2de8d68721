/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/reducer.h"

#include <inttypes.h>

static void table_row(const struct bench_reducer_row *row, bool first, FILE *out)
{
    if (first)
        fprintf(out,
                "# kolo %s: reducer, %d rank%s, transport %s; gradients rewritten before each; "
                "times: p50, the slowest rank's\n"
                "# step: with the reducer; flat: one allreduce of as many bytes, from kolo_alloc "
                "(malloc: from malloc); each: one call per gradient\n"
                "#%8s %5s %8s %7s %11s %7s %10s %10s %10s %10s %-18s %6s %-18s %8s %6s %6s\n",
                kolo_version(), row->ranks, row->ranks == 1 ? "" : "s", row->transport, "model",
                "mode", "wire", "tensors", "bytes", "buckets", "flat us", "malloc us", "step us",
                "each us", "step/flat", "/mallo", "each/step", "exposed", "hidden", "wrong");
    fprintf(out, " %8s %5s %8s %7zu %11zu %7" PRIu64 " %10.1f %10.1f %10.1f %10.1f", row->model,
            bench_mode_name(row->mode), row->wire, row->tensors, row->bytes, row->buckets,
            row->flat * 1e6, row->flat_malloc * 1e6, row->step * 1e6, row->each * 1e6);
    fprintf(out, " %5.3f [%5.3f %5.3f] %5.3f %5.2f [%5.2f %5.2f]", row->step_flat.median,
            row->step_flat.low, row->step_flat.high, row->step_malloc.median, row->each_step.median,
            row->each_step.low, row->each_step.high);
    if (row->overlap)
        fprintf(out, " %8.1f %5.1f%%", row->exposed * 1e6, row->hidden);
    else
        fprintf(out, " %8s %6s", "-", "-");
    if (row->checked)
        fprintf(out, " %6" PRIu64 "\n", row->wrong);
    else
        fputs("      -\n", out);
}

static void csv_row(const struct bench_reducer_row *row, bool first, FILE *out)
{
    if (first)
        fputs("model,mode,wire,transport,ranks,tensors,bytes,buckets,bucket_bytes,collectives,"
              "flat_us_p50,flat_malloc_us_p50,step_us_p50,each_us_p50,"
              "step_flat,step_flat_low,step_flat_high,"
              "step_malloc,step_malloc_low,step_malloc_high,"
              "each_step,each_step_low,each_step_high,exposed_us_p50,hidden_percent,wrong\n",
              out);
    fprintf(out, "%s,%s,%s,%s,%d,%zu,%zu,%" PRIu64 ",%zu,%" PRIu64 ",%.3f,%.3f,%.3f,%.3f,",
            row->model, bench_mode_name(row->mode), row->wire, row->transport, row->ranks,
            row->tensors, row->bytes, row->buckets, row->bucket_bytes, row->collectives,
            row->flat * 1e6, row->flat_malloc * 1e6, row->step * 1e6, row->each * 1e6);
    const struct bench_ratio *ratios[] = {&row->step_flat, &row->step_malloc, &row->each_step};
    for (int i = 0; i < 3; i++)
        fprintf(out, "%.4f,%.4f,%.4f,", ratios[i]->median, ratios[i]->low, ratios[i]->high);
    if (row->overlap)
        fprintf(out, "%.3f,%.2f,", row->exposed * 1e6, row->hidden);
    else
        fputs(",,", out);
    if (row->checked)
        fprintf(out, "%" PRIu64, row->wrong);
    fputc('\n', out);
}

static void json_ratio(const char *name, const struct bench_ratio *ratio, FILE *out)
{
    fprintf(out, "\"%s\": %.4f, \"%s_low\": %.4f, \"%s_high\": %.4f, ", name, ratio->median, name,
            ratio->low, name, ratio->high);
}

static void json_row(const struct bench_reducer_row *row, bool first, FILE *out)
{
    fprintf(out,
            "%s{\"model\": \"%s\", \"mode\": \"%s\", \"wire\": \"%s\", \"transport\": \"%s\", "
            "\"ranks\": %d, \"tensors\": %zu, \"bytes\": %zu, \"buckets\": %" PRIu64
            ", \"bucket_bytes\": %zu, \"collectives\": %" PRIu64 ", \"flat_us_p50\": %.3f, "
            "\"flat_malloc_us_p50\": %.3f, \"step_us_p50\": %.3f, \"each_us_p50\": %.3f, ",
            first ? "[" : ",\n", row->model, bench_mode_name(row->mode), row->wire, row->transport,
            row->ranks, row->tensors, row->bytes, row->buckets, row->bucket_bytes, row->collectives,
            row->flat * 1e6, row->flat_malloc * 1e6, row->step * 1e6, row->each * 1e6);
    json_ratio("step_flat", &row->step_flat, out);
    json_ratio("step_malloc", &row->step_malloc, out);
    json_ratio("each_step", &row->each_step, out);
    if (row->overlap)
        fprintf(out, "\"exposed_us_p50\": %.3f, \"hidden_percent\": %.2f, ", row->exposed * 1e6,
                row->hidden);
    else
        fputs("\"exposed_us_p50\": null, \"hidden_percent\": null, ", out);
    if (row->checked)
        fprintf(out, "\"wrong\": %" PRIu64 "}", row->wrong);
    else
        fputs("\"wrong\": null}", out);
}

void bench_reducer_report(enum bench_format format, const struct bench_reducer_row *row, bool first,
                          FILE *out)
{
    if (format == BENCH_CSV)
        csv_row(row, first, out);
    else if (format == BENCH_JSON)
        json_row(row, first, out);
    else
        table_row(row, first, out);
    fflush(out);
}
