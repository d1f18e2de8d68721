/* SPDX-License-Identifier: Apache-2.0 */
/* Making, splitting and releasing communicators. */
#include "runtime/comm.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "collectives/transport/mux.h"
#include "collectives/transport/shm.h"
#include "collectives/transport/tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SHM_SEGMENT_BYTES = 64 * 1024,
    TCP_SEGMENT_BYTES = 256 * 1024,
    ADDRESS_TEXT_BYTES = 80,
    CONNECT_TIMEOUT_S = 60,
};

/* ---- transports ---------------------------------------------------------------------------- */

static bool shares_heap(const struct kolo__comm_members *members, uint32_t rank)
{
    return members->mailboxes != NULL && members->mailboxes[rank] != UINT64_MAX;
}

/* Over all ranks but this one. */
static uint32_t count_sharers(const struct kolo__comm_members *members)
{
    uint32_t count = 0;
    for (uint32_t r = 0; r < members->size; r++)
        count += r != members->rank && shares_heap(members, r);
    return count;
}

static kolo_status create_shm(kolo_comm *comm, const struct kolo__comm_members *members,
                              struct kolo__transport **transport)
{
    char doorbell[80];
    snprintf(doorbell, sizeof doorbell, "kolo-%s-%u-%u", comm->context->job, comm->id,
             comm->world_ranks[0]);
    struct kolo__shm_options options = {
        .rank = comm->rank,
        .size = comm->size,
        .heap = comm->context->heap,
        .mailboxes = members->mailboxes,
        .doorbell = doorbell,
        .hosts = comm->hosts,
    };
    return kolo__shm_create(&options, transport, &comm->mapping);
}

/* Well before the operation gives up, so that the error says what is wrong with the network. */
static uint64_t connect_seconds(const kolo_context *context)
{
    long half = (context->config.timeout + 1) / 2;
    return half < CONNECT_TIMEOUT_S ? (uint64_t)half : CONNECT_TIMEOUT_S;
}

static kolo_status create_tcp(kolo_comm *comm, const struct kolo__comm_members *members,
                              struct kolo__transport **transport)
{
    struct kolo__tcp_options options = {
        .rank = comm->rank,
        .size = comm->size,
        .comm = comm->id,
        .job = comm->context->job,
        .token = comm->context->token,
        .listen_fd = members->listen_fd,
        .addresses = members->addresses,
        .hosts = comm->hosts,
        .connect_timeout_ns = connect_seconds(comm->context) * 1000000000u,
    };
    return kolo__tcp_create(&options, transport);
}

static kolo_status create_transport(kolo_comm *comm, const struct kolo__comm_members *members)
{
    uint32_t sharers = count_sharers(members);
    bool all_share = sharers == comm->size - 1;
    struct kolo__transport *children[2] = {NULL, NULL};
    kolo_status status = KOLO_OK;
    comm->plan_context.remote = !all_share;
    if (!all_share)
        status = create_tcp(comm, members, &children[0]);
    else if (members->listen_fd >= 0)
        close(members->listen_fd);
    if (status == KOLO_OK && sharers > 0)
        status = create_shm(comm, members, &children[1]);
    if (status != KOLO_OK) {
        if (children[0] != NULL)
            children[0]->ops->close(children[0]);
        return status;
    }
    if (children[0] == NULL || children[1] == NULL) {
        comm->transport = children[0] != NULL ? children[0] : children[1];
        return KOLO_OK;
    }
    uint8_t *route = calloc(comm->size, 1);
    if (route == NULL) {
        children[0]->ops->close(children[0]);
        children[1]->ops->close(children[1]);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the routes of %u ranks", comm->size);
    }
    for (uint32_t r = 0; r < comm->size; r++)
        route[r] = shares_heap(members, r);
    status = kolo__mux_create(comm->rank, comm->size, children, 2, route, &comm->transport);
    free(route);
    return status;
}

/* ---- create and destroy -------------------------------------------------------------------- */

/* Numbers the hosts of the members by first appearance, and finds this rank's place on its own. */
static void number_hosts(kolo_comm *comm)
{
    const kolo_context *context = comm->context;
    uint32_t hosts = 0;
    for (uint32_t r = 0; r < comm->size; r++) {
        uint32_t first = 0;
        while (context->host_of[comm->world_ranks[first]] != context->host_of[comm->world_ranks[r]])
            first++;
        comm->host_of[r] = first == r ? hosts++ : comm->host_of[first];
    }
    for (uint32_t r = 0; r < comm->size; r++) {
        bool same = comm->host_of[r] == comm->host_of[comm->rank];
        comm->local_rank += same && r < comm->rank;
        comm->local_size += same;
    }
}

static kolo_status fill_tables(kolo_comm *comm, const struct kolo__comm_members *members)
{
    size_t size = comm->size;
    comm->world_ranks = calloc(size, sizeof *comm->world_ranks);
    comm->host_of = calloc(size, sizeof *comm->host_of);
    comm->hosts = calloc(size, sizeof *comm->hosts);
    comm->send_sequence = calloc(size, sizeof *comm->send_sequence);
    comm->recv_sequence = calloc(size, sizeof *comm->recv_sequence);
    if (comm->world_ranks == NULL || comm->host_of == NULL || comm->hosts == NULL ||
        comm->send_sequence == NULL || comm->recv_sequence == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a communicator of %zu ranks", size);
    for (uint32_t r = 0; r < comm->size; r++) {
        comm->world_ranks[r] = members->world_ranks[r];
        comm->hosts[r] =
            comm->context->control != NULL
                ? kolo__control_member(comm->context->control, comm->world_ranks[r])->host
                : kolo__host_name();
    }
    number_hosts(comm);
    return KOLO_OK;
}

kolo_status kolo__comm_create(kolo_context *context, const struct kolo__comm_members *members,
                              kolo_comm **result)
{
    kolo_comm *comm = calloc(1, sizeof *comm);
    if (comm == NULL) {
        if (members->listen_fd >= 0)
            close(members->listen_fd);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a communicator");
    }
    comm->context = context;
    comm->id = members->id;
    comm->rank = members->rank;
    comm->size = members->size;
    kolo_status status = fill_tables(comm, members);
    if (status == KOLO_OK && comm->size > 1)
        status = create_transport(comm, members);
    else if (members->listen_fd >= 0)
        close(members->listen_fd);
    if (status != KOLO_OK) {
        kolo__comm_destroy(comm);
        return status;
    }
    size_t segment = (size_t)context->config.segment_bytes;
    if (segment == 0)
        segment = comm->plan_context.remote ? TCP_SEGMENT_BYTES : SHM_SEGMENT_BYTES;
    comm->plan_context.rank = comm->rank;
    comm->plan_context.size = comm->size;
    comm->plan_context.host_of = comm->host_of;
    comm->plan_context.mapping = comm->mapping;
    comm->plan_context.preferred = context->config.algorithm;
    comm->plan_context.segment_bytes = segment;

    pthread_mutex_lock(&context->lock);
    comm->next = context->comms;
    context->comms = comm;
    pthread_mutex_unlock(&context->lock);
    *result = comm;
    return KOLO_OK;
}

static void unlink_comm(kolo_comm *comm)
{
    pthread_mutex_lock(&comm->context->lock);
    for (kolo_comm **link = &comm->context->comms; *link != NULL; link = &(*link)->next)
        if (*link == comm) {
            *link = comm->next;
            break;
        }
    pthread_mutex_unlock(&comm->context->lock);
}

void kolo__comm_destroy(kolo_comm *comm)
{
    if (comm == NULL)
        return;
    unlink_comm(comm);
    if (comm->transport != NULL)
        comm->transport->ops->close(comm->transport);
    for (kolo_request *request = comm->first, *next; request != NULL; request = next) {
        next = request->next;
        if (request->plan != NULL)
            request->plan->users--;
        free(request);
    }
    for (kolo_request *request = comm->free_requests, *next; request != NULL; request = next) {
        next = request->next;
        free(request);
    }
    kolo__plan_cache_clear(&comm->plans);
    free(comm->world_ranks);
    free(comm->host_of);
    free(comm->hosts);
    free(comm->send_sequence);
    free(comm->recv_sequence);
    free(comm);
}

/* ---- split --------------------------------------------------------------------------------- */

struct member {
    int32_t color, key;
    uint32_t old_rank;
};

static int by_key(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->old_rank < y->old_rank ? -1 : x->old_rank > y->old_rank;
}

/* What one rank contributes to the second step of a split. */
struct offer {
    unsigned char ok;
    unsigned char mailbox[8];
    char address[ADDRESS_TEXT_BYTES];
    char error[160];
};

/* Sorts out who is in the caller's new communicator; old ranks in the new order. */
static kolo_status find_members(kolo_comm *comm, int color, int key, uint32_t *old_ranks,
                                uint32_t *size, uint32_t *rank)
{
    struct member *all = calloc(comm->size, sizeof *all);
    int32_t mine[2] = {color, key}, *pairs = calloc(comm->size, sizeof mine);
    kolo_status status = KOLO_ERR_MEMORY;
    if (all == NULL || pairs == NULL)
        kolo__error(status, "kolo_comm_split: no memory for %u ranks", comm->size);
    else
        status = kolo_allgather(comm, mine, pairs, 2, KOLO_INT32, NULL);
    *size = 0;
    for (uint32_t r = 0; status == KOLO_OK && r < comm->size; r++)
        if (pairs[2 * r] == color)
            all[(*size)++] = (struct member){color, pairs[2 * r + 1], r};
    if (status == KOLO_OK && *size > 0)
        qsort(all, *size, sizeof *all, by_key);
    for (uint32_t i = 0; status == KOLO_OK && i < *size; i++) {
        old_ranks[i] = all[i].old_rank;
        if (all[i].old_rank == comm->rank)
            *rank = i;
    }
    free(all);
    free(pairs);
    return status;
}

static void make_offer(kolo_comm *comm, uint32_t size, bool wants_tcp, struct offer *offer,
                       uint64_t *mailbox, int *listen_fd)
{
    kolo_context *context = comm->context;
    struct kolo__address address;
    kolo_status status = KOLO_OK;
    *mailbox = UINT64_MAX;
    *listen_fd = -1;
    if (size > 1 && wants_tcp) {
        status = kolo__context_listen(context, listen_fd, &address);
        if (status == KOLO_OK)
            kolo__address_text(&address, offer->address, sizeof offer->address);
    }
    if (size > 1 && status == KOLO_OK && context->shared_memory)
        status = kolo__shm_mailbox_create(context->heap, size, mailbox);
    offer->ok = status == KOLO_OK;
    kolo__store_u64(offer->mailbox, *mailbox);
    if (status != KOLO_OK)
        snprintf(offer->error, sizeof offer->error, "%s", kolo_error_text());
}

/* Reads the offers of the new communicator's members. */
static kolo_status read_offers(kolo_comm *comm, const struct offer *offers,
                               const uint32_t *old_ranks, uint32_t size, uint32_t *world_ranks,
                               uint64_t *mailboxes, struct kolo__address *addresses)
{
    const uint32_t *host_of = comm->context->host_of;
    for (uint32_t i = 0; i < size; i++) {
        const struct offer *offer = &offers[old_ranks[i]];
        world_ranks[i] = comm->world_ranks[old_ranks[i]];
        if (!offer->ok)
            return kolo__error(KOLO_ERR_SYSTEM, "kolo_comm_split: rank %u: %.*s", old_ranks[i],
                               (int)sizeof offer->error, offer->error);
        bool here =
            comm->context->shared_memory && host_of[world_ranks[i]] == host_of[comm->context->rank];
        mailboxes[i] = here ? kolo__load_u64(offer->mailbox) : UINT64_MAX;
        if (offer->address[0] != '\0') {
            kolo_status status = kolo__address_parse(offer->address, &addresses[i]);
            if (status != KOLO_OK)
                return status;
        }
    }
    return KOLO_OK;
}

/* The same on all members, different for different communicators (but for accidents of hashing,
 * which cost no more than a fault reaching one communicator too many). */
static uint32_t derive_id(const kolo_comm *comm, int color)
{
    uint64_t hash = ((uint64_t)comm->id << 32 | comm->splits) * 0x9e3779b97f4a7c15u;
    hash = (hash ^ (hash >> 31) ^ (uint32_t)color) * 0xbf58476d1ce4e5b9u;
    uint32_t id = (uint32_t)(hash >> 32);
    return id < 2 ? id + 2 : id;
}

static kolo_status split(kolo_comm *comm, int color, int key, uint32_t *old_ranks,
                         struct offer *offers, uint32_t *world_ranks, uint64_t *mailboxes,
                         struct kolo__address *addresses, kolo_comm **result)
{
    struct kolo__comm_members members = {.listen_fd = -1};
    struct offer offer = {0};
    uint64_t mailbox;
    uint32_t size, rank = 0;
    kolo_status status = find_members(comm, color, key, old_ranks, &size, &rank);
    if (status != KOLO_OK)
        return status;
    comm->splits++;
    if (color == KOLO_NO_COLOR)
        size = 0;
    make_offer(comm, size, comm->plan_context.remote, &offer, &mailbox, &members.listen_fd);
    status = kolo_allgather(comm, &offer, offers, sizeof offer, KOLO_UINT8, NULL);
    if (status == KOLO_OK)
        status = read_offers(comm, offers, old_ranks, size, world_ranks, mailboxes, addresses);
    if (status != KOLO_OK || size == 0) {
        if (members.listen_fd >= 0)
            close(members.listen_fd);
        if (mailbox != UINT64_MAX)
            kolo__shm_mailbox_free(comm->context->heap, mailbox);
        return status;
    }
    members.id = derive_id(comm, color);
    members.rank = rank;
    members.size = size;
    members.world_ranks = world_ranks;
    members.addresses = addresses;
    members.mailboxes = mailboxes;
    return kolo__comm_create(comm->context, &members, result);
}

kolo_status kolo_comm_split(kolo_comm *comm, int color, int key, kolo_comm **result)
{
    if (comm == NULL || result == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_comm_split: %s is NULL",
                           comm == NULL ? "the communicator" : "result");
    if (color < 0 && color != KOLO_NO_COLOR)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_comm_split: color %d: give 0 or more, or "
                           "KOLO_NO_COLOR",
                           color);
    *result = NULL;
    uint32_t *old_ranks = calloc(comm->size, sizeof *old_ranks);
    uint32_t *world_ranks = calloc(comm->size, sizeof *world_ranks);
    uint64_t *mailboxes = calloc(comm->size, sizeof *mailboxes);
    struct offer *offers = calloc(comm->size, sizeof *offers);
    struct kolo__address *addresses = calloc(comm->size, sizeof *addresses);
    kolo_status status = KOLO_ERR_MEMORY;
    if (old_ranks != NULL && world_ranks != NULL && mailboxes != NULL && offers != NULL &&
        addresses != NULL)
        status =
            split(comm, color, key, old_ranks, offers, world_ranks, mailboxes, addresses, result);
    else
        kolo__error(status, "kolo_comm_split: no memory for %u ranks", comm->size);
    free(old_ranks);
    free(world_ranks);
    free(mailboxes);
    free(offers);
    free(addresses);
    return status;
}

kolo_status kolo_comm_free(kolo_comm *comm)
{
    if (comm == NULL)
        return KOLO_OK;
    if (comm == comm->context->world)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_comm_free: the world communicator belongs to the context; "
                           "kolo_finalize releases it");
    if (comm->first != NULL)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_comm_free: requests are pending; finish them with kolo_wait");
    kolo_status status =
        comm->fault.status == KOLO_OK ? kolo__comm_close_ranks(comm, "kolo_comm_free") : KOLO_OK;
    kolo__comm_destroy(comm);
    return status;
}

kolo_status kolo_comm_abort(kolo_comm *comm, const char *reason)
{
    if (comm == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_comm_abort: the communicator is NULL");
    struct kolo__fault fault = {.status = KOLO_ERR_ABORTED,
                                .peer = (int)comm->world_ranks[comm->rank]};
    snprintf(fault.text, sizeof fault.text, "rank %u (host %s) aborted: %s", comm->rank,
             kolo__host_name(), reason != NULL ? reason : "no reason given");
    pthread_mutex_lock(&comm->context->lock);
    if (!atomic_load(&comm->aborted)) {
        comm->abort_fault = fault;
        atomic_store(&comm->aborted, true);
    }
    pthread_mutex_unlock(&comm->context->lock);
    if (comm->context->control != NULL)
        kolo__control_report(comm->context->control, comm->id, &fault);
    return KOLO_OK;
}

int kolo_comm_rank(const kolo_comm *comm)
{
    return (int)comm->rank;
}

int kolo_comm_size(const kolo_comm *comm)
{
    return (int)comm->size;
}

int kolo_comm_local_rank(const kolo_comm *comm)
{
    return (int)comm->local_rank;
}

int kolo_comm_local_size(const kolo_comm *comm)
{
    return (int)comm->local_size;
}
