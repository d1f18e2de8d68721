/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From who I am (launch.h) to a rendezvous that can be connected to: finds the place, and where no
 * `kolo run` holds the rendezvous, has rank 0 hold it.
 *
 *   meeting   rank 0                                  the others
 *   HELD      connects as the others do               connect
 *   AT        listens there, if the address is its    connect
 *             host's and nobody listens yet
 *   AT, NEAR  in pods: listens on all addresses,      connect; the name need not resolve yet
 *             before the name resolves
 *   NEAR      listens at the first free port          try these ports in turn
 *   BY_MPI    listens anywhere, makes a token, tells  are told
 *   BY_PMI    the same                                are told
 *
 * Nothing listens beyond loopback without a token.
 */
#ifndef KOLO_RUNTIME_LAUNCH_BOOTSTRAP_H
#define KOLO_RUNTIME_LAUNCH_BOOTSTRAP_H

#include "runtime/launch/launch.h"
#include "runtime/launch/server.h"

struct kolo__meeting {
    char rendezvous[KOLO__LAUNCH_PLACES_BYTES]; /* "host:port,..."; "" : a world of one */
    unsigned ports;   /* from that one on, one of which is it; then there is one host */
    char secret[340]; /* what connections to the rendezvous prove to know */
    bool at_rank_0;   /* its process holds the rendezvous */
    bool in_pods;     /* the name is of rank 0's pod */
    char pod_0[256];  /* of which names of others are made; "" : of none */
    long pods_per_job, per_pod;
    struct kolo__server *server;        /* on rank 0, unless somebody else listens; owned */
    const struct kolo__mpi_module *mpi; /* it was begun, and goes on; NULL: not */
    int pmi_fd;                         /* of the program; -1: not used */
};

struct kolo__bootstrap_options {
    const struct kolo__launch *launch;
    uint64_t deadline_ns; /* kolo__real_clock */
    const char *net;      /* KOLO_NET */
    bool insecure;        /* KOLO_INSECURE */
    bool keep_mpi;        /* on rank 0: for KOLO_ALGORITHM=mpi */
    long silence_s;       /* base/silence.h */
    uint32_t min_ranks;   /* KOLO_MIN_RANKS */
    /* The job's token and id: in, "" where there is none; out, what all ranks have. */
    char *token;
    size_t token_bytes;
    char *job;
    size_t job_bytes;
};

enum { KOLO__HOST_VARIABLE_BYTES = 300 };
/* What kolo__launch_detect is to look at: environ, and HOSTNAME, which not every runtime of
 * containers sets (in variable). The caller frees the array. NULL: no memory. */
char **kolo__launch_environment(char variable[KOLO__HOST_VARIABLE_BYTES]);

/* Errors: KOLO_ERR_CONFIG (nothing says where to meet, or no token), KOLO_ERR_NETWORK, ... */
kolo_status kolo__bootstrap(const struct kolo__bootstrap_options *options,
                            struct kolo__meeting *place);
/* kolo_init fails with this status, and the others cannot know: where their launcher would let them
 * wait, it is made to see the end of this process. launch: NULL: not found out yet. Before
 * kolo__bootstrap_end. Returns the status, and keeps kolo_error_text. */
kolo_status kolo__bootstrap_abandon(struct kolo__meeting *place, const struct kolo__launch *launch,
                                    kolo_status status);
/* Whoever has heard from kolo__bootstrap, with whatever result, comes here in the end. The deadline
 * is for the other ranks, if this one holds the rendezvous: see server.h. */
void kolo__bootstrap_end(struct kolo__meeting *place, uint64_t deadline_ns);

/* ---- between bootstrap.c and bootstrap_tell.c ------------------------------------------------ */

/* Rank 0 holds the rendezvous there. *failure: errno, if listening is what failed; else as it was.
 */
kolo_status kolo__bootstrap_serve(const struct kolo__bootstrap_options *options,
                                  struct kolo__meeting *place, const char *host, int port,
                                  int *failure);
/* mpi: NULL: by the process manager. */
kolo_status kolo__bootstrap_tell(const struct kolo__bootstrap_options *options,
                                 const struct kolo__mpi_module *mpi, struct kolo__meeting *place);

#endif
