/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/cpus.h"

#include "base/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

/* The first line of a file; false: none. */
static bool read_line(const char *path, char *line, int bytes)
{
    FILE *file = fopen(path, "re");
    bool read = file != NULL && fgets(line, bytes, file) != NULL;
    if (file != NULL)
        fclose(file);
    return read;
}

/* Processors for so many microseconds in each period, rounded up; 0: no limit. */
static int processors(long quota, long period)
{
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* Version 2: cpu.max, "max 100000" or "200000 100000". Version 1: a file each, -1 without limit. */
static int quota_of_group(const char *folder)
{
    char path[4480], line[64];
    long quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (read_line(path, line, sizeof line))
        return sscanf(line, "%ld %ld", &quota, &period) == 2 ? processors(quota, period) : 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%ld", &quota) != 1)
        return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%ld", &period) != 1)
        return 0;
    return processors(quota, period);
}

static int smaller_quota(int a, int b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

static void note_quota(const char *folder, void *least)
{
    *(int *)least = smaller_quota(*(int *)least, quota_of_group(folder));
}

int kolo__cgroup_cpus(const char *membership, const char *mount)
{
    int least = 0;
    kolo__cgroup_walk(membership, mount, "cpu", note_quota, &least);
    return least;
}

int kolo__online_cpus(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (int)online;
}

int kolo__usable_cpus(void)
{
    int cpus = kolo__online_cpus();
    int quota = kolo__cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    return quota > 0 && quota < cpus ? quota : cpus;
}
