/* SPDX-License-Identifier: Apache-2.0 */
/* Rails: work requests, credits, and what the cards say has happened (rdma_transport.h). */
#include "base/assert.h"
#include "base/clock.h"
#include "base/status.h"
#include "collectives/transport/rdma_transport.h"
#include "collectives/transport/tcp.h"

#include <stdio.h>

enum { BYTES_MASK = (1 << KOLO__RDMA_BYTES_BITS) - 1, WRITES_MASK = 127 };
static const uint32_t WHAT_MASK = (1u << KOLO__RDMA_KIND_BITS) - 1;

void kolo__rdma_break(struct kolo__rdma_peer *peer, kolo_status status, const char *why)
{
    if (peer->failure == KOLO_OK) {
        peer->failure = status;
        snprintf(peer->failure_text, sizeof peer->failure_text, "%s", why);
    }
}

static void break_rail(const struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, uint32_t index,
                       kolo_status status, const char *what, const char *why)
{
    char ends[KOLO__RDMA_ENDS_TEXT_BYTES], text[300];
    snprintf(text, sizeof text, "%s %s: %s", what, kolo__rdma_ends_text(rdma, peer, index, ends),
             why);
    kolo__rdma_break(peer, status, text);
}

kolo_status kolo__rdma_failure(const struct kolo__rdma_peer *peer)
{
    return kolo__error(peer->failure, "%s", peer->failure_text);
}

bool kolo__rdma_has_left(const struct kolo__rdma *rdma, uint32_t index)
{
    const struct kolo__rdma_peer *peer = &rdma->peers[index];
    return peer->state == KOLO__RDMA_ESTABLISHED && kolo__tcp_hangup(rdma->tcp, index) &&
           (peer->failure == KOLO_OK || peer->failure == KOLO_ERR_PEER_LOST);
}

kolo_status kolo__rdma_ended(const struct kolo__rdma *rdma, uint32_t index)
{
    char ends[KOLO__RDMA_ENDS_TEXT_BYTES];
    return kolo__error(KOLO_ERR_PEER_LOST, "it closed the connection %s",
                       kolo__rdma_ends_text(rdma, &rdma->peers[index], 0, ends));
}

/* ---- out ---------------------------------------------------------------------------------- */

uint64_t kolo__rdma_under_way(const struct kolo__rdma_rail *rail)
{
    return rail->posted - rail->done;
}

bool kolo__rdma_may_write(const struct kolo__rdma_rail *rail)
{
    return rail->writes_under_way < KOLO__RDMA_WRITES_MAX &&
           kolo__rdma_under_way(rail) < KOLO__RDMA_SENDS - KOLO__RDMA_SENDS_KEPT;
}

kolo_status kolo__rdma_post(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                            struct kolo__rdma_rail *rail, struct kolo__rdma_write *write,
                            uint32_t lent)
{
    char why[200];
    write->signalled |=
        lent != UINT32_MAX || rail->posted % KOLO__RDMA_SIGNAL_EVERY == KOLO__RDMA_SIGNAL_EVERY - 1;
    if (!rdma->module->link_write(rail->link, write, why, sizeof why)) {
        break_rail(rdma, peer, (uint32_t)(rail - peer->rails), KOLO_ERR_NETWORK,
                   "the connection broke", why);
        return kolo__rdma_failure(peer);
    }
    rail->posted++;
    if (write->signalled)
        rail->signals[rail->signalled++ % KOLO__RDMA_SENDS] =
            (struct kolo__rdma_signal){.posted = rail->posted, .lent = lent};
    return KOLO_OK;
}

void kolo__rdma_return_credit(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, uint32_t index)
{
    struct kolo__rdma_rail *rail = &peer->rails[index];
    uint32_t bytes = index == 0 ? peer->bytes_owed : 0;
    if ((bytes < KOLO__RDMA_CREDIT_BYTES && rail->writes_owed < KOLO__RDMA_CREDIT_WRITES) ||
        peer->failure != KOLO_OK || kolo__rdma_under_way(rail) >= KOLO__RDMA_SENDS)
        return;
    /* Without bytes no memory is looked for. */
    struct kolo__rdma_write write = {
        .in_line = true,
        .remote_address = peer->their_ring,
        .remote_key = peer->their_key,
        .immediate = kolo__rdma_immediate(KOLO__RDMA_SAID_CREDIT,
                                          rail->writes_owed << KOLO__RDMA_BYTES_BITS | bytes)};
    if (kolo__rdma_post(rdma, peer, rail, &write, UINT32_MAX) != KOLO_OK)
        return;
    rdma->counts.credit_writes++;
    rail->writes_owed = 0;
    peer->bytes_owed -= bytes;
}

/* ---- completions -------------------------------------------------------------------------- */

/* So many of the lent messages, from the oldest, whose pieces have all come are the callers' again:
 * rails do not wait for each other. */
static void return_lent(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, uint32_t lent)
{
    if (lent == UINT32_MAX)
        return;
    peer->lent[lent]--;
    while (peer->lent_first != peer->lent_end &&
           peer->lent[peer->lent_first % KOLO__RDMA_OFFERS_MAX] == 0) {
        peer->lent_first++;
        rdma->lent--;
        kolo__stream_return_lent(&rdma->stream, (uint32_t)(peer - rdma->peers));
    }
}

static void take_sent(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, uint32_t index)
{
    struct kolo__rdma_rail *rail = &peer->rails[index];
    KOLO__ASSERT(rail->confirmed != rail->signalled);
    const struct kolo__rdma_signal *signal = &rail->signals[rail->confirmed++ % KOLO__RDMA_SENDS];
    rail->done = signal->posted;
    peer->blocked = false;
    return_lent(rdma, peer, signal->lent);
    kolo__rdma_return_credit(rdma, peer, index);
    kolo__rdma_make_offers(rdma, (uint32_t)(peer - rdma->peers));
}

static const char *take_immediate(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                                  uint32_t index, uint32_t immediate)
{
    struct kolo__rdma_rail *rail = &peer->rails[index];
    uint32_t what = immediate & WHAT_MASK;
    switch ((enum kolo__rdma_said)(immediate >> KOLO__RDMA_KIND_BITS)) {
    case KOLO__RDMA_SAID_CREDIT: {
        uint32_t writes = what >> KOLO__RDMA_BYTES_BITS & WRITES_MASK, bytes = what & BYTES_MASK;
        if (writes > rail->writes_under_way || bytes > peer->out_tail - peer->out_head)
            return "it read more than was written";
        rail->writes_under_way -= writes;
        peer->out_head += bytes;
        peer->blocked = false;
        return NULL;
    }
    case KOLO__RDMA_SAID_OFFER:
        if (peer->offers_came - peer->offers_taken == KOLO__RDMA_OFFERS_MAX)
            return "it asked for more than there is room for";
        peer->offers_came++;
        peer->blocked = false;
        return NULL;
    case KOLO__RDMA_SAID_STRAIGHT:
        if (!kolo__rdma_take_straight(peer, index, what))
            return "it wrote what was not asked for";
        break;
    case KOLO__RDMA_SAID_RING:
        if (what > KOLO__RDMA_RING_BYTES - (peer->in_tail - peer->in_head))
            return "it wrote more than there is room for";
        peer->in_tail += what;
        break;
    }
    rail->writes_owed++;
    kolo__rdma_return_credit(rdma, peer, index);
    return NULL;
}

static void take_failure(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, uint32_t rail,
                         const struct kolo__rdma_completion *completion)
{
    char text[200];
    if (peer->failure != KOLO_OK)
        return;
    kolo__rdma_take_trouble(rdma);
    const struct kolo__rdma_own *own = &rdma->own[rail % rdma->own_count];
    bool down = own->down_since_ns != 0, lost = completion->unreachable && !down;
    snprintf(text, sizeof text, "%s (vendor error 0x%x)%s", completion->text,
             completion->vendor_error,
             down ? "; the own port has no link: look at its cable and at the switch" : "");
    break_rail(rdma, peer, rail, lost ? KOLO_ERR_PEER_LOST : KOLO_ERR_NETWORK,
               completion->unreachable ? "it does not answer" : "the connection broke", text);
}

static void take(struct kolo__rdma *rdma, const struct kolo__rdma_completion *completion)
{
    char why[200];
    struct kolo__rdma_peer *peer = &rdma->peers[completion->tag / KOLO__RDMA_RAILS_MAX];
    uint32_t rail = completion->tag % KOLO__RDMA_RAILS_MAX;
    if (peer->rails[rail].link == NULL) /* stopped */
        return;
    if (completion->failed) {
        take_failure(rdma, peer, rail, completion);
        return;
    }
    if (completion->kind == KOLO__RDMA_SENT) {
        take_sent(rdma, peer, rail);
        return;
    }
    if (!rdma->module->link_receive(peer->rails[rail].link, 1, why, sizeof why))
        break_rail(rdma, peer, rail, KOLO_ERR_NETWORK, "the connection broke", why);
    const char *wrong = take_immediate(rdma, peer, rail, completion->immediate);
    if (wrong != NULL)
        break_rail(rdma, peer, rail, KOLO_ERR_NETWORK, "it broke the rules", wrong);
}

bool kolo__rdma_take_completions(struct kolo__rdma *rdma)
{
    enum { MOST = 16 };
    struct kolo__rdma_completion list[MOST];
    char text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    bool any = false;
    for (uint32_t i = 0; i < rdma->own_count; i++) {
        int count;
        do {
            count = rdma->module->poll(rdma->own[i].device, list, MOST);
            for (int k = 0; k < count; k++)
                take(rdma, &list[k]);
            any |= count != 0;
        } while (count == MOST);
        if (count < 0)
            kolo__stream_set_fault(&rdma->stream, KOLO_ERR_NETWORK, -1,
                                   "%s: its completion queue cannot be read",
                                   kolo__rdma_own_text(&rdma->own[i], text));
    }
    return any;
}

static void close_links(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    for (uint32_t r = 0; r < peer->rail_count; r++) {
        rdma->module->link_close(peer->rails[r].link);
        peer->rails[r].link = NULL;
    }
}

void kolo__rdma_look_after_lent(struct kolo__rdma *rdma)
{
    char name[100];
    for (uint32_t i = 0; rdma->lent > 0 && i < rdma->stream.transport.size; i++) {
        struct kolo__rdma_peer *peer = &rdma->peers[i];
        if (peer->lent_first == peer->lent_end)
            continue;
        bool left = kolo__rdma_has_left(rdma, i);
        if (peer->failure != KOLO_OK && !left)
            kolo__stream_set_fault(&rdma->stream, peer->failure, (int)i, "%s: %s",
                                   kolo__stream_peer_name(&rdma->stream, i, name, sizeof name),
                                   peer->failure_text);
        if (!left)
            continue;
        kolo__rdma_break(peer, KOLO_ERR_PEER_LOST, "it closed the connection");
        close_links(rdma, peer);
        for (; peer->lent_first != peer->lent_end; peer->lent_first++, rdma->lent--)
            kolo__stream_return_lent(&rdma->stream, i);
    }
}

/* ---- the end ------------------------------------------------------------------------------ */

/* Where a card reads or writes callers' memory, the connection ends before the posts do. */
void kolo__rdma_stop(struct kolo__stream *stream)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)stream;
    for (uint32_t i = 0; rdma->peers != NULL && i < stream->transport.size; i++) {
        struct kolo__rdma_peer *peer = &rdma->peers[i];
        peer->unoffered = NULL;
        if (peer->lent_first == peer->lent_end && !peer->sending.begun &&
            peer->offers_first == peer->offers_end)
            continue;
        kolo__rdma_break(peer, KOLO_ERR_ABORTED, "it was given up");
        close_links(rdma, peer);
    }
}

/* Whoever has closed the connection lacks nothing. */
static bool lacks_nothing(const struct kolo__rdma *rdma, uint32_t index)
{
    const struct kolo__rdma_peer *peer = &rdma->peers[index];
    return peer->state != KOLO__RDMA_ESTABLISHED || peer->failure != KOLO_OK ||
           kolo__tcp_hangup(rdma->tcp, index);
}

static bool all_came(const struct kolo__rdma *rdma)
{
    for (uint32_t i = 0; i < rdma->stream.transport.size; i++)
        for (uint32_t r = 0; !lacks_nothing(rdma, i) && r < rdma->peers[i].rail_count; r++)
            if (rdma->peers[i].rails[r].confirmed < rdma->peers[i].rails[r].signalled)
                return false;
    return true;
}

/* A link that is destroyed takes with it what the card has not sent yet, unlike a socket. So one
 * more write each, which tells when it has come, and with it all before it. */
void kolo__rdma_drain(struct kolo__rdma *rdma)
{
    if (rdma->stream.transport.fault.status != KOLO_OK)
        return;
    for (uint32_t i = 0; i < rdma->stream.transport.size; i++) {
        struct kolo__rdma_peer *peer = &rdma->peers[i];
        for (uint32_t r = 0; !lacks_nothing(rdma, i) && r < peer->rail_count; r++) {
            struct kolo__rdma_write write = {.in_line = true,
                                             .remote_address = peer->their_ring,
                                             .remote_key = peer->their_key,
                                             .signalled = true};
            if (kolo__rdma_post(rdma, peer, &peer->rails[r], &write, UINT32_MAX) == KOLO_OK)
                peer->rails[r].writes_under_way++;
        }
    }
    uint64_t until_ns = kolo__now_ns(&kolo__real_clock) + rdma->patience_ns;
    while (!all_came(rdma) && kolo__now_ns(&kolo__real_clock) < until_ns) {
        rdma->tcp->ops->progress(rdma->tcp);
        kolo__rdma_take_completions(rdma);
    }
}
