/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated network's links: cut in one direction or both, slow, or ended because a rank has
 * gone. Who has nothing to move does not notice.
 */
#include "collectives/transport/sim_world.h"

#include "base/silence.h"

#include <stdio.h>

void kolo__sim_set_time(struct kolo__sim *sim, uint64_t now_ns)
{
    sim->now_ns = now_ns;
}

static void wake(struct kolo__sim *sim, uint32_t rank, uint64_t at_ns)
{
    const struct kolo__sim_embedder *embedder = sim->options.embedder;
    if (embedder != NULL && sim->ranks[rank].open)
        embedder->wake(embedder->self, rank, at_ns);
}

void kolo__sim_cut(struct kolo__sim *sim, uint32_t from, uint32_t to, bool cut)
{
    kolo__sim_channel(sim, from, to)->cut = cut;
    wake(sim, from, sim->now_ns);
    wake(sim, to, sim->now_ns);
}

void kolo__sim_slow(struct kolo__sim *sim, uint32_t from, uint32_t to, uint32_t factor)
{
    kolo__sim_channel(sim, from, to)->factor = factor;
}

/* ---- who has gone ---------------------------------------------------------------------------- */

void kolo__sim_end_connections(struct kolo__sim *sim, uint32_t rank)
{
    for (uint32_t peer = 0; peer < sim->options.size; peer++) {
        struct kolo__sim_channel *out = kolo__sim_channel(sim, rank, peer);
        if (out->ended_ns == 0)
            out->ended_ns = kolo__sim_arrival(sim, out);
        wake(sim, peer, out->ended_ns);
    }
}

void kolo__sim_vanish(struct kolo__sim *sim, uint32_t rank, bool silently)
{
    const struct kolo__sim_queue none = {0};
    for (uint32_t peer = 0; peer < sim->options.size; peer++) {
        struct kolo__sim_channel *out = kolo__sim_channel(sim, rank, peer);
        if (out->sending.head != NULL) /* a part of it may have been moved: the rest never comes */
            out->checked = false;
        out->sending = out->sent = none;
        out->cut |= silently;
        struct kolo__sim_channel *in = kolo__sim_channel(sim, peer, rank);
        in->receiving = none;
        in->cut |= silently;
    }
    sim->ranks[rank].open = false;
    if (!silently)
        kolo__sim_end_connections(sim, rank);
    else
        for (uint32_t peer = 0; peer < sim->options.size; peer++)
            wake(sim, peer, sim->now_ns);
}

/* ---- what a rank sees of it ------------------------------------------------------------------ */

static bool wants_something(struct kolo__sim_rank *rank, uint32_t peer)
{
    uint32_t own = rank->transport.rank;
    return kolo__sim_channel(rank->sim, peer, own)->receiving.head != NULL ||
           kolo__sim_channel(rank->sim, own, peer)->sending.head != NULL;
}

static bool has_ended(struct kolo__sim_rank *rank, uint32_t peer)
{
    const struct kolo__sim_channel *in = kolo__sim_channel(rank->sim, peer, rank->transport.rank);
    const struct kolo__sim_channel *out = kolo__sim_channel(rank->sim, rank->transport.rank, peer);
    bool in_vain = (in->receiving.head != NULL && !kolo__sim_channel_has_message(in)) ||
                   out->sending.head != NULL;
    return in->ended_ns != 0 && !in->cut && in_vain;
}

static bool is_stalled(struct kolo__sim_rank *rank, uint32_t peer)
{
    uint32_t own = rank->transport.rank;
    return (kolo__sim_channel(rank->sim, peer, own)->cut ||
            kolo__sim_channel(rank->sim, own, peer)->cut) &&
           rank->sim->options.silence_ns > 0 && wants_something(rank, peer);
}

bool kolo__sim_link_failed(struct kolo__sim_rank *rank, uint32_t peer, struct kolo__fault *fault)
{
    const struct kolo__sim *sim = rank->sim;
    struct kolo__sim_channel *in = kolo__sim_channel(rank->sim, peer, rank->transport.rank);
    *fault = (struct kolo__fault){.peer = (int)peer};
    if (has_ended(rank, peer) && sim->now_ns >= in->ended_ns) {
        fault->status = KOLO_ERR_PEER_LOST;
        snprintf(fault->text, sizeof fault->text, "rank %u: it closed the connection", peer);
    }
    if (!is_stalled(rank, peer)) {
        in->stalled_ns = 0;
    } else if (in->stalled_ns == 0) {
        in->stalled_ns = sim->now_ns;
    } else if (sim->now_ns >= in->stalled_ns + sim->options.silence_ns) {
        fault->status = KOLO_ERR_PEER_LOST;
        snprintf(fault->text, sizeof fault->text, "rank %u: its host " KOLO__SILENCE_TEXT, peer);
    }
    return fault->status != KOLO_OK;
}

uint64_t kolo__sim_due(struct kolo__sim_rank *rank)
{
    struct kolo__sim *sim = rank->sim;
    uint64_t due_ns = KOLO__SIM_NEVER;
    for (uint32_t peer = 0; peer < sim->options.size && rank->transport.fault.status == KOLO_OK;
         peer++) {
        struct kolo__sim_channel *in = kolo__sim_channel(sim, peer, rank->transport.rank);
        const struct kolo__sim_channel *out = kolo__sim_channel(sim, rank->transport.rank, peer);
        uint64_t at_ns = KOLO__SIM_NEVER;
        if (in->receiving.head != NULL && !in->cut && kolo__sim_channel_has_message(in)) {
            if (in->ready_ns == 0)
                in->ready_ns = kolo__sim_arrival(sim, in);
            at_ns = in->ready_ns;
        } else if (has_ended(rank, peer)) {
            at_ns = in->ended_ns;
        } else if (is_stalled(rank, peer)) {
            in->stalled_ns = in->stalled_ns == 0 ? sim->now_ns : in->stalled_ns;
            at_ns = in->stalled_ns + sim->options.silence_ns;
        }
        if (out->sent.head != NULL)
            at_ns = sim->now_ns;
        due_ns = at_ns < due_ns ? at_ns : due_ns;
    }
    return due_ns;
}

/* ---- waking ---------------------------------------------------------------------------------- */

void kolo__sim_wake_receiver(struct kolo__sim *sim, uint32_t from, uint32_t to)
{
    struct kolo__sim_channel *channel = kolo__sim_channel(sim, from, to);
    if (sim->options.embedder == NULL)
        return;
    if (channel->ready_ns == 0)
        channel->ready_ns = kolo__sim_arrival(sim, channel);
    wake(sim, to, channel->ready_ns);
}

void kolo__sim_wake_sender(struct kolo__sim *sim, uint32_t from, uint32_t to)
{
    if (sim->options.embedder != NULL)
        wake(sim, from, kolo__sim_arrival(sim, kolo__sim_channel(sim, to, from)));
}
