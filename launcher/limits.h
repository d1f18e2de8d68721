/* SPDX-License-Identifier: Apache-2.0 */
/* What this process may have of its machine: what a shell, a container or a control group takes. */
#ifndef KOLO_LAUNCHER_LIMITS_H
#define KOLO_LAUNCHER_LIMITS_H

#include <stdint.h>

struct kolo__limits {
    uint64_t memlock_bytes;      /* UINT64_MAX: no limit */
    uint64_t open_files;         /* UINT64_MAX: no limit */
    uint64_t memory_limit_bytes; /* of the control group; UINT64_MAX: none */
    uint64_t shm_bytes;          /* size of /dev/shm; 0: there is none */
    uint64_t shm_free_bytes;
    uint32_t processors;   /* that the affinity allows */
    uint32_t quota_centis; /* processors that the control group grants, in hundredths; 0: all */
};

void kolo__limits_find(struct kolo__limits *limits);

/* The parts that read control groups, of both versions. membership: /proc/self/cgroup or a file
 * like it; mount: /sys/fs/cgroup or a folder like it. */
uint32_t kolo__limits_quota_centis(const char *membership, const char *mount);
uint64_t kolo__limits_memory_bytes(const char *membership, const char *mount);

#endif
