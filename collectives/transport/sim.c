/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated network's messages: the transport contract, with every liberty it leaves taken by
 * chance. The receiver's progress moves the data; a send completes at its own rank's next progress.
 */
#include "collectives/transport/sim_world.h"

#include "base/assert.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct kolo__transport_ops transport_ops;

kolo_status kolo__sim_create(const struct kolo__sim_options *options, struct kolo__sim **result)
{
    uint32_t size = options->size;
    size_t channels = (size_t)size * size;
    *result = NULL;
    KOLO__ASSERT(size > 0);
    struct kolo__sim *sim = calloc(1, sizeof(*sim));
    if (sim == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a simulation");
    sim->options = *options;
    sim->random.state = options->seed;
    sim->ranks = calloc(size, sizeof(*sim->ranks));
    sim->channels = calloc(channels, sizeof(*sim->channels));
    sim->sights = calloc(channels, sizeof(*sim->sights));
    sim->slot_positions = calloc(4 * (size_t)size, sizeof(*sim->slot_positions));
    sim->shares = calloc(channels, sizeof(*sim->shares));
    sim->buffer_memory = malloc(channels * KOLO__SIM_BUFFERS * options->buffered_bytes + 1);
    if (options->share_bytes > 0)
        sim->heap = aligned_alloc(64, options->share_bytes * size);
    if (sim->ranks == NULL || sim->channels == NULL || sim->sights == NULL ||
        sim->slot_positions == NULL || sim->shares == NULL || sim->buffer_memory == NULL ||
        (options->share_bytes > 0 && sim->heap == NULL)) {
        kolo__sim_free(sim);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a simulation of %u ranks", size);
    }
    for (size_t i = 0; i < channels; i++)
        sim->channels[i].factor = 1;
    for (size_t i = 0; i < channels * KOLO__SIM_BUFFERS; i++)
        sim->channels[i / KOLO__SIM_BUFFERS].buffers[i % KOLO__SIM_BUFFERS].data =
            sim->buffer_memory + i * options->buffered_bytes;
    for (uint32_t r = 0; r < size; r++) {
        struct kolo__sim_rank *rank = &sim->ranks[r];
        rank->transport = (struct kolo__transport){
            .ops = &transport_ops, .rank = r, .size = size, .fault.peer = -1};
        rank->sim = sim;
        rank->open = true;
        rank->sights = sim->sights + (size_t)r * size;
        if (sim->heap != NULL)
            kolo__sim_mapping_init(sim, r);
    }
    *result = sim;
    return KOLO_OK;
}

void kolo__sim_free(struct kolo__sim *sim)
{
    if (sim == NULL)
        return;
    for (uint32_t r = 0; sim->ranks != NULL && r < sim->options.size; r++)
        KOLO__ASSERT(!sim->ranks[r].open);
    free(sim->ranks);
    free(sim->channels);
    free(sim->sights);
    free(sim->slot_positions);
    free(sim->shares);
    free(sim->buffer_memory);
    free(sim->heap);
    free(sim);
}

struct kolo__transport *kolo__sim_transport(struct kolo__sim *sim, uint32_t rank)
{
    return &sim->ranks[rank].transport;
}

void kolo__sim_step(struct kolo__sim *sim)
{
    sim->now_ns += 1 + kolo__random_below(&sim->random, sim->options.delay_ns / 4 + 1);
}

bool kolo__sim_lost(const struct kolo__sim *sim, uint32_t rank)
{
    return sim->options.fates != NULL && sim->now_ns >= sim->options.fates[rank].lost_ns;
}

uint64_t kolo__sim_trace(const struct kolo__sim *sim)
{
    return sim->trace;
}

/* ---- queues of posts ------------------------------------------------------------------------- */

static void push(struct kolo__sim_queue *queue, struct kolo__post *post)
{
    post->next = NULL;
    if (queue->head == NULL)
        queue->head = post;
    else
        queue->tail->next = post;
    queue->tail = post;
}

static struct kolo__post *pop(struct kolo__sim_queue *queue)
{
    struct kolo__post *post = queue->head;
    if (post != NULL)
        queue->head = post->next;
    return post;
}

static void complete(struct kolo__post *post, kolo_status status)
{
    post->status = status;
    post->next = NULL;
    post->complete = true;
}

static void complete_all(struct kolo__sim_queue *queue, kolo_status status)
{
    while (queue->head != NULL)
        complete(pop(queue), status);
}

/* ---- the transport --------------------------------------------------------------------------- */

static struct kolo__sim_rank *rank_of(struct kolo__transport *transport)
{
    return (struct kolo__sim_rank *)transport;
}

/* The first fault sticks; every pending post of this rank completes with it. Those of its peers do
 * not: they wait, as over a real network, until they are told. */
static void fail(struct kolo__transport *transport, const struct kolo__fault *fault)
{
    struct kolo__sim *sim = rank_of(transport)->sim;
    if (transport->fault.status == KOLO_OK) {
        transport->fault = *fault;
        kolo__sim_note(sim, (uint64_t)fault->status << 32 | transport->rank);
    }
    for (uint32_t peer = 0; peer < transport->size; peer++) {
        struct kolo__sim_channel *out = kolo__sim_channel(sim, transport->rank, peer);
        /* What was sent and taken has been sent. */
        complete_all(&out->sent, KOLO_OK);
        complete_all(&out->sending, transport->fault.status);
        complete_all(&kolo__sim_channel(sim, peer, transport->rank)->receiving,
                     transport->fault.status);
    }
}

static void post_send(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    struct kolo__sim *sim = rank_of(transport)->sim;
    struct kolo__sim_channel *channel = kolo__sim_channel(sim, transport->rank, peer);
    KOLO__ASSERT(peer < transport->size && peer != transport->rank);
    post->complete = false;
    post->bytes_done = 0;
    if (transport->fault.status != KOLO_OK) {
        complete(post, transport->fault.status);
        return;
    }
    kolo__sim_note(sim, (uint64_t)post->bytes << 16 | peer);
    bool buffered = channel->sending.head == NULL && post->bytes <= sim->options.buffered_bytes &&
                    sim->options.buffered_bytes > 0 &&
                    channel->buffered_count < KOLO__SIM_BUFFERS &&
                    kolo__random_below(&sim->random, 2) == 0;
    if (!buffered) {
        push(&channel->sending, post);
        kolo__sim_wake_receiver(sim, transport->rank, peer);
        return;
    }
    uint32_t last = (channel->buffered_first + channel->buffered_count) % KOLO__SIM_BUFFERS;
    struct kolo__sim_buffer *buffer = &channel->buffers[last];
    buffer->signature = *post->signature;
    buffer->bytes = post->bytes;
    if (post->bytes > 0)
        memcpy(buffer->data, post->data, post->bytes);
    channel->buffered_count++;
    push(&channel->sent, post);
    kolo__sim_wake_receiver(sim, transport->rank, peer);
}

static void post_recv(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    struct kolo__sim *sim = rank_of(transport)->sim;
    KOLO__ASSERT(peer < transport->size && peer != transport->rank);
    post->complete = false;
    post->bytes_done = 0;
    if (transport->fault.status != KOLO_OK)
        complete(post, transport->fault.status);
    else
        push(&kolo__sim_channel(sim, peer, transport->rank)->receiving, post);
}

/* The oldest message of a channel, wherever it is. */
struct message {
    const struct kolo__signature *signature;
    const unsigned char *data;
    size_t bytes;
    bool buffered;
};

static bool oldest_message(const struct kolo__sim_channel *channel, struct message *message)
{
    if (channel->buffered_count > 0) {
        const struct kolo__sim_buffer *buffer = &channel->buffers[channel->buffered_first];
        *message = (struct message){&buffer->signature, buffer->data, buffer->bytes, true};
        return true;
    }
    const struct kolo__post *post = channel->sending.head;
    if (post == NULL)
        return false;
    *message = (struct message){post->signature, post->data, post->bytes, false};
    return true;
}

bool kolo__sim_channel_has_message(const struct kolo__sim_channel *channel)
{
    struct message message;
    return oldest_message(channel, &message);
}

/* False, and the rank has failed, when the message is not what the receive expects. */
static bool check_header(struct kolo__sim_rank *rank, uint32_t peer,
                         const struct kolo__sim_channel *channel, const struct message *message)
{
    struct kolo__fault fault = {.peer = (int)peer};
    const struct kolo__post *expected = channel->receiving.head;
    if (rank->sim->messages++ == rank->sim->options.garbled) {
        fault.status = KOLO_ERR_NETWORK;
        snprintf(fault.text, sizeof(fault.text), "rank %u sent bytes that are no header", peer);
    } else if (!kolo__signature_equal(message->signature, expected->signature) ||
               message->bytes != expected->bytes) {
        char theirs[160], ours[160];
        fault.status = KOLO_ERR_MISMATCH;
        snprintf(fault.text, sizeof(fault.text),
                 "rank %u: %s, a message of %zu bytes; rank %u: %s, a message of %zu bytes", peer,
                 kolo__signature_text(message->signature, theirs, sizeof(theirs)), message->bytes,
                 rank->transport.rank,
                 kolo__signature_text(expected->signature, ours, sizeof(ours)), expected->bytes);
    }
    if (fault.status != KOLO_OK)
        fail(&rank->transport, &fault);
    return fault.status == KOLO_OK;
}

static void finish_message(struct kolo__sim_channel *channel, bool buffered)
{
    if (buffered) {
        channel->buffered_first = (channel->buffered_first + 1) % KOLO__SIM_BUFFERS;
        channel->buffered_count--;
    } else {
        push(&channel->sent, pop(&channel->sending));
    }
    channel->ready_ns = 0;
    channel->checked = false;
    channel->taken++;
    complete(pop(&channel->receiving), KOLO_OK);
}

/* Moves a piece of the oldest message from peer. */
static bool receive(struct kolo__sim_rank *rank, uint32_t peer)
{
    struct kolo__sim *sim = rank->sim;
    struct kolo__sim_channel *channel = kolo__sim_channel(sim, peer, rank->transport.rank);
    struct kolo__post *post = channel->receiving.head;
    struct message message;
    if (post == NULL || channel->cut || !oldest_message(channel, &message))
        return false;
    if (channel->ready_ns == 0)
        channel->ready_ns = kolo__sim_arrival(sim, channel);
    if (sim->now_ns < channel->ready_ns)
        return false;
    if (!channel->checked && !check_header(rank, peer, channel, &message))
        return true;
    channel->checked = true;

    size_t piece = message.bytes - post->bytes_done;
    size_t most = sim->options.piece_bytes;
    if (most > 0 && piece > 0) {
        size_t drawn = 1 + (size_t)kolo__random_below(&sim->random, most);
        piece = piece < drawn ? piece : drawn;
    }
    if (piece > 0)
        memcpy(post->data + post->bytes_done, message.data + post->bytes_done, piece);
    post->bytes_done += piece;
    kolo__sim_note(sim,
                   (uint64_t)post->bytes_done << 32 | (uint64_t)peer << 16 | rank->transport.rank);
    if (post->bytes_done == message.bytes) {
        finish_message(channel, message.buffered);
        kolo__sim_wake_sender(sim, peer, rank->transport.rank);
    }
    return true;
}

static void learn_of_loss(struct kolo__sim_rank *rank)
{
    struct kolo__sim *sim = rank->sim;
    uint32_t lost = 0;
    while (lost < sim->options.size && !kolo__sim_lost(sim, lost))
        lost++;
    if (lost == sim->options.size || kolo__sim_lost(sim, rank->transport.rank) ||
        rank->transport.fault.status != KOLO_OK)
        return;
    if (rank->learns_ns == 0)
        rank->learns_ns = kolo__sim_later(sim);
    if (sim->now_ns < rank->learns_ns)
        return;
    struct kolo__fault fault = {.status = KOLO_ERR_PEER_LOST, .peer = (int)lost};
    snprintf(fault.text, sizeof(fault.text), "rank %u died", lost);
    fail(&rank->transport, &fault);
}

static bool progress(struct kolo__transport *transport)
{
    struct kolo__sim_rank *rank = rank_of(transport);
    struct kolo__sim *sim = rank->sim;
    bool moved = false;
    learn_of_loss(rank);
    for (uint32_t i = 0; i < transport->size && transport->fault.status == KOLO_OK; i++) {
        /* Begin with another peer each time: no order between peers is promised. */
        uint32_t peer = (uint32_t)((i + sim->now_ns) % transport->size);
        struct kolo__sim_channel *out = kolo__sim_channel(sim, transport->rank, peer);
        if (out->sent.head != NULL) {
            complete_all(&out->sent, KOLO_OK);
            moved = true;
        }
        if (receive(rank, peer))
            moved = true;
        struct kolo__fault fault;
        if (transport->fault.status == KOLO_OK && kolo__sim_link_failed(rank, peer, &fault))
            fail(transport, &fault);
    }
    return moved;
}

static bool arm(struct kolo__transport *transport)
{
    struct kolo__sim_rank *rank = rank_of(transport);
    const struct kolo__sim_embedder *embedder = rank->sim->options.embedder;
    if (embedder == NULL)
        return false; /* virtual time passes only while everybody is awake */
    uint64_t due_ns = kolo__sim_due(rank);
    if (due_ns <= rank->sim->now_ns)
        return false;
    if (due_ns != KOLO__SIM_NEVER)
        embedder->wake(embedder->self, transport->rank, due_ns);
    return true;
}

static void disarm(struct kolo__transport *transport)
{
    (void)transport;
}

static int wait_fd(struct kolo__transport *transport)
{
    const struct kolo__sim_embedder *embedder = rank_of(transport)->sim->options.embedder;
    return embedder != NULL ? embedder->wait_fd(embedder->self, transport->rank) : -1;
}

static void close_rank(struct kolo__transport *transport)
{
    struct kolo__sim_rank *rank = rank_of(transport);
    struct kolo__fault fault = {.status = KOLO_ERR_ABORTED, .peer = -1, .text = "transport closed"};
    KOLO__ASSERT(rank->open);
    fail(transport, &fault);
    rank->open = false;
    if (rank->sim->options.embedder != NULL)
        kolo__sim_end_connections(rank->sim, transport->rank);
}

static const struct kolo__transport_ops transport_ops = {
    .name = "sim",
    .post_send = post_send,
    .post_recv = post_recv,
    .progress = progress,
    .arm = arm,
    .disarm = disarm,
    .wait_fd = wait_fd,
    .nap = kolo__transport_never_naps,
    .takes_gpu = kolo__transport_takes_no_gpu,
    .fail = fail,
    .close = close_rank,
};
