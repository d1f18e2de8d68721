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
    KOLO__AGENT_AWAY, /* LEFT or LOST, and its stream and process are gone: may be tried again */
};

struct kolo__agent_rank {
    uint32_t rank, pid;
    enum { KOLO__RANK_RUNS, KOLO__RANK_ENDED, KOLO__RANK_TOLD } state;
    bool leaving; /* it was told to leave its place to others */
    int wait_status;
    struct kolo__flight *flight; /* what it had recorded when it was asked; NULL; owned */
    char flight_state;           /* of its process then, as in struct kolo__flight_rank */
};

struct kolo__agent {
    struct kolo__host host;
    bool listed; /* ranks may be started there */
    struct kolo__remote remote;
    struct kolo__carrier carrier;
    enum kolo__agent_phase phase;
    struct kolo__agent_hello hello;
    struct kolo__agent_rank *ranks; /* by local rank, some of ranks that have moved away; owned */
    uint32_t count, room;           /* ranks; how many fit */
    struct kolo__cooldown cooldown;
    uint64_t by_ns;    /* when it is lost, if it is not RUNNING by then; or its process is killed */
    bool checked;      /* its HELLO */
    bool seen;         /* in the list of hosts that came last */
    bool dismissed;    /* LAST, or END, was sent */
    size_t to_confirm; /* bytes of output that are where they belong */
    char words[1024];  /* what its ssh said last on stderr */
    char why[480];     /* it was lost, or refused */
    int refused_code;
    char said[480]; /* why it could not be used, as it was told last */
};

struct kolo__agents {
    struct kolo__agent **list; /* also of hosts that were lost or left; owned */
    uint32_t count;
    struct kolo__agent_rank **ranks; /* by place, into the agents' lists; NULL: none yet; owned */
    struct kolo__agent **agent_of;   /* likewise */
    uint32_t places;                 /* ranks that there may be at once */
    bool come_and_go;                /* hosts may, while the job runs (--max) */
    const struct kolo__remote_shell *shell; /* borrowed, as the following */
    const struct kolo__agent_start *start;  /* NULL: not yet */
    struct kolo__discovery *discovery;      /* tells which hosts there are; NULL: they are fixed */
    struct kolo__output *output;
    bool report_bindings;
    bool stay; /* ranks may be started again: agents wait to hear that none is */
    const char
        *last_words; /* path of what ranks said, by rank (base/last_words.h); "", NULL: unwanted */
    int input_fd;    /* what rank 0 shall read; -1: no more; borrowed */
    size_t input_on_the_way;
    bool ending; /* END was sent */
    uint64_t ending_ns;
    struct pollfd *fds; /* of kolo__agents_serve_once; owned */
    uint32_t fds_room;
};

/* Starts an agent on each host, and waits for all. hosts gets the slots of those that had none. A
 * signal that ends programs ends this too: *exit_code is 128 and its number. What went wrong is in
 * kolo_error_text, and *exit_code what kolo run exits with. */
kolo_status kolo__agents_connect(struct kolo__agents *agents, struct kolo__hosts *hosts,
                                 const struct kolo__signals *signals, int *exit_code);

/* The same of hosts that come and go: waits until those that are there have so many slots, and the
 * others have had their chance. hosts gets them all, those that are not there without slots. */
kolo_status kolo__agents_gather(struct kolo__agents *agents, uint32_t slots, long seconds,
                                const struct kolo__signals *signals, struct kolo__hosts *hosts,
                                int *exit_code);

/* Sends each host its ranks and waits until they run; agents without ranks leave. start: all but
 * count and ranks; borrowed. host_of: by rank. Errors as above; no rank runs then. */
kolo_status kolo__agents_launch(struct kolo__agents *agents, const struct kolo__agent_start *start,
                                const uint32_t *host_of, const struct kolo__signals *signals,
                                int *exit_code);

/* For kolo__supervise, with the agents as `ranks`. */
extern const struct kolo__ranks_ops kolo__agents_ranks;

/* Ends everything on every host, as far as it can be reached, within seconds. */
void kolo__agents_close(struct kolo__agents *agents);

/* ---- shared by the files agents*.c ----------------------------------------------------------- */

/* Poll entries: input of rank 0, discovery; then those of each agent. */
enum { KOLO__AGENTS_OWN_ENTRIES = 2, KOLO__AGENT_ENTRIES = KOLO__CARRIER_ENTRIES + 1 };

/* agents.c */
uint32_t kolo__agents_poll_count(const void *agents);
void kolo__agents_poll_fill(void *agents, struct pollfd *fds);
/* Everything but telling of ended ranks, and of hosts that come and go. */
void kolo__agents_serve(struct kolo__agents *agents, const struct pollfd *fds);

/* agents_hear.c: the frames of one agent. */
void kolo__agent_serve_frames(struct kolo__agents *agents, struct kolo__agent *agent,
                              const struct pollfd *fds, uint64_t now_ns);
bool kolo__agent_is_there(const struct kolo__agent *agent);
void kolo__agent_lose(struct kolo__agent *agent, const char *why);
/* A frame without payload, or with the value. */
void kolo__agent_say(struct kolo__agent *agent, enum kolo__agent_frame type);
void kolo__agent_say_value(struct kolo__agent *agent, enum kolo__agent_frame type, uint32_t value);
/* A line about a host, or of its agent's stderr. */
void kolo__agent_say_line(struct kolo__agents *agents, const struct kolo__agent *agent,
                          const char *line);

/* agents_start.c: a listed host without a connection. What the agent held must be closed. */
void kolo__agent_init(struct kolo__agent *agent, const struct kolo__host *host);
/* One more of them. NULL: no memory. */
struct kolo__agent *kolo__agents_add(struct kolo__agents *agents, const struct kolo__host *host);
kolo_status kolo__agent_connect_to(struct kolo__agents *agents, struct kolo__agent *agent);
/* How many seconds a way to an agent may take. */
unsigned kolo__agents_patience_s(const struct kolo__agents *agents);
/* For its ranks and those that may come. False: no memory. */
bool kolo__agent_make_room(const struct kolo__agents *agents, struct kolo__agent *agent);
/* Asks it to start its ranks, or to wait for some. */
kolo_status kolo__agent_ask(struct kolo__agent *agent, const struct kolo__agent_start *common);
/* KOLO_ERR_CONFIG: it is another kolo, or its host is there already. */
kolo_status kolo__agents_check_hello(const struct kolo__agents *agents,
                                     const struct kolo__agent *agent);
/* Serves the agents for a moment. Returns the number of a signal that asks us to end; 0: none. */
int kolo__agents_serve_once(struct kolo__agents *agents, const struct kolo__signals *signals);
/* The error for such a signal before all ranks are started. */
kolo_status kolo__agents_interrupted(int asked, int *exit_code);
/* "host2 (Connection refused), host3": those that have not come, as many as fit into the text. */
const char *kolo__agents_list_late(const struct kolo__agents *agents, char *text, size_t bytes);

/* agents_end.c: the last line of what its way there said. */
const char *kolo__agent_last_line(struct kolo__agent *agent);
void kolo__agent_read_last_words(struct kolo__agent *agent, bool only_last);
/* Why a host did not come as far as HELLO. *exit_code: what kolo run exits with. */
kolo_status kolo__agents_explain_connect(const struct kolo__agents *agents,
                                         struct kolo__agent *agent, int *exit_code);
/* Its stream is closed: an agent ends by itself, and ssh with it. */
void kolo__agent_close(struct kolo__agent *agent);

/* agents_again.c, as struct kolo__ranks_ops has it. */
kolo_status kolo__agents_start_again(void *agents, uint32_t rank, struct kolo__output *output,
                                     uint64_t *later_ns);
kolo_status kolo__agents_start_more(void *agents, uint32_t rank, struct kolo__output *output);
bool kolo__agents_is_surplus(const void *agents, uint32_t rank);

/* agents_hosts.c: hosts that come and go; once no entry of the poll array is in use. */
void kolo__agents_step_hosts(struct kolo__agents *agents, uint64_t now_ns);

#endif
