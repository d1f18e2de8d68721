/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a world that was not asked to takes RDMA between its hosts. A card that is there may lead
 * nowhere (another fabric, a GID that does not arrive, a switch that drops), and what is found out
 * then, in the first operation, ends a job that TCP would have carried. So every rank sends one
 * message to the next host by a connection of the kind that it would use, and only if all have come
 * is it used. Nothing is said where nobody has a device.
 */
#include "runtime/rdma.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memlock.h"
#include "base/status.h"
#include "collectives/transport/rdma_load.h"
#include "collectives/transport/tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    TAG_OFFERS = 4, /* of kolo__control_exchange; 1 is world.c's, 2 and 3 streams.c's */
    TAG_TRIALS = 5,
    COMM = 2, /* an id that no other communicator has yet */
    WHY_BYTES = 300,
    OFFER_BYTES = 3, /* port:u16 kind:u8; less: none, and why */
    LINK_BYTES = (2 << 20) + 4096,
    /* Of a message: packets as long as they get. A switch may pass none but short ones. */
    TRIAL_BYTES = 16384,
};
static const uint64_t PATIENCE_NS = 5000000000; /* for all messages of a trial */

struct trial {
    kolo_context *context;
    struct kolo__rdma_port_in_use *use; /* owned; NULL: this rank has none to offer */
    struct kolo__endpoint *endpoints;
    int listen_fd;
    struct kolo__transport *transport;
    /* Theirs until the transport is closed. */
    struct kolo__post send, *recvs;
    unsigned char sent[TRIAL_BYTES], received[TRIAL_BYTES]; /* what comes is not looked at */
    /* By now. */
    uint32_t offers;
    int kind;         /* of all offers; -1: not known yet; -2: several */
    uint32_t against; /* the first rank that has a reason against it; UINT32_MAX: none */
    char why[WHY_BYTES];
};

/* All ranks know the same, so all answer the same. */
static bool is_open(const kolo_context *context)
{
    bool several = false;
    for (uint32_t r = 0; r < context->size; r++)
        several |= context->host_of[r] != context->host_of[0];
    return several && strcmp(context->config.transport, "auto") == 0 &&
           context->config.encrypt != 1;
}

static uint32_t count_members(const kolo_context *context, uint32_t host)
{
    uint32_t count = 0;
    for (uint32_t r = 0; r < context->size; r++)
        count += context->host_of[r] == host;
    return count;
}

/* ---- who has what ------------------------------------------------------------------------- */

/* The device allows connections to all ranks of other hosts, and the memory that they lock. */
static kolo_status check_limits(struct trial *trial)
{
    const kolo_context *context = trial->context;
    char why[WHY_BYTES], who[80];
    uint32_t peers = context->size - count_members(context, context->host_of[context->rank]);
    const struct kolo__rdma_needs needs = {
        .links = peers * (uint32_t)trial->use->options.connections, .depths = kolo__rdma_depths};
    snprintf(who, sizeof who, "RDMA to %u ranks", peers);
    kolo_status status = kolo__memlock_check((long)peers * LINK_BYTES, who);
    if (status != KOLO_OK)
        return status;
    for (uint32_t i = 0; i < trial->use->choice_count; i++) {
        const struct kolo__rdma_port *port = trial->use->choices[i].port;
        struct kolo__rdma_device *device =
            trial->use->module->open(port->device, port->number, &needs, why, sizeof why);
        if (device == NULL)
            return kolo__error(KOLO_ERR_UNSUPPORTED, "RDMA device %s: %s", port->device, why);
        trial->use->module->close(device);
    }
    return KOLO_OK;
}

static kolo_status find_offer(struct trial *trial, unsigned char blob[OFFER_BYTES])
{
    uint16_t port = 0;
    kolo_status status =
        kolo__rdma_find_port(&trial->context->interfaces, kolo__rdma_turn(trial->context),
                             kolo__rdma_ranks(trial->context), true, &trial->use);
    if (status == KOLO_OK && trial->use->options.disabled == 1)
        status = kolo__error(KOLO_ERR_UNSUPPORTED, "NCCL_IB_DISABLE=1");
    if (status == KOLO_OK)
        status = check_limits(trial);
    if (status == KOLO_OK)
        status = kolo__context_listen(trial->context, &trial->listen_fd, &port);
    kolo__store_u16(blob, port);
    blob[2] = (unsigned char)(status == KOLO_OK && trial->use->choices[0].gid != NULL
                                  ? trial->use->choices[0].gid->kind
                                  : KOLO__RDMA_GID_IB);
    return status;
}

static void object(struct trial *trial, uint32_t rank, const unsigned char *text, size_t bytes)
{
    if (trial->against != UINT32_MAX)
        return;
    trial->against = rank;
    snprintf(trial->why, sizeof trial->why, "%.*s", (int)bytes, (const char *)text);
}

static void read_offer(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    struct trial *trial = self;
    struct kolo__endpoint *endpoint = &trial->endpoints[rank];
    *endpoint = trial->context->endpoints[rank];
    if (bytes != OFFER_BYTES) {
        object(trial, rank, blob, bytes);
        return;
    }
    trial->offers++;
    trial->kind = trial->kind == -1 || trial->kind == blob[2] ? blob[2] : -2;
    for (uint32_t a = 0; a < endpoint->count; a++)
        kolo__address_set_port(&endpoint->addresses[a], kolo__load_u16(blob));
}

/* Exchanges a text, or what is given where there is none. */
static kolo_status exchange(struct trial *trial, uint32_t tag, kolo_status own,
                            const unsigned char *blob, size_t bytes, uint64_t deadline_ns,
                            void (*visit)(void *, uint32_t, const unsigned char *, size_t))
{
    char why[WHY_BYTES];
    if (own != KOLO_OK) { /* no text is as short as an offer */
        bytes = (size_t)snprintf(why, sizeof why, "%.*s", WHY_BYTES - 1, kolo_error_text());
        blob = (const unsigned char *)why;
    }
    return kolo__control_exchange(trial->context->control, tag, blob, bytes, deadline_ns, visit,
                                  trial);
}

static kolo_status exchange_offers(struct trial *trial, uint64_t deadline_ns)
{
    unsigned char blob[OFFER_BYTES];
    kolo_status own = kolo__rdma_exists()
                          ? find_offer(trial, blob)
                          : kolo__error(KOLO_ERR_UNSUPPORTED, "it has no RDMA device");
    return exchange(trial, TAG_OFFERS, own, blob, sizeof blob, deadline_ns, read_offer);
}

/* ---- trying it ---------------------------------------------------------------------------- */

/* The rank of the next host that has this one's place there: all have about as many to hear. */
static uint32_t partner(const kolo_context *context, uint32_t rank)
{
    uint32_t place = 0, host = context->host_of[rank], hosts = host + 1;
    for (uint32_t r = 0; r < context->size; r++) {
        hosts = context->host_of[r] >= hosts ? context->host_of[r] + 1 : hosts;
        place += r < rank && context->host_of[r] == host;
    }
    KOLO__ASSERT(hosts > 1);
    uint32_t next = (host + 1) % hosts, members = count_members(context, next);
    KOLO__ASSERT(members > 0);
    place %= members;
    for (uint32_t r = 0;; r++)
        if (context->host_of[r] == next && place-- == 0)
            return r;
}

static kolo_status create(struct trial *trial)
{
    const kolo_context *context = trial->context;
    const struct kolo__tcp_options options = {
        .rank = context->rank,
        .size = context->size,
        .comm = COMM,
        .job = context->job,
        .token = context->token,
        .listen_fd = trial->listen_fd,
        .endpoints = trial->endpoints,
        .own_interfaces = &context->interfaces,
        .streams = 1,
        .quiet = true,
        .connect_timeout_ns = 2000000000,
    };
    struct kolo__rdma_setup setup = {
        .module = trial->use->module,
        .options = trial->use->options,
        .choices = trial->use->choices,
        .choice_count = trial->use->choice_count,
        .comm = COMM,
        .patience_ns = 1000000000,
    };
    trial->listen_fd = -1;
    kolo_status status = kolo__tcp_create(&options, &setup.tcp);
    return status == KOLO_OK ? kolo__rdma_create(&setup, &trial->transport) : status;
}

static uint32_t missing(const struct trial *trial)
{
    for (uint32_t r = 0; r < trial->context->size; r++)
        if (trial->recvs[r].signature != NULL && !trial->recvs[r].complete)
            return r;
    return UINT32_MAX;
}

static kolo_status pass_messages(struct trial *trial)
{
    static const struct kolo__signature signature = {.sequence = 1, .collective = KOLO__BARRIER};
    const kolo_context *context = trial->context;
    struct kolo__transport *transport = trial->transport;
    for (uint32_t r = 0; r < context->size; r++) {
        if (context->host_of[r] == context->host_of[context->rank] ||
            partner(context, r) != context->rank)
            continue;
        trial->recvs[r] = (struct kolo__post){
            .data = trial->received, .bytes = TRIAL_BYTES, .signature = &signature};
        transport->ops->post_recv(transport, r, &trial->recvs[r]);
    }
    trial->send =
        (struct kolo__post){.data = trial->sent, .bytes = TRIAL_BYTES, .signature = &signature};
    transport->ops->post_send(transport, partner(context, context->rank), &trial->send);
    uint64_t until_ns = kolo__now_ns(&kolo__real_clock) + PATIENCE_NS;
    while (transport->fault.status == KOLO_OK &&
           (missing(trial) != UINT32_MAX || !trial->send.complete)) {
        if (kolo__now_ns(&kolo__real_clock) > until_ns)
            return kolo__error(KOLO_ERR_TIMEOUT,
                               "nothing came from rank %u by RDMA within %u s: can the ports of "
                               "both reach each other, and does the network between them pass "
                               "packets as long as theirs (ip link, and the switch's MTU)?",
                               missing(trial) != UINT32_MAX ? missing(trial)
                                                            : partner(context, context->rank),
                               (unsigned)(PATIENCE_NS / 1000000000u));
        if (!transport->ops->progress(transport))
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return transport->fault.status == KOLO_OK
               ? KOLO_OK
               : kolo__error(transport->fault.status, "%s", transport->fault.text);
}

static void read_trial(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    if (bytes > 0)
        object(self, rank, blob, bytes);
}

/* Nobody closes what others still try: all are here before anybody goes on. */
static kolo_status try_all(struct trial *trial, uint64_t deadline_ns)
{
    kolo_status own = KOLO_ERR_MEMORY;
    trial->recvs = calloc(trial->context->size, sizeof *trial->recvs);
    if (trial->recvs == NULL)
        own = kolo__error(KOLO_ERR_MEMORY, "no memory");
    else
        own = create(trial);
    if (own == KOLO_OK)
        own = pass_messages(trial);
    return exchange(trial, TAG_TRIALS, own, NULL, 0, deadline_ns, read_trial);
}

/* ---- what follows ------------------------------------------------------------------------- */

static void tell(const struct trial *trial)
{
    const kolo_context *context = trial->context;
    if (context->rdma != NULL)
        kolo__rdma_say_ports(context->rdma);
    else if (context->rank == 0 && trial->against != UINT32_MAX)
        kolo__log(trial->offers > 0 ? KOLO__LOG_WARN : KOLO__LOG_INFO,
                  "no RDMA between hosts, tcp is used instead: rank %u (host %s): %s",
                  trial->against, kolo__control_member(context->control, trial->against)->host,
                  trial->why);
    else if (context->rank == 0)
        kolo__log(KOLO__LOG_WARN,
                  "no RDMA between hosts, tcp is used instead: some have InfiniBand "
                  "and some RoCE, or another version of it");
}

kolo_status kolo__context_try_rdma(kolo_context *context, uint64_t deadline_ns)
{
    struct trial trial = {.context = context, .listen_fd = -1, .kind = -1, .against = UINT32_MAX};
    if (!is_open(context))
        return KOLO_OK;
    trial.endpoints = calloc(context->size, sizeof *trial.endpoints);
    if (trial.endpoints == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_init: no memory for %u ranks", context->size);
    kolo_status status = exchange_offers(&trial, deadline_ns);
    if (status == KOLO_OK && trial.against == UINT32_MAX && trial.kind >= 0) {
        status = try_all(&trial, deadline_ns);
        if (status == KOLO_OK && trial.against == UINT32_MAX) {
            context->rdma = trial.use;
            trial.use = NULL;
        }
    }
    if (trial.transport != NULL)
        trial.transport->ops->close(trial.transport);
    if (status == KOLO_OK)
        tell(&trial);
    if (trial.listen_fd >= 0)
        close(trial.listen_fd);
    free(trial.recvs);
    free(trial.endpoints);
    free(trial.use);
    return status;
}
