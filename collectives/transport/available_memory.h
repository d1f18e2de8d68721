/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory may still be taken before the machine, or this process's control group, is full.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_AVAILABLE_MEMORY_H
#define KOLO_COLLECTIVES_TRANSPORT_AVAILABLE_MEMORY_H

#include <stdint.h>

/* The least of MemAvailable and what the limits of the control group and its ancestors leave.
 * UINT64_MAX when the system does not say. An estimate: others take memory at the same time. */
uint64_t kolo__available_memory(void);

/* What the control groups alone leave; UINT64_MAX: they set no limit. membership:
 * /proc/self/cgroup; mount: /sys/fs/cgroup. */
uint64_t kolo__cgroup_memory(const char *membership, const char *mount);

#endif
