/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KOLO_LAUNCHER_PLAN_H
#define KOLO_LAUNCHER_PLAN_H

#include "collectives/offload/offload.h"
#include "runtime/costs.h"

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kolo__plan_question {
    size_t bytes;
    uint32_t ranks, hosts; /* at least 1; hosts at most ranks */
    kolo_dtype dtype;
    bool tcp;                            /* also between ranks of one host */
    bool deterministic;                  /* KOLO_DETERMINISTIC */
    const char *preferred;               /* KOLO_ALGORITHM; "": none */
    const struct kolo__costs *costs;     /* of the job that asks; NULL: nobody's */
    const struct kolo__offload *offload; /* likewise */
};

/* Prints all algorithms for an allreduce, the cheapest first, which is chosen and why, and where
 * the constants are from. KOLO_ERR_MEMORY is the only error. */
kolo_status kolo__print_plan(const struct kolo__plan_question *question);

#endif
