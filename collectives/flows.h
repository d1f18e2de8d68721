/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an allreduce puts on the network, coarse enough for ten thousands of ranks: schedule.h has
 * every message, this has sums. Each algorithm tells it in its own file; a test compares both.
 *
 * An allreduce is a row of phases. What is sent within a phase shares the links; the next begins
 * when it is over. Within a phase messages may depend on each other: that is its chain.
 */
#ifndef KOLO_COLLECTIVES_FLOWS_H
#define KOLO_COLLECTIVES_FLOWS_H

#include <stdint.h>

/* One rank's part. Elements may be fractions: slices are taken as equal. */
struct kolo__flow_problem {
    uint32_t rank, size;
    uint32_t per_host; /* ranks lie on hosts in blocks of so many; divides size */
    double count;      /* elements */
};

/* Takes what kolo__algorithm.flows tells. Phases are numbered from 0, alike on all ranks; all of
 * them are told of, in any order. */
struct kolo__flow_sink {
    /* This rank sends so many elements to the peer, in this phase. */
    void (*send)(struct kolo__flow_sink *sink, uint32_t phase, uint32_t peer, double elements);
    /* A chain of so many messages, each waiting for the one before, goes through this rank. What
     * of it streams, as in a pipelined tree, is not counted twice: only the starts add up. */
    void (*chain)(struct kolo__flow_sink *sink, uint32_t phase, double messages);
};

#endif
