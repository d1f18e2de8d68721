/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who this process is, and where its world meets, read from what launchers leave in the
 * environment. Pure: nothing is asked of the machine, so every launcher is a fixture
 * (tests/unit/runtime/launch/environments). What follows from it is done by bootstrap.h.
 */
#ifndef KOLO_RUNTIME_LAUNCH_LAUNCH_H
#define KOLO_RUNTIME_LAUNCH_LAUNCH_H

#include "base/secure.h"

#include <kolo/kolo.h>
#include <stdbool.h>

/* Where nobody gives a port, rank 0 takes the first free one of so many. */
enum { KOLO__LAUNCH_PORTS = 8, KOLO__LAUNCH_PLACES_BYTES = 1100 };

enum kolo__launch_meeting {
    KOLO__MEET_NOBODY,  /* a world of one */
    KOLO__MEET_AT,      /* host and port are what KOLO_RENDEZVOUS says */
    KOLO__MEET_HELD,    /* at one of places, where somebody else holds the rendezvous: kolo run */
    KOLO__MEET_NEAR,    /* on host, at one of KOLO__LAUNCH_PORTS ports from port on */
    KOLO__MEET_BY_MPI,  /* rank 0 chooses, and tells the others by MPI; or NEAR, if port is set */
    KOLO__MEET_BY_PMI,  /* the same, by the process manager of MPICH */
    KOLO__MEET_UNKNOWN, /* nothing says where; missing tells what would */
};

struct kolo__launch {
    const char *source; /* "torchrun"; static */
    long rank, size;
    long local_rank, local_size; /* -1, 0: not told */
    bool newcomer;               /* to a world under way: rank and size are not known yet */
    uint32_t place;              /* of a newcomer: rendezvous.h */
    bool one_host;               /* all ranks are on this one, as far as anybody told */
    enum kolo__launch_meeting meeting;
    char places[KOLO__LAUNCH_PLACES_BYTES]; /* "10.0.0.1:5000,[fd00::1]:5000"; "" : only one */
    char host[256];                         /* numeric or a name; no brackets */
    int port;                               /* 0: none */
    bool in_pods;      /* rank 0 listens before names resolve: what they mean may be stale */
    long pods_per_job; /* as in pods.h, to name others */
    char job[KOLO__JOB_GIVEN_BYTES]; /* differs between jobs, and between generations of one; "" :
                                        nobody told */
    char missing[200];
    char ignored[200]; /* variables that looked like a launcher's but are not all there; or "" */
};

/* environment: NAME=VALUE strings, NULL-terminated; NULL is an empty one. The first source that is
 * complete wins; none makes a world of one. KOLO_ERR_CONFIG: sources contradict each other, or one
 * is broken; KOLO_ERR_WORLD: the rank does not fit the size. The text names variables and values.
 */
kolo_status kolo__launch_detect(char *const *environment, struct kolo__launch *launch);

/* As KOLO_RENDEZVOUS does: "host:port", or several with commas between them. */
kolo_status kolo__launch_meet_at(struct kolo__launch *launch, const char *host_port);

/* "4 ranks, by Open MPI (OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE)". */
const char *kolo__launch_text(const struct kolo__launch *launch, char *text, size_t bytes);

/* The first host of Slurm's "node[01-03,07],gpu2"; only: it is the only one. */
kolo_status kolo__hostlist_first(const char *list, char *first, size_t bytes, bool *only);

#endif
