/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two accesses to one cell by different ranks, one of them a write, need a fence between them.
 *
 * AWAIT waits for all ranks that share memory at once, so a rank's vector clock has the same number
 * everywhere and one number is enough: an access of rank a, made after i ARRIVEs of a, comes before
 * an access of rank b if b has seen all ranks arrive more than i times.
 *
 * A message may move at any time after the fence before it. So it has seen no more than that fence,
 * and what it does comes before no fence: until the rank itself has read what was received, or
 * written over what was sent, by a step that waits for the message.
 */
#include "collectives/verify_state.h"

#include <stdio.h>

static kolo_status conflict(struct kolo__verification *v, uint32_t rank, const char *doing,
                            uint32_t other, const char *did, size_t cell);

kolo_status kolo__verify_read(struct kolo__verification *v, uint32_t rank, size_t cell,
                              struct kolo__verify_time at)
{
    if (v->accesses == NULL)
        return KOLO_OK;
    struct kolo__cell_access *access = &v->accesses[cell];
    if (access->writer != rank && access->write_time > at.seen)
        return conflict(v, rank, "reads", access->writer, "wrote", cell);
    if (access->writer == rank && access->write_time == KOLO__VERIFY_AFLOAT)
        access->write_time = at.now;
    if (access->reader == rank) {
        access->read_time = at.now > access->read_time ? at.now : access->read_time;
    } else if (at.now >= access->read_time) {
        access->other_read_time = access->read_time;
        access->reader = rank;
        access->read_time = at.now;
    } else if (at.now > access->other_read_time) {
        access->other_read_time = at.now;
    }
    return KOLO_OK;
}

kolo_status kolo__verify_write(struct kolo__verification *v, uint32_t rank, size_t cell,
                               struct kolo__verify_time at)
{
    if (v->accesses == NULL)
        return KOLO_OK;
    struct kolo__cell_access *access = &v->accesses[cell];
    uint32_t seen = at.seen;
    if (access->writer != rank && access->write_time > seen)
        return conflict(v, rank, "writes", access->writer, "wrote", cell);
    if (access->reader != rank && access->read_time > seen)
        return conflict(v, rank, "writes", access->reader, "read", cell);
    if (access->reader == rank && access->other_read_time > seen)
        return conflict(v, rank, "writes", UINT32_MAX, "read", cell);
    *access = (struct kolo__cell_access){.writer = rank, .write_time = at.now, .reader = rank};
    return KOLO_OK;
}

static kolo_status conflict(struct kolo__verification *v, uint32_t rank, const char *doing,
                            uint32_t other, const char *did, size_t cell)
{
    uint32_t owner = v->size - 1;
    while (v->ranks[owner].first_cell > cell)
        owner--;
    char who[32] = "another rank";
    if (other != UINT32_MAX)
        snprintf(who, sizeof(who), "rank %u", other);
    return kolo__verify_refuse(v,
                               "operation %u: rank %u %s memory of rank %u that %s %s with no "
                               "ARRIVE and AWAIT between them (step %u or near)",
                               v->ranks[rank].operation, rank, doing, owner, who, did,
                               v->ranks[rank].oldest);
}
