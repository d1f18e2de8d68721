/* SPDX-License-Identifier: Apache-2.0 */
/* Making and releasing communicators. */
#include "runtime/comm.h"
#include "runtime/offload.h"
#include "runtime/bounce.h"
#include "runtime/staging.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/silence.h"
#include "base/status.h"
#include "collectives/transport/mux.h"
#include "collectives/transport/shm.h"
#include "collectives/transport/tcp.h"
#include "runtime/cpus.h"
#include "runtime/metrics.h"
#include "runtime/rdma.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAPPING_SPINS = 200, /* some us: longer than a processor takes to change ranks */
    SHM_SEGMENT_BYTES = 64 * 1024,
    TCP_SEGMENT_BYTES = 8 * KOLO__TCP_BURST_BYTES,
    CONNECT_TIMEOUT_S = 60,
    BROKEN_SETTLE_MS = 5000,
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
    char doorbell[96];
    snprintf(doorbell, sizeof doorbell, "kolo-%s-%u-%u", comm->context->local_name, comm->id,
             comm->world_ranks[0]);
    struct kolo__shm_options options = {
        .rank = comm->rank,
        .size = comm->size,
        .across = count_sharers(members) < comm->size - 1,
        .heap = comm->context->heap,
        .mailboxes = members->mailboxes,
        .doorbell = doorbell,
        .hosts = comm->hosts,
    };
    return kolo__shm_create(&options, transport, &comm->host_mapping);
}

uint64_t kolo__comm_settle_ms(const kolo_comm *comm)
{
    bool broken = comm->fault.status != KOLO_OK || atomic_load(&comm->aborted);
    return broken ? BROKEN_SETTLE_MS : (uint64_t)comm->context->config.timeout * 1000;
}

/* Well before the operation gives up, so that the error says what is wrong with the network; and of
 * a world that has been there before, no longer than any host may be silent. */
static uint64_t connect_seconds(const kolo_context *context)
{
    long half = (context->config.timeout + 1) / 2;
    long silence = kolo__silence_seconds(context->config.peer_timeout, context->config.timeout);
    if (context->epoch > 0 && silence < half)
        return (uint64_t)silence;
    return half < CONNECT_TIMEOUT_S ? (uint64_t)half : CONNECT_TIMEOUT_S;
}

static kolo_status create_tcp(kolo_comm *comm, const struct kolo__comm_members *members,
                              struct kolo__transport **transport)
{
    struct kolo__tcp_options options = {
        .rank = comm->rank,
        .size = comm->size,
        .epoch = comm->epoch,
        .comm = comm->id,
        .job = comm->context->job,
        .token = comm->context->token,
        .encrypt = comm->context->config.encrypt == 1,
        .checksum = comm->context->config.checksum == 1,
        .listen_fd = members->listen_fd,
        .endpoints = members->endpoints,
        .own_interfaces = &comm->context->interfaces,
        .streams = comm->context->streams,
        .hosts = comm->hosts,
        .connect_timeout_ns = connect_seconds(comm->context) * 1000000000u,
        .silence_s = kolo__silence_seconds(comm->context->config.peer_timeout,
                                           comm->context->config.timeout),
    };
    return kolo__tcp_create(&options, transport);
}

static kolo_status create_between_hosts(kolo_comm *comm, const struct kolo__comm_members *members,
                                        struct kolo__transport **transport)
{
    kolo_status status = create_tcp(comm, members, transport);
    return status == KOLO_OK ? kolo__rdma_take_over(comm, transport) : status;
}

static kolo_status create_transport(kolo_comm *comm, const struct kolo__comm_members *members)
{
    uint32_t sharers = count_sharers(members);
    bool all_share = sharers == comm->size - 1;
    struct kolo__transport *children[2] = {NULL, NULL};
    kolo_status status = KOLO_OK;
    comm->plan_context.remote = !all_share;
    comm->plan_context.mapped = all_share;
    comm->plan_context.hosts_mapped = comm->context->all_hosts_share;
    if (!all_share)
        status = create_between_hosts(comm, members, &children[0]);
    else if (members->listen_fd >= 0)
        close(members->listen_fd);
    if (status == KOLO_OK && sharers > 0)
        status = create_shm(comm, members, &children[1]);
    if (all_share)
        comm->mapping = comm->host_mapping;
    if (status != KOLO_OK) {
        if (children[0] != NULL)
            children[0]->ops->close(children[0]);
        return status;
    }
    comm->plan_context.heap = comm->context->rdma != NULL ? comm->context->heap : NULL;
    comm->paths[comm->context->rdma != NULL ? KOLO__PATH_RDMA : KOLO__PATH_TCP] = children[0];
    comm->paths[KOLO__PATH_SHM] = children[1];
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

/* More ranks on this host than it may use processors; or more on this machine, together with those
 * of other hosts that are containers of it, than it has. */
static bool is_crowded(const kolo_comm *comm)
{
    uint32_t on_machine = 0;
    for (uint32_t r = 0; r < comm->size; r++)
        on_machine += comm->context->shares_kernel[comm->world_ranks[r]];
    return comm->local_size > (uint32_t)comm->context->cpus ||
           on_machine > (uint32_t)kolo__online_cpus();
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
    comm->epoch = context->epoch;
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
    comm->crowded = is_crowded(comm);
    if (comm->host_mapping != NULL) {
        comm->crowded = comm->host_mapping->crowded |= comm->crowded;
        comm->host_mapping->spins = MAPPING_SPINS;
    }
    comm->plan_context.preferred = context->config.algorithm;
    comm->plan_context.segment_bytes = segment;
    comm->plan_context.model = kolo__costs_for(&context->costs, comm->mapping != NULL, comm->size);
    comm->plan_context.deterministic = context->config.deterministic != 0;
    kolo__offload_attach(comm);
    kolo__flight_take_line(context->recorder.flight, &comm->pen, comm->id, comm->size);
    status = kolo__metrics_attach(comm);
    if (status != KOLO_OK) {
        kolo__comm_destroy(comm);
        return status;
    }

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

/* What reaches beyond this process. */
static void disconnect(kolo_comm *comm)
{
    if (comm->context->control != NULL)
        kolo__control_forget(comm->context->control, comm->id);
    kolo__offload_detach(comm);
    if (comm->transport != NULL)
        comm->transport->ops->close(comm->transport);
    kolo__staging_close(comm); /* what the transport may have written to until now */
}

void kolo__comm_leave_fault(kolo_comm *comm, const struct kolo__fault *fault)
{
    pthread_mutex_lock(&comm->context->lock);
    if (!atomic_load(&comm->aborted)) {
        comm->abort_fault = *fault;
        atomic_store(&comm->aborted, true);
    }
    pthread_mutex_unlock(&comm->context->lock);
}

void kolo__comm_retire(kolo_comm *comm)
{
    struct kolo__fault fault = {.status = KOLO_ERR_ABORTED, .peer = -1};
    if (comm->retired)
        return;
    snprintf(fault.text, sizeof fault.text,
             "this communicator is of epoch %u of the world, which was renewed: take the new "
             "kolo_world, and what is made of that",
             comm->epoch);
    if (comm->retire != NULL) {
        kolo__comm_leave_fault(comm, &fault); /* should another thread wait on it */
        comm->retire(comm->owner);
    }
    if (comm->fault.status == KOLO_OK) {
        comm->fault = fault;
        if (comm->first != NULL) /* else a peer may still be at the end of what is over here */
            kolo__comm_end(comm);
    }
    disconnect(comm);
    kolo__plan_cache_clear(&comm->plans);
    kolo__metrics_detach(comm);
    kolo__flight_give_line_back(&comm->pen);
    comm->transport = NULL;
    comm->mapping = comm->host_mapping = NULL;
    comm->retired = true;
    for (uint32_t r = 0; r < comm->size; r++)
        comm->hosts[r] = "of an earlier epoch"; /* the names were the control plane's */
}

void kolo__comm_destroy(kolo_comm *comm)
{
    if (comm == NULL)
        return;
    unlink_comm(comm);
    if (!comm->retired) {
        if (comm->fault.status == KOLO_OK) /* what failed is to be looked at afterwards */
            kolo__flight_give_line_back(&comm->pen);
        disconnect(comm);
    }
    kolo__bounces_close(comm);
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
    kolo__metrics_detach(comm);
    free(comm->world_ranks);
    free(comm->host_of);
    free(comm->hosts);
    free(comm->send_sequence);
    free(comm->recv_sequence);
    free(comm);
}

kolo_status kolo_comm_free(kolo_comm *comm)
{
    if (comm == NULL)
        return KOLO_OK;
    if (comm->id == KOLO__WORLD_COMM)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_comm_free: the world communicator belongs to the context; "
                           "kolo_finalize releases it");
    if (comm->outstanding > 0)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_comm_free: requests are pending; finish them with kolo_wait");
    /* Whoever is done with its part of an operation is needed by nobody: what it sent is with the
     * receivers, or in the system's hands, and shared memory stays until all ranks have left it. */
    kolo__comm_destroy(comm);
    return KOLO_OK;
}

kolo_status kolo_comm_set_algorithm(kolo_comm *comm, const char *algorithm)
{
    const char *preferred;
    if (comm == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_comm_set_algorithm: the communicator is NULL");
    if (comm->outstanding > 0)
        return kolo__error(KOLO_ERR_INVALID, "kolo_comm_set_algorithm: requests are pending; "
                                             "finish them with kolo_wait");
    if (algorithm == NULL || algorithm[0] == '\0') {
        preferred = comm->context->config.algorithm;
    } else {
        const struct kolo__algorithm *found = kolo__algorithm_find(algorithm);
        if (found == NULL)
            return kolo__error(KOLO_ERR_INVALID,
                               "kolo_comm_set_algorithm: there is no algorithm '%s'; kolo info "
                               "--plan 1M lists them",
                               algorithm);
        preferred = found->name;
    }
    comm->plan_context.preferred = preferred;
    kolo__plan_cache_clear(&comm->plans); /* made as it was before */
    return KOLO_OK;
}

void kolo__comm_abort(kolo_comm *comm, const struct kolo__fault *fault)
{
    kolo__comm_leave_fault(comm, fault);
    if (comm->context->control != NULL && !comm->retired)
        kolo__control_report(comm->context->control, comm->id, fault);
}

kolo_status kolo_comm_abort(kolo_comm *comm, const char *reason)
{
    if (comm == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_comm_abort: the communicator is NULL");
    struct kolo__fault fault = {.status = KOLO_ERR_ABORTED,
                                .peer = (int)comm->world_ranks[comm->rank]};
    snprintf(fault.text, sizeof fault.text, "rank %u (host %s) aborted: %s", comm->rank,
             kolo__host_name(), reason != NULL ? reason : "no reason given");
    kolo__comm_abort(comm, &fault);
    return KOLO_OK;
}

int kolo_comm_rank(const kolo_comm *comm)
{
    return comm != NULL ? (int)comm->rank : -1;
}

int kolo_comm_size(const kolo_comm *comm)
{
    return comm != NULL ? (int)comm->size : -1;
}

int kolo_comm_local_rank(const kolo_comm *comm)
{
    return comm != NULL ? (int)comm->local_rank : -1;
}

int kolo_comm_local_size(const kolo_comm *comm)
{
    return comm != NULL ? (int)comm->local_size : -1;
}

const char *kolo_comm_transport(const kolo_comm *comm)
{
    if (comm == NULL)
        return NULL;
    return comm->transport == NULL ? "none" : comm->transport->ops->name;
}
