/* SPDX-License-Identifier: Apache-2.0 */
/* A job, between the two files that run it: run.c, and run_hosts.c where it has several hosts. */
#ifndef KOLO_LAUNCHER_RUN_H
#define KOLO_LAUNCHER_RUN_H

#include "launcher/agents.h"
#include "launcher/discovery.h"
#include "launcher/options.h"
#include "launcher/supervise.h"
#include "base/last_words.h"
#include "base/secure.h"
#include "base/token.h"

#include <limits.h>

struct kolo__run {
    struct kolo__run_options options;
    struct kolo__hosts hosts; /* none: this machine, and nothing said of slots */
    bool by_operator;         /* the hosts are from a file that an MPIJob's operator has mounted */
    uint32_t ranks;           /* in all; of this pod, if in_pod */
    char job[32], token[65];
    /* One of several pods that are alike: ranks first_rank, ... are here, rank 0's process holds
     * the rendezvous, and the job's names come from the manifest. */
    bool in_pod;
    long world_size;
    uint32_t first_rank;
    char rendezvous_name[300], pod_job[KOLO__JOB_GIVEN_BYTES], pod_token[KOLO__TOKEN_BYTES];
    struct kolo__binding *binding; /* of this machine; NULL with several hosts */
    struct kolo__crew crew;
    struct kolo__agents agents;
    struct kolo__hosts named;          /* that say how many slots a host of discovery has */
    struct kolo__discovery *discovery; /* of the hosts; NULL: they are fixed */
    struct kolo__agent_start start;    /* what all hosts are told alike */
    char folder[PATH_MAX];
    struct kolo__signals signals;
    struct kolo__rendezvous *rendezvous; /* NULL in a pod */
    struct kolo__last_words last_words;  /* where there is none: what ranks know of the world */
    struct kolo__input input;
    struct kolo__output *output;
    struct rlimit open_files;
};

/* Says what kolo_error_text says, and returns the code. */
int kolo__run_complain(int code);
/* KOLO_ERR_CONFIG and KOLO_ERR_WORLD are the user's to mend, and have codes of their own. */
int kolo__run_code(kolo_status status);
/* Ranks that there may be at once. */
uint32_t kolo__run_places(const struct kolo__run *run);
/* How many ranks, when the slots of all hosts are known. */
kolo_status kolo__run_decide_ranks(struct kolo__run *run);
/* In a pod, where nobody says where: what its job is. run_pods.c. KOLO_ERR_CONFIG, KOLO_ERR_WORLD.
 */
kolo_status kolo__run_find_pods(struct kolo__run *run);
/* -n against the slots of an operator's hostfile: its world is the job's, neither more nor less. */
kolo_status kolo__run_check_operator(const struct kolo__run *run, long slots);
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
