/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/limits.h"

#include "base/cgroup.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

static uint64_t limit_of(__rlimit_resource_t resource)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur;
}

/* One number or two from a file; how many. "max" is none. */
static int read_numbers(const char *folder, const char *name, long long *a, long long *b)
{
    char path[4500];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    int count = fscanf(file, "%lld %lld", a, b);
    fclose(file);
    return count > 0 ? count : 0;
}

/* Version 2: cpu.max, "max 100000" or "200000 100000". Version 1: a file each, -1 without limit. */
static void note_quota(const char *folder, void *least)
{
    long long quota = 0, period = 0, unused;
    if (read_numbers(folder, "cpu.max", &quota, &period) != 2 &&
        (read_numbers(folder, "cpu.cfs_quota_us", &quota, &unused) == 0 ||
         read_numbers(folder, "cpu.cfs_period_us", &period, &unused) == 0))
        return;
    if (quota <= 0 || period <= 0 || quota > LLONG_MAX / 200 || quota / period > UINT32_MAX / 200)
        return;
    uint32_t centis = (uint32_t)((quota * 100 + period - 1) / period);
    uint32_t *known = least;
    if (*known == 0 || centis < *known)
        *known = centis;
}

/* Version 1 writes "no limit" as the largest number of whole pages. */
static void note_memory(const char *folder, void *least)
{
    long long limit = 0, unused;
    uint64_t *known = least;
    if (read_numbers(folder, "memory.max", &limit, &unused) == 0 &&
        read_numbers(folder, "memory.limit_in_bytes", &limit, &unused) == 0)
        return;
    if (limit > 0 && limit < LLONG_MAX / 2 && (uint64_t)limit < *known)
        *known = (uint64_t)limit;
}

uint32_t kolo__limits_quota_centis(const char *membership, const char *mount)
{
    uint32_t least = 0;
    kolo__cgroup_walk(membership, mount, "cpu", note_quota, &least);
    return least;
}

uint64_t kolo__limits_memory_bytes(const char *membership, const char *mount)
{
    uint64_t least = UINT64_MAX;
    kolo__cgroup_walk(membership, mount, "memory", note_memory, &least);
    return least;
}

void kolo__limits_find(struct kolo__limits *limits)
{
    struct statvfs shm;
    cpu_set_t allowed;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    *limits = (struct kolo__limits){
        .memlock_bytes = limit_of(RLIMIT_MEMLOCK),
        .open_files = limit_of(RLIMIT_NOFILE),
        .memory_limit_bytes = kolo__limits_memory_bytes("/proc/self/cgroup", "/sys/fs/cgroup"),
        .processors = online > 0 ? (uint32_t)online : 1,
        .quota_centis = kolo__limits_quota_centis("/proc/self/cgroup", "/sys/fs/cgroup"),
    };
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        limits->processors = (uint32_t)CPU_COUNT(&allowed);
    if (statvfs("/dev/shm", &shm) == 0) {
        limits->shm_bytes = (uint64_t)shm.f_blocks * shm.f_frsize;
        limits->shm_free_bytes = (uint64_t)shm.f_bavail * shm.f_frsize;
    }
}
