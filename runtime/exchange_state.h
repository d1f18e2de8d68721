/* SPDX-License-Identifier: Apache-2.0 */
/* What runtime/exchange.c and exchange_open.c keep of a communicator's exchange among GPUs. */
#ifndef KOLO_RUNTIME_EXCHANGE_STATE_H
#define KOLO_RUNTIME_EXCHANGE_STATE_H

#include "runtime/exchange.h"
#include "runtime/watch.h"

enum {
    KOLO__EXCHANGE_WHY_BYTES = KOLO__WATCH_WHY_BYTES,
    /* A vector for each thread of so many blocks is 256 KiB. */
    KOLO__EXCHANGE_BLOCKS_MOST = 32,
};

struct kolo__exchange {
    const struct kolo__device_module *gpus;
    struct kolo__device *device;
    int ordinal;
    size_t slot_bytes;
    uint32_t blocks_most;
    struct kolo__device_exchange part; /* from and to: of the call */
    struct kolo__device_handle handles[KOLO__EXCHANGE_RANKS];
    struct kolo__watch watch;
    atomic_bool ended;  /* no kernel waits any more, nor does one begin */
    kolo_status status; /* of opening */
};

/* What is watched, for kolo__watch_init. */
extern const struct kolo__watched kolo__exchange_watched;
/* The others' regions. */
void kolo__exchange_unmap(const kolo_comm *comm);

#endif
