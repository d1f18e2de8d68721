/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of /metrics, in Prometheus's format (text/plain; version=0.0.4). The meaning of every
 * number stands in its HELP line, and once more in docs/METRICS.md. Seconds are written by
 * integers: a program's locale may have a comma where the format has a point.
 */
#include "runtime/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const uint64_t SECOND = 1000000000;

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void seconds(FILE *out, uint64_t ns)
{
    fprintf(out, "%" PRIu64 ".%09" PRIu64 "\n", ns / SECOND, ns % SECOND);
}

/* Values of labels come from the environment, and from host names. */
static void label(FILE *out, const char *name, const char *value)
{
    fprintf(out, ",%s=\"", name);
    for (const unsigned char *c = (const unsigned char *)value; *c != '\0'; c++) {
        if (*c == '\n')
            fputs("\\n", out);
        else if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else
            fputc(*c >= 0x20 && *c < 0x7f ? *c : '?', out);
    }
    fputc('"', out);
}

/* ---- sums over all sheets ------------------------------------------------------------------- */

static void add(struct kolo__counter *sum, const struct kolo__counter *counter)
{
    kolo__counter_add(sum, kolo__counter_read(counter));
}

static void add_sheet(struct kolo__sheet *sum, const struct kolo__sheet *sheet)
{
    /* First the parts, then the whole: who counts meanwhile goes the other way. */
    for (int c = 0; c < KOLO__COLLECTIVE_COUNT; c++) {
        for (int b = 0; b <= KOLO__METRICS_BUCKETS; b++)
            add(&sum->timed[c][b], &sheet->timed[c][b]);
        add(&sum->timed_ns[c], &sheet->timed_ns[c]);
        add(&sum->operations[c], &sheet->operations[c]);
        add(&sum->bytes[c], &sheet->bytes[c]);
    }
    for (int p = 0; p < KOLO__PATH_COUNT; p++) {
        add(&sum->traffic[p].sent_bytes, &sheet->traffic[p].sent_bytes);
        add(&sum->traffic[p].received_bytes, &sheet->traffic[p].received_bytes);
    }
    add(&sum->wait_ns, &sheet->wait_ns);
    for (int s = 0; s < KOLO__METRICS_STATUSES; s++)
        add(&sum->failures[s], &sheet->failures[s]);
}

/* ---- families ------------------------------------------------------------------------------- */

static void write_world(FILE *out, const struct kolo__metrics *metrics)
{
    unsigned rank = metrics->rank;
    head(out, "kolo_build_info", "gauge", "1; the version of kolo is a label.");
    fprintf(out, "kolo_build_info{rank=\"%u\",version=\"%s\"} 1\n", rank, kolo_version());
    head(out, "kolo_world_info", "gauge",
         "1; labels say where this rank runs, in which job, and who started it.");
    fprintf(out, "kolo_world_info{rank=\"%u\"", rank);
    label(out, "host", metrics->host_name);
    label(out, "job_id", metrics->job);
    label(out, "launcher", metrics->launcher);
    fputs("} 1\n", out);
    head(out, "kolo_world_size", "gauge", "Ranks of the world.");
    fprintf(out, "kolo_world_size{rank=\"%u\"} %u\n", rank, atomic_load(&metrics->size));
    head(out, "kolo_epoch", "gauge",
         "Generation of the world. 0: the one that the job began with; a job that is started anew "
         "begins with it again.");
    fprintf(out, "kolo_epoch{rank=\"%u\"} %u\n", rank, atomic_load(&metrics->epoch));
}

static void write_by_collective(FILE *out, unsigned rank, const char *name, const char *help,
                                const struct kolo__counter *counters)
{
    head(out, name, "counter", help);
    for (int c = 0; c < KOLO__COLLECTIVE_COUNT; c++)
        fprintf(out, "%s{rank=\"%u\",collective=\"%s\"} %" PRIu64 "\n", name, rank,
                kolo__collective_name((enum kolo__collective)c), kolo__counter_read(&counters[c]));
}

static void write_histogram(FILE *out, unsigned rank, const struct kolo__sheet *sum, int c)
{
    static const char *const limits[KOLO__METRICS_BUCKETS] = {"0.00001", "0.0001", "0.001", "0.01",
                                                              "0.1",     "1",      "10"};
    const char *name = kolo__collective_name((enum kolo__collective)c);
    uint64_t timed = 0, operations = kolo__counter_read(&sum->operations[c]);
    for (int b = 0; b <= KOLO__METRICS_BUCKETS; b++)
        timed += kolo__counter_read(&sum->timed[c][b]);
    /* Those without a time. */
    uint64_t count = operations > timed ? operations - timed : 0;
    for (int b = 0; b <= KOLO__METRICS_BUCKETS; b++) {
        count += kolo__counter_read(&sum->timed[c][b]);
        fprintf(out,
                "kolo_operation_seconds_bucket{rank=\"%u\",collective=\"%s\",le=\"%s\"} %" PRIu64
                "\n",
                rank, name, b < KOLO__METRICS_BUCKETS ? limits[b] : "+Inf", count);
    }
    fprintf(out, "kolo_operation_seconds_sum{rank=\"%u\",collective=\"%s\"} ", rank, name);
    seconds(out, kolo__counter_read(&sum->timed_ns[c]));
    fprintf(out, "kolo_operation_seconds_count{rank=\"%u\",collective=\"%s\"} %" PRIu64 "\n", rank,
            name, count);
}

static void write_operations(FILE *out, unsigned rank, const struct kolo__sheet *sum)
{
    write_by_collective(out, rank, "kolo_operations_total",
                        "Operations that ended well, by collective, since kolo_init. A send and a "
                        "receive are one each.",
                        sum->operations);
    write_by_collective(out, rank, "kolo_operation_bytes_total",
                        "Bytes of these operations: the count of the call times the bytes of its "
                        "dtype.",
                        sum->bytes);
    head(out, "kolo_operation_seconds", "histogram",
         "Time from the begin of an operation to its end on this rank, waits for others included. "
         "Those below 64 KiB that end at the first look, some microseconds at most, are not timed "
         "and count as 0 s; others below 64 KiB are timed from the end of that look.");
    for (int c = 0; c < KOLO__COLLECTIVE_COUNT; c++)
        if (kolo__counter_read(&sum->operations[c]) > 0)
            write_histogram(out, rank, sum, c);
}

static void write_traffic(FILE *out, unsigned rank, const struct kolo__sheet *sum)
{
    static const char *const paths[KOLO__PATH_COUNT] = {[KOLO__PATH_TCP] = "tcp",
                                                        [KOLO__PATH_RDMA] = "rdma",
                                                        [KOLO__PATH_SHM] = "shm",
                                                        [KOLO__PATH_MAPPED] = "mapped"};
    head(out, "kolo_sent_bytes_total", "counter",
         "Bytes sent: tcp, rdma and shm are messages with their headers of kolo, without TLS; "
         "mapped is "
         "what this rank wrote into other ranks' memory.");
    for (int p = 0; p < KOLO__PATH_COUNT; p++)
        fprintf(out, "kolo_sent_bytes_total{rank=\"%u\",transport=\"%s\"} %" PRIu64 "\n", rank,
                paths[p], kolo__counter_read(&sum->traffic[p].sent_bytes));
    head(out, "kolo_received_bytes_total", "counter",
         "Bytes received; mapped is what this rank read in other ranks' memory.");
    for (int p = 0; p < KOLO__PATH_COUNT; p++)
        fprintf(out, "kolo_received_bytes_total{rank=\"%u\",transport=\"%s\"} %" PRIu64 "\n", rank,
                paths[p], kolo__counter_read(&sum->traffic[p].received_bytes));
}

static void write_peers(FILE *out, const struct kolo__metrics *metrics, bool times)
{
    const char *name = times ? "kolo_late_arrivals_total" : "kolo_peer_wait_seconds_total";
    head(out, name, "counter",
         times
             ? "Waits of 100 us and more at whose end this rank waited for that peer. Where ranks "
               "share memory the peer was late; over messages it may itself have waited for "
               "another. The first 64 peers have their own number."
             : "Time of these waits.");
    for (size_t i = 0; i <= KOLO__METRICS_PEERS; i++) {
        const struct kolo__metrics_peer *peer = &metrics->peers[i];
        uint32_t rank_plus_1 = atomic_load_explicit(&peer->rank_plus_1, memory_order_relaxed);
        bool others = i == KOLO__METRICS_PEERS;
        if (!others && rank_plus_1 == 0)
            continue;
        if (others)
            fprintf(out, "%s{rank=\"%u\",peer=\"other\"} ", name, metrics->rank);
        else
            fprintf(out, "%s{rank=\"%u\",peer=\"%u\"} ", name, metrics->rank, rank_plus_1 - 1);
        if (times)
            fprintf(out, "%" PRIu64 "\n", kolo__counter_read(&peer->times));
        else
            seconds(out, kolo__counter_read(&peer->wait_ns));
    }
}

static void write_waits(FILE *out, const struct kolo__metrics *metrics,
                        const struct kolo__sheet *sum)
{
    unsigned rank = metrics->rank;
    head(out, "kolo_wait_seconds_total", "counter",
         "Time in which this rank, or the thread that drives its reducers, waited in an operation "
         "and nothing moved. Waits that end in the first microseconds are left out, and so is who "
         "polls by kolo_test. The rank that waits least is the one that others wait for.");
    fprintf(out, "kolo_wait_seconds_total{rank=\"%u\"} ", rank);
    seconds(out, kolo__counter_read(&sum->wait_ns));
    write_peers(out, metrics, false);
    write_peers(out, metrics, true);
}

static void write_rest(FILE *out, const struct kolo__metrics *metrics,
                       const struct kolo__sheet *sum)
{
    unsigned rank = metrics->rank;
    head(out, "kolo_reducer_steps_total", "counter", "Steps of reducers that ended well.");
    fprintf(out, "kolo_reducer_steps_total{rank=\"%u\"} %" PRIu64 "\n", rank,
            kolo__counter_read(&metrics->reducer_steps));
    head(out, "kolo_reducer_wait_seconds_total", "counter",
         "Time spent in kolo_reducer_wait: the part of communication that computing did not hide.");
    fprintf(out, "kolo_reducer_wait_seconds_total{rank=\"%u\"} ", rank);
    seconds(out, kolo__counter_read(&metrics->reducer_wait_ns));
    head(out, "kolo_failures_total", "counter",
         "Communicators of this rank that broke, by the status that operations on them return "
         "since.");
    for (int s = KOLO_ERR_INVALID; s < KOLO__METRICS_STATUSES; s++)
        fprintf(out, "kolo_failures_total{rank=\"%u\",status=\"%s\"} %" PRIu64 "\n", rank,
                kolo_status_name((kolo_status)s), kolo__counter_read(&sum->failures[s]));
}

char *kolo__metrics_text(void *self, size_t *bytes)
{
    struct kolo__metrics *metrics = self;
    char *text = NULL;
    struct kolo__sheet *sum = calloc(1, sizeof *sum);
    FILE *out = sum != NULL ? open_memstream(&text, bytes) : NULL;
    if (out == NULL) {
        free(sum);
        return NULL;
    }
    pthread_mutex_lock(&metrics->lock);
    for (const struct kolo__sheet *sheet = metrics->sheets; sheet != NULL; sheet = sheet->next) {
        add_sheet(sum, sheet);
        for (const struct kolo__tally *tally = sheet->tallies; tally != NULL; tally = tally->next)
            kolo__metrics_add_tally(sum, tally);
    }
    pthread_mutex_unlock(&metrics->lock);
    write_world(out, metrics);
    write_operations(out, metrics->rank, sum);
    write_traffic(out, metrics->rank, sum);
    write_waits(out, metrics, sum);
    write_rest(out, metrics, sum);
    free(sum);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
