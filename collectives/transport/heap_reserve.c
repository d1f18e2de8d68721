/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that start together allocate together. Each would find enough memory left, all would take
 * theirs, and the kernel would kill one. So only one process of the heap at a time looks how much
 * is left and takes it. The lock is a record lock (fcntl) on the memfd, which a process that dies
 * gives up. It costs no time to speak of: the kernel itself lets only one process at a time into
 * fallocate.
 *
 * Record locks belong to a process, not to the open file, which all ranks share because it was
 * passed by a socket. Among the threads of a process a mutex does the same.
 *
 * A page lies on the NUMA node of the processor that reserves it (or where numactl told the process
 * to), whoever touches it first. The owner of the share reserves, and kolo run binds a rank before
 * its program begins, so a bound rank's buffers are on its own node.
 */
#include "collectives/transport/heap_reserve.h"

#include "base/clock.h"
#include "base/status.h"
#include "collectives/transport/available_memory.h"
#include "collectives/transport/huge_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* To look how much is left takes 0.1 ms and a turn. So small blocks look for several at once, and
 * want more to be left: for what the other ranks have found, and for the kernel's own pages. */
static const uint64_t credit_bytes = (uint64_t)1 << 20;
static const uint64_t spare_bytes = (uint64_t)4 << 20;

static pthread_mutex_t this_process = PTHREAD_MUTEX_INITIALIZER;

/* From the first byte on, as long as the block: so those who wait see how much there is to do. */
static struct flock lock_of(short type, uint64_t bytes)
{
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = (off_t)bytes};
}

/* When to stop waiting for this holder: it may take a second for each GiB. */
static uint64_t deadline_for(const struct flock *holder, uint64_t patience_ms)
{
    return kolo__now_ns(&kolo__real_clock) + patience_ms * 1000000 + (uint64_t)holder->l_len;
}

static kolo_status take_turn(const struct kolo__heap_block *block, uint64_t patience_ms)
{
    struct flock holder = {0};
    uint64_t deadline_ns = 0;
    for (;;) {
        struct flock mine = lock_of(F_WRLCK, block->bytes);
        if (fcntl(block->fd, F_SETLK, &mine) == 0)
            return KOLO_OK;
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return kolo__error_errno(errno, "cannot lock the shared heap to reserve memory in it");
        struct flock now = lock_of(F_WRLCK, block->bytes);
        if (fcntl(block->fd, F_GETLK, &now) != 0 || now.l_type == F_UNLCK)
            continue;
        if (now.l_pid != holder.l_pid || now.l_len != holder.l_len) {
            holder = now;
            deadline_ns = deadline_for(&holder, patience_ms);
        }
        if (kolo__now_ns(&kolo__real_clock) >= deadline_ns)
            return kolo__error(KOLO_ERR_TIMEOUT,
                               "process %d of this job has been reserving %llu bytes of shared "
                               "memory for too long: is it stopped?",
                               (int)holder.l_pid, (unsigned long long)holder.l_len);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void end_turn(const struct kolo__heap_block *block)
{
    struct flock mine = lock_of(F_UNLCK, block->bytes);
    fcntl(block->fd, F_SETLK, &mine);
}

static kolo_status fill(const struct kolo__heap_block *block)
{
    if ((block->position | (uintptr_t)block->memory) % KOLO__HUGE_PAGE_BYTES == 0)
        kolo__huge_pages_fill(block->memory, block->bytes);
    int failed;
    do
        failed = fallocate(block->fd, 0, (off_t)block->position, (off_t)block->bytes);
    while (failed != 0 && errno == EINTR);
    if (failed != 0)
        return kolo__error(KOLO_ERR_MEMORY, "%llu bytes of shared memory wanted: %s",
                           (unsigned long long)block->bytes, strerror(errno));
    return KOLO_OK;
}

static kolo_status check_and_fill(const struct kolo__heap_block *block)
{
    uint64_t available = kolo__available_memory();
    bool small = block->bytes < credit_bytes;
    if ((small ? credit_bytes + spare_bytes : block->bytes) > available)
        return kolo__error(KOLO_ERR_MEMORY,
                           "%llu bytes of shared memory wanted, this machine (or the control group "
                           "of this process) has %llu left",
                           (unsigned long long)block->bytes, (unsigned long long)available);
    if (small)
        *block->credit = credit_bytes;
    return fill(block);
}

kolo_status kolo__heap_reserve(const struct kolo__heap_block *block, uint64_t patience_ms)
{
    if (block->bytes <= *block->credit && block->bytes < credit_bytes) {
        *block->credit -= block->bytes;
        return fill(block);
    }
    pthread_mutex_lock(&this_process);
    kolo_status status = take_turn(block, patience_ms);
    if (status == KOLO_OK) {
        status = check_and_fill(block);
        end_turn(block);
    }
    pthread_mutex_unlock(&this_process);
    return status;
}
