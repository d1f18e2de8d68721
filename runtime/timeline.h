/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KOLO_TIMELINE: from kolo_init on each rank records what it does (base/trace.h); kolo_finalize
 * gathers the events of all ranks at rank 0, which writes them into one file. When the world has
 * failed, or a process ends without kolo_finalize, each rank writes FILE.rankN by itself.
 */
#ifndef KOLO_RUNTIME_TIMELINE_H
#define KOLO_RUNTIME_TIMELINE_H

#include "base/trace_json.h"
#include "collectives/schedule.h"
#include "runtime/context.h"

#include <stdio.h>

enum { KOLO__TIMELINE_ALGORITHMS = 32 };

struct kolo__timeline {
    kolo_context *context;
    struct kolo__trace *trace;
    char path[4096 + 256]; /* absolute: a program may change its folder */
    FILE *file;            /* rank 0, until it is complete */
    pid_t process;         /* not one that it forked */
    bool gathered;         /* this rank's events are in rank 0's hands */
    struct kolo__trace_clock clock;
    /* "allreduce ring", by collective and algorithm; the last column is for none. */
    const char *labels[KOLO__COLLECTIVE_COUNT][KOLO__TIMELINE_ALGORITHMS + 1];
};

/* Nothing without the option. Otherwise sets context->timeline and context->trace. Ranks of other
 * hosts exchange some messages. KOLO_ERR_CONFIG: rank 0 cannot write the file. */
kolo_status kolo__timeline_open(kolo_context *context);

/* Collective. Ends recording and writes the file. The world communicator must be free for messages.
 * KOLO_ERR_SYSTEM: rank 0 could not write it. */
kolo_status kolo__timeline_gather(kolo_context *context);

/* Writes FILE.rankN unless this rank's events were gathered, and releases everything. */
void kolo__timeline_close(kolo_context *context);

/* What a collective is called there. */
const char *kolo__timeline_label(const kolo_context *context, unsigned collective,
                                 unsigned algorithm);

/* Messages of the world communicator, each of which may have to wait for `ranks` others to be
 * served first. */
kolo_status kolo__timeline_send(kolo_comm *world, const void *bytes, size_t count, uint32_t peer,
                                uint32_t ranks);
kolo_status kolo__timeline_recv(kolo_comm *world, void *bytes, size_t count, uint32_t peer,
                                uint32_t ranks);
/* Collective. Reads this rank's clock against that of rank 0, for clock->at_ns[reading]. */
kolo_status kolo__timeline_read_clock(kolo_context *context, unsigned reading);

#endif
