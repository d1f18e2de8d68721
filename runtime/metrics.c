/* SPDX-License-Identifier: Apache-2.0 */
/* See metrics.h: sheets, and what is written on them. */
#include "runtime/metrics.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/module.h"
#include "base/socket.h"
#include "base/status.h"
#include "runtime/comm.h"
#include "runtime/offload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A shorter wait is counted as time, but its peer was not late. */
static const uint64_t LATE_NS = 100000;

/* Such an operation is worth two readings of a clock, however it goes. */
enum { LONG_BYTES = 64 * 1024 };

/* ---- where ---------------------------------------------------------------------------------- */

static kolo_status bad_place(const char *option)
{
    return kolo__error(
        KOLO_ERR_CONFIG,
        "KOLO_METRICS_PORT=%s: give a port from 1 to 65535, with an address in front "
        "(0.0.0.0:9700, [::1]:9700, *:9700) or without; or 0 for no metrics",
        option);
}

kolo_status kolo__metrics_place(const char *option, bool in_pod, char *host, size_t bytes,
                                int *port)
{
    char port_text[16] = "";
    long number;
    *port = 0;
    snprintf(host, bytes, "%s", in_pod ? "*" : "127.0.0.1");
    if (option[0] == '\0') {
        *port = in_pod ? KOLO__METRICS_PORT : 0;
        return KOLO_OK;
    }
    bool alone = strchr(option, ':') == NULL;
    if (!alone &&
        kolo__split_host_port(option, host, bytes, port_text, sizeof port_text) != KOLO_OK)
        return bad_place(option);
    if (!kolo__parse_number(alone ? option : port_text, false, &number) || number < !alone ||
        number > UINT16_MAX)
        return bad_place(option);
    *port = (int)number;
    return KOLO_OK;
}

/* ---- sheets --------------------------------------------------------------------------------- */

static struct kolo__sheet *take_sheet(struct kolo__metrics *metrics)
{
    pthread_mutex_lock(&metrics->lock);
    struct kolo__sheet *sheet = metrics->sheets;
    while (sheet != NULL && sheet->taken)
        sheet = sheet->next;
    if (sheet == NULL && (sheet = calloc(1, sizeof *sheet)) != NULL) {
        sheet->lock = &metrics->lock;
        sheet->next = metrics->sheets;
        metrics->sheets = sheet;
    }
    if (sheet != NULL)
        sheet->taken = true;
    pthread_mutex_unlock(&metrics->lock);
    return sheet;
}

kolo_status kolo__metrics_attach(kolo_comm *comm)
{
    struct kolo__metrics *metrics = comm->context->metrics;
    if (metrics == NULL || metrics->server == NULL)
        return KOLO_OK;
    comm->sheet = take_sheet(metrics);
    if (comm->sheet == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the metrics of a communicator");
    comm->plan_context.sheet = comm->sheet;
    kolo__plan_cache_clear(&comm->plans); /* those without tallies */
    for (int i = 0; i < KOLO__PATH_MAPPED; i++)
        if (comm->paths[i] != NULL)
            comm->paths[i]->traffic = &comm->sheet->traffic[i];
    return KOLO_OK;
}

void kolo__metrics_detach(kolo_comm *comm)
{
    struct kolo__metrics *metrics = comm->context->metrics;
    if (comm->sheet == NULL)
        return;
    pthread_mutex_lock(&metrics->lock);
    comm->sheet->taken = false;
    pthread_mutex_unlock(&metrics->lock);
    comm->sheet = NULL;
}

/* ---- counting ------------------------------------------------------------------------------- */

void kolo__metrics_count_message(const kolo_request *request)
{
    struct kolo__sheet *sheet = request->comm->sheet;
    const struct kolo__signature *signature = &request->signature;
    kolo__counter_add(&sheet->operations[KOLO__POINT_TO_POINT], 1);
    kolo__counter_add(&sheet->bytes[KOLO__POINT_TO_POINT],
                      signature->count * kolo_dtype_bytes(signature->dtype));
}

void kolo__metrics_count_time(const kolo_request *request)
{
    struct kolo__sheet *sheet = request->comm->sheet;
    unsigned collective = request->signature.collective, bucket = 0;
    uint64_t ns = kolo__now_ns(&kolo__real_clock) - request->began_ns;
    for (uint64_t limit = 10000; bucket < KOLO__METRICS_BUCKETS && ns > limit; limit *= 10)
        bucket++;
    kolo__counter_add(&sheet->timed[collective][bucket], 1);
    kolo__counter_add(&sheet->timed_ns[collective], ns);
}

void kolo__metrics_add_tally(struct kolo__sheet *sum, const struct kolo__tally *tally)
{
    uint64_t runs = kolo__counter_read(&tally->runs);
    kolo__counter_add(&sum->operations[tally->collective], runs);
    kolo__counter_add(&sum->bytes[tally->collective], runs * tally->bytes);
    kolo__counter_add(&sum->traffic[KOLO__PATH_MAPPED].sent_bytes, runs * tally->sent);
    kolo__counter_add(&sum->traffic[KOLO__PATH_MAPPED].received_bytes, runs * tally->received);
}

void kolo__tally_begin(struct kolo__tally *tally, struct kolo__sheet *sheet)
{
    tally->is_long = tally->bytes >= LONG_BYTES;
    tally->sheet = sheet;
    pthread_mutex_lock(sheet->lock);
    tally->next = sheet->tallies;
    sheet->tallies = tally;
    pthread_mutex_unlock(sheet->lock);
}

void kolo__tally_end(struct kolo__tally *tally)
{
    struct kolo__sheet *sheet = tally->sheet;
    if (sheet == NULL)
        return;
    pthread_mutex_lock(sheet->lock);
    struct kolo__tally **link = &sheet->tallies;
    while (*link != tally)
        link = &(*link)->next;
    *link = tally->next;
    kolo__metrics_add_tally(sheet, tally);
    pthread_mutex_unlock(sheet->lock);
    tally->sheet = NULL;
}

/* First come, first served: whoever is there stays, so that no number goes away. */
static struct kolo__metrics_peer *find_peer(struct kolo__metrics *metrics, uint32_t rank)
{
    for (size_t i = 0; i < KOLO__METRICS_PEERS; i++) {
        struct kolo__metrics_peer *peer = &metrics->peers[i];
        uint32_t seen = atomic_load_explicit(&peer->rank_plus_1, memory_order_relaxed);
        if (seen == 0 && atomic_compare_exchange_strong(&peer->rank_plus_1, &seen, rank + 1))
            seen = rank + 1;
        if (seen == rank + 1)
            return peer;
    }
    return &metrics->peers[KOLO__METRICS_PEERS];
}

void kolo__metrics_waited(kolo_comm *comm, uint64_t ns, int peer, bool again)
{
    kolo__counter_add(&comm->sheet->wait_ns, ns);
    if (peer < 0 || (uint32_t)peer >= comm->size || (ns < LATE_NS && !again))
        return;
    struct kolo__metrics_peer *late =
        find_peer(comm->context->metrics, comm->world_ranks[(uint32_t)peer]);
    kolo__counter_add_shared(&late->wait_ns, ns);
    kolo__counter_add_shared(&late->times, !again);
}

int kolo__metrics_peer(const kolo_comm *comm)
{
    const kolo_request *request = comm->first;
    while (request != NULL && !request->begun)
        request = request->next;
    if (request == NULL)
        return -1;
    if (request->kind != KOLO__REQUEST_COLLECTIVE)
        return (int)request->peer;
    return request->plan->program != NULL ? kolo__run_waiting_for(request->plan->program)
                                          : kolo__offload_waiting_for(request);
}

void kolo__metrics_failed(const kolo_comm *comm, kolo_status status)
{
    if (status > KOLO_OK && (unsigned)status < KOLO__METRICS_STATUSES)
        kolo__counter_add(&comm->sheet->failures[status], 1);
}

/* ---- begin and end -------------------------------------------------------------------------- */

kolo_status kolo__metrics_load(const struct kolo__metrics_module **module)
{
    static const struct kolo__module description = {
        .name = "metrics",
        .file = "libkolo-metrics.so.0",
        .symbol = "kolo__metrics_module",
        .version = KOLO__METRICS_MODULE_VERSION,
    };
    const void *table = NULL;
    kolo_status status = kolo__module_load(&description, &table);
    *module = table;
    return status;
}

kolo_status kolo__metrics_serve(const struct kolo__metrics_module *module, const char *host,
                                int port, char *(*text)(void *self, size_t *bytes), void *self,
                                struct kolo__metrics_server **server)
{
    struct kolo__address bound;
    char address[80];
    int fd;
    kolo_status status = kolo__listen(host, port, &fd, &bound);
    if (status != KOLO_OK)
        return status;
    *server = module->start(fd, text, self);
    if (*server == NULL) {
        close(fd);
        return kolo__error(KOLO_ERR_SYSTEM, "the server did not begin");
    }
    kolo__log(KOLO__LOG_INFO, "metrics at http://%s/metrics",
              kolo__address_text(&bound, address, sizeof address));
    return KOLO_OK;
}

kolo_status kolo__metrics_prepare(kolo_context *context)
{
    struct kolo__metrics place;
    const char *option = context->config.metrics_port;
    bool in_pod = getenv("KUBERNETES_SERVICE_HOST") != NULL;
    kolo_status status =
        kolo__metrics_place(option, in_pod, place.host, sizeof place.host, &place.port);
    if (status != KOLO_OK || place.port == 0)
        return status;
    status = kolo__metrics_load(&place.module);
    if (status != KOLO_OK && option[0] == '\0') {
        kolo__log(KOLO__LOG_INFO, "no metrics: %s", kolo_error_text());
        return KOLO_OK;
    }
    if (status != KOLO_OK) {
        char why[300];
        snprintf(why, sizeof why, "%s", kolo_error_text());
        return kolo__error(
            status,
            "KOLO_METRICS_PORT=%s: %s. Install libmicrohttpd-dev and build kolo with "
            "it, or set KOLO_METRICS_PORT=0",
            option, why);
    }
    struct kolo__metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for metrics");
    memcpy(metrics->host, place.host, sizeof metrics->host);
    metrics->port = place.port;
    metrics->module = place.module;
    pthread_mutex_init(&metrics->lock, NULL);
    context->metrics = metrics;
    return KOLO_OK;
}

static kolo_status serve(struct kolo__metrics *metrics, uint32_t local_rank)
{
    if (metrics->port + (long)local_rank > UINT16_MAX)
        return kolo__error(KOLO_ERR_CONFIG, "port %d and local rank %u are more than 65535",
                           metrics->port, local_rank);
    return kolo__metrics_serve(metrics->module, metrics->host, metrics->port + (int)local_rank,
                               kolo__metrics_text, metrics, &metrics->server);
}

kolo_status kolo__metrics_open(kolo_context *context)
{
    struct kolo__metrics *metrics = context->metrics;
    const struct kolo__launch *launch = &context->launch;
    if (metrics == NULL)
        return KOLO_OK;
    atomic_store(&metrics->size, context->size);
    atomic_store(&metrics->epoch, context->epoch);
    if (metrics->server != NULL) /* of an earlier epoch */
        return KOLO_OK;
    metrics->rank = context->rank;
    snprintf(metrics->job, sizeof metrics->job, "%s", context->job);
    snprintf(metrics->launcher, sizeof metrics->launcher, "%s", launch->source);
    snprintf(metrics->host_name, sizeof metrics->host_name, "%s", kolo__host_name());
    kolo_status status = serve(metrics, launch->local_rank >= 0 ? (uint32_t)launch->local_rank
                                                                : context->world->local_rank);
    if (status != KOLO_OK) { /* no job fails for that */
        kolo__log(KOLO__LOG_WARN, "no metrics of this rank: %s (KOLO_METRICS_PORT)",
                  kolo_error_text());
        kolo__metrics_close(context);
        return KOLO_OK;
    }
    return kolo__metrics_attach(context->world);
}

void kolo__metrics_close(kolo_context *context)
{
    struct kolo__metrics *metrics = context->metrics;
    if (metrics == NULL)
        return;
    if (metrics->server != NULL)
        metrics->module->stop(metrics->server);
    for (struct kolo__sheet *sheet = metrics->sheets, *next; sheet != NULL; sheet = next) {
        next = sheet->next;
        free(sheet);
    }
    pthread_mutex_destroy(&metrics->lock);
    free(metrics);
    context->metrics = NULL;
}
