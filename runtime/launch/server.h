/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rendezvous where no `kolo run` is there to hold it: rank 0 does, on a thread that sleeps in
 * poll(2) but while ranks join, fail or leave. When rank 0's process dies the server dies with it,
 * and the others, whose connections break, name rank 0 (control.h: at_rank_0).
 */
#ifndef KOLO_RUNTIME_LAUNCH_SERVER_H
#define KOLO_RUNTIME_LAUNCH_SERVER_H

#include "runtime/rendezvous.h"

struct kolo__server;

/* Takes over the rendezvous, also on failure. */
kolo_status kolo__server_start(struct kolo__rendezvous *rendezvous, struct kolo__server **server);
/* "10.0.0.1:30500"; valid until end. */
const char *kolo__server_address(const struct kolo__server *server);
/* Waits until every other rank has left or is lost, at most until the deadline
 * (kolo__real_clock), so that all of them hear what went wrong, or that nothing did. Then ends the
 * thread. server may be NULL. */
void kolo__server_end(struct kolo__server *server, uint64_t deadline_ns);

#endif
