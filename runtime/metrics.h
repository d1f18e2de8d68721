/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank counts for Prometheus, and where it is shown (KOLO_METRICS_PORT; docs/METRICS.md).
 *
 * Each communicator has a SHEET of counters, on which whoever uses the communicator writes, one
 * thread at a time: so counting costs an addition, and no sheet is ever cleared. A communicator
 * that ends leaves its sheet to the next one, so that the sums over all sheets, which is what is
 * shown, never fall. Where nobody wants metrics there are no sheets, and nothing is counted.
 *
 * Clocks. A small operation takes less than a microsecond, of which two readings of a clock would
 * be a tenth. So a clock is read for operations that did not end at the first look, and for large
 * ones; all others count as 0 s.
 */
#ifndef KOLO_RUNTIME_METRICS_H
#define KOLO_RUNTIME_METRICS_H

#include "base/counter.h"
#include "collectives/transport/transport.h"
#include "runtime/comm.h"
#include "runtime/context.h"
#include "runtime/metrics_module.h"

#include <pthread.h>

enum {
    KOLO__METRICS_PORT = 9700,      /* in pods, if nothing else is said */
    KOLO__METRICS_PEERS = 64,       /* that have a number of their own */
    KOLO__METRICS_BUCKETS = 7,      /* from 10 us to 10 s, by tens; then those above */
    KOLO__METRICS_STATUSES = 14,    /* of kolo_status */
    KOLO__METRICS_HOST_BYTES = 256, /* of the address it listens on */
};

/* The ways of bytes. */
enum kolo__metrics_path {
    KOLO__PATH_TCP,
    KOLO__PATH_RDMA,
    KOLO__PATH_SHM,    /* messages through shared memory */
    KOLO__PATH_MAPPED, /* what ranks read and write in each other's memory */
    KOLO__PATH_COUNT
};

struct kolo__sheet {
    struct kolo__sheet *next; /* of all; under the lock, as the next three */
    pthread_mutex_t *lock;    /* of the metrics */
    bool taken;
    struct kolo__tally *tallies; /* of plans; what is below has not got theirs */
    struct kolo__traffic traffic[KOLO__PATH_COUNT];
    struct kolo__counter operations[KOLO__COLLECTIVE_COUNT]; /* that ended well */
    struct kolo__counter bytes[KOLO__COLLECTIVE_COUNT];      /* count times dtype */
    struct kolo__counter timed[KOLO__COLLECTIVE_COUNT][KOLO__METRICS_BUCKETS + 1];
    struct kolo__counter timed_ns[KOLO__COLLECTIVE_COUNT];
    struct kolo__counter wait_ns;
    struct kolo__counter failures[KOLO__METRICS_STATUSES];
};

/* A rank for which this one has waited. */
struct kolo__metrics_peer {
    _Atomic uint32_t rank_plus_1; /* in the world; 0: free */
    struct kolo__counter wait_ns, times;
};

struct kolo__metrics {
    /* Where it is to listen: local rank is still to be added to the port. */
    char host[KOLO__METRICS_HOST_BYTES];
    int port;
    const struct kolo__metrics_module *module;
    struct kolo__metrics_server *server; /* NULL: not begun */
    pthread_mutex_t lock;
    struct kolo__sheet *sheets;
    struct kolo__metrics_peer peers[KOLO__METRICS_PEERS + 1]; /* the last: all others */
    struct kolo__counter reducer_steps, reducer_wait_ns;
    atomic_uint size, epoch; /* of the world at present */
    /* For the text; fixed before the server begins. */
    uint32_t
        rank; /* of the epoch that this process came into: what it counted stays under one name */
    char job[KOLO__JOB_GIVEN_BYTES], launcher[64], host_name[256];
};

/* Where metrics are to be had. "": on port 9700 of all addresses in a pod, else nowhere. "0":
 * nowhere. "9700": there, in a pod on all addresses, else on loopback. "10.0.0.1:9700",
 * "[::]:9700",
 * "*:9700": there. *port is 0 for nowhere. KOLO_ERR_CONFIG: none of these. */
kolo_status kolo__metrics_place(const char *option, bool in_pod, char *host, size_t bytes,
                                int *port);

/* The module that serves, once and for all. KOLO_ERR_UNSUPPORTED: it is not there. */
kolo_status kolo__metrics_load(const struct kolo__metrics_module **module);
/* Serves there what `text` writes (metrics_module.h), until the module's stop. */
kolo_status kolo__metrics_serve(const struct kolo__metrics_module *module, const char *host,
                                int port, char *(*text)(void *self, size_t *bytes), void *self,
                                struct kolo__metrics_server **server);

/* Before the world is made: is the option right, is the module there? Sets context->metrics where
 * somebody wants metrics. KOLO_ERR_CONFIG, KOLO_ERR_UNSUPPORTED (names the package). */
kolo_status kolo__metrics_prepare(kolo_context *context);
/* When an epoch of the world is there: counts and serves from now on. A port in use is a warning.
 */
kolo_status kolo__metrics_open(kolo_context *context);
/* After all communicators have ended. */
void kolo__metrics_close(kolo_context *context);

/* A sheet for a communicator, if there are to be any; and back. */
kolo_status kolo__metrics_attach(kolo_comm *comm);
void kolo__metrics_detach(kolo_comm *comm);

/* From now on the runs of the tally's plan are on the sheet, also after its end. By who uses the
 * communicator; end: nothing where there was no begin. */
void kolo__tally_begin(struct kolo__tally *tally, struct kolo__sheet *sheet);
void kolo__tally_end(struct kolo__tally *tally);

/* All below: only where comm->sheet is not NULL, by who uses the communicator. */

/* A message has ended well. */
void kolo__metrics_count_message(const kolo_request *request);
/* An operation that was timed (request->began_ns) has ended well. */
void kolo__metrics_count_time(const kolo_request *request);
/* Nothing moved for so long, last of all because of a rank of comm (-1: nobody knows). again: it is
 * more of the same wait. */
void kolo__metrics_waited(kolo_comm *comm, uint64_t ns, int peer, bool again);
/* The rank of comm that the operation under way waits for, as far as it knows; -1: it does not. */
int kolo__metrics_peer(const kolo_comm *comm);
void kolo__metrics_failed(const kolo_comm *comm, kolo_status status);

/* Adds what follows from a tally to a sheet. */
void kolo__metrics_add_tally(struct kolo__sheet *sum, const struct kolo__tally *tally);
/* The text of /metrics, from malloc; NULL: no memory. From any thread. */
char *kolo__metrics_text(void *metrics, size_t *bytes);

#endif
