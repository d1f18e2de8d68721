/* SPDX-License-Identifier: Apache-2.0 */
/* Starts one rank: its environment, its place, its process group, and its death with its parent. */
#ifndef KOLO_LAUNCHER_SPAWN_H
#define KOLO_LAUNCHER_SPAWN_H

#include "launcher/bind.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

/* What all ranks of a host have in common. Everything is borrowed. */
struct kolo__spawn {
    char **program;     /* name and arguments, up to a NULL */
    char **environment; /* NAME=VALUE beside our own, up to a NULL */
    const struct kolo__binding *binding;
    uint32_t world_size, local_size;
    uint32_t room; /* local ranks that there may be later, if that is more */
    const char *rendezvous, *job, *token;
    const char *last_words; /* path; NULL or "": none */
    const char *flight;     /* the same */
    bool pipes;    /* stdout and stderr go through pipes; otherwise they are the launcher's */
    int stdin_fd;  /* what rank 0 reads, unless it is a newcomer */
    bool newcomer; /* it comes to a world that is under way */
    sigset_t signal_mask; /* the mask and the disposition that the launcher was started with */
    struct sigaction sigpipe;
    struct rlimit open_files;
};

struct kolo__child {
    pid_t pid;          /* also its process group */
    int out_fd, err_fd; /* where its output can be read, non-blocking; -1 without pipes */
};

/* Blocks until the program runs. When it cannot be executed, *exec_errno is its reason; for every
 * other failure it is 0. */
kolo_status kolo__spawn_rank(const struct kolo__spawn *spawn, uint32_t rank, uint32_t local_rank,
                             struct kolo__child *child, int *exec_errno);

/* As many open files as may be: two pipes a rank. The ranks get the old limit back. */
void kolo__raise_open_files(struct rlimit *old);

#endif
