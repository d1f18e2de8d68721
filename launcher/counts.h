/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `kolo run` and `kolo agent` show Prometheus of the ranks that they started
 * (docs/METRICS.md), at the port below the first rank's: ranks answer only while they are in a
 * world, and say nothing of how they ended.
 *
 * Each connection of an agent has a process of its own, so the numbers are in memory that they
 * share.
 */
#ifndef KOLO_LAUNCHER_COUNTS_H
#define KOLO_LAUNCHER_COUNTS_H

#include <stdint.h>

struct kolo__counts_server;

/* Before anything is counted: memory that other processes can join by this path, which lives as
 * long as this process. "": none, each counts for itself. */
const char *kolo__counts_share(void);
void kolo__counts_join(const char *path);

void kolo__counts_started(uint32_t ranks);
void kolo__counts_ended(int wait_status);
/* With its host: nobody knows how it ended. */
void kolo__counts_lost(void);
/* Hosts that kolo run starts ranks on; kolo runs that an agent serves. */
void kolo__counts_connections(uint32_t connections);

/* role: "run" or "agent". option: KOLO_METRICS_PORT. That it cannot be is NULL, and a
 * warning if it was asked for. */
struct kolo__counts_server *kolo__counts_serve(const char *role, const char *option);
void kolo__counts_close(struct kolo__counts_server *server);

#endif
