/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How ranks that share memory sleep, and wake each other. There are two kinds of sleep:
 *
 *   a nap    on the word `asleep` itself (futex): whoever acts clears the word and wakes the owner.
 *            Two to three times as fast as the other, but only peers can end it.
 *   armed    in poll(2), together with whatever else the caller listens to: whoever acts rings the
 *            doorbell, a datagram socket.
 *
 * Nobody may sleep through what it waits for. The one who waits writes `asleep`, then looks once
 * more; the one who acts writes head, tail or a flag, then reads `asleep`. Each of the two writes
 * before it reads, and all four accesses are memory_order_seq_cst (or have a fence of that order
 * between them): in their one total order, the later of the two writes comes before its writer's
 * read of the other's, so at least one of the two sees what the other did. With acquire and release
 * alone both could miss it. A nap begins
 * only if the word is still what its owner wrote, so a waker that was faster is not missed either.
 */
#include "collectives/transport/shm_transport.h"

#include "base/status.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Sleeps are numbered in steps of two: the lowest bit says which kind it is. */
enum { NAP = 1 };

static socklen_t doorbell_address(const struct kolo__shm *shm, uint32_t rank,
                                  struct sockaddr_un *address)
{
    /* sun_path begins with a zero: an abstract name, which vanishes with its socket. */
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int bytes =
        snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "%s-%u", shm->doorbell, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)bytes);
}

kolo_status kolo__shm_open_doorbell(struct kolo__shm *shm)
{
    struct sockaddr_un address;
    socklen_t length = doorbell_address(shm, shm->stream.transport.rank, &address);
    shm->doorbell_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (shm->doorbell_fd < 0)
        return kolo__error_errno(errno, "cannot make a socket for wake-ups");
    if (bind(shm->doorbell_fd, (struct sockaddr *)&address, length) != 0)
        return kolo__error_errno(errno, "cannot bind the doorbell '%s'", address.sun_path + 1);
    return KOLO_OK;
}

/* ---- waking ------------------------------------------------------------------------------- */

/* Of several wakers one does it. The word may have become another sleep's meanwhile: its owner has
 * looked once more since, and seen what this waker did. */
static void end_nap(struct kolo__shm_mailbox *mailbox, uint32_t asleep)
{
    if (atomic_compare_exchange_strong(&mailbox->asleep, &asleep, 0))
        syscall(SYS_futex, &mailbox->asleep, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* False: it could not be rung. */
static bool ring(struct kolo__shm *shm, uint32_t index)
{
    struct sockaddr_un address;
    socklen_t length = doorbell_address(shm, index, &address);
    ssize_t sent = sendto(shm->doorbell_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL,
                          (struct sockaddr *)&address, length);
    /* EAGAIN: its queue is full, so it wakes anyway. ECONNREFUSED: it has gone. */
    return sent >= 0 || errno == EAGAIN || errno == ECONNREFUSED;
}

void kolo__shm_wake(struct kolo__shm *shm, uint32_t index)
{
    struct kolo__shm_peer *peer = &shm->peers[index];
    uint32_t asleep = atomic_load(&peer->mailbox->asleep);
    bool again = false;
    if ((asleep & NAP) != 0) {
        end_nap(peer->mailbox, asleep);
    } else if (asleep != 0 && asleep != peer->rung) {
        again = !ring(shm, index);
        if (!again)
            peer->rung = asleep;
    }
    if (again != peer->ring_again) {
        peer->ring_again = again;
        shm->ring_again_count += again ? 1 : -1u;
    }
}

void kolo__shm_wake_again(struct kolo__shm *shm)
{
    for (uint32_t i = 0; i < shm->stream.transport.size && shm->ring_again_count > 0; i++)
        if (shm->peers[i].ring_again)
            kolo__shm_wake(shm, i);
}

/* ---- sleeping ----------------------------------------------------------------------------- */

static void wake_up(struct kolo__shm *shm)
{
    atomic_store_explicit(&shm->mailbox->asleep, 0, memory_order_relaxed);
}

/* From now on peers wake this rank. False: there is something to do, nobody sleeps. */
static bool fall_asleep(struct kolo__shm *shm, uint32_t kind)
{
    if (kolo__stream_has_work(&shm->stream) || shm->ring_again_count > 0)
        return false;
    shm->sleeps += 2;
    if (shm->sleeps == 0)
        shm->sleeps = 2;
    atomic_store(&shm->mailbox->asleep, shm->sleeps | kind);
    bool news = shm->mapped && kolo__shm_mapping_news(shm);
    if (!news && !kolo__shm_rings_ready(shm))
        return true;
    wake_up(shm);
    return false;
}

bool kolo__shm_nap(struct kolo__transport *transport, uint64_t most_ns)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)transport;
    struct timespec most = {.tv_sec = (time_t)(most_ns / 1000000000u),
                            .tv_nsec = (long)(most_ns % 1000000000u)};
    if (fall_asleep(shm, NAP)) {
        syscall(SYS_futex, &shm->mailbox->asleep, FUTEX_WAIT, shm->sleeps | NAP, &most, NULL, 0);
        wake_up(shm);
    }
    return true;
}

bool kolo__shm_arm(struct kolo__transport *transport)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)transport;
    shm->armed = fall_asleep(shm, 0);
    return shm->armed;
}

void kolo__shm_disarm(struct kolo__transport *transport)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)transport;
    char rings[16];
    if (!shm->armed)
        return;
    shm->armed = false;
    wake_up(shm);
    while (recv(shm->doorbell_fd, rings, sizeof rings, MSG_DONTWAIT) >= 0)
        continue;
}

int kolo__shm_wait_fd(struct kolo__transport *transport)
{
    return ((struct kolo__shm *)(void *)transport)->doorbell_fd;
}
