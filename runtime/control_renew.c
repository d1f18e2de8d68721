/* SPDX-License-Identifier: Apache-2.0 */
/* How a rank comes from one epoch of its world into the next (kolo_renew). The server's end is
 * rendezvous_renew.c. */
#include "runtime/control_frames.h"

#include "base/clock.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MILLISECOND_NS = 1000000;

/* The server answers when the others' time is over; so much later it does not any more. */
enum { ANSWER_MS = 10000, RANKS_MAX = 1 << 20 };

const struct kolo__epoch *kolo__control_epoch(const struct kolo__control *control)
{
    return &control->epoch;
}

/* Of the ranks that it names none is the same any more. */
static void forget_epoch(struct kolo__control *control)
{
    atomic_store(&control->fault_count, 0);
    kolo__joins_free(&control->joins);
    memset(&control->joins, 0, sizeof control->joins);
    control->closed = false; /* if it is, the next look finds it again */
}

void kolo__control_take_epoch(struct kolo__control *control, struct kolo__frame_reader *payload)
{
    struct kolo__epoch epoch = {.number = kolo__get_u32(payload)};
    epoch.rank = kolo__get_u32(payload);
    epoch.size = kolo__get_u32(payload);
    epoch.previous_size = kolo__get_u32(payload);
    epoch.survivors = kolo__get_u32(payload);
    size_t room = (size_t)(payload->end - payload->next) / sizeof *epoch.previous;
    if (epoch.size > RANKS_MAX || epoch.survivors > epoch.size || epoch.survivors > room ||
        epoch.rank >= epoch.size)
        payload->bad = true;
    else
        epoch.previous = calloc(epoch.survivors + 1, sizeof *epoch.previous);
    for (uint32_t i = 0; i < epoch.survivors && epoch.previous != NULL; i++)
        epoch.previous[i] = kolo__get_u32(payload);
    kolo__get_text(payload, epoch.gone, sizeof epoch.gone);
    /* Only who has asked gets one. */
    if (!kolo__frame_done(payload) || epoch.previous == NULL || !control->expects_epoch) {
        free(epoch.previous);
        return;
    }
    forget_epoch(control);
    free(control->epoch.previous);
    control->epoch = epoch;
    control->options.rank = epoch.rank;
    control->options.size = epoch.size;
    control->renewing = control->expects_epoch = false;
    atomic_store(&control->newcomers, 0);
    control->note.at_ns = 0;
}

/* The connection has ended, or the server has said that it will; or neither. */
static kolo_status find_end(struct kolo__control *control)
{
    if (control->refusal.status != KOLO_OK)
        return kolo__error(control->refusal.status,
                           "kolo_renew: the world goes on without rank %u: %s",
                           control->options.rank, control->refusal.text);
    if (control->closed) {
        char text[KOLO__FAULT_TEXT_BYTES];
        kolo__control_fault_error(control, "kolo_renew");
        snprintf(text, sizeof text, "%.600s", kolo_error_text());
        return kolo__error(KOLO_ERR_PEER_LOST,
                           "%s. No epoch can follow: whoever started the job has to start it again",
                           text);
    }
    return KOLO_OK;
}

static kolo_status ask(struct kolo__control *control, uint32_t patience_ms, const void *blob,
                       size_t bytes)
{
    struct kolo__frame_writer frame = {0};
    struct kolo__frame_reader payload;
    size_t length;
    uint64_t deadline_ns =
        kolo__now_ns(&kolo__real_clock) + ((uint64_t)patience_ms + ANSWER_MS) * MILLISECOND_NS;
    kolo__frame_begin(&frame, KOLO__FRAME_RENEW);
    kolo__put_u32(&frame, control->epoch.number);
    kolo__put_u32(&frame, patience_ms);
    kolo__put_blob(&frame, blob, bytes);
    kolo_status status = kolo__control_send_frame(control, &frame);
    if (status == KOLO_OK)
        status = kolo__control_await_frame(control, KOLO__FRAME_WORLD, deadline_ns, "kolo_renew",
                                           &payload, &length);
    if (status == KOLO_OK && control->renewing)
        status = kolo__error(KOLO_ERR_NETWORK, "kolo_renew: the rendezvous names no epoch");
    if (status == KOLO_OK)
        status = kolo__control_read_world(control, &payload, length);
    if (status == KOLO_ERR_TIMEOUT) { /* it may have formed the epoch: this rank is not in it */
        kolo__control_hang_up(control);
        kolo__error(status, "kolo_renew: the rendezvous said nothing for %u ms",
                    patience_ms + ANSWER_MS);
    }
    return status;
}

kolo_status kolo__control_renew(struct kolo__control *control, uint32_t patience_ms,
                                const void *blob, size_t bytes)
{
    pthread_mutex_lock(&control->lock);
    control->doing = "kolo_renew";
    kolo__control_take_all(control);
    kolo_status status = find_end(control);
    if (status == KOLO_OK) {
        forget_epoch(control);
        control->renewing = control->expects_epoch = true;
        status = ask(control, patience_ms, blob, bytes);
        if (status != KOLO_OK && status != KOLO_ERR_TIMEOUT)
            kolo__control_take_all(control); /* the server may have said why it closed */
        if (status != KOLO_OK && (control->closed || control->refusal.status != KOLO_OK))
            status = find_end(control);
    }
    pthread_mutex_unlock(&control->lock);
    return status;
}
