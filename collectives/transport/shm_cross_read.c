/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a peer's private memory with process_vm_readv(2), so that it need not copy what others
 * read into a window. Whether that is permitted (ptrace rules, seccomp, pid namespaces) and whether
 * it is faster than a copy depends on the machine: both are tried once, when the communicator is
 * made. The other ranks hear of the outcome with the first record (transport.h): all do it, or
 * none.
 */
#include "base/token.h"
#include "base/clock.h"
#include "base/log.h"
#include "collectives/transport/shm_transport.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* What a rank's peers read to find out: a page table's worth of pages, of which none is the
 * kernel's page of zeros. */
enum { PROBE_BYTES = 128 * 1024, PROBE_TURNS = 3, PROBE_WORD_BYTES = 16 };
static char probe_memory[PROBE_BYTES];
static bool probe_ready;
static pthread_once_t probe_once = PTHREAD_ONCE_INIT;

/* What a REDUCE combines from: all its sources have to fit. */
static const size_t bounce_bytes = 256 * 1024;

enum kolo__cross_reads kolo__shm_cross_reads = KOLO__CROSS_READS_WHERE_FASTER;

static void prepare_probe(void)
{
    memset(probe_memory, 1, sizeof probe_memory);
    probe_ready = kolo__token_random(probe_memory, PROBE_WORD_BYTES) == KOLO_OK;
}

void kolo__shm_cross_read_offer(struct kolo__shm_mailbox *mailbox)
{
    pthread_once(&probe_once, prepare_probe);
    mailbox->process = getpid();
    mailbox->probe = (uintptr_t)probe_memory;
    memcpy(mailbox->probe_word, probe_memory, sizeof mailbox->probe_word);
}

/* Bytes read; -1: errno says why. */
static ssize_t read_memory(int process, uint64_t address, void *to, size_t bytes)
{
    struct iovec local = {to, bytes}, remote = {(void *)(uintptr_t)address, bytes};
    return process_vm_readv(process, &local, 1, &remote, 1, 0);
}

/* 0, or the errno that says why this rank cannot read that peer's memory. */
static int try_peer(const struct kolo__shm_mailbox *mailbox)
{
    char word[sizeof mailbox->probe_word];
    ssize_t got = read_memory(mailbox->process, mailbox->probe, word, sizeof word);
    if (got < 0)
        return errno;
    /* Another pid namespace: that number is another process here. */
    return got == sizeof word && memcmp(word, mailbox->probe_word, sizeof word) == 0 ? 0 : ESRCH;
}

/* The shortest time of some turns: one way, or the other. */
static uint64_t fastest_ns(struct kolo__shm *shm, const struct kolo__shm_mailbox *peer, bool reads)
{
    unsigned char *window = (unsigned char *)shm->mailbox + shm->layout.windows;
    uint64_t least = UINT64_MAX;
    for (int turn = 0; turn < PROBE_TURNS; turn++) {
        uint64_t begin = kolo__now_ns(&kolo__real_clock);
        if (!reads)
            memcpy(window, probe_memory, PROBE_BYTES);
        else if (read_memory(peer->process, peer->probe, shm->mapping.bounce, PROBE_BYTES) !=
                 PROBE_BYTES)
            return UINT64_MAX;
        uint64_t took = kolo__now_ns(&kolo__real_clock) - begin;
        least = took < least ? took : least;
    }
    return least;
}

static bool permitted(const struct kolo__shm *shm)
{
    static _Atomic bool said;
    for (uint32_t peer = 0; peer < shm->stream.transport.size; peer++) {
        int why = kolo__shm_is_peer(shm, peer) ? try_peer(shm->peers[peer].mailbox) : 0;
        if (why == 0)
            continue;
        if (!atomic_exchange(&said, true))
            kolo__log(
                KOLO__LOG_INFO,
                "cannot read rank %u's memory with process_vm_readv: %s; buffers that are not "
                "from kolo_alloc are copied through shared memory",
                peer, strerror(why));
        return false;
    }
    return true;
}

/* NULL: there is none. */
static const struct kolo__shm_mailbox *next_peer(const struct kolo__shm *shm)
{
    uint32_t size = shm->stream.transport.size, rank = shm->stream.transport.rank;
    for (uint32_t k = 1; k < size; k++)
        if (shm->shares[(rank + k) % size])
            return shm->peers[(rank + k) % size].mailbox;
    return NULL;
}

void kolo__shm_cross_read_probe(struct kolo__shm *shm)
{
    struct kolo__mapping *mapping = &shm->mapping;
    const struct kolo__shm_mailbox *neighbour = next_peer(shm);
    if (neighbour == NULL || kolo__shm_cross_reads == KOLO__CROSS_READS_NEVER || !probe_ready ||
        !permitted(shm))
        return;
    mapping->bounce = aligned_alloc(64, bounce_bytes);
    if (mapping->bounce == NULL)
        return;
    mapping->bounce_bytes = bounce_bytes;
    memset(mapping->bounce, 0, bounce_bytes);
    uint64_t reads_ns = fastest_ns(shm, neighbour, true);
    uint64_t copies_ns = fastest_ns(shm, NULL, false);
    mapping->wants_cross_reads =
        reads_ns < copies_ns || kolo__shm_cross_reads == KOLO__CROSS_READS_WHERE_PERMITTED;
    kolo__log(KOLO__LOG_DEBUG, "%d KiB: %.1f us to read from a peer, %.1f us to copy for it: %s",
              PROBE_BYTES / 1024, (double)reads_ns / 1e3, (double)copies_ns / 1e3,
              mapping->wants_cross_reads ? "reading" : "copying");
}

kolo_status kolo__shm_cross_read(struct kolo__mapping *mapping, uint32_t peer, uint64_t address,
                                 void *to, size_t bytes, struct kolo__fault *fault)
{
    const struct kolo__shm *shm = kolo__shm_of(mapping);
    int process = shm->peers[peer].mailbox->process;
    size_t done = 0;
    while (done < bytes) {
        ssize_t got =
            read_memory(process, address + done, (unsigned char *)to + done, bytes - done);
        if (got <= 0) {
            int why = got < 0 ? errno : EFAULT;
            fault->status = why == ESRCH ? KOLO_ERR_PEER_LOST : KOLO_ERR_NETWORK;
            fault->peer = (int)peer;
            snprintf(fault->text, sizeof fault->text,
                     "cannot read %zu of %zu bytes at %#llx in rank %u (process %d): %s",
                     bytes - done, bytes, (unsigned long long)address, peer, process,
                     strerror(why));
            return fault->status;
        }
        done += (size_t)got;
    }
    mapping->cross_read_bytes += bytes;
    return KOLO_OK;
}
