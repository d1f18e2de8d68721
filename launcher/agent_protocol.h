/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `kolo run` and the `kolo agent` of a host say to each other (docs/PROTOCOL.md), over
 * whatever stream joins them. Frames have the shape of the control plane's (runtime/frame.h).
 *
 *   agent   greeting HELLO                  STARTED | FAILED   OUTPUT* ENDED* RECORD*  GONE
 *   run                     START (or END)                     SIGNAL* INPUT* RECORD LAST   END
 *
 * Everything a rank needs travels in START and never on a command line, which others can read.
 */
#ifndef KOLO_LAUNCHER_AGENT_PROTOCOL_H
#define KOLO_LAUNCHER_AGENT_PROTOCOL_H

#include "runtime/frame.h"

enum { KOLO__AGENT_PROTOCOL = 4 };

/* Before the first frame. A login shell may have said something before that; it is passed over. */
#define KOLO__AGENT_GREETING "\nkolo-agent\n"

enum kolo__agent_frame {
    KOLO__AGENT_HELLO = 1,   /* protocol, version, path, host, machine, pid, cores */
    KOLO__AGENT_STARTED = 2, /* of each rank: pid, what it is bound to */
    KOLO__AGENT_FAILED = 3,  /* exit code, text: no rank runs */
    KOLO__AGENT_OUTPUT = 4,  /* local rank, stream (1, 2), bytes */
    KOLO__AGENT_ENDED = 5,   /* local rank, wait status, last words */
    KOLO__AGENT_GONE = 6,    /* no process of the job is left: the last frame */
    KOLO__AGENT_START = 16,  /* struct kolo__agent_start */
    KOLO__AGENT_SIGNAL = 17, /* number, local rank or ALL_RANKS */
    KOLO__AGENT_INPUT = 18,  /* bytes for rank 0; none: the end */
    KOLO__AGENT_END = 19,    /* kill what runs, say GONE and leave */
    KOLO__AGENT_AGAIN = 20,  /* run: local rank, rank, to be started as a newcomer. agent: local
                                rank, pid; or ENDED */
    KOLO__AGENT_LAST = 21,   /* to an agent that stays: no rank is started any more */
    KOLO__AGENT_RECORD = 31, /* run: what have your ranks done?  agent, of each: local rank, state
                                of its process, time, flight recorder (runtime/flight.h) */
    KOLO__AGENT_TAKEN =
        32, /* both ways: so many bytes of output (input) have gone where they should */
    KOLO__AGENT_ALIVE = 33, /* both ways, every KOLO__AGENT_ALIVE_MS */
};

#define KOLO__AGENT_ALL_RANKS UINT32_MAX

enum {
    KOLO__AGENT_START_MAX =
        4 << 20, /* bytes of a START: arguments and environment have that much */
    KOLO__AGENT_FRAME_MAX = 1 << 20, /* of any other frame: STARTED of many ranks */
    KOLO__AGENT_CHUNK = 32 << 10,    /* of output or input in one frame */
    KOLO__AGENT_WINDOW = 512 << 10,  /* bytes of output, or of input, that were not TAKEN yet */
    KOLO__AGENT_RANKS_MAX = 16384,
    KOLO__AGENT_ALIVE_MS = 2000,
    KOLO__AGENT_LOST_MS = 10000, /* of silence, after which `kolo run` gives a host up */
    KOLO__AGENT_ORPHAN_MS =
        30000, /* and an agent its `kolo run`, which a terminal may stop shortly */
};

struct kolo__agent_hello {
    uint32_t protocol, pid, cores;
    char version[64], path[512], host[64];
    char machine[128]; /* the same text: the same processes can be seen */
};

/* A job's part of one host. Texts and lists are owned: kolo__agent_start_free. */
struct kolo__agent_start {
    char *job, *token, *rendezvous, *folder, *bind;
    uint32_t grace_s, world_size;
    uint32_t places; /* ranks are below: world_size, or more where the job may grow */
    uint32_t room;   /* local ranks that there may be later; count or more */
    uint8_t stays;   /* 1: until LAST the agent does not go, for ranks may be started again */
    uint32_t count, *ranks; /* by local rank; none only where the agent stays */
    char **program;         /* and arguments, up to a NULL */
    char **environment;     /* NAME=VALUE, up to a NULL */
};

void kolo__agent_begin(struct kolo__frame_writer *writer, enum kolo__agent_frame type);
/* As kolo__frame_parse. */
size_t kolo__agent_parse(const unsigned char *data, size_t bytes, size_t payload_max,
                         enum kolo__agent_frame *type, struct kolo__frame_reader *payload);

void kolo__put_agent_hello(struct kolo__frame_writer *writer,
                           const struct kolo__agent_hello *hello);
/* False: it is broken. */
bool kolo__get_agent_hello(struct kolo__frame_reader *payload, struct kolo__agent_hello *hello);
void kolo__put_agent_start(struct kolo__frame_writer *writer,
                           const struct kolo__agent_start *start);
/* KOLO_ERR_NETWORK: broken; KOLO_ERR_MEMORY. Free it in any case. */
kolo_status kolo__get_agent_start(struct kolo__frame_reader *payload,
                                  struct kolo__agent_start *start);
void kolo__agent_start_free(struct kolo__agent_start *start);

#endif
