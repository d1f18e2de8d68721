/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/control.h"

#include "base/auth.h"
#include "base/clock.h"
#include "base/dial.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/status.h"
#include "runtime/joins.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    FAULTS_MAX = 1 << 16, /* communicators in trouble at once */
    ROUND_SECONDS = 10,   /* for an address to answer, before all begin anew */
};

struct known_fault {
    uint32_t comm; /* 0: all */
    struct kolo__fault fault;
};

struct kolo__control {
    struct kolo__control_options options;
    char job[128];
    int fd;
    struct kolo__control_member *members;
    unsigned char *world; /* the WORLD frame, which members' blobs point into */

    pthread_mutex_t lock; /* of everything below */
    unsigned char *in;
    size_t in_bytes, in_capacity;
    struct known_fault *faults; /* the first of each communicator, as they came */
    unsigned fault_capacity;
    atomic_uint fault_count; /* read without the lock: 0 is the rule */
    struct kolo__joins joins;
    bool closed;        /* the server is gone */
    atomic_ullong sent; /* frames */
};

static const uint64_t SECOND_NS = 1000000000;

/* ---- receiving ----------------------------------------------------------------------------- */

static struct known_fault *find_fault(struct kolo__control *control, uint32_t comm)
{
    for (unsigned i = 0; i < atomic_load(&control->fault_count); i++)
        if (control->faults[i].comm == comm)
            return &control->faults[i];
    return NULL;
}

/* A place for one more; the last one's when there is no more room, for what concerns all. */
static struct known_fault *make_room(struct kolo__control *control, uint32_t comm)
{
    unsigned count = atomic_load(&control->fault_count);
    if (count == control->fault_capacity && count < FAULTS_MAX) {
        unsigned capacity = 2 * count + 16;
        struct known_fault *grown = realloc(control->faults, capacity * sizeof *grown);
        if (grown != NULL) {
            control->faults = grown;
            control->fault_capacity = capacity;
        }
    }
    if (count < control->fault_capacity)
        return &control->faults[count];
    return comm == 0 && count > 0 ? &control->faults[count - 1] : NULL;
}

static void add_fault(struct kolo__control *control, uint32_t comm, kolo_status status, int rank,
                      const char *text)
{
    struct known_fault *known = find_fault(control, comm) == NULL ? make_room(control, comm) : NULL;
    if (known == NULL)
        return;
    known->comm = comm;
    known->fault.status = status;
    known->fault.peer = rank;
    snprintf(known->fault.text, sizeof known->fault.text, "%s", text);
    atomic_store(&control->fault_count, (unsigned)(known - control->faults) + 1);
}

static void server_gone(struct kolo__control *control)
{
    if (control->closed)
        return;
    control->closed = true;
    add_fault(control, 0, KOLO_ERR_PEER_LOST, -1,
              "the rendezvous (kolo run) is gone: it was killed, or its host was lost");
}

/* Reads once without blocking, into the buffer. */
static void fill(struct kolo__control *control)
{
    if (control->closed)
        return;
    if (control->in_capacity - control->in_bytes < 4096) {
        unsigned char *in = realloc(control->in, control->in_capacity * 2 + 8192);
        if (in == NULL)
            return;
        control->in = in;
        control->in_capacity = control->in_capacity * 2 + 8192;
    }
    ssize_t got = recv(control->fd, control->in + control->in_bytes,
                       control->in_capacity - control->in_bytes, MSG_DONTWAIT);
    if (got > 0)
        control->in_bytes += (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        server_gone(control);
}

static void drop(struct kolo__control *control, size_t bytes)
{
    memmove(control->in, control->in + bytes, control->in_bytes - bytes);
    control->in_bytes -= bytes;
}

static void take_fault(struct kolo__control *control, struct kolo__frame_reader *payload)
{
    char text[480];
    uint32_t comm = kolo__get_u32(payload);
    uint8_t status = kolo__get_u8(payload);
    uint32_t rank = kolo__get_u32(payload);
    kolo__get_text(payload, text, sizeof text);
    if (kolo__frame_done(payload) && status > KOLO_AGAIN && status <= KOLO_ERR_ABORTED)
        add_fault(control, comm, (kolo_status)status, rank < control->options.size ? (int)rank : -1,
                  text);
}

/* What a refusal says, as a status and a text. */
static kolo_status take_refusal(struct kolo__frame_reader *payload, char *text, size_t bytes)
{
    uint8_t status = kolo__get_u8(payload);
    kolo__get_text(payload, text, bytes);
    return status > KOLO_AGAIN && status <= KOLO_ERR_ABORTED ? (kolo_status)status
                                                             : KOLO_ERR_NETWORK;
}

static void take_join(struct kolo__control *control, enum kolo__frame_type type,
                      struct kolo__frame_reader *payload)
{
    if (!kolo__joins_take(&control->joins, type, payload))
        add_fault(control, 0, KOLO_ERR_NETWORK, -1,
                  "what the rendezvous said of kolo_join is broken, or there is no memory for it");
}

static bool is_of_join(enum kolo__frame_type type)
{
    return type == KOLO__FRAME_JOINED || type == KOLO__FRAME_ANNOUNCE ||
           type == KOLO__FRAME_ALL_JOINED;
}

/* Handles what nobody waits for, faults and kolo_join, at the front of the buffer. Returns the
 * length of the first other frame, 0 when none is whole yet. */
static size_t next_frame(struct kolo__control *control, enum kolo__frame_type *type,
                         struct kolo__frame_reader *payload)
{
    for (;;) {
        size_t length = kolo__frame_parse(control->in, control->in_bytes, KOLO__FRAME_PAYLOAD_MAX,
                                          type, payload);
        if (length == (size_t)-1) {
            control->in_bytes = 0;
            server_gone(control);
            return 0;
        }
        if (length > 0 && is_of_join(*type))
            take_join(control, *type, payload);
        else if (length > 0 && *type == KOLO__FRAME_FAULT)
            take_fault(control, payload);
        else
            return length;
        drop(control, length);
    }
}

void kolo__control_poll(struct kolo__control *control)
{
    if (pthread_mutex_trylock(&control->lock) != 0)
        return; /* another thread is looking */
    enum kolo__frame_type type;
    struct kolo__frame_reader payload;
    size_t length;
    fill(control);
    /* Nobody waits for an answer now (who does holds the lock): what is no fault came too late, and
     * must not keep a fault behind it from being seen. */
    while ((length = next_frame(control, &type, &payload)) > 0) {
        if (type == KOLO__FRAME_REFUSED) {
            char why[360], text[440];
            kolo_status status = take_refusal(&payload, why, sizeof why);
            snprintf(text, sizeof text, "the rendezvous refused a message of this rank: %s", why);
            add_fault(control, 0, status, -1, text);
        }
        drop(control, length);
    }
    pthread_mutex_unlock(&control->lock);
}

bool kolo__control_fault(struct kolo__control *control, uint32_t comm, struct kolo__fault *fault)
{
    if (atomic_load_explicit(&control->fault_count, memory_order_acquire) == 0)
        return false;
    bool found = false;
    pthread_mutex_lock(&control->lock);
    for (unsigned i = 0; i < atomic_load(&control->fault_count) && !found; i++) {
        const struct known_fault *known = &control->faults[i];
        found = known->comm == 0 || known->comm == comm;
        if (found)
            *fault = known->fault;
    }
    pthread_mutex_unlock(&control->lock);
    return found;
}

void kolo__control_forget(struct kolo__control *control, uint32_t comm)
{
    pthread_mutex_lock(&control->lock);
    struct known_fault *known = find_fault(control, comm);
    if (known != NULL) {
        unsigned left = atomic_load(&control->fault_count) - 1;
        size_t after = left - (size_t)(known - control->faults);
        memmove(known, known + 1, after * sizeof *known);
        atomic_store(&control->fault_count, left);
    }
    kolo__joins_forget(&control->joins, comm);
    pthread_mutex_unlock(&control->lock);
}

/* The first fault of any kind, as an error of the caller. */
static kolo_status fault_error(struct kolo__control *control, const char *doing)
{
    struct kolo__fault *fault = &control->faults[0].fault;
    return kolo__error(fault->status, "%s: %s", doing, fault->text);
}

/* Waits for one frame of the wanted type, at most until the deadline. The caller drops it. */
static kolo_status await_frame(struct kolo__control *control, enum kolo__frame_type wanted,
                               uint64_t deadline_ns, const char *doing,
                               struct kolo__frame_reader *payload, size_t *length)
{
    for (;;) {
        enum kolo__frame_type type;
        *length = next_frame(control, &type, payload);
        if (*length > 0 && type == wanted)
            return KOLO_OK;
        if (*length > 0 && type == KOLO__FRAME_REFUSED) {
            char text[512];
            kolo_status status = take_refusal(payload, text, sizeof text);
            return kolo__error(status, "%s: the rendezvous at %s refused rank %u: %s", doing,
                               control->options.rendezvous, control->options.rank, text);
        }
        if (*length > 0) {
            drop(control, *length); /* an answer that came too late */
            continue;
        }
        if (atomic_load(&control->fault_count) > 0)
            return fault_error(control, doing);
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        if (now >= deadline_ns)
            return KOLO_ERR_TIMEOUT;
        uint64_t left_ms = (deadline_ns - now) / 1000000 + 1;
        struct pollfd ready = {.fd = control->fd, .events = POLLIN};
        poll(&ready, 1, left_ms > 1000 ? 1000 : (int)left_ms);
        fill(control);
    }
}

/* ---- sending ------------------------------------------------------------------------------- */

static kolo_status send_frame(struct kolo__control *control, struct kolo__frame_writer *frame)
{
    atomic_fetch_add(&control->sent, 1);
    kolo_status status;
    kolo__frame_end(frame);
    if (frame->failed)
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for a control message");
    else
        status = kolo__send_all(control->fd, frame->data, frame->bytes,
                                kolo__now_ns(&kolo__real_clock) + 10 * SECOND_NS);
    kolo__frame_writer_free(frame);
    return status;
}

uint64_t kolo__control_sent(const struct kolo__control *control)
{
    return atomic_load(&control->sent);
}

static void send_fault(struct kolo__control *control, uint32_t comm,
                       const struct kolo__fault *fault)
{
    struct kolo__frame_writer frame = {0};
    kolo__frame_begin(&frame, KOLO__FRAME_FAULT);
    kolo__put_u32(&frame, comm);
    kolo__put_u8(&frame, (uint8_t)fault->status);
    kolo__put_u32(&frame, (uint32_t)fault->peer);
    kolo__put_text(&frame, fault->text);
    send_frame(control, &frame);
}

void kolo__control_report(struct kolo__control *control, uint32_t comm,
                          const struct kolo__fault *fault)
{
    pthread_mutex_lock(&control->lock);
    send_fault(control, comm, fault);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_stuck(struct kolo__control *control, const struct kolo__verdict_report *report)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_STUCK);
    kolo__put_report(&frame, report);
    send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

/* ---- kolo_join ----------------------------------------------------------------------------- */

bool kolo__control_joins(const struct kolo__control *control)
{
    return atomic_load_explicit(&control->joins.comm_count, memory_order_relaxed) > 0;
}

bool kolo__control_has_joined(struct kolo__control *control, uint32_t comm, uint32_t rank,
                              uint64_t *sequence)
{
    if (!kolo__control_joins(control))
        return false;
    pthread_mutex_lock(&control->lock);
    bool found = kolo__joins_has(&control->joins, comm, rank, sequence);
    pthread_mutex_unlock(&control->lock);
    return found;
}

bool kolo__control_lowest_joined(struct kolo__control *control, uint32_t comm, uint64_t *sequence)
{
    pthread_mutex_lock(&control->lock);
    bool found = kolo__joins_lowest(&control->joins, comm, sequence);
    pthread_mutex_unlock(&control->lock);
    return found;
}

bool kolo__control_next_announced(struct kolo__control *control, uint32_t comm,
                                  struct kolo__announcement *announcement)
{
    if (atomic_load_explicit(&control->joins.announced_count, memory_order_relaxed) == 0)
        return false;
    pthread_mutex_lock(&control->lock);
    bool found = kolo__joins_next(&control->joins, comm, announcement);
    pthread_mutex_unlock(&control->lock);
    return found;
}

bool kolo__control_all_joined(struct kolo__control *control, uint32_t comm, uint32_t *last)
{
    pthread_mutex_lock(&control->lock);
    bool found = kolo__joins_end(&control->joins, comm, last);
    pthread_mutex_unlock(&control->lock);
    return found;
}

void kolo__control_tell_joined(struct kolo__control *control, uint32_t comm, uint32_t guardian,
                               uint64_t sequence, const uint32_t *world_ranks, uint32_t size)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_JOINED);
    kolo__put_u32(&frame, comm);
    kolo__put_u32(&frame, guardian);
    kolo__put_u64(&frame, sequence);
    kolo__put_u32(&frame, size);
    for (uint32_t r = 0; r < size; r++)
        kolo__put_u32(&frame, world_ranks[r]);
    send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_announce(struct kolo__control *control,
                            const struct kolo__announcement *announcement)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_ANNOUNCE);
    kolo__put_announcement(&frame, announcement);
    send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_forgotten(struct kolo__control *control, uint32_t comm, uint64_t sequence)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_FORGOTTEN);
    kolo__put_u32(&frame, comm);
    kolo__put_u64(&frame, sequence);
    send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_bye(struct kolo__control *control)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_BYE);
    send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

/* ---- joining ------------------------------------------------------------------------------- */

static kolo_status authenticate(struct kolo__control *control)
{
    struct kolo__auth auth;
    unsigned char hello[KOLO__AUTH_HELLO_BYTES], reply[KOLO__AUTH_REPLY_BYTES];
    unsigned char proof[KOLO__AUTH_PROOF_BYTES];
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + 10 * SECOND_NS;
    kolo__auth_init(&auth, KOLO__AUTH_CONTROL, control->options.token);
    kolo_status status = kolo__auth_hello(&auth, hello);
    if (status == KOLO_OK)
        status = kolo__send_all(control->fd, hello, sizeof hello, deadline_ns);
    if (status == KOLO_OK)
        status = kolo__recv_all(control->fd, reply, sizeof reply, deadline_ns);
    if (status == KOLO_OK)
        status = kolo__auth_check_reply(&auth, reply, proof);
    if (status == KOLO_OK)
        status = kolo__send_all(control->fd, proof, sizeof proof, deadline_ns);
    return status;
}

static void sleep_ms(long milliseconds)
{
    struct timespec pause = {.tv_sec = milliseconds / 1000,
                             .tv_nsec = milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* One round over all addresses. KOLO_ERR_NETWORK: all of them answered, and none is ours. */
static kolo_status connect_once(struct kolo__control *control)
{
    const struct kolo__control_options *options = &control->options;
    char report[700];
    struct kolo__dial *dial;
    kolo_status status = kolo__dial_open(options->rendezvous, &dial);
    if (status != KOLO_OK)
        return status;
    /* Names are resolved again in the next round: they may have got another address meanwhile. */
    uint64_t round_ns = kolo__now_ns(&kolo__real_clock) + ROUND_SECONDS * SECOND_NS;
    if (round_ns > options->deadline_ns)
        round_ns = options->deadline_ns;
    while ((status = kolo__dial_next(dial, round_ns, &control->fd)) == KOLO_OK) {
        kolo__tune_stream(control->fd);
        status = authenticate(control);
        if (status == KOLO_OK)
            break;
        close(control->fd);
        control->fd = -1;
        kolo__dial_refuse(dial, kolo_error_text(), status != KOLO_ERR_NETWORK);
    }
    if (status != KOLO_OK)
        status = kolo__error(kolo__dial_all_refused(dial) ? KOLO_ERR_NETWORK : KOLO_ERR_TIMEOUT,
                             "%s", kolo__dial_report(dial, report, sizeof report));
    kolo__dial_close(dial);
    return status;
}

/* The server may start later than we do: every failure but a wrong address or token is tried again.
 */
static kolo_status connect_patiently(struct kolo__control *control)
{
    const struct kolo__control_options *options = &control->options;
    for (long pause_ms = 50;; pause_ms = pause_ms < 2500 ? pause_ms * 2 : 5000) {
        kolo_status status = connect_once(control);
        if (status == KOLO_OK || status == KOLO_ERR_CONFIG || status == KOLO_ERR_MEMORY)
            return status;
        if (status == KOLO_ERR_NETWORK)
            return kolo__error(status, "rendezvous at %s", kolo_error_text());
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        if (now + (uint64_t)pause_ms * 1000000 >= options->deadline_ns)
            return kolo__error(
                KOLO_ERR_TIMEOUT,
                "rank %u (host %s) found no rendezvous within %d s; the last attempt "
                "at each address: %s. See whether kolo run still runs there, and "
                "whether a firewall lets this host through",
                options->rank, kolo__host_name(), options->timeout_s, kolo_error_text());
        sleep_ms(pause_ms);
    }
}

kolo_status kolo__control_connect(const struct kolo__control_options *options,
                                  struct kolo__control **result)
{
    struct kolo__control *control = calloc(1, sizeof *control);
    if (control == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the control plane");
    control->options = *options;
    control->fd = -1;
    snprintf(control->job, sizeof control->job, "%s", options->job);
    pthread_mutex_init(&control->lock, NULL);
    kolo_status status = connect_patiently(control);
    if (status != KOLO_OK) {
        kolo__control_close(control);
        return status;
    }
    *result = control;
    return KOLO_OK;
}

int kolo__control_fd(const struct kolo__control *control)
{
    return control->fd;
}

/* Asks the server who is not there, and makes that the fault of all: the others would else blame
 * this rank, which gives up a moment before them. */
static kolo_status join_timed_out(struct kolo__control *control)
{
    struct kolo__frame_writer frame = {0};
    struct kolo__frame_reader payload;
    struct kolo__fault fault = {.status = KOLO_ERR_TIMEOUT, .peer = -1};
    size_t length;
    char text[320];
    kolo__frame_begin(&frame, KOLO__FRAME_ABSENT);
    send_frame(control, &frame);
    kolo_status status =
        await_frame(control, KOLO__FRAME_ABSENT, kolo__now_ns(&kolo__real_clock) + 2 * SECOND_NS,
                    "kolo_init", &payload, &length);
    if (atomic_load(&control->fault_count) > 0)
        return status; /* another rank knew it first */
    if (status == KOLO_ERR_TIMEOUT)
        return kolo__error(status,
                           "kolo_init: the world did not form within %d s, and the "
                           "rendezvous does not say who is missing",
                           control->options.timeout_s);
    if (status != KOLO_OK)
        return status;
    uint32_t missing = kolo__get_u32(&payload);
    kolo__get_text(&payload, text, sizeof text);
    drop(control, length);
    snprintf(fault.text, sizeof fault.text,
             "%u of %u ranks did not join within %d s; missing: %s. See whether these processes "
             "started; KOLO_INIT_TIMEOUT sets the wait",
             missing, control->options.size, control->options.timeout_s, text);
    send_fault(control, 0, &fault);
    return kolo__error(fault.status, "kolo_init: %s", fault.text);
}

static kolo_status read_world(struct kolo__control *control, struct kolo__frame_reader *payload,
                              size_t length)
{
    /* Members point into a copy of the frame. */
    size_t offset = (size_t)(payload->next - control->in);
    control->world = malloc(length);
    control->members = calloc(control->options.size, sizeof *control->members);
    if (control->world == NULL || control->members == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the table of ranks");
    memcpy(control->world, control->in, length);
    drop(control, length);
    payload->next = control->world + offset;
    payload->end = control->world + length;
    uint32_t size = kolo__get_u32(payload);
    for (uint32_t r = 0; r < size && r < control->options.size; r++) {
        struct kolo__control_member *member = &control->members[r];
        kolo__get_text(payload, member->host, sizeof member->host);
        member->pid = kolo__get_u32(payload);
        member->blob = kolo__get_blob(payload, &member->blob_bytes);
    }
    if (size != control->options.size || !kolo__frame_done(payload))
        return kolo__error(KOLO_ERR_NETWORK, "the table of ranks from the rendezvous is broken");
    return KOLO_OK;
}

kolo_status kolo__control_join(struct kolo__control *control, const void *blob, size_t bytes)
{
    struct kolo__frame_writer frame = {0};
    struct kolo__frame_reader payload;
    size_t length;
    kolo__frame_begin(&frame, KOLO__FRAME_JOIN);
    kolo__put_text(&frame, control->job);
    kolo__put_u32(&frame, control->options.size);
    kolo__put_u32(&frame, control->options.rank);
    kolo__put_u32(&frame, (uint32_t)getpid());
    kolo__put_text(&frame, kolo__host_name());
    kolo__put_blob(&frame, blob, bytes);
    pthread_mutex_lock(&control->lock);
    kolo_status status = send_frame(control, &frame);
    if (status == KOLO_OK)
        status = await_frame(control, KOLO__FRAME_WORLD, control->options.deadline_ns, "kolo_init",
                             &payload, &length);
    /* A fault may be a timeout too: of another rank, which has told everybody already. */
    if (status == KOLO_ERR_TIMEOUT && atomic_load(&control->fault_count) == 0)
        status = join_timed_out(control);
    else if (status == KOLO_OK)
        status = read_world(control, &payload, length);
    pthread_mutex_unlock(&control->lock);
    return status;
}

const struct kolo__control_member *kolo__control_member(const struct kolo__control *control,
                                                        uint32_t rank)
{
    return &control->members[rank];
}

kolo_status kolo__control_exchange(struct kolo__control *control, uint32_t tag, const void *blob,
                                   size_t bytes, uint64_t deadline_ns,
                                   void (*visit)(void *self, uint32_t rank,
                                                 const unsigned char *blob, size_t bytes),
                                   void *self)
{
    struct kolo__frame_writer frame = {0};
    struct kolo__frame_reader payload;
    size_t length;
    kolo__frame_begin(&frame, KOLO__FRAME_EXCHANGE);
    kolo__put_u32(&frame, tag);
    kolo__put_blob(&frame, blob, bytes);
    pthread_mutex_lock(&control->lock);
    kolo_status status = send_frame(control, &frame);
    if (status == KOLO_OK)
        status = await_frame(control, KOLO__FRAME_EXCHANGED, deadline_ns, "kolo_init", &payload,
                             &length);
    if (status == KOLO_ERR_TIMEOUT && atomic_load(&control->fault_count) == 0)
        kolo__error(status, "kolo_init: not all ranks took set-up step %u in time", tag);
    if (status == KOLO_OK) {
        if (kolo__get_u32(&payload) != tag || kolo__get_u32(&payload) != control->options.size)
            payload.bad = true;
        for (uint32_t r = 0; r < control->options.size && !payload.bad; r++) {
            size_t blob_bytes;
            const unsigned char *data = kolo__get_blob(&payload, &blob_bytes);
            if (!payload.bad)
                visit(self, r, data, blob_bytes);
        }
        if (!kolo__frame_done(&payload))
            status = kolo__error(KOLO_ERR_NETWORK, "an answer from the rendezvous is broken");
        drop(control, length);
    }
    pthread_mutex_unlock(&control->lock);
    return status;
}

void kolo__control_close(struct kolo__control *control)
{
    if (control == NULL)
        return;
    if (control->fd >= 0)
        close(control->fd);
    pthread_mutex_destroy(&control->lock);
    free(control->in);
    free(control->faults);
    kolo__joins_free(&control->joins);
    free(control->world);
    free(control->members);
    free(control);
}
