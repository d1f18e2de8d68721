/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo doctor`: would a job run well on these hosts? Each host gets a probe, started as `kolo run`
 * starts its agents; doctor talks to each over its standard streams, so one host that cannot be
 * reached by the others, or is not there at all, is a finding and not the end.
 *
 *     doctor.c     the command: options, from hosts to an exit code
 *     clinic.c     starts probes, schedules who talks to whom          |  doctor's side
 *     probe.c      the hidden `kolo doctor --probe`                    |  a host's side
 *     link.c       both ends of a measured connection between probes
 *     facts.c      what a host finds out about itself
 *     messages.c   all of this as bytes between doctor and probes
 *     finding.c    the list of what is wrong
 *     judge.c      from facts and measurements to findings: pure
 *     judge_rdma.c the same of RDMA
 *     report.c     findings and the matrix, as a person reads them
 */
#ifndef KOLO_LAUNCHER_DOCTOR_DOCTOR_H
#define KOLO_LAUNCHER_DOCTOR_DOCTOR_H

#include "base/interfaces.h"
#include "base/socket.h"
#include "launcher/hosts.h"
#include "launcher/limits.h"

#include <stdio.h>

enum {
    KOLO__DOCTOR_HOSTS_MAX = 256,
    KOLO__DOCTOR_ADDRESSES = 8,
    KOLO__DOCTOR_PROTOCOL = 2,
    KOLO__PROOF_BYTES = 32,
};

/* ---- a host, as it describes itself ---------------------------------------------------------- */

struct kolo__doctor_address {
    char interface[16];
    char text[64]; /* "10.0.0.1:5000", "[fd00::1]:5000" */
    uint32_t mtu;  /* of the interface; 0: unknown */
};

enum kolo__doctor_rdma {
    KOLO__RDMA_ABSENT, /* no device that would be taken unasked */
    KOLO__RDMA_USABLE,
    KOLO__RDMA_USELESS,
};

struct kolo__doctor_facts {
    char host[64];
    struct kolo__limits limits;
    unsigned char token_proof[KOLO__PROOF_BYTES]; /* HMAC-SHA256 of doctor's nonce by the token */
    char token_error[200];   /* why there is no proof; "" : there is, or none was asked for */
    char address_error[200]; /* why there are no addresses */
    uint32_t rdma;           /* enum kolo__doctor_rdma */
    uint32_t rdma_kind;      /* usable: enum kolo__rdma_gid_kind */
    char rdma_text[300];     /* the port and GID that ranks use, or why none; absent: "" */
    bool no_loopback;        /* it is down */
    bool no_network;         /* every interface but loopback is down, or has no address */
    uint32_t address_count;
    struct kolo__doctor_address addresses[KOLO__DOCTOR_ADDRESSES]; /* best first */
};

/* ---- a measured connection ------------------------------------------------------------------- */

enum kolo__link_stage {
    KOLO__LINK_UNTRIED,
    KOLO__LINK_CONNECT,   /* failed there: nobody answers */
    KOLO__LINK_HANDSHAKE, /* somebody answers, but not the probe */
    KOLO__LINK_SMALL,     /* small messages got lost */
    KOLO__LINK_LARGE,     /* small ones pass, packets of full size do not */
    KOLO__LINK_DONE,
};

struct kolo__link {
    enum kolo__link_stage stage; /* how far it came */
    uint64_t round_trip_ns;      /* the shortest */
    int64_t clock_ahead_ns;      /* of the other host; known to half a round trip */
    uint64_t bytes_per_second;   /* to the other host */
    char why[160];               /* it came no further */
};

/* What one host found of another: a link for each of the other's addresses. */
struct kolo__doctor_trial {
    bool tried;
    uint32_t count;
    struct kolo__link links[KOLO__DOCTOR_ADDRESSES];
};

/* ---- all that is known, and what follows ----------------------------------------------------- */

struct kolo__doctor_host {
    char name[KOLO__HOST_NAME_BYTES];
    long slots;       /* ranks that it is to have; 0: not said */
    bool answers;     /* its probe told facts */
    char version[32]; /* "" : it did not say */
    char why[700];    /* it does not answer */
    char remedy[300]; /* "" : why says it */
    struct kolo__doctor_facts facts;
};

struct kolo__doctor_case {
    uint32_t host_count;
    struct kolo__doctor_host *hosts;
    struct kolo__doctor_trial *trials; /* [from * host_count + to] */
    const char *version;               /* doctor's own */
    const char *token_file;            /* "" : no token to compare */
    unsigned char token_proof[KOLO__PROOF_BYTES];
};

/* Also the exit codes. The lowest of all findings is what doctor exits with: each stands before
 * those that may follow from it. */
enum kolo__ailment {
    KOLO__AILMENT_NO_NETWORK = 9,
    KOLO__AILMENT_DOWN = 10,
    KOLO__AILMENT_VERSION = 11,
    KOLO__AILMENT_TOKEN = 12,
    KOLO__AILMENT_UNREACHABLE = 13,
    KOLO__AILMENT_BLACK_HOLE = 14,
    KOLO__AILMENT_MIXED_MTU = 15,
    KOLO__AILMENT_ADDRESS = 16,
    KOLO__AILMENT_SLOW_LINK = 17,
    KOLO__AILMENT_CLOCK = 18,
    KOLO__AILMENT_MEMLOCK = 19,
    KOLO__AILMENT_SHM = 20,
    KOLO__AILMENT_PROCESSORS = 21,
    KOLO__AILMENT_RDMA = 22,
    KOLO__AILMENT_TWICE = 23,
};

struct kolo__finding {
    enum kolo__ailment ailment;
    char measured[1200];
    char remedy[600];
};

struct kolo__findings {
    uint32_t count;
    uint32_t capacity;
    bool lost; /* no memory for one more */
    struct kolo__finding *list;
};

/* Pure. Adds to findings, most severe first; the caller frees with kolo__findings_free. */
void kolo__judge(const struct kolo__doctor_case *patient, struct kolo__findings *findings);
void kolo__findings_free(struct kolo__findings *findings);
const char *kolo__ailment_name(enum kolo__ailment ailment);
/* The best link of a trial: the first address that does all; NULL: none does. */
const struct kolo__link *kolo__trial_best(const struct kolo__doctor_trial *trial);

/* Bytes a second below which a link is slow against the median of all; 0: none is. Pure. */
uint64_t kolo__slow_limit(const struct kolo__doctor_case *patient);

void kolo__doctor_report(const struct kolo__doctor_case *patient,
                         const struct kolo__findings *findings, FILE *out);

/* What this host finds out about itself; no token and no addresses. */
void kolo__facts_gather(struct kolo__doctor_facts *facts);
/* Whether KOLO_NET leaves an interface, for a host that no other is to reach. */
void kolo__facts_check_net(struct kolo__doctor_facts *facts, const char *net);
/* Which RDMA port ranks would take; own: the interfaces that KOLO_NET chooses, may be NULL. */
void kolo__facts_find_rdma(struct kolo__doctor_facts *facts, const struct kolo__interfaces *own);
/* HMAC-SHA256 of the nonce by the token that is in this file on this host, or the reason. */
void kolo__facts_prove_token(const char *token_file, const unsigned char nonce[KOLO__PROOF_BYTES],
                             unsigned char proof[KOLO__PROOF_BYTES], char error[200]);

/* The hidden `kolo doctor --probe`. Returns the exit code. */
int kolo__probe_main(void);

#endif
