/* SPDX-License-Identifier: Apache-2.0 */
/* A rank's end of the control plane: frames in and out, faults, kolo_join. */
#include "runtime/control_frames.h"

#include "base/clock.h"
#include "base/status.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAULTS_MAX = 1 << 16 }; /* communicators in trouble at once */

static const uint64_t SECOND_NS = 1000000000;

/* ---- receiving ----------------------------------------------------------------------------- */

static struct kolo__known_fault *find_fault(struct kolo__control *control, uint32_t comm)
{
    for (unsigned i = 0; i < atomic_load(&control->fault_count); i++)
        if (control->faults[i].comm == comm)
            return &control->faults[i];
    return NULL;
}

/* A place for one more; the last one's when there is no more room, for what concerns all. */
static struct kolo__known_fault *make_room(struct kolo__control *control, uint32_t comm)
{
    unsigned count = atomic_load(&control->fault_count);
    if (count == control->fault_capacity && count < FAULTS_MAX) {
        unsigned capacity = 2 * count + 16;
        struct kolo__known_fault *grown = realloc(control->faults, capacity * sizeof *grown);
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
    struct kolo__known_fault *known =
        find_fault(control, comm) == NULL ? make_room(control, comm) : NULL;
    if (known == NULL)
        return;
    known->comm = comm;
    known->fault.status = status;
    known->fault.peer = rank;
    snprintf(known->fault.text, sizeof known->fault.text, "%s", text);
    atomic_store(&control->fault_count, (unsigned)(known - control->faults) + 1);
}

/* Of the server: its process ended, or, silent, nobody hears of its host. */
static void server_gone(struct kolo__control *control, bool silent)
{
    if (control->closed)
        return;
    control->closed = true;
    if (silent) {
        bool at_rank_0 = control->options.at_rank_0 && control->members != NULL;
        char text[300];
        snprintf(text, sizeof text,
                 "the host %s%sof the rendezvous%s at %.100s " KOLO__SILENCE_TEXT,
                 at_rank_0 ? control->members[0].host : "", at_rank_0 ? " (of rank 0) " : "",
                 control->options.at_rank_0 ? "" : " (kolo run)", control->options.rendezvous);
        add_fault(control, 0, KOLO_ERR_PEER_LOST, at_rank_0 ? 0 : -1, text);
        return;
    }
    if (control->options.at_rank_0) {
        char text[200];
        const struct kolo__control_member *first = control->members;
        char who[120] = "";
        if (first != NULL)
            snprintf(who, sizeof who, " (host %s, pid %u)", first->host, first->pid);
        snprintf(
            text, sizeof text,
            "rank 0%s, which held the rendezvous, is gone: it ended without kolo_finalize, was "
            "killed, or its host was lost",
            who);
        add_fault(control, 0, KOLO_ERR_PEER_LOST, 0, text);
        return;
    }
    add_fault(control, 0, KOLO_ERR_PEER_LOST, -1,
              "the rendezvous (kolo run) is gone: it was killed, or its host was lost");
}

void kolo__control_lose_server(struct kolo__control *control, uint64_t silent_ns)
{
    char who[120] = "the rendezvous (kolo run)", text[400];
    pthread_mutex_lock(&control->lock);
    const struct kolo__control_member *first = control->members; /* kolo_renew replaces them */
    if (kolo__silence_is_unanswered(control->fd)) {
        server_gone(control, true);
    } else if (!control->closed) {
        control->closed = true;
        if (control->options.at_rank_0 && first != NULL)
            snprintf(who, sizeof who, "rank 0 (host %s, pid %u), which holds the rendezvous,",
                     first->host, first->pid);
        snprintf(text, sizeof text,
                 "%s has said nothing for %.1f s, though its host answers: it is stopped (SIGSTOP, "
                 "a debugger) or hangs. KOLO_PEER_TIMEOUT sets the limit",
                 who, (double)silent_ns / 1e9);
        add_fault(control, 0, KOLO_ERR_PEER_LOST, control->options.at_rank_0 ? 0 : -1, text);
    }
    pthread_mutex_unlock(&control->lock);
}

static bool make_space(struct kolo__control *control)
{
    if (control->in_capacity - control->in_bytes >= 4096)
        return true;
    unsigned char *in = realloc(control->in, control->in_capacity * 2 + 8192);
    if (in == NULL)
        return false;
    control->in = in;
    control->in_capacity = control->in_capacity * 2 + 8192;
    return true;
}

/* Reads without blocking, into the buffer, until nothing waits but in the socket. */
static void fill(struct kolo__control *control)
{
    kolo_status status = KOLO_OK;
    if (control->secure == NULL) /* no other was found */
        server_gone(control, false);
    while (status == KOLO_OK && !control->closed && make_space(control)) {
        size_t moved;
        status = kolo__secure_read(control->secure, control->in + control->in_bytes,
                                   control->in_capacity - control->in_bytes, &moved);
        control->in_bytes += moved;
        if (status > KOLO_AGAIN)
            server_gone(control, kolo__secure_timed_out(control->secure));
        if (!kolo__secure_pending(control->secure))
            break;
    }
}

/* Once in a while. */
static void check_silence(struct kolo__control *control)
{
    long silence_s = control->options.silence_s;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (now_ns >= control->silence.looked_ns + kolo__silence_pause_ns(silence_s) &&
        kolo__silence_check(&control->silence, control->fd, silence_s, now_ns))
        server_gone(control, true);
}

void kolo__control_drop_frame(struct kolo__control *control, size_t bytes)
{
    memmove(control->in, control->in + bytes, control->in_bytes - bytes);
    control->in_bytes -= bytes;
}

static void take_fault(struct kolo__control *control, struct kolo__frame_reader *payload)
{
    char text[KOLO__FAULT_TEXT_BYTES];
    if (control->renewing)
        return;
    uint32_t comm = kolo__get_u32(payload);
    uint8_t status = kolo__get_u8(payload);
    uint32_t rank = kolo__get_u32(payload);
    kolo__get_text(payload, text, sizeof text);
    if (kolo__frame_done(payload) && status > KOLO_AGAIN && status <= KOLO_ERR_DEVICE)
        add_fault(control, comm, (kolo_status)status, rank < control->options.size ? (int)rank : -1,
                  text);
}

/* What a refusal says, kept as a status and a text. */
static void take_refusal(struct kolo__control *control, struct kolo__frame_reader *payload)
{
    uint8_t status = kolo__get_u8(payload);
    kolo__get_text(payload, control->refusal.text, sizeof control->refusal.text);
    control->refusal.status =
        status > KOLO_AGAIN && status <= KOLO_ERR_DEVICE ? (kolo_status)status : KOLO_ERR_NETWORK;
}

static void take_join(struct kolo__control *control, enum kolo__frame_type type,
                      struct kolo__frame_reader *payload)
{
    if (!control->renewing && !kolo__joins_take(&control->joins, type, payload))
        add_fault(control, 0, KOLO_ERR_NETWORK, -1,
                  "what the rendezvous said of kolo_join is broken, or there is no memory for it");
}

static bool is_of_join(enum kolo__frame_type type)
{
    return type == KOLO__FRAME_JOINED || type == KOLO__FRAME_ANNOUNCE ||
           type == KOLO__FRAME_ALL_JOINED;
}

static void take_newcomers(struct kolo__control *control, struct kolo__frame_reader *payload)
{
    uint32_t count = kolo__get_u32(payload);
    if (kolo__frame_done(payload))
        atomic_store(&control->newcomers, count);
}

/* Handles what nobody waits for, faults, kolo_join and epochs, at the front of the buffer. Returns
 * the length of the first other frame, 0 when none is whole yet. */
static size_t next_frame(struct kolo__control *control, enum kolo__frame_type *type,
                         struct kolo__frame_reader *payload)
{
    for (;;) {
        size_t length = kolo__frame_parse(control->in, control->in_bytes, KOLO__FRAME_PAYLOAD_MAX,
                                          type, payload);
        if (length == (size_t)-1) {
            control->in_bytes = 0;
            server_gone(control, false);
            return 0;
        }
        if (length > 0 && is_of_join(*type))
            take_join(control, *type, payload);
        else if (length > 0 && *type == KOLO__FRAME_FAULT)
            take_fault(control, payload);
        else if (length > 0 && *type == KOLO__FRAME_EPOCH)
            kolo__control_take_epoch(control, payload);
        else if (length > 0 && *type == KOLO__FRAME_NEWCOMERS)
            take_newcomers(control, payload);
        else if (length > 0 && *type == KOLO__FRAME_NOTE)
            kolo__control_take_note(control, payload);
        else
            return length;
        kolo__control_drop_frame(control, length);
    }
}

void kolo__control_take_all(struct kolo__control *control)
{
    enum kolo__frame_type type;
    struct kolo__frame_reader payload;
    size_t length;
    fill(control);
    check_silence(control);
    /* Nobody waits for an answer now (who does holds the lock): what is no fault came too late, and
     * must not keep a fault behind it from being seen. */
    while ((length = next_frame(control, &type, &payload)) > 0) {
        if (type == KOLO__FRAME_REFUSED) {
            char text[680];
            take_refusal(control, &payload);
            snprintf(text, sizeof text, "the rendezvous refused this rank, or a message of it: %s",
                     control->refusal.text);
            add_fault(control, 0, control->refusal.status, -1, text);
        }
        kolo__control_drop_frame(control, length);
    }
}

/* False: another thread has it. */
static bool look(struct kolo__control *control)
{
    if (pthread_mutex_trylock(&control->lock) != 0)
        return false;
    if (!control->awaiting)
        kolo__control_take_all(control);
    pthread_mutex_unlock(&control->lock);
    kolo__control_say_note(control);
    return true;
}

void kolo__control_poll(struct kolo__control *control)
{
    look(control);
}

void kolo__control_poll_woken(struct kolo__control *control)
{
    if (!look(control))
        usleep(1000);
}

bool kolo__control_fault(struct kolo__control *control, uint32_t comm, struct kolo__fault *fault)
{
    if (atomic_load_explicit(&control->fault_count, memory_order_acquire) == 0)
        return false;
    bool found = false;
    pthread_mutex_lock(&control->lock);
    for (unsigned i = 0; i < atomic_load(&control->fault_count) && !found; i++) {
        const struct kolo__known_fault *known = &control->faults[i];
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
    struct kolo__known_fault *known = find_fault(control, comm);
    if (known != NULL) {
        unsigned left = atomic_load(&control->fault_count) - 1;
        size_t after = left - (size_t)(known - control->faults);
        memmove(known, known + 1, after * sizeof *known);
        atomic_store(&control->fault_count, left);
    }
    kolo__joins_forget(&control->joins, comm);
    pthread_mutex_unlock(&control->lock);
}

kolo_status kolo__control_fault_error(struct kolo__control *control, const char *doing)
{
    struct kolo__fault *fault = &control->faults[0].fault;
    return kolo__error(fault->status, "%s: %s", doing, fault->text);
}

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
            take_refusal(control, payload);
            control->come_again =
                control->refusal.status == KOLO_ERR_PEER_LOST && control->options.in_pods;
            return kolo__error(
                control->refusal.status, "%s: the rendezvous at %.256s refused rank %u: %s", doing,
                control->options.rendezvous, control->options.rank, control->refusal.text);
        }
        if (*length > 0) {
            kolo__control_drop_frame(control, *length); /* an answer that came too late */
            continue;
        }
        if (atomic_load(&control->fault_count) > 0)
            return kolo__control_fault_error(control, doing);
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        if (now >= deadline_ns)
            return KOLO_ERR_TIMEOUT;
        uint64_t left_ms = (deadline_ns - now) / 1000000 + 1;
        struct pollfd ready = {.fd = control->fd, .events = POLLIN};
        pthread_mutex_unlock(&control->lock); /* signs of life go on meanwhile */
        poll(&ready, 1, left_ms > 1000 ? 1000 : (int)left_ms);
        pthread_mutex_lock(&control->lock);
        fill(control);
        check_silence(control);
    }
}

kolo_status kolo__control_await_frame(struct kolo__control *control, enum kolo__frame_type wanted,
                                      uint64_t deadline_ns, const char *doing,
                                      struct kolo__frame_reader *payload, size_t *length)
{
    control->awaiting = true;
    kolo_status status = await_frame(control, wanted, deadline_ns, doing, payload, length);
    control->awaiting = false;
    return status;
}

/* ---- sending ------------------------------------------------------------------------------- */

kolo_status kolo__control_send_frame(struct kolo__control *control,
                                     struct kolo__frame_writer *frame)
{
    return kolo__control_send_frame_by(control, frame,
                                       kolo__now_ns(&kolo__real_clock) + 10 * SECOND_NS);
}

/* What does not go out in time goes out first the next time: who has read half a frame waits for
 * the other half, and what is encrypted cannot be taken back. */
static kolo_status flush(struct kolo__control *control, uint64_t deadline_ns)
{
    struct kolo__frame_writer *unsent = &control->unsent;
    size_t sent;
    if (unsent->failed)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a control message");
    kolo_status status =
        kolo__secure_send_some(control->secure, unsent->data, unsent->bytes, deadline_ns, &sent);
    unsent->bytes -= sent;
    memmove(unsent->data, unsent->data + sent, unsent->bytes);
    return status;
}

kolo_status kolo__control_send_frame_by(struct kolo__control *control,
                                        struct kolo__frame_writer *frame, uint64_t deadline_ns)
{
    atomic_fetch_add(&control->sent, 1);
    kolo_status status;
    kolo__frame_end(frame);
    if (frame->failed)
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for a control message");
    else if (control->secure == NULL)
        status = kolo__error(KOLO_ERR_PEER_LOST, "there is no connection to the rendezvous");
    else {
        kolo__put_raw(&control->unsent, frame->data, frame->bytes);
        status = flush(control, deadline_ns);
    }
    kolo__frame_writer_free(frame);
    return status;
}

uint32_t kolo__control_newcomers(const struct kolo__control *control)
{
    return atomic_load_explicit(&control->newcomers, memory_order_relaxed);
}

uint64_t kolo__control_sent(const struct kolo__control *control)
{
    return atomic_load(&control->sent);
}

void kolo__control_send_fault(struct kolo__control *control, uint32_t comm,
                              const struct kolo__fault *fault)
{
    struct kolo__frame_writer frame = {0};
    kolo__frame_begin(&frame, KOLO__FRAME_FAULT);
    kolo__put_u32(&frame, comm);
    kolo__put_u8(&frame, (uint8_t)fault->status);
    kolo__put_u32(&frame, (uint32_t)fault->peer);
    kolo__put_text(&frame, fault->text);
    kolo__control_send_frame(control, &frame);
}

void kolo__control_report(struct kolo__control *control, uint32_t comm,
                          const struct kolo__fault *fault)
{
    pthread_mutex_lock(&control->lock);
    kolo__control_send_fault(control, comm, fault);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_stuck(struct kolo__control *control, const struct kolo__verdict_report *report)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_STUCK);
    kolo__put_report(&frame, report);
    kolo__control_send_frame(control, &frame);
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
    kolo__control_send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_announce(struct kolo__control *control,
                            const struct kolo__announcement *announcement)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_ANNOUNCE);
    kolo__put_announcement(&frame, announcement);
    kolo__control_send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_forgotten(struct kolo__control *control, uint32_t comm, uint64_t sequence)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_FORGOTTEN);
    kolo__put_u32(&frame, comm);
    kolo__put_u64(&frame, sequence);
    kolo__control_send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}

void kolo__control_bye(struct kolo__control *control)
{
    struct kolo__frame_writer frame = {0};
    pthread_mutex_lock(&control->lock);
    kolo__frame_begin(&frame, KOLO__FRAME_BYE);
    kolo__control_send_frame(control, &frame);
    pthread_mutex_unlock(&control->lock);
}
