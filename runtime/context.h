/* SPDX-License-Identifier: Apache-2.0 */
/* The process's place in the world: options, control plane, hosts, heap, world communicator. */
#ifndef KOLO_RUNTIME_CONTEXT_H
#define KOLO_RUNTIME_CONTEXT_H

#include "base/config.h"
#include "base/interfaces.h"
#include "base/token.h"
#include "base/trace.h"
#include "collectives/offload/offload.h"
#include "collectives/transport/heap.h"
#include "runtime/control.h"
#include "runtime/costs.h"
#include "runtime/flight.h"
#include "runtime/launch/bootstrap.h"

#include <pthread.h>

struct kolo_context {
    struct kolo__config config;
    struct kolo__launch launch; /* who started this process, and where its world meets */
    struct kolo__meeting place;
    uint32_t epoch, rank, size;
    char job[KOLO__JOB_GIVEN_BYTES];
    char local_name[64]; /* of this epoch of this world, among the worlds of a host */
    char token[KOLO__TOKEN_BYTES];
    struct kolo__control *control;      /* NULL: a world of one */
    struct kolo__heartbeat *heartbeat;  /* NULL: it says nothing of itself */
    char listen_host[64];               /* for kolo__listen */
    struct kolo__interfaces interfaces; /* none where all is on loopback */
    uint32_t streams;                   /* between two ranks, at least */
    struct kolo__endpoint *endpoints; /* by world rank; ports are those of the world communicator */
    uint32_t *host_of;    /* by world rank; ranks that may share memory have the same number */
    bool *shares_kernel;  /* by world rank: on this machine, be it as another host (a container) */
    bool joined;          /* the rendezvous has let this rank in */
    bool all_is_done;     /* a loop that goes on without lost ranks is over: nobody needs them */
    bool from_the_start;  /* this process was in epoch 0 */
    bool left;            /* by kolo_renew */
    bool shared_memory;   /* this host's ranks share the heap */
    bool all_hosts_share; /* so do those of every other host, where there are several */
    pthread_mutex_t lock; /* of heap (when made late) and comms */
    struct kolo__heap *heap;       /* NULL: made at the first kolo_alloc */
    struct kolo__heap **old_heaps; /* of earlier epochs, private now: what users still have there */
    size_t old_heap_count;
    kolo_comm *world;
    kolo_comm *comms; /* all of them */
    int cpus;
    struct kolo__costs costs;
    struct kolo__flight_recorder recorder;
    struct kolo__offload offload;
    struct kolo__rdma_port_in_use *rdma;         /* runtime/rdma.h; NULL: the world wants none */
    struct kolo__trace *trace;                   /* NULL: nobody wants a timeline */
    struct kolo__timeline *timeline;             /* runtime/timeline.h; NULL: the same */
    struct kolo__metrics *metrics;               /* runtime/metrics.h; NULL: nobody wants them */
    struct kolo__reducer_thread *reducer_thread; /* NULL: none; under lock */
};

/* kolo_init, but that a process may have one context only. kolo_finalize releases it. */
kolo_status kolo__context_create(const kolo_init_options *options, kolo_context **context);
/* Makes the world communicator, together with all other ranks, if there are any (world.c). */
kolo_status kolo__world_join(kolo_context *context);
/* Leaves this epoch, whose communicators are retired, and makes the world communicator of the next
 * (world.c). */
kolo_status kolo__world_rejoin(kolo_context *context, uint32_t patience_ms);
/* What an epoch has besides, once its world communicator is there. */
kolo_status kolo__context_equip(kolo_context *context);
/* The epoch that this rank has come to broke while it was set up, which is `status`, or did not:
 * while others are to blame, those who are left make the next one (renew.c). */
kolo_status kolo__context_go_on(kolo_context *context, const kolo_renew_options *options,
                                kolo_status status);
/* What is wrong with the world, and not only with this rank, is told to all. */
void kolo__context_report(kolo_context *context, kolo_status status);
/* The heap, made if there is none. */
kolo_status kolo__context_heap(kolo_context *context, struct kolo__heap **heap);
/* A listening socket for a new communicator. */
kolo_status kolo__context_listen(kolo_context *context, int *fd, uint16_t *port);

#endif
