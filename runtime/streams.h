/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many connections two ranks of different hosts should have (collectives/transport/tcp_lanes.c)
 * where KOLO_STREAMS does not say: found out when a world begins, before its communicator is made,
 * for connections keep their number. One rank of each host sends to the next host's for some
 * 20 ms by one connection through each network interface, then by several. Several cost processor
 * time and order; they must be clearly faster, on the slowest link, which then all ranks go by.
 */
#ifndef KOLO_RUNTIME_STREAMS_H
#define KOLO_RUNTIME_STREAMS_H

#include <kolo/kolo.h>
#include <stdint.h>

/* Sets context->streams; collective over the world, after the introductions. What cannot be
 * measured within some 100 ms is not: then it is 1. Fails as the control plane does. */
kolo_status kolo__streams_find(kolo_context *context, uint64_t deadline_ns);

/* How many, by what the slowest link carried with few and with many of them, in bytes per second;
 * 0: not measured. */
uint32_t kolo__streams_choose(uint64_t few_rate, uint64_t many_rate);

#endif
