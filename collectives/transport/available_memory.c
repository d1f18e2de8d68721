/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a memfd are charged when they are reserved, and where that goes beyond a limit the
 * kernel may kill a process rather than fail the call. So the limits are read before.
 */
#include "collectives/transport/available_memory.h"

#include "base/cgroup.h"

#include <stdio.h>
#include <string.h>

/* The number after `name` at the start of a line. */
static uint64_t field(const char *path, const char *name, uint64_t otherwise)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return otherwise;
    char line[256];
    unsigned long long value;
    uint64_t result = otherwise;
    size_t length = strlen(name);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, length) == 0 && sscanf(line + length, "%llu", &value) == 1)
            result = value;
    fclose(file);
    return result;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What one control group leaves: limit - use, where use does not count the cache that the kernel
 * can drop. No file, or "max", is no limit. */
static uint64_t left_in_group(const char *folder, const char *limit_name, const char *use_name)
{
    char path[4480];
    snprintf(path, sizeof path, "%s/%s", folder, limit_name);
    uint64_t limit = field(path, "", UINT64_MAX);
    if (limit == UINT64_MAX)
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, use_name);
    uint64_t use = field(path, "", 0);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    use -= least(use, field(path, "inactive_file ", 0));
    return limit > use ? limit - use : 0;
}

/* A folder has the files of one version or of the other. */
static void note_left(const char *folder, void *data)
{
    uint64_t *left = data;
    *left = least(*left, left_in_group(folder, "memory.max", "memory.current"));
    *left = least(*left, left_in_group(folder, "memory.limit_in_bytes", "memory.usage_in_bytes"));
}

uint64_t kolo__cgroup_memory(const char *membership, const char *mount)
{
    uint64_t left = UINT64_MAX;
    kolo__cgroup_walk(membership, mount, "memory", note_left, &left);
    return left;
}

uint64_t kolo__available_memory(void)
{
    uint64_t kib = field("/proc/meminfo", "MemAvailable:", UINT64_MAX);
    uint64_t machine = kib == UINT64_MAX ? UINT64_MAX : kib * 1024;
    return least(machine, kolo__cgroup_memory("/proc/self/cgroup", "/sys/fs/cgroup"));
}
