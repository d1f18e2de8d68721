/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a job that is watched over, between the files that do so: supervise.c has the loop,
 * supervise_elastic.c ranks that come and go (--min, --restarts, --max), expelled.c
 * those that the others have gone on without, supervise_report.c what is
 * said at the end.
 */
#ifndef KOLO_LAUNCHER_SUPERVISION_H
#define KOLO_LAUNCHER_SUPERVISION_H

#include "launcher/restarts.h"
#include "launcher/supervise.h"
#include "launcher/watch.h"

struct kolo__supervision {
    const struct kolo__supervised *job;
    struct kolo__ending *endings; /* by rank */
    struct pollfd *fds;
    uint32_t fds_room;
    uint32_t started; /* places below have had a rank */
    uint32_t running;
    uint32_t asked; /* ranks that had to be told to end */
    struct kolo__restarts restarts;
    int signal;                      /* the first that asks the job to end; 0: none */
    uint64_t failed_at_ns;           /* 0: no rank has failed by itself */
    uint64_t term_at_ns, kill_at_ns; /* 0: not planned, or done */
    uint64_t timeout_at_ns;          /* 0: the job may take as long as it likes, or took too long */
    bool timed_out;
    uint64_t more_at_ns;    /* before that no more are started; 0: nothing holds it up */
    uint64_t too_few_at_ns; /* since then fewer than --min are left; 0: enough are */
    bool too_few;           /* for too long */
    uint64_t ended_at_ns;   /* 0: some rank runs */
    bool urged;             /* SIGINT or SIGTERM came */
    bool killing, strays_gone, reported, judged;
    struct kolo__flight_verdict verdict; /* before anybody was told to end */
    struct kolo__watch watch;
};

/* A line of the launcher's own. */
void kolo__supervision_say(const struct kolo__supervision *s, const char *line);
/* SIGTERM for all at that time, unless their end is planned already. */
void kolo__supervision_plan_end(struct kolo__supervision *s, uint64_t term_at_ns);
/* The same because a rank has failed, once the others have had time to notice. */
void kolo__supervision_begin_end(struct kolo__supervision *s, uint64_t now_ns);
/* Finds out who held up whom: once, before anybody is told to end. */
void kolo__supervision_judge(struct kolo__supervision *s);

/* ---- supervise_elastic.c */

/* A rank has failed by itself: can the others make a world without it (kolo_renew), or with the
 * process that takes its place? member: it has been in their world. */
bool kolo__supervision_survive(struct kolo__supervision *s, uint32_t rank, const char *why,
                               bool member, uint64_t now_ns);
/* Starts ranks again whose time has come, and more where there is room; has those leave whose
 * place is gone; and ends the job if too few were left for too long. */
void kolo__supervision_resize(struct kolo__supervision *s, uint64_t now_ns);

/* ---- expelled.c */

/* Finds who runs though the others have gone on without it, and ends it: 1 s to notice and end by
 * itself, SIGTERM, the grace period, SIGKILL. It then counts as one that failed. */
void kolo__supervision_end_expelled(struct kolo__supervision *s, uint64_t now_ns);
/* When something of that is due; 0: nothing is. */
uint64_t kolo__supervision_expelled_due_ns(const struct kolo__supervision *s);

/* ---- supervise_report.c */

/* Names the first failure, once: what kept the world from forming, or else the rank. */
void kolo__supervision_report(struct kolo__supervision *s);
int kolo__supervision_exit_code(const struct kolo__supervision *s);

#endif
