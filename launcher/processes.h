/* SPDX-License-Identifier: Apache-2.0 */
/* Finds what a job left behind, wherever it went: other sessions, other process groups, orphans. */
#ifndef KOLO_LAUNCHER_PROCESSES_H
#define KOLO_LAUNCHER_PROCESSES_H

#include <sys/types.h>

struct kolo__processes {
    const char *job;
    pid_t ancestor; /* 0: none */
    /* Descendants that are older than this are not the job's: a shell that started them may have
     * become the launcher by exec. As kolo__process_start gives it. */
    unsigned long long since;
    pid_t spared; /* 0: none */
};

/* When a process started, in ticks since boot; 0: there is no such process. */
unsigned long long kolo__process_start(pid_t pid);
/* What it does, as in /proc: R, S, D, T, ...; 0: there is none, or it has ended. */
char kolo__process_state(pid_t pid);

/*
 * Sends a signal (0: only counts) to every living process that carries KOLO_JOB=<job> in the
 * environment it was started with, or that descends from the ancestor. Spares the caller, the
 * ancestor and `spared`. Returns how many there were.
 */
int kolo__processes_signal(const struct kolo__processes *which, int signal_number);

#endif
