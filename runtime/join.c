/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kolo_join: a rank that has run out of data takes part in what the others still do.
 *
 * It tells the rendezvous after which collective it joins. From the moment an active rank hears of
 * that, it announces each collective that it has begun beyond that one and each that it begins; the
 * rendezvous forwards them, once and in order. Nobody hangs: whoever waits for a rank that has
 * joined is in a wait, hears the news there, and announces what it waits in.
 *
 * What guards the communicators of reducers joins for them too: each is a `part` here, and runs
 * beside the others.
 */
#include "runtime/call.h"

#include "base/clock.h"
#include "base/status.h"
#include "runtime/neutral.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static const uint64_t REST_NS = 5000000, SHARED_REST_NS = 1000000;

/* Another thread's look at the control plane may take the news that this one sleeps for. */
enum { IDLE_MS = 20 };

/* ---- the active side ------------------------------------------------------------------------ */

/* The signature of a collective that this rank has begun: one of the last, or not done yet. */
static const struct kolo__signature *find_begun(const kolo_comm *comm, uint64_t sequence)
{
    if (sequence + KOLO__VERDICT_RECENT > comm->sequence)
        return &comm->recent[(sequence - 1) % KOLO__VERDICT_RECENT];
    for (const kolo_request *request = comm->first; request != NULL; request = request->next)
        if (request->kind == KOLO__REQUEST_COLLECTIVE && request->signature.sequence == sequence)
            return &request->signature;
    return NULL;
}

static void announce(kolo_comm *comm, uint64_t first, uint64_t last)
{
    struct kolo__control *control = comm->context->control;
    uint64_t forgotten = 0;
    for (uint64_t sequence = first; sequence <= last; sequence++) {
        const struct kolo__signature *begun = find_begun(comm, sequence);
        struct kolo__announcement announcement = {.segment_bytes =
                                                      comm->plan_context.segment_bytes};
        if (begun == NULL) {
            forgotten = sequence;
            continue;
        }
        announcement.signature = *begun;
        kolo__control_announce(control, &announcement);
    }
    if (forgotten > 0) /* perhaps somebody else has announced them */
        kolo__control_forgotten(control, comm->id, forgotten);
}

/* Nothing is announced before somebody lacks it. */
static void begin_announcing(kolo_comm *comm)
{
    if (comm->announcing)
        return;
    comm->announcing = true;
    comm->announced_first = comm->sequence + 1;
    comm->announced_last = comm->sequence;
}

void kolo__comm_announce(kolo_comm *comm)
{
    uint64_t lowest;
    if (!kolo__control_lowest_joined(comm->context->control, comm->id, &lowest))
        return;
    begin_announcing(comm);
    if (lowest + 1 < comm->announced_first) {
        announce(comm, lowest + 1, comm->announced_first - 1);
        comm->announced_first = lowest + 1;
    }
    if (comm->sequence > comm->announced_last) {
        announce(comm, comm->announced_last + 1, comm->sequence);
        comm->announced_last = comm->sequence;
    }
}

/* ---- the joined side ------------------------------------------------------------------------ */

/* One communicator on which this rank has joined. */
struct part {
    kolo_comm *comm;
    kolo_request *request; /* an announced collective; NULL: none runs */
    unsigned char *buffer; /* that it works on */
    size_t buffer_bytes;
    size_t own_segment_bytes; /* what it has been before */
    bool all_joined;
};

struct joining {
    struct part *parts; /* the last one is the communicator that kolo_join was called on */
    uint32_t count;
    uint32_t last; /* rank of the world */
};

static void fail(kolo_comm *comm, kolo_status status, const char *text)
{
    struct kolo__fault fault = {.status = status, .peer = (int)comm->world_ranks[comm->rank]};
    snprintf(fault.text, sizeof fault.text, "%s", text);
    kolo__comm_fail(comm, &fault, true);
}

static bool makes_sense(const kolo_comm *comm, const struct kolo__signature *signature)
{
    uint32_t algorithms = 0;
    while (kolo__algorithms[algorithms] != NULL)
        algorithms++;
    return signature->sequence == comm->sequence + 1 &&
           (signature->algorithm < algorithms || signature->algorithm == KOLO__OFFLOAD_MPI_INDEX) &&
           signature->collective < KOLO__POINT_TO_POINT && signature->dtype < KOLO_DTYPE_COUNT &&
           signature->op < KOLO_OP_COUNT && signature->root < comm->size;
}

/* How many slices of `count` elements this rank gives and takes. */
static void find_slices(const kolo_comm *comm, enum kolo__collective collective, size_t *send,
                        size_t *recv)
{
    *send = *recv = 1;
    switch (collective) {
    case KOLO__REDUCE_SCATTER:
        *send = comm->size;
        break;
    case KOLO__ALLGATHER:
        *recv = comm->size;
        break;
    case KOLO__ALLTOALL:
        *send = *recv = comm->size;
        break;
    case KOLO__REDUCE_TO_ROOT:
        *recv = 0; /* the root is another */
        break;
    case KOLO__BARRIER:
        *send = *recv = 0;
        break;
    default:
        break;
    }
}

/* Room for both buffers, the neutral elements in the first. False: no memory. */
static bool prepare_buffers(struct part *part, struct kolo__call *call)
{
    size_t element = kolo_dtype_bytes(call->dtype);
    size_t slice_bytes, bytes;
    if (__builtin_mul_overflow(call->count, element, &slice_bytes) ||
        __builtin_mul_overflow(slice_bytes, call->send_slices + call->recv_slices, &bytes))
        return false;
    if (bytes > part->buffer_bytes) {
        unsigned char *larger = realloc(part->buffer, bytes);
        if (larger == NULL)
            return false;
        part->buffer = larger;
        part->buffer_bytes = bytes;
    }
    if (call->collective == KOLO__BROADCAST) { /* in place */
        call->send = call->recv = part->buffer;
        return true;
    }
    kolo__fill_neutral(part->buffer, call->count * call->send_slices, call->dtype,
                       kolo__collective_reduces(call->collective) ? call->op : KOLO_SUM);
    call->send = call->send_slices > 0 ? part->buffer : NULL;
    if (call->recv_slices > 0)
        call->recv = part->buffer + call->send_slices * slice_bytes;
    return true;
}

/* Messages have to be cut alike on all ranks. Nothing runs: plans may go. */
static void set_segment(kolo_comm *comm, size_t bytes)
{
    if (comm->plan_context.segment_bytes == bytes || bytes < 64)
        return;
    comm->plan_context.segment_bytes = bytes;
    kolo__plan_cache_clear(&comm->plans);
}

static void start(struct part *part, const struct kolo__announcement *announcement)
{
    kolo_comm *comm = part->comm;
    const struct kolo__signature *signature = &announcement->signature;
    char text[480], description[160];
    if (!makes_sense(comm, signature)) {
        fail(comm, KOLO_ERR_NETWORK, "a collective was announced to kolo_join that cannot be");
        return;
    }
    kolo__signature_text(signature, description, sizeof description);
    kolo_call_options options = {.size = sizeof options,
                                 .scale = 1,
                                 .algorithm = signature->algorithm == KOLO__OFFLOAD_MPI_INDEX
                                                  ? kolo__offload_mpi.name
                                                  : kolo__algorithms[signature->algorithm]->name};
    struct kolo__call call = {.name = "kolo_join",
                              .collective = (enum kolo__collective)signature->collective,
                              .count = signature->count,
                              .may_be_in_place = true,
                              .dtype = (kolo_dtype)signature->dtype,
                              .op = (kolo_op)signature->op,
                              .root = (int)signature->root,
                              .options = &options};
    if (kolo__call_has_root(signature->collective) && signature->root == comm->rank) {
        kolo__call_root_joined_text(comm, signature, text, sizeof text);
        fail(comm, KOLO_ERR_INVALID, text);
        return;
    }
    find_slices(comm, call.collective, &call.send_slices, &call.recv_slices);
    if (!prepare_buffers(part, &call)) {
        snprintf(text, sizeof text, "rank %u, which has joined (kolo_join), has no memory for %s",
                 comm->rank, description);
        fail(comm, KOLO_ERR_MEMORY, text);
        return;
    }
    set_segment(comm, announcement->segment_bytes);
    comm->announced_last = signature->sequence; /* whoever announced it has told all */
    kolo_status status = kolo__call_start(comm, &call, &part->request);
    if (status != KOLO_OK)
        fail(comm, status, kolo_error_text());
}

static bool runs_a_collective(const kolo_comm *comm)
{
    for (const kolo_request *request = comm->first; request != NULL; request = request->next)
        if (request->kind == KOLO__REQUEST_COLLECTIVE)
            return true;
    return false;
}

/* Moves what can be moved, of one communicator. */
static kolo_status advance(struct part *part, bool *moved)
{
    kolo_comm *comm = part->comm;
    struct kolo__announcement announcement;
    if (part->request == NULL && !runs_a_collective(comm) &&
        kolo__control_next_announced(comm->context->control, comm->id, &announcement)) {
        start(part, &announcement);
        *moved = true;
    }
    if (comm->first != NULL)
        *moved |= kolo__comm_progress(comm);
    if (part->request == NULL || !part->request->done)
        return comm->fault.status == KOLO_OK ? KOLO_OK : kolo__comm_check(comm, "kolo_join");
    kolo_request *done = part->request;
    part->request = NULL;
    *moved = true;
    return kolo__request_finish(done);
}

/* True when it has just come that all ranks have joined. That comes after everything that was
 * announced: one more look at the announcements is due. */
static bool hears_the_end(struct joining *joining)
{
    struct part *own = &joining->parts[joining->count - 1];
    struct kolo__control *control = own->comm->context->control;
    uint32_t last;
    if (own->all_joined || !kolo__control_all_joined(control, own->comm->id, &joining->last))
        return false;
    own->all_joined = true;
    for (uint32_t i = 0; i + 1 < joining->count; i++)
        joining->parts[i].all_joined =
            kolo__control_all_joined(control, joining->parts[i].comm->id, &last);
    return true;
}

static bool is_over(const struct joining *joining)
{
    bool over = joining->parts[joining->count - 1].all_joined;
    for (uint32_t i = 0; i < joining->count && over; i++)
        over = joining->parts[i].request == NULL && !runs_a_collective(joining->parts[i].comm);
    return over;
}

/* Waits until something may have happened; *turn: which of several waits its turn is. */
static kolo_status rest(struct joining *joining, uint64_t idle_ns, uint32_t *turn)
{
    struct kolo__control *control = joining->parts[0].comm->context->control;
    uint32_t running = 0;
    for (uint32_t i = 0; i < joining->count; i++) {
        running += joining->parts[i].comm->first != NULL;
        kolo_status status = kolo__comm_check(joining->parts[i].comm, "kolo_join");
        if (status != KOLO_OK)
            return status;
    }
    if (running == 0) {
        struct pollfd ready = {.fd = kolo__control_fd(control), .events = POLLIN};
        poll(&ready, 1, IDLE_MS);
        kolo__control_poll_woken(control);
        return KOLO_OK;
    }
    do
        *turn = (*turn + 1) % joining->count;
    while (joining->parts[*turn].comm->first == NULL);
    kolo__comm_rest(joining->parts[*turn].comm, idle_ns, running == 1 ? REST_NS : SHARED_REST_NS);
    return KOLO_OK;
}

static kolo_status take_part(struct joining *joining)
{
    uint64_t moved_at = kolo__now_ns(&kolo__real_clock);
    uint32_t turn = 0;
    for (;;) {
        kolo_status status = KOLO_OK;
        bool moved = false, waits = false;
        for (uint32_t i = 0; i < joining->count && status == KOLO_OK; i++) {
            status = advance(&joining->parts[i], &moved);
            waits |= joining->parts[i].comm->first != NULL;
        }
        if (status != KOLO_OK)
            return status;
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        if (moved || !waits)
            moved_at = now; /* who waits for nobody has no deadline */
        if (moved || hears_the_end(joining))
            continue;
        if (is_over(joining))
            return KOLO_OK;
        status = rest(joining, now - moved_at, &turn);
        if (status != KOLO_OK)
            return status;
    }
}

/* ---- begin and end -------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    return x->comm->id < y->comm->id ? -1 : x->comm->id > y->comm->id;
}

/* comm and what it guards, as far as it works. */
static kolo_status find_parts(kolo_comm *comm, struct joining *joining)
{
    kolo_context *context = comm->context;
    uint32_t count = 1;
    pthread_mutex_lock(&context->lock);
    for (const kolo_comm *c = context->comms; c != NULL; c = c->next)
        count += c->guardian == comm;
    joining->parts = calloc(count, sizeof *joining->parts);
    for (kolo_comm *c = context->comms; joining->parts != NULL && c != NULL; c = c->next)
        if (c->guardian == comm && c->fault.status == KOLO_OK)
            joining->parts[joining->count++].comm = c;
    pthread_mutex_unlock(&context->lock);
    if (joining->parts == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_join: no memory for %u communicators", count);
    if (joining->count > 1)
        qsort(joining->parts, joining->count, sizeof *joining->parts, by_id);
    joining->parts[joining->count++].comm = comm;
    return KOLO_OK;
}

static void tell(struct part *part, const kolo_comm *guardian)
{
    kolo_comm *comm = part->comm;
    part->own_segment_bytes = comm->plan_context.segment_bytes;
    begin_announcing(comm);
    kolo__control_tell_joined(comm->context->control, comm->id, guardian->id, comm->sequence,
                              comm->world_ranks, comm->size);
}

/* Nobody takes part for this rank any more: the others must not wait. */
static void give_up(struct joining *joining, kolo_status status)
{
    char text[480];
    snprintf(text, sizeof text, "%s", kolo_error_text());
    for (uint32_t i = 0; i < joining->count; i++) {
        struct part *part = &joining->parts[i];
        if (part->comm->fault.status == KOLO_OK)
            fail(part->comm, status, text);
        if (part->request != NULL)
            kolo__request_finish(part->request);
    }
    kolo__error(status, "%s", text);
}

static void leave(struct part *part)
{
    part->comm->announcing = false;
    if (part->comm->fault.status == KOLO_OK)
        set_segment(part->comm, part->own_segment_bytes);
    free(part->buffer);
}

static kolo_status join(kolo_comm *comm, uint32_t *last)
{
    struct joining joining = {.parts = NULL};
    kolo_status status = find_parts(comm, &joining);
    if (status != KOLO_OK)
        return status;
    for (uint32_t i = 0; i < joining.count; i++)
        tell(&joining.parts[i], comm);
    status = take_part(&joining);
    if (status != KOLO_OK)
        give_up(&joining, status);
    for (uint32_t i = 0; i < joining.count; i++)
        leave(&joining.parts[i]);
    *last = 0;
    while (status == KOLO_OK && *last + 1 < comm->size && comm->world_ranks[*last] != joining.last)
        ++*last;
    for (uint32_t i = 0; i + 1 < joining.count && status == KOLO_OK; i++) {
        kolo_comm *guarded = joining.parts[i].comm;
        if (joining.parts[i].all_joined && guarded->rejoined != NULL)
            status = guarded->rejoined(guarded->owner, *last);
    }
    free(joining.parts);
    return status;
}

/* Neutral elements are not enough where the others need what only this rank can compute. */
static kolo_status check_guarded(kolo_comm *comm)
{
    const char *why = NULL;
    pthread_mutex_lock(&comm->context->lock);
    for (kolo_comm *other = comm->context->comms; other != NULL; other = other->next)
        if ((other == comm || other->guardian == comm) && other->cannot_join != NULL)
            why = other->cannot_join;
    pthread_mutex_unlock(&comm->context->lock);
    if (why == NULL)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_UNSUPPORTED,
                       "kolo_join: %s, so that all ranks have to do equally "
                       "many steps",
                       why);
}

kolo_status kolo_join(kolo_comm *comm, int *last)
{
    uint32_t last_rank = 0;
    kolo_status status = kolo__call_check_comm(comm, "kolo_join");
    if (status == KOLO_OK)
        status = kolo__comm_check(comm, "kolo_join");
    if (status == KOLO_OK)
        status = check_guarded(comm);
    if (status == KOLO_OK && comm->size > 1) {
        atomic_store(&comm->pen.line->joined, 1);
        status = join(comm, &last_rank);
        atomic_store(&comm->pen.line->joined, 0);
    }
    if (status == KOLO_OK && last != NULL)
        *last = (int)last_rank;
    return status;
}
