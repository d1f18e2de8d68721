/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/streams.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "collectives/transport/tcp.h"
#include "runtime/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TAG_PORTS = 2, /* of kolo__control_exchange; 1 is world.c's */
    TAG_RATES = 3,
    WAYS = 2,      /* few streams, and many */
    IN_FLIGHT = 2, /* messages each way */
    MESSAGE_BYTES = 256 * 1024,
    COMM_BASE = 2, /* ids that no other communicator has yet; with another port each */
};
static const uint32_t streams_of[WAYS] = {1, 4};
static const uint64_t window_ns = 20000000;   /* of measuring, from the first byte on */
static const uint64_t patience_ns = 40000000; /* until the first byte, for each way */

struct probe {
    kolo_context *context;
    uint32_t hosts, host;
    bool leads, failed;
    uint32_t *leaders; /* by host: its lowest rank */
    struct kolo__endpoint *endpoints[WAYS];
    int listeners[WAYS];
    uint64_t start_ns;      /* of measuring */
    uint64_t slowest[WAYS]; /* bytes per second; 0: not measured everywhere */
    unsigned char *memory;
    struct kolo__transport *transports[WAYS];
    /* Theirs until they are closed. */
    struct kolo__post sends[WAYS][IN_FLIGHT], recvs[WAYS][IN_FLIGHT];
};

/* All ranks know the same, so all answer the same. */
static bool worth_while(const kolo_context *context, uint32_t hosts)
{
    if (context->config.streams > 0 || hosts < 2 || context->rdma != NULL)
        return false;
    for (uint32_t r = 0; r < context->size; r++) {
        const struct kolo__endpoint *endpoint = &context->endpoints[r];
        if (endpoint->count == 0 || kolo__address_is_loopback(&endpoint->addresses[0]))
            return false;
    }
    return true;
}

/* ---- where the leaders listen --------------------------------------------------------------- */

static void read_ports(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    struct probe *probe = self;
    uint32_t host = probe->context->host_of[rank];
    if (probe->leaders[host] != rank)
        return;
    probe->failed |= bytes != 2 * WAYS;
    for (int way = 0; way < WAYS && bytes == 2 * WAYS; way++) {
        struct kolo__endpoint *endpoint = &probe->endpoints[way][host];
        *endpoint = probe->context->endpoints[rank];
        for (uint32_t a = 0; a < endpoint->count; a++)
            kolo__address_set_port(&endpoint->addresses[a], kolo__load_u16(blob + 2 * way));
    }
}

static kolo_status exchange_ports(struct probe *probe, uint64_t deadline_ns)
{
    unsigned char blob[2 * WAYS];
    size_t bytes = 0;
    kolo_status status = KOLO_OK;
    uint16_t port = 0;
    for (int way = 0; probe->leads && way < WAYS && status == KOLO_OK; way++) {
        status = kolo__context_listen(probe->context, &probe->listeners[way], &port);
        kolo__store_u16(blob + 2 * way, port);
    }
    if (probe->leads && status == KOLO_OK)
        bytes = sizeof blob;
    return kolo__control_exchange(probe->context->control, TAG_PORTS, blob, bytes, deadline_ns,
                                  read_ports, probe);
}

/* ---- measuring ------------------------------------------------------------------------------ */

static kolo_status create(struct probe *probe, int way)
{
    const kolo_context *context = probe->context;
    const struct kolo__tcp_options options = {
        .rank = probe->host,
        .size = probe->hosts,
        .comm = COMM_BASE + (uint32_t)way,
        .job = context->job,
        .token = context->token,
        .encrypt = context->config.encrypt == 1,
        .checksum = context->config.checksum == 1,
        .listen_fd = probe->listeners[way],
        .endpoints = probe->endpoints[way],
        .own_interfaces = &context->interfaces,
        .streams = streams_of[way],
        .quiet = true,
        .connect_timeout_ns = 1000000000,
    };
    probe->listeners[way] = -1;
    return kolo__tcp_create(&options, &probe->transports[way]);
}

/* Sends to the next host and receives from the one before. Returns bytes received per second, 0: it
 * came to nothing. */
static uint64_t measure(struct probe *probe, int way)
{
    static const struct kolo__signature signature = {.sequence = 1, .collective = KOLO__BARRIER};
    struct kolo__post *sends = probe->sends[way], *recvs = probe->recvs[way];
    struct kolo__transport *transport = probe->transports[way];
    uint32_t next = (probe->host + 1) % probe->hosts;
    uint32_t before = (probe->host + probe->hosts - 1) % probe->hosts;
    uint64_t latest_ns = probe->start_ns + (uint64_t)(way + 1) * patience_ns;
    uint64_t now_ns = 0, first_ns = 0;
    uint64_t whole = 0, first_bytes = 0, received = 0; /* bytes; whole: of complete messages */
    for (int i = 0; i < IN_FLIGHT; i++) {
        unsigned char *memory = probe->memory + (size_t)i * MESSAGE_BYTES;
        sends[i] = recvs[i] =
            (struct kolo__post){.data = memory, .bytes = MESSAGE_BYTES, .signature = &signature};
        recvs[i].data = memory + (size_t)IN_FLIGHT * MESSAGE_BYTES;
        transport->ops->post_recv(transport, before, &recvs[i]);
        transport->ops->post_send(transport, next, &sends[i]);
    }
    /* The first message of each direction is the oldest of its kind. */
    for (unsigned sent = 0, taken = 0; transport->fault.status == KOLO_OK;) {
        transport->ops->progress(transport);
        if (sends[sent % IN_FLIGHT].complete)
            transport->ops->post_send(transport, next, &sends[sent++ % IN_FLIGHT]);
        struct kolo__post *oldest = &recvs[taken % IN_FLIGHT];
        received = whole + oldest->bytes_done;
        if (oldest->complete) {
            whole += MESSAGE_BYTES;
            taken++;
            transport->ops->post_recv(transport, before, oldest);
        }
        now_ns = kolo__now_ns(&kolo__real_clock);
        if (first_ns == 0 && received > 0) {
            first_ns = now_ns;
            first_bytes = received;
        }
        if (first_ns == 0 ? now_ns >= latest_ns : now_ns >= first_ns + window_ns)
            break;
    }
    if (first_ns == 0 || now_ns < first_ns + window_ns || now_ns == first_ns)
        return 0;
    return (received - first_bytes) * 1000000000u / (now_ns - first_ns);
}

static void measure_all(struct probe *probe, uint64_t rates[WAYS])
{
    probe->start_ns = kolo__now_ns(&kolo__real_clock);
    probe->memory = calloc(2 * IN_FLIGHT, MESSAGE_BYTES);
    for (int way = 0; way < WAYS; way++) {
        rates[way] = 0;
        if (probe->memory != NULL && create(probe, way) == KOLO_OK)
            rates[way] = measure(probe, way);
    }
}

static void read_rates(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    struct probe *probe = self;
    if (probe->leaders[probe->context->host_of[rank]] != rank)
        return;
    for (int way = 0; way < WAYS; way++) {
        uint64_t rate = bytes == 8 * WAYS ? kolo__load_u64(blob + 8 * way) : 0;
        if (rate < probe->slowest[way])
            probe->slowest[way] = rate;
    }
}

static kolo_status exchange_rates(struct probe *probe, uint64_t deadline_ns)
{
    unsigned char blob[8 * WAYS];
    uint64_t rates[WAYS];
    if (probe->leads && !probe->failed)
        measure_all(probe, rates);
    for (int way = 0; way < WAYS; way++) {
        probe->slowest[way] = UINT64_MAX;
        kolo__store_u64(blob + 8 * way, probe->leads && !probe->failed ? rates[way] : 0);
    }
    /* Nobody closes what the others still measure with: all are here before anybody goes on. */
    return kolo__control_exchange(probe->context->control, TAG_RATES, blob,
                                  probe->leads ? sizeof blob : 0, deadline_ns, read_rates, probe);
}

uint32_t kolo__streams_choose(uint64_t few_rate, uint64_t many_rate)
{
    /* 1.5 times: what a limit costs is more, noise less. */
    bool faster = few_rate > 0 && many_rate / 3 >= few_rate / 2;
    return streams_of[faster ? 1 : 0];
}

static const char *rate_text(uint64_t rate, char text[32])
{
    if (rate == 0)
        return "not measured in time";
    snprintf(text, 32, "%.1f MB/s", (double)rate / 1e6);
    return text;
}

static void choose(struct probe *probe)
{
    char few[32], many[32];
    probe->context->streams = kolo__streams_choose(probe->slowest[0], probe->slowest[1]);
    if (probe->context->rank == 0)
        kolo__log(KOLO__LOG_INFO, "streams: %u (the slowest link: %s with %u, %s with %u)",
                  probe->context->streams, rate_text(probe->slowest[0], few), streams_of[0],
                  rate_text(probe->slowest[1], many), streams_of[1]);
}

/* ---- later epochs --------------------------------------------------------------------------- */

static void read_streams(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    kolo_context *context = self;
    if (rank == 0 && bytes == 4)
        context->streams = kolo__load_u32(blob);
}

/* Rank 0 has been in the epoch before, so it knows what was found then; newcomers do not. */
static kolo_status inherit(kolo_context *context, uint64_t deadline_ns)
{
    unsigned char blob[4];
    kolo__store_u32(blob, context->streams);
    return kolo__control_exchange(context->control, TAG_PORTS, blob, sizeof blob, deadline_ns,
                                  read_streams, context);
}

kolo_status kolo__streams_find(kolo_context *context, uint64_t deadline_ns)
{
    struct probe probe = {.context = context, .listeners = {-1, -1}};
    if (context->config.streams > 0 || context->epoch == 0)
        context->streams = context->config.streams > 0 ? (uint32_t)context->config.streams : 1;
    for (uint32_t r = 0; r < context->size; r++)
        if (context->host_of[r] >= probe.hosts)
            probe.hosts = context->host_of[r] + 1;
    if (context->epoch > 0 && context->config.streams == 0)
        return inherit(context, deadline_ns);
    if (!worth_while(context, probe.hosts))
        return KOLO_OK;
    kolo_status status = KOLO_OK;
    probe.host = context->host_of[context->rank];
    probe.leaders = calloc(probe.hosts, sizeof *probe.leaders);
    for (int way = 0; way < WAYS; way++)
        probe.endpoints[way] = calloc(probe.hosts, sizeof *probe.endpoints[way]);
    if (probe.leaders == NULL || probe.endpoints[0] == NULL || probe.endpoints[1] == NULL) {
        status = kolo__error(KOLO_ERR_MEMORY, "kolo_init: no memory for %u hosts", probe.hosts);
        goto release;
    }
    for (uint32_t r = context->size; r-- > 0;)
        probe.leaders[context->host_of[r]] = r;
    probe.leads = probe.leaders[probe.host] == context->rank;
    status = exchange_ports(&probe, deadline_ns);
    if (status == KOLO_OK)
        status = exchange_rates(&probe, deadline_ns);
    if (status == KOLO_OK)
        choose(&probe);

release:
    for (int way = 0; way < WAYS; way++) {
        if (probe.transports[way] != NULL)
            probe.transports[way]->ops->close(probe.transports[way]);
        if (probe.listeners[way] >= 0)
            close(probe.listeners[way]);
        free(probe.endpoints[way]);
    }
    free(probe.leaders);
    free(probe.memory);
    return status;
}
