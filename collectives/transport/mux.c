/* SPDX-License-Identifier: Apache-2.0 */
/* Routes each peer's posts to the transport that reaches it, and keeps faults and sleep common. */
#include "collectives/transport/mux.h"

#include "base/assert.h"
#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

struct mux {
    struct kolo__transport transport;  /* first */
    struct kolo__transport **children; /* owned */
    uint32_t child_count;
    uint8_t *route;                 /* index into children, by peer */
    int epoll_fd;                   /* over the children's; -1: none of them sleeps */
    struct kolo__transport_ops ops; /* mux_ops, with the children's names */
    char name[48];
};

static const struct kolo__transport_ops mux_ops;

static void name_children(struct mux *mux);
static kolo_status watch_children(struct mux *mux);
static void close_children(struct kolo__transport *const *children, uint32_t count);
static void close_mux(struct kolo__transport *transport);

static struct mux *mux_of(struct kolo__transport *transport)
{
    return (struct mux *)(void *)transport;
}

kolo_status kolo__mux_create(uint32_t rank, uint32_t size, struct kolo__transport *const *children,
                             uint32_t child_count, const uint8_t *route,
                             struct kolo__transport **transport)
{
    KOLO__ASSERT(child_count > 0);
    struct mux *mux = calloc(1, sizeof *mux);
    if (mux == NULL) {
        close_children(children, child_count);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u transports", child_count);
    }
    mux->ops = mux_ops;
    mux->ops.name = mux->name;
    mux->transport = (struct kolo__transport){.ops = &mux->ops, .rank = rank, .size = size};
    mux->epoll_fd = -1;
    mux->children = malloc(child_count * sizeof(struct kolo__transport *));
    mux->route = malloc(size);
    if (mux->children == NULL || mux->route == NULL) {
        free(mux->children);
        free(mux->route);
        free(mux);
        close_children(children, child_count);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u transports", child_count);
    }
    memcpy(mux->children, children, child_count * sizeof(struct kolo__transport *));
    memcpy(mux->route, route, size);
    mux->child_count = child_count;
    for (uint32_t peer = 0; peer < size; peer++)
        KOLO__ASSERT(peer == rank || route[peer] < child_count);

    name_children(mux);
    kolo_status status = watch_children(mux);
    if (status != KOLO_OK) {
        close_mux(&mux->transport);
        return status;
    }
    *transport = &mux->transport;
    return KOLO_OK;
}

/* "shm+tcp": the last first. */
static void name_children(struct mux *mux)
{
    size_t used = 0;
    for (uint32_t i = mux->child_count; i-- > 0 && used < sizeof mux->name;)
        used += (size_t)snprintf(mux->name + used, sizeof mux->name - used, "%s%s",
                                 used > 0 ? "+" : "", mux->children[i]->ops->name);
}

/* One child that never sleeps keeps the whole awake. */
static kolo_status watch_children(struct mux *mux)
{
    for (uint32_t i = 0; i < mux->child_count; i++)
        if (mux->children[i]->ops->wait_fd(mux->children[i]) < 0)
            return KOLO_OK;
    mux->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (mux->epoll_fd < 0)
        return kolo__error_errno(errno, "cannot make a descriptor to wait for transports");
    for (uint32_t i = 0; i < mux->child_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        int fd = mux->children[i]->ops->wait_fd(mux->children[i]);
        if (epoll_ctl(mux->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
            return kolo__error_errno(errno, "cannot wait for the %s transport",
                                     mux->children[i]->ops->name);
    }
    return KOLO_OK;
}

static void close_children(struct kolo__transport *const *children, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        children[i]->ops->close(children[i]);
}

static void close_mux(struct kolo__transport *transport)
{
    struct mux *mux = mux_of(transport);
    close_children(mux->children, mux->child_count);
    if (mux->epoll_fd >= 0)
        close(mux->epoll_fd);
    free(mux->children);
    free(mux->route);
    free(mux);
}

static void fail(struct kolo__transport *transport, const struct kolo__fault *fault)
{
    struct mux *mux = mux_of(transport);
    if (transport->fault.status == KOLO_OK)
        transport->fault = *fault;
    for (uint32_t i = 0; i < mux->child_count; i++)
        mux->children[i]->ops->fail(mux->children[i], &transport->fault);
}

/* The first fault of a child becomes everybody's, so that posts to all peers end with it. */
static void share_fault(struct mux *mux)
{
    for (uint32_t i = 0; i < mux->child_count; i++)
        if (mux->transport.fault.status == KOLO_OK && mux->children[i]->fault.status != KOLO_OK)
            fail(&mux->transport, &mux->children[i]->fault);
}

static struct kolo__transport *child_of(struct kolo__transport *transport, uint32_t peer)
{
    KOLO__ASSERT(peer < transport->size && peer != transport->rank);
    struct mux *mux = mux_of(transport);
    return mux->children[mux->route[peer]];
}

static void post_send(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    struct kolo__transport *child = child_of(transport, peer);
    child->ops->post_send(child, peer, post);
    share_fault(mux_of(transport));
}

static void post_recv(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    struct kolo__transport *child = child_of(transport, peer);
    child->ops->post_recv(child, peer, post);
    share_fault(mux_of(transport));
}

static bool progress(struct kolo__transport *transport)
{
    struct mux *mux = mux_of(transport);
    bool moved = false;
    for (uint32_t i = 0; i < mux->child_count; i++)
        moved |= mux->children[i]->ops->progress(mux->children[i]);
    share_fault(mux);
    return moved;
}

static void disarm(struct kolo__transport *transport)
{
    struct mux *mux = mux_of(transport);
    for (uint32_t i = 0; i < mux->child_count; i++)
        mux->children[i]->ops->disarm(mux->children[i]);
}

static bool arm(struct kolo__transport *transport)
{
    struct mux *mux = mux_of(transport);
    for (uint32_t i = 0; i < mux->child_count; i++) {
        if (mux->children[i]->ops->arm(mux->children[i]))
            continue;
        while (i-- > 0)
            mux->children[i]->ops->disarm(mux->children[i]);
        return false;
    }
    return true;
}

static int wait_fd(struct kolo__transport *transport)
{
    return mux_of(transport)->epoll_fd;
}

static bool takes_gpu(struct kolo__transport *transport, uint32_t peer,
                      const struct kolo__post *post)
{
    struct kolo__transport *child = child_of(transport, peer);
    return child->ops->takes_gpu(child, peer, post);
}

static const struct kolo__transport_ops mux_ops = {
    .name = "mux",
    .post_send = post_send,
    .post_recv = post_recv,
    .progress = progress,
    .arm = arm,
    .disarm = disarm,
    .wait_fd = wait_fd,
    .nap = kolo__transport_never_naps,
    .takes_gpu = takes_gpu,
    .fail = fail,
    .close = close_mux,
};
