/* SPDX-License-Identifier: Apache-2.0 */
/* How many threads can really run at once here: the cgroup's quota counts, not only the cores. */
#ifndef KOLO_RUNTIME_CPUS_H
#define KOLO_RUNTIME_CPUS_H

/* Online processors of this machine, cut to the cgroup's CPU quota (rounded up), at least 1. The
 * affinity of this process is not counted: a rank bound to one core still has the machine's other
 * cores beside it. */
int kolo__usable_cpus(void);

/* Online processors of this machine. */
int kolo__online_cpus(void);

/* The quota alone, of both versions of control groups; 0: none. membership: /proc/self/cgroup;
 * mount: /sys/fs/cgroup. */
int kolo__cgroup_cpus(const char *membership, const char *mount);

#endif
