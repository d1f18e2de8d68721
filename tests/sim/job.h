/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job in virtual time, all of it drawn from one seed: epochs of ranks that run real schedules by
 * the real executor on the simulated network, die, pause and come back, while the real state
 * machine (runtime/membership.h) decides who is in the next epoch.
 *
 *     epoch e      allreduces (steps.c)          some ranks die or pause on the way
 *     between      who is left comes, late or never; newcomers; old messages (agreement.c)
 *     epoch e+1    the members, told so; some have died meanwhile
 *
 * What is simulated is the network, time and the processes. It is small, and therefore quick: the
 * rendezvous, reducers and all that is above are in world/.
 */
#ifndef KOLO_TESTS_SIM_JOB_H
#define KOLO_TESTS_SIM_JOB_H

#include "base/random.h"
#include "runtime/membership.h"

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JOB_RANKS_MAX = 8, JOB_PROCESSES_MAX = 64 };

/* By id, which is the membership's. */
struct process {
    bool dead;                  /* whether or not anybody knows */
    bool expelled;              /* it came too late */
    uint32_t epoch, rank, size; /* as it was told last */
};

struct job {
    uint64_t seed;
    struct kolo__random random;
    struct kolo__membership membership; /* the server's */
    uint64_t now_ns;                    /* between epochs */
    struct process processes[JOB_PROCESSES_MAX];
    uint32_t process_count;
    uint32_t members[JOB_RANKS_MAX]; /* ids of this epoch, by rank */
    uint32_t size;
    /* What happened. */
    uint64_t trace; /* depends on all of it */
    unsigned epochs, deaths, expulsions, newcomers, right, failed, refused, ends;
    char broken[1200]; /* the first invariant that did not hold; "": all do */
};

/* Runs a job of some epochs. False: an invariant is broken, and broken says which. */
bool job_run(uint64_t seed, struct job *job);

/* true, `percent` times in a hundred */
bool job_chance(struct job *job, unsigned percent);
void job_note(struct job *job, uint64_t what);
/* Keeps the first. */
void job_broken(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* steps.c: some allreduces of this epoch. Those of its processes that are dead by then run nothing;
 * more may die. */
void job_steps(struct job *job);
/* agreement.c: from one epoch to the next. False: there is none any more. */
bool job_agree(struct job *job);

#endif
