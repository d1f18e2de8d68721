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
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* The device is asked for trouble, which is a system call, now and then. */
enum { CALLS_PER_LOOK = 256 };

static const struct kolo__transport_ops transport_ops;

static kolo_status open_device(struct kolo__rdma *rdma);
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
    rdma->port = *setup->choice->port;
    rdma->has_gid = setup->choice->gid != NULL;
    if (rdma->has_gid)
        rdma->gid = *setup->choice->gid;
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
        status = open_device(rdma);
    if (status != KOLO_OK) {
        close_rdma(&rdma->stream.transport);
        return status;
    }
    *transport = &rdma->stream.transport;
    return KOLO_OK;
}

static kolo_status open_device(struct kolo__rdma *rdma)
{
    char why[300];
    /* How many peers there will be is not known: as many as a ring has. */
    const struct kolo__rdma_needs needs = {.links = rdma->stream.transport.size > 2 ? 2 : 1,
                                           .depths = kolo__rdma_depths};
    rdma->device =
        rdma->module->open(rdma->port.device, rdma->port.number, &needs, why, sizeof why);
    if (rdma->device == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED, "RDMA device %s: %s", rdma->port.device, why);
    rdma->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (rdma->epoll_fd < 0)
        return kolo__error_errno(errno, "cannot make a descriptor to wait for RDMA");
    const int fds[] = {rdma->module->event_fd(rdma->device), rdma->module->trouble_fd(rdma->device),
                       rdma->tcp->ops->wait_fd(rdma->tcp)};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        if (epoll_ctl(rdma->epoll_fd, EPOLL_CTL_ADD, fds[i], &event) != 0)
            return kolo__error_errno(errno, "cannot wait for RDMA");
    }
    return KOLO_OK;
}

static void close_rdma(struct kolo__transport *transport)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    if (rdma->device != NULL)
        kolo__rdma_drain(rdma);
    kolo__stream_release(&rdma->stream);
    /* It has posts in the peers. Whoever sees it close is no more waited for. */
    rdma->tcp->ops->close(rdma->tcp);
    for (uint32_t i = 0; rdma->peers != NULL && i < transport->size; i++)
        kolo__rdma_disconnect(rdma, &rdma->peers[i]);
    rdma->module->close(rdma->device);
    if (rdma->epoll_fd >= 0)
        close(rdma->epoll_fd);
    free(rdma->peers);
    free(rdma);
}

const char *kolo__rdma_own_text(const struct kolo__rdma *rdma,
                                char text[KOLO__RDMA_CHOICE_TEXT_BYTES])
{
    const struct kolo__rdma_choice own = {&rdma->port, rdma->has_gid ? &rdma->gid : NULL};
    return kolo__rdma_choice_text(&own, text);
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
}

/* ---- trouble ------------------------------------------------------------------------------ */

/* A port that loses its link for a moment costs nothing: packets are sent again. */
static void check_port(struct kolo__rdma *rdma)
{
    char own[KOLO__RDMA_CHOICE_TEXT_BYTES];
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (rdma->down_since_ns != 0 && now_ns - rdma->down_since_ns > rdma->patience_ns)
        kolo__stream_set_fault(&rdma->stream, KOLO_ERR_NETWORK, -1,
                               "%s has had no link for %g s: look at its cable and at the switch",
                               kolo__rdma_own_text(rdma, own), (double)rdma->patience_ns / 1e9);
}

void kolo__rdma_take_trouble(struct kolo__rdma *rdma)
{
    bool fatal, down, up;
    const char *text;
    char own[KOLO__RDMA_CHOICE_TEXT_BYTES];
    while (rdma->module->take_trouble(rdma->device, &fatal, &down, &up, &text)) {
        if (fatal)
            kolo__stream_set_fault(&rdma->stream, KOLO_ERR_NETWORK, -1, "%s: %s",
                                   kolo__rdma_own_text(rdma, own), text);
        if (down && rdma->down_since_ns == 0)
            rdma->down_since_ns = kolo__now_ns(&kolo__real_clock);
        if (up)
            rdma->down_since_ns = 0;
    }
    check_port(rdma);
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

static bool arm(struct kolo__transport *transport)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    kolo__rdma_take_trouble(rdma);
    if (!rdma->tcp->ops->arm(rdma->tcp))
        return false;
    /* What completes from here on makes an event; what has completed is taken now. */
    if (!rdma->module->request_event(rdma->device) || kolo__rdma_take_completions(rdma) ||
        has_work(rdma)) {
        rdma->tcp->ops->disarm(rdma->tcp);
        return false;
    }
    return true;
}

static void disarm(struct kolo__transport *transport)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)transport;
    rdma->module->take_events(rdma->device);
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
    .fail = fail,
    .close = close_rdma,
};
