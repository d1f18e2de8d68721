/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages over RDMA. While a caller spins, the completion queue is polled, which is a look into
 * memory; a sleeper waits for an event of it, of the device, or of the TCP connections.
 */
#include "collectives/transport/rdma.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/status.h"
#include "collectives/transport/rdma_transport.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* The device is asked for trouble, which is a system call, now and then. */
enum { CALLS_PER_LOOK = 256 };

static const struct kolo__transport_ops transport_ops;

static void take_choices(struct kolo__rdma *rdma, const struct kolo__rdma_setup *setup);
static kolo_status open_devices(struct kolo__rdma *rdma);
static void open_memory(struct kolo__rdma *rdma, struct kolo__heap *heap);
static void close_rdma(struct kolo__transport *transport);

kolo_status kolo__rdma_create(const struct kolo__rdma_setup *setup,
                              struct kolo__transport **transport)
{
    uint32_t rank = setup->tcp->rank, size = setup->tcp->size;
    kolo_status status = KOLO_ERR_MEMORY;
    struct kolo__rdma *rdma = calloc(1, sizeof *rdma);
    if (rdma == NULL) {
        setup->tcp->ops->close(setup->tcp);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a communicator of %u ranks", size);
    }
    rdma->epoll_fd = -1;
    rdma->module = setup->module;
    rdma->options = setup->options;
    take_choices(rdma, setup);
    rdma->tcp = setup->tcp;
    rdma->patience_ns = setup->patience_ns;
    rdma->hello_signature = (struct kolo__signature){.epoch = setup->epoch,
                                                     .comm = setup->comm,
                                                     .collective = KOLO__POINT_TO_POINT,
                                                     .algorithm = 0xff,
                                                     .count = KOLO__RDMA_HELLO_BYTES};
    rdma->ready_signature = rdma->hello_signature;
    rdma->ready_signature.count = 0;
    rdma->stream.transport.ops = &transport_ops;
    rdma->peers = calloc(size, sizeof *rdma->peers);
    if (rdma->peers == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for %u connections", size);
    else
        status = kolo__stream_init(&rdma->stream, rank, size, setup->hosts, &kolo__rdma_ring_ops);
    rdma->stream.checksum = setup->checksum;
    if (status == KOLO_OK)
        status = open_devices(rdma);
    if (status != KOLO_OK) {
        close_rdma(&rdma->stream.transport);
        return status;
    }
    open_memory(rdma, setup->heap);
    *transport = &rdma->stream.transport;
    return KOLO_OK;
}

static void take_choices(struct kolo__rdma *rdma, const struct kolo__rdma_setup *setup)
{
    rdma->own_count = setup->choice_count;
    for (uint32_t i = 0; i < rdma->own_count; i++) {
        struct kolo__rdma_own *own = &rdma->own[i];
        own->port = *setup->choices[i].port;
        own->has_gid = setup->choices[i].gid != NULL;
        if (own->has_gid)
            own->gid = *setup->choices[i].gid;
    }
    uint32_t rails = rdma->own_count * (uint32_t)setup->options.connections;
    rdma->rails = rails < KOLO__RDMA_RAILS_MAX ? rails : KOLO__RDMA_RAILS_MAX;
}

static kolo_status wait_for(const struct kolo__rdma *rdma, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(rdma->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return kolo__error_errno(errno, "cannot wait for RDMA");
    return KOLO_OK;
}

static kolo_status open_device(struct kolo__rdma *rdma, struct kolo__rdma_own *own)
{
    char why[300];
    /* How many peers there will be is not known: as many as a ring has. */
    uint32_t peers = rdma->stream.transport.size > 2 ? 2 : 1;
    uint32_t each = (rdma->rails + rdma->own_count - 1) / rdma->own_count;
    const struct kolo__rdma_needs needs = {.links = peers * each,
                                           .links_most = (rdma->stream.transport.size - 1) * each,
                                           .depths = kolo__rdma_depths};
    own->device = rdma->module->open(own->port.device, own->port.number, &needs, why, sizeof why);
    if (own->device == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED, "RDMA device %s: %s", own->port.device, why);
    kolo_status status = wait_for(rdma, rdma->module->event_fd(own->device));
    return status == KOLO_OK ? wait_for(rdma, rdma->module->trouble_fd(own->device)) : status;
}

static kolo_status open_devices(struct kolo__rdma *rdma)
{
    rdma->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (rdma->epoll_fd < 0)
        return kolo__error_errno(errno, "cannot make a descriptor to wait for RDMA");
    kolo_status status = wait_for(rdma, rdma->tcp->ops->wait_fd(rdma->tcp));
    for (uint32_t i = 0; i < rdma->own_count && status == KOLO_OK; i++)
        status = open_device(rdma, &rdma->own[i]);
    return status;
}

/* Without it messages are copied. */
static void open_memory(struct kolo__rdma *rdma, struct kolo__heap *heap)
{
    struct kolo__rdma_device *devices[KOLO__RDMA_RAILS_MAX];
    const struct kolo__rdma_port *ports[KOLO__RDMA_RAILS_MAX];
    for (uint32_t i = 0; i < rdma->own_count; i++) {
        devices[i] = rdma->own[i].device;
        ports[i] = &rdma->own[i].port;
    }
    if (heap != NULL)
        rdma->memory = kolo__rdma_memory_open(rdma->module, devices, rdma->own_count, heap);
    rdma->gpus = kolo__rdma_gpus_open(rdma->module, devices, ports, rdma->own_count);
}

static void close_rdma(struct kolo__transport *transport)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    if (rdma->peers != NULL)
        kolo__rdma_drain(rdma);
    kolo__stream_release(&rdma->stream);
    /* It has posts in the peers. Whoever sees it close is no more waited for. */
    rdma->tcp->ops->close(rdma->tcp);
    for (uint32_t i = 0; rdma->peers != NULL && i < transport->size; i++)
        kolo__rdma_disconnect(rdma, &rdma->peers[i]);
    kolo__rdma_memory_close(rdma->memory);
    kolo__rdma_gpus_close(rdma->gpus);
    for (uint32_t i = 0; i < rdma->own_count; i++)
        rdma->module->close(rdma->own[i].device);
    if (rdma->epoll_fd >= 0)
        close(rdma->epoll_fd);
    free(rdma->peers);
    free(rdma);
}

const char *kolo__rdma_own_text(const struct kolo__rdma_own *own,
                                char text[KOLO__RDMA_CHOICE_TEXT_BYTES])
{
    const struct kolo__rdma_choice choice = {&own->port, own->has_gid ? &own->gid : NULL};
    return kolo__rdma_choice_text(&choice, text);
}

const char *kolo__rdma_ends_text(const struct kolo__rdma *rdma, const struct kolo__rdma_peer *peer,
                                 uint32_t rail, char text[KOLO__RDMA_ENDS_TEXT_BYTES])
{
    char own[KOLO__RDMA_CHOICE_TEXT_BYTES], theirs[KOLO__RDMA_GID_TEXT_BYTES];
    snprintf(text, KOLO__RDMA_ENDS_TEXT_BYTES, "from %s to GID %s",
             kolo__rdma_own_text(&rdma->own[rail % rdma->own_count], own),
             kolo__rdma_gid_text(peer->rails[rail].their_gid, theirs));
    return text;
}

struct kolo__rdma_counts kolo__rdma_count(const struct kolo__transport *transport)
{
    return ((const struct kolo__rdma *)(const void *)transport)->counts;
}

static void post_send(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    kolo__rdma_want((struct kolo__rdma *)(void *)transport, peer);
    kolo__stream_post_send(transport, peer, post);
}

static void post_recv(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    kolo__rdma_want((struct kolo__rdma *)(void *)transport, peer);
    kolo__stream_post_recv(transport, peer, post);
    if (!post->complete)
        kolo__rdma_note_recv((struct kolo__rdma *)(void *)transport, peer, post);
}

static bool takes_gpu(struct kolo__transport *transport, uint32_t peer,
                      const struct kolo__post *post)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    struct kolo__rdma_block block;
    (void)peer; /* any */
    return kolo__rdma_is_long(&rdma->stream, post) && kolo__rdma_reaches(rdma, post, &block);
}

/* ---- trouble ------------------------------------------------------------------------------ */

/* A port that loses its link for a moment costs nothing: packets are sent again. */
static void check_port(struct kolo__rdma *rdma, const struct kolo__rdma_own *own)
{
    char text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (own->down_since_ns != 0 && now_ns - own->down_since_ns > rdma->patience_ns)
        kolo__stream_set_fault(&rdma->stream, KOLO_ERR_NETWORK, -1,
                               "%s has had no link for %g s: look at its cable and at the switch",
                               kolo__rdma_own_text(own, text), (double)rdma->patience_ns / 1e9);
}

static void take_trouble(struct kolo__rdma *rdma, struct kolo__rdma_own *own)
{
    bool fatal, down, up;
    const char *what;
    char text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    while (rdma->module->take_trouble(own->device, &fatal, &down, &up, &what)) {
        if (fatal)
            kolo__stream_set_fault(&rdma->stream, KOLO_ERR_NETWORK, -1, "%s: %s",
                                   kolo__rdma_own_text(own, text), what);
        if (down && own->down_since_ns == 0)
            own->down_since_ns = kolo__now_ns(&kolo__real_clock);
        if (up)
            own->down_since_ns = 0;
    }
    check_port(rdma, own);
}

void kolo__rdma_take_trouble(struct kolo__rdma *rdma)
{
    for (uint32_t i = 0; i < rdma->own_count; i++)
        take_trouble(rdma, &rdma->own[i]);
}

/* Of a transport that has posts only while ranks connect. */
static void share_fault(struct kolo__rdma *rdma)
{
    const struct kolo__fault *fault = &rdma->tcp->fault;
    if (fault->status != KOLO_OK)
        kolo__stream_set_fault(&rdma->stream, fault->status, fault->peer, "%s", fault->text);
}

static bool progress(struct kolo__transport *transport)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    /* First: whoever has closed its connection had written everything before. */
    bool moved = rdma->tcp->ops->progress(rdma->tcp);
    share_fault(rdma);
    if (rdma->connecting > 0)
        moved |= kolo__rdma_advance(rdma);
    moved |= kolo__rdma_take_completions(rdma);
    kolo__rdma_look_after_lent(rdma);
    if (++rdma->calls % CALLS_PER_LOOK == 0)
        kolo__rdma_take_trouble(rdma);
    return kolo__stream_progress(&rdma->stream) || moved;
}

/* ---- sleeping ----------------------------------------------------------------------------- */

static bool has_work(const struct kolo__rdma *rdma)
{
    return kolo__stream_has_work(&rdma->stream) || kolo__rdma_rings_ready(rdma) ||
           rdma->tcp->fault.status != KOLO_OK;
}

static bool request_events(struct kolo__rdma *rdma)
{
    bool all = true;
    for (uint32_t i = 0; i < rdma->own_count; i++)
        all &= rdma->module->request_event(rdma->own[i].device);
    return all;
}

static bool arm(struct kolo__transport *transport)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    kolo__rdma_take_trouble(rdma);
    if (!rdma->tcp->ops->arm(rdma->tcp))
        return false;
    /* What completes from here on makes an event; what has completed is taken now. */
    if (!request_events(rdma) || kolo__rdma_take_completions(rdma) || has_work(rdma)) {
        rdma->tcp->ops->disarm(rdma->tcp);
        return false;
    }
    return true;
}

static void disarm(struct kolo__transport *transport)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    for (uint32_t i = 0; i < rdma->own_count; i++)
        rdma->module->take_events(rdma->own[i].device);
    rdma->tcp->ops->disarm(rdma->tcp);
}

static int wait_fd(struct kolo__transport *transport)
{
    return ((struct kolo__rdma *)(void *)transport)->epoll_fd;
}

static void fail(struct kolo__transport *transport, const struct kolo__fault *fault)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    rdma->tcp->ops->fail(rdma->tcp, fault);
    kolo__stream_fail(transport, fault);
}

static const struct kolo__transport_ops transport_ops = {
    .name = "rdma",
    .post_send = post_send,
    .post_recv = post_recv,
    .progress = progress,
    .arm = arm,
    .disarm = disarm,
    .wait_fd = wait_fd,
    .nap = kolo__transport_never_naps,
    .takes_gpu = takes_gpu,
    .fail = fail,
    .close = close_rdma,
};
