/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/joins.h"

#include <stdlib.h>
#include <string.h>

/* Announcements at once: far more than anybody starts ahead of the others. */
enum { ANNOUNCED_MAX = 1 << 16, COMMS_MAX = 1 << 16 };

struct joined {
    uint32_t rank;
    uint64_t sequence;
};

struct kolo__joins_comm {
    uint32_t comm, guardian; /* the same when it has none */
    uint32_t count;
    struct joined *joined;
};

struct kolo__joins_end {
    uint32_t comm, last;
};

/* Room for one more element of a growing array. */
static bool make_room(void **array, uint32_t *capacity, uint32_t count, size_t bytes, uint32_t most)
{
    if (count < *capacity)
        return true;
    uint32_t larger = 2 * count + 16;
    void *grown = count < most ? realloc(*array, larger * bytes) : NULL;
    if (grown == NULL)
        return false;
    *array = grown;
    *capacity = larger;
    return true;
}

static struct kolo__joins_comm *find(const struct kolo__joins *joins, uint32_t comm)
{
    for (unsigned i = 0; i < atomic_load_explicit(&joins->comm_count, memory_order_relaxed); i++)
        if (joins->comms[i].comm == comm)
            return &joins->comms[i];
    return NULL;
}

static void remove_comm(struct kolo__joins *joins, struct kolo__joins_comm *comm)
{
    unsigned left = atomic_load(&joins->comm_count) - 1;
    free(comm->joined);
    *comm = joins->comms[left];
    atomic_store(&joins->comm_count, left);
}

static struct kolo__joins_comm *find_or_add(struct kolo__joins *joins, uint32_t comm,
                                            uint32_t guardian)
{
    struct kolo__joins_comm *found = find(joins, comm);
    unsigned count = atomic_load(&joins->comm_count);
    if (found != NULL)
        return found;
    void *comms = joins->comms;
    if (!make_room(&comms, &joins->comm_capacity, count, sizeof *joins->comms, COMMS_MAX))
        return NULL;
    joins->comms = comms;
    joins->comms[count] = (struct kolo__joins_comm){.comm = comm, .guardian = guardian};
    atomic_store(&joins->comm_count, count + 1);
    return &joins->comms[count];
}

static bool take_joined(struct kolo__joins *joins, struct kolo__frame_reader *payload)
{
    uint32_t id = kolo__get_u32(payload);
    uint32_t guardian = kolo__get_u32(payload);
    struct joined joined = {.rank = kolo__get_u32(payload)};
    joined.sequence = kolo__get_u64(payload);
    if (!kolo__frame_done(payload))
        return false;
    struct kolo__joins_comm *comm = find_or_add(joins, id, guardian);
    struct joined *grown =
        comm != NULL ? realloc(comm->joined, (comm->count + 1) * sizeof *grown) : NULL;
    if (grown == NULL)
        return false;
    comm->joined = grown;
    comm->joined[comm->count++] = joined;
    return true;
}

static bool take_announcement(struct kolo__joins *joins, struct kolo__frame_reader *payload)
{
    unsigned count = atomic_load(&joins->announced_count);
    void *announced = joins->announced;
    if (!make_room(&announced, &joins->announced_capacity, count, sizeof *joins->announced,
                   ANNOUNCED_MAX))
        return false;
    joins->announced = announced;
    kolo__get_announcement(payload, &joins->announced[count]);
    if (!kolo__frame_done(payload))
        return false;
    atomic_store(&joins->announced_count, count + 1);
    return true;
}

/* Nothing of what was heard of this communicator before counts from now on: whoever joins again
 * does so for the next time. */
static bool take_all_joined(struct kolo__joins *joins, struct kolo__frame_reader *payload)
{
    struct kolo__joins_end end = {.comm = kolo__get_u32(payload)};
    void *ends = joins->ends;
    end.last = kolo__get_u32(payload);
    if (!kolo__frame_done(payload) ||
        !make_room(&ends, &joins->end_capacity, joins->end_count, sizeof *joins->ends, COMMS_MAX))
        return false;
    joins->ends = ends;
    joins->ends[joins->end_count++] = end;
    for (unsigned i = atomic_load(&joins->comm_count); i-- > 0;)
        if (joins->comms[i].comm == end.comm || joins->comms[i].guardian == end.comm)
            remove_comm(joins, &joins->comms[i]);
    return true;
}

bool kolo__joins_take(struct kolo__joins *joins, enum kolo__frame_type type,
                      struct kolo__frame_reader *payload)
{
    if (type == KOLO__FRAME_JOINED)
        return take_joined(joins, payload);
    return type == KOLO__FRAME_ANNOUNCE ? take_announcement(joins, payload)
                                        : take_all_joined(joins, payload);
}

bool kolo__joins_has(const struct kolo__joins *joins, uint32_t comm, uint32_t rank,
                     uint64_t *sequence)
{
    const struct kolo__joins_comm *found = find(joins, comm);
    for (uint32_t i = 0; found != NULL && i < found->count; i++)
        if (found->joined[i].rank == rank) {
            *sequence = found->joined[i].sequence;
            return true;
        }
    return false;
}

bool kolo__joins_lowest(const struct kolo__joins *joins, uint32_t comm, uint64_t *sequence)
{
    const struct kolo__joins_comm *found = find(joins, comm);
    for (uint32_t i = 0; found != NULL && i < found->count; i++)
        if (i == 0 || found->joined[i].sequence < *sequence)
            *sequence = found->joined[i].sequence;
    return found != NULL && found->count > 0;
}

static void remove_announced(struct kolo__joins *joins, unsigned place)
{
    unsigned left = atomic_load(&joins->announced_count) - 1;
    memmove(&joins->announced[place], &joins->announced[place + 1],
            (left - place) * sizeof *joins->announced);
    atomic_store(&joins->announced_count, left);
}

bool kolo__joins_next(struct kolo__joins *joins, uint32_t comm,
                      struct kolo__announcement *announcement)
{
    for (unsigned i = 0; i < atomic_load(&joins->announced_count); i++)
        if (joins->announced[i].signature.comm == comm) {
            *announcement = joins->announced[i];
            remove_announced(joins, i);
            return true;
        }
    return false;
}

bool kolo__joins_end(struct kolo__joins *joins, uint32_t comm, uint32_t *last)
{
    for (uint32_t i = 0; i < joins->end_count; i++)
        if (joins->ends[i].comm == comm) {
            *last = joins->ends[i].last;
            joins->ends[i] = joins->ends[--joins->end_count];
            return true;
        }
    return false;
}

void kolo__joins_forget(struct kolo__joins *joins, uint32_t comm)
{
    struct kolo__joins_comm *found = find(joins, comm);
    struct kolo__announcement announcement;
    uint32_t last;
    if (found != NULL)
        remove_comm(joins, found);
    while (kolo__joins_next(joins, comm, &announcement) || kolo__joins_end(joins, comm, &last)) {
    }
}

void kolo__joins_free(struct kolo__joins *joins)
{
    for (unsigned i = 0; i < atomic_load(&joins->comm_count); i++)
        free(joins->comms[i].joined);
    free(joins->comms);
    free(joins->announced);
    free(joins->ends);
}
