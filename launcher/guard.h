/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small process that outlives a launcher that is killed outright (kill -9, the OOM killer), and
 * then ends the job: ranks have a parent-death signal, but their children and those that left
 * their session do not.
 */
#ifndef KOLO_LAUNCHER_GUARD_H
#define KOLO_LAUNCHER_GUARD_H

#include <kolo/kolo.h>
#include <sys/types.h>

struct kolo__guard {
    pid_t pid; /* 0: none */
    int fd;    /* the guard reads the other end, and its end of file is the launcher's death */
    unsigned long long start; /* when the guard started: whatever the job starts is younger */
};

/* Forks the guard. Call it first: what the launcher opens later, the guard never holds. */
kolo_status kolo__guard_start(struct kolo__guard *guard, const char *job);
/* A process group to kill when the launcher dies; and not any more, because its leader was reaped
 * and the number may come to mean another. */
void kolo__guard_add(const struct kolo__guard *guard, pid_t group);
void kolo__guard_forget(const struct kolo__guard *guard, pid_t group);
/* Says goodbye, and reaps the guard. */
void kolo__guard_end(struct kolo__guard *guard);

#endif
