/* SPDX-License-Identifier: Apache-2.0 */
/* A job, between the two files that run it: run.c, and run_hosts.c where it has several hosts. */
#ifndef KOLO_LAUNCHER_RUN_H
#define KOLO_LAUNCHER_RUN_H

#include "launcher/agents.h"
#include "launcher/options.h"
#include "launcher/supervise.h"

struct kolo__run {
    struct kolo__run_options options;
    struct kolo__hosts hosts; /* none: this machine, and nothing said of slots */
    uint32_t ranks;
    char job[32], token[65];
    struct kolo__binding *binding; /* of this machine; NULL with several hosts */
    struct kolo__crew crew;
    struct kolo__agents agents;
    struct kolo__signals signals;
    struct kolo__rendezvous *rendezvous;
    struct kolo__input input;
    struct kolo__output *output;
    struct rlimit open_files;
};

/* Says what kolo_error_text says, and returns the code. */
int kolo__run_complain(int code);
/* How many ranks, when the slots of all hosts are known. */
kolo_status kolo__run_decide_ranks(struct kolo__run *run);
/* Opens what shows the ranks' output, as the options say. */
kolo_status kolo__run_open_output(struct kolo__run *run);
/* --dry-run. Returns the exit code. */
int kolo__run_dry(struct kolo__run *run);
/* The loop, with the ranks' ops. Returns the job's exit code. */
int kolo__run_supervise(struct kolo__run *run, const struct kolo__ranks_ops *ops, void *self,
                        uint32_t started);

/* Everything from the first connection to the last. Returns the exit code. */
int kolo__run_on_hosts(struct kolo__run *run);

#endif
