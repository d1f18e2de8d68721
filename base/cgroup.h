/* SPDX-License-Identifier: Apache-2.0 */
/* The control groups that limit a process, in both versions. */
#ifndef KOLO_BASE_CGROUP_H
#define KOLO_BASE_CGROUP_H

/* Calls visit with the folder of each group that a process is in, and of all its ancestors up to
 * the root: in the hierarchy of version 2, and in that of the controller ("cpu", "memory") of
 * version 1. membership: /proc/self/cgroup or a file like it; mount: /sys/fs/cgroup or a folder
 * like it. What is not there is not visited. */
void kolo__cgroup_walk(const char *membership, const char *mount, const char *controller,
                       void (*visit)(const char *folder, void *data), void *data);

#endif
