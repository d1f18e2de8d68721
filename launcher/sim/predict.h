/* SPDX-License-Identifier: Apache-2.0 */
/* How long each algorithm's allreduce takes on a network that need not exist: its phases one after
 * the other (collectives/flows.h), each as long as its slowest link and its chain of messages. */
#ifndef KOLO_LAUNCHER_SIM_PREDICT_H
#define KOLO_LAUNCHER_SIM_PREDICT_H

#include "collectives/select.h"
#include "launcher/sim/network.h"

struct kolo__prediction {
    const struct kolo__algorithm *algorithm;
    const char *obstacle; /* why it cannot do it; NULL: it can */
    bool chosen;          /* by kolo, which knows nothing of the network's form */
    double seconds;       /* of the three: */
    double messages_s;    /* starts of messages that wait for each other */
    double links_s;       /* bytes on the slowest links */
    double memory_s;      /* reductions and shared memory */
    char slowest[64];     /* the link that takes longest; "messages" or "memory" if those do */
};

enum { KOLO__PREDICTIONS_MAX = 16 };

struct kolo__prediction_question {
    uint32_t ranks; /* a multiple of network->per_host */
    size_t bytes;
    kolo_dtype dtype;
    const struct kolo__cost_model
        *model; /* of memory; the network's constants count for the rest */
    const struct kolo__network *network;
};

/* All algorithms of allreduce that send messages, the fastest first. KOLO_ERR_MEMORY is the only
 * error. */
kolo_status kolo__predict(const struct kolo__prediction_question *question,
                          struct kolo__prediction predictions[KOLO__PREDICTIONS_MAX],
                          size_t *count);

#endif
