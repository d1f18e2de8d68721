/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the moment all ranks run until nothing of the job is left: one loop around poll.
 *
 *   running --- a rank fails, and enough are left to go on (--min) --> running; --restarts: 1 s or
 *      |                                   more later it is started again, as a newcomer
 *      |------- hosts have room (--max) --> more are started, as newcomers
 *      |------- a host goes --> SIGTERM for its ranks --> grace --> SIGKILL; the others go on
 *      |------- the others go on without a rank that runs ----------> it is ended: expelled.c
 *      |------- a rank fails ---> 1 s for the others to notice --> SIGTERM --> grace --> SIGKILL
 *      |------- stdout is closed -------------------------------> SIGTERM --> grace --> SIGKILL
 *      |------- a signal for us -> passed on; the second SIGINT or SIGTERM -------------> SIGKILL
 *      v
 *   all ranks ended --> what they left behind is killed --> their last output is written
 */
#ifndef KOLO_LAUNCHER_SUPERVISE_H
#define KOLO_LAUNCHER_SUPERVISE_H

#include "launcher/crew.h"
#include "launcher/input.h"
#include "launcher/outcome.h"
#include "launcher/output.h"
#include "launcher/signals.h"
#include "base/last_words.h"
#include "runtime/rendezvous.h"

/* Tells the supervision that a rank has ended. lost: as in struct kolo__ending. */
typedef void kolo__rank_ended(void *supervision, uint32_t rank, int wait_status, const char *lost);

/* Where the ranks are: children of this process, or behind the agents of their hosts. None of these
 * blocks. */
struct kolo__ranks_ops {
    /* To every rank that runs. */
    void (*signal)(void *ranks, int number);
    /* The loop's part: how many entries; what to poll for; at least how often to look (-1: when
     * there is something). */
    uint32_t (*poll_count)(const void *ranks);
    void (*poll_fill)(void *ranks, struct pollfd *fds);
    int (*timeout_ms)(const void *ranks);
    void (*step)(void *ranks, const struct pollfd *fds, kolo__rank_ended *ended, void *supervision);
    /* All ranks have ended: true when nothing is left of them. impatient: SIGKILL what is. */
    bool (*clear)(void *ranks, bool impatient);
    /* "host node7, pid 4711" into text. Returns text. */
    const char *(*where)(const void *ranks, uint32_t rank, char *text, size_t bytes);
    /* Once more one that has ended: as a newcomer to the world of the others, whose output is the
     * rank's. KOLO_AGAIN: not before *later_ns. */
    kolo_status (*start_again)(void *ranks, uint32_t rank, struct kolo__output *output,
                               uint64_t *later_ns);
    /* Starts one more, as a newcomer, at a place where no rank is. KOLO_AGAIN: there is no room. */
    kolo_status (*start_more)(void *ranks, uint32_t rank, struct kolo__output *output);
    /* This one runs where none should any more; NULL: that does not happen. */
    bool (*is_surplus)(const void *ranks, uint32_t rank);
    /* To one that runs. SIGTERM: it is to leave its place to another. */
    void (*signal_one)(void *ranks, uint32_t rank, int number);
    /* Asks for what the ranks have recorded, if that takes a while; NULL: it does not. */
    void (*ask_recorders)(void *ranks);
    /* What is known of it by now. To be freed in any case. */
    kolo_status (*recorders)(const void *ranks, struct kolo__recorders *recorders);
};

/* For ranks that are children of this process: ranks is a struct kolo__crew, whose local ranks are
 * the world's. */
extern const struct kolo__ranks_ops kolo__crew_ranks;

/* Everything is borrowed. */
struct kolo__supervised {
    uint32_t ranks, started; /* started < ranks: the start went wrong; what runs is ended */
    uint32_t places; /* so many ranks there may be at once: ranks, or more where the job grows */
    bool grows;      /* places are filled when hosts have room */
    long hosts_s;    /* how long fewer than min_ranks may be left: a host may come; 0: none can */
    uint32_t first_rank; /* these are ranks first_rank, ... of a world that has others elsewhere */
    const struct kolo__ranks_ops *ops;
    void *self;     /* of ops */
    long min_ranks; /* with so many left the job goes on; 0: it ends with the first that fails */
    long restarts;  /* how often at most a rank is started again then, in the whole job */
    long grace_s;
    long timeout_s;                           /* of the whole job, from now on; 0: none */
    long peer_timeout_s, operation_timeout_s; /* KOLO_PEER_TIMEOUT, KOLO_TIMEOUT */
    struct kolo__signals *signals;
    struct kolo__rendezvous *rendezvous; /* NULL: rank 0's process holds it, wherever that is */
    const char *flight_file;             /* for what all ranks recorded, when they fail; "": none */
    const struct kolo__last_words *last_words; /* of the ranks, by their place here */
    struct kolo__input *input;
    struct kolo__output *output; /* NULL: the rank writes for itself */
};

/* Returns the job's exit code. */
int kolo__supervise(const struct kolo__supervised *supervised);

#endif
