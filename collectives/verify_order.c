/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two accesses to one cell by different ranks, one of them a write, need a fence between them.
 *
 * AWAIT waits for all ranks at once, so a rank's vector clock has the same number everywhere and
 * one number is enough: an access of rank a, made after i ARRIVEs of a, comes before an access of
 * rank b if b has seen all ranks arrive more than i times.
 */
#include "collectives/verify_state.h"

#include <stdio.h>

static kolo_status conflict(struct kolo__verification *v, uint32_t rank, const char *doing,
                            uint32_t other, const char *did, size_t cell);

kolo_status kolo__verify_read(struct kolo__verification *v, uint32_t rank, size_t cell)
{
    if (v->accesses == NULL)
        return KOLO_OK;
    struct kolo__cell_access *access = &v->accesses[cell];
    uint32_t seen = v->ranks[rank].awaited, now = v->ranks[rank].arrived + 1;
    if (access->writer != rank && access->write_time > seen)
        return conflict(v, rank, "reads", access->writer, "wrote", cell);
    if (access->reader == rank) {
        access->read_time = now;
    } else if (now >= access->read_time) {
        access->other_read_time = access->read_time;
        access->reader = rank;
        access->read_time = now;
    } else if (now > access->other_read_time) {
        access->other_read_time = now;
    }
    return KOLO_OK;
}

kolo_status kolo__verify_write(struct kolo__verification *v, uint32_t rank, size_t cell)
{
    if (v->accesses == NULL)
        return KOLO_OK;
    struct kolo__cell_access *access = &v->accesses[cell];
    uint32_t seen = v->ranks[rank].awaited;
    if (access->writer != rank && access->write_time > seen)
        return conflict(v, rank, "writes", access->writer, "wrote", cell);
    if (access->reader != rank && access->read_time > seen)
        return conflict(v, rank, "writes", access->reader, "read", cell);
    if (access->reader == rank && access->other_read_time > seen)
        return conflict(v, rank, "writes", UINT32_MAX, "read", cell);
    *access = (struct kolo__cell_access){
        .writer = rank, .write_time = v->ranks[rank].arrived + 1, .reader = rank};
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
