/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/recorders.h"

#include "base/clock.h"
#include "base/status.h"
#include "launcher/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct kolo__recorders_block {
    struct kolo__recorders_block *next;
    const struct kolo__flight *flights;
    uint32_t places;
    dev_t device;
    ino_t inode;
    uid_t owner;
};

bool kolo__recorders_same_job(const struct kolo__flight_rank *a, const struct kolo__flight_rank *b)
{
    return a->owner == b->owner && a->flight->world_size == b->flight->world_size &&
           strncmp(a->flight->job, b->flight->job, sizeof a->flight->job) == 0;
}

static int order(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_job_and_rank(const void *left, const void *right)
{
    const struct kolo__flight_rank *a = left, *b = right;
    int by_name = strncmp(a->flight->job, b->flight->job, sizeof a->flight->job);
    int by_owner = order(a->owner, b->owner);
    int by_size = order(a->flight->world_size, b->flight->world_size);
    return by_name != 0    ? by_name
           : by_owner != 0 ? by_owner
           : by_size != 0  ? by_size
                           : order(a->flight->rank, b->flight->rank);
}

kolo_status kolo__recorders_add_rank(struct kolo__recorders *recorders,
                                     const struct kolo__flight_rank *rank)
{
    struct kolo__flight_rank *ranks =
        realloc(recorders->ranks, (recorders->count + 1) * sizeof *ranks);
    if (ranks == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a list of flight recorders");
    recorders->ranks = ranks;
    ranks[recorders->count++] = *rank;
    return KOLO_OK;
}

static kolo_status take_places(struct kolo__recorders *recorders,
                               const struct kolo__recorders_block *block)
{
    kolo_status status = KOLO_OK;
    const uint64_t our_space = kolo__flight_pid_space();
    for (uint32_t i = 0; i < block->places && status == KOLO_OK; i++) {
        const struct kolo__flight *flight = &block->flights[i];
        struct kolo__flight_rank rank = {
            .flight = flight, .place = i, .owner = block->owner, .state = '?'};
        if (atomic_load(&flight->version) != KOLO__FLIGHT_VERSION)
            continue;
        if (flight->pid_space == our_space) /* else a container's ids, which mean nothing here */
            rank.state = kolo__process_state((pid_t)flight->pid);
        status = kolo__recorders_add_rank(recorders, &rank);
    }
    return status;
}

kolo_status kolo__recorders_add(struct kolo__recorders *recorders, int fd)
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        return KOLO_OK;
    for (const struct kolo__recorders_block *b = recorders->blocks; b != NULL; b = b->next)
        if (b->device == file.st_dev && b->inode == file.st_ino)
            return KOLO_OK; /* by another descriptor of it */
    struct kolo__recorders_block *block = calloc(1, sizeof *block);
    if (block == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a flight recorder");
    *block = (struct kolo__recorders_block){.next = recorders->blocks,
                                            .device = file.st_dev,
                                            .inode = file.st_ino,
                                            .owner = file.st_uid};
    block->flights = kolo__flight_map(fd, &block->places);
    recorders->blocks = block;
    return block->flights != NULL ? take_places(recorders, block) : KOLO_OK;
}

/* ---- of all processes ------------------------------------------------------------------------ */

static kolo_status look_at_descriptor(struct kolo__recorders *recorders, const char *path)
{
    static const char NAME[] = "/memfd:kolo-flight";
    char target[sizeof NAME];
    kolo_status status = KOLO_OK;
    ssize_t length = readlink(path, target, sizeof target);
    if (length < (ssize_t)sizeof NAME - 1 || memcmp(target, NAME, sizeof NAME - 1) != 0)
        return status;
    /* It may have become something else by now, a pipe that nobody writes to. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) {
        status = kolo__recorders_add(recorders, fd);
        close(fd);
    }
    return status;
}

static kolo_status look_at_process(struct kolo__recorders *recorders, const char *pid)
{
    char path[PATH_MAX];
    kolo_status status = KOLO_OK;
    const struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *descriptors = opendir(path);
    if (descriptors == NULL)
        return status; /* it has ended, or is somebody else's */
    while (status == KOLO_OK && (entry = readdir(descriptors)) != NULL) {
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
        status = look_at_descriptor(recorders, path);
    }
    closedir(descriptors);
    return status;
}

kolo_status kolo__recorders_find(struct kolo__recorders *recorders)
{
    kolo_status status = KOLO_OK;
    const struct dirent *entry;
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        return kolo__error_errno(errno, "cannot read /proc");
    while (status == KOLO_OK && (entry = readdir(processes)) != NULL)
        if (isdigit((unsigned char)entry->d_name[0]))
            status = look_at_process(recorders, entry->d_name);
    closedir(processes);
    if (recorders->count > 0)
        qsort(recorders->ranks, recorders->count, sizeof *recorders->ranks, by_job_and_rank);
    return status;
}

void kolo__recorders_free(struct kolo__recorders *recorders)
{
    for (struct kolo__recorders_block *block = recorders->blocks, *next; block != NULL;
         block = next) {
        next = block->next;
        kolo__flight_unmap(block->flights, block->places);
        free(block);
    }
    free(recorders->ranks);
    *recorders = (struct kolo__recorders){0};
}

/* ---- as a table ------------------------------------------------------------------------------ */

static const char *phase_name(enum kolo__flight_phase phase)
{
    switch (phase) {
    case KOLO__FLIGHT_CALLED:
        return "called";
    case KOLO__FLIGHT_DONE:
        return "done";
    case KOLO__FLIGHT_FAILED:
        return "failed";
    default:
        return "unknown";
    }
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

static void write_operation(uint32_t rank, uint64_t began_ns,
                            const struct kolo__flight_operation *operation, FILE *out)
{
    static const char *const KINDS[] = {"collective", "send", "recv"};
    char text[200];
    fprintf(out, "%u,%u,%s,\"%s\",%s,%u,", rank, operation->signature.comm,
            operation->kind <= KOLO__FLIGHT_RECV ? KINDS[operation->kind] : "unknown",
            kolo__signature_text(&operation->signature, text, sizeof text),
            phase_name(operation->phase), operation->other);
    if (operation->wait_begin_ns != 0)
        fprintf(out, "%.6f,", seconds(began_ns, operation->wait_begin_ns));
    else
        fprintf(out, ",");
    if (operation->wait_begin_ns != 0 && operation->wait_end_ns != 0)
        fprintf(out, "%.6f,", seconds(operation->wait_begin_ns, operation->wait_end_ns));
    else
        fprintf(out, ",");
    fprintf(out, "%u,%u\n", operation->step, operation->bucket);
}

void kolo__recorders_write_csv(const struct kolo__flight_rank *ranks, uint32_t count, FILE *out)
{
    static struct kolo__flight_operation operations[KOLO__FLIGHT_ENTRIES];
    fprintf(out, "rank,communicator,kind,operation,phase,peer_or_root,wait_began_s,waited_s,step,"
                 "bucket\n");
    for (uint32_t r = 0; r < count; r++) {
        uint32_t found = kolo__flight_operations(ranks[r].flight, operations, KOLO__FLIGHT_ENTRIES);
        for (uint32_t i = 0; i < found; i++)
            write_operation(ranks[r].flight->rank, ranks[r].flight->began_ns, &operations[i], out);
    }
}
