/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agents of a job's hosts, as `kolo run` has them: started all at once, each with a stream of
 * frames (launcher/agent_protocol.h). To the supervision they are the ranks' ops.
 *
 *   kolo__agents_connect   every agent is there, and is the right one
 *   kolo__agents_launch    every rank runs
 *   kolo__agents_ranks     ... kolo__supervise
 */
#ifndef KOLO_LAUNCHER_AGENTS_H
#define KOLO_LAUNCHER_AGENTS_H

#include "launcher/carrier.h"
#include "launcher/cooldown.h"
#include "launcher/remote_shell.h"
#include "launcher/supervise.h"

enum kolo__agent_phase {
    KOLO__AGENT_CONNECTING,
    KOLO__AGENT_READY,   /* it has said HELLO */
    KOLO__AGENT_ASKED,   /* START was sent */
    KOLO__AGENT_RUNNING, /* its ranks run, or have run */
    KOLO__AGENT_REFUSED, /* it could not start them */
    KOLO__AGENT_LEFT,    /* it has said GONE, or was not needed */
    KOLO__AGENT_LOST,
};

struct kolo__agent_rank {
    uint32_t rank, pid;
    enum { KOLO__RANK_RUNS, KOLO__RANK_ENDED, KOLO__RANK_TOLD } state;
    int wait_status;
    struct kolo__flight *flight; /* what it had recorded when it was asked; NULL; owned */
    char flight_state;           /* of its process then, as in struct kolo__flight_rank */
};

struct kolo__agent {
    struct kolo__host *host; /* borrowed */
    struct kolo__remote remote;
    struct kolo__carrier carrier;
    enum kolo__agent_phase phase;
    struct kolo__agent_hello hello;
    struct kolo__agent_rank *ranks; /* by local rank, some of ranks that have moved away; owned */
    uint32_t count, room;           /* ranks; how many fit */
    struct kolo__cooldown cooldown;
    size_t to_confirm; /* bytes of output that are where they belong */
    char words[1024];  /* what its ssh said last on stderr */
    char why[480];     /* it was lost, or refused */
    int refused_code;
};

struct kolo__agents {
    struct kolo__agent *list;
    uint32_t count;
    struct kolo__agent_rank **ranks; /* by rank of the world, into the agents' lists; owned */
    struct kolo__agent **agent_of;   /* likewise */
    uint32_t world_size;
    const struct kolo__remote_shell *shell; /* borrowed, as the following */
    struct kolo__output *output;
    bool report_bindings;
    bool stay; /* ranks may be started again: agents wait to hear that none is */
    const char
        *last_words; /* path of what ranks said, by rank (base/last_words.h); "", NULL: unwanted */
    int input_fd;    /* what rank 0 shall read; -1: no more; borrowed */
    size_t input_on_the_way;
    bool ending; /* END was sent */
    uint64_t ending_ns;
};

/* Starts an agent on each host, and waits for all. hosts gets the slots of those that had none. A
 * signal that ends programs ends this too: *exit_code is 128 and its number. What went wrong is in
 * kolo_error_text, and *exit_code what kolo run exits with. */
kolo_status kolo__agents_connect(struct kolo__agents *agents, struct kolo__hosts *hosts,
                                 const struct kolo__remote_shell *shell,
                                 const struct kolo__signals *signals, int *exit_code);

/* Sends each host its ranks and waits until they run; agents without ranks leave. start: all but
 * count and ranks. host_of: by rank. Errors as above; no rank runs then. */
kolo_status kolo__agents_launch(struct kolo__agents *agents, const struct kolo__agent_start *start,
                                const uint32_t *host_of, const struct kolo__signals *signals,
                                int *exit_code);

/* For kolo__supervise, with the agents as `ranks`. */
extern const struct kolo__ranks_ops kolo__agents_ranks;

/* Ends everything on every host, as far as it can be reached, within seconds. */
void kolo__agents_close(struct kolo__agents *agents);

/* ---- shared by agents.c, agents_again.c and agents_start.c ------------------------------- */

/* Poll entries of one agent. */
enum { KOLO__AGENT_ENTRIES = KOLO__CARRIER_ENTRIES + 1 };

uint32_t kolo__agents_poll_count(const void *agents);
void kolo__agents_poll_fill(void *agents, struct pollfd *fds);
/* As struct kolo__ranks_ops has it. */
kolo_status kolo__agents_start_again(void *agents, uint32_t rank, struct kolo__output *output,
                                     uint64_t *later_ns);
/* Everything but telling of ended ranks. */
void kolo__agents_serve(struct kolo__agents *agents, const struct pollfd *fds);

#endif
