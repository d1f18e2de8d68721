/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a memfd are charged when they are reserved, and where that goes beyond a limit the
 * kernel may kill a process rather than fail the call. So the limits are read before.
 */
#include "collectives/transport/available_memory.h"

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
    char path[4352];
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

/* The group and all its ancestors up to the root of the hierarchy. */
static uint64_t left_in_hierarchy(const char *root, const char *group, const char *limit_name,
                                  const char *use_name)
{
    char folder[4200];
    snprintf(folder, sizeof folder, "%s%s", root, group);
    uint64_t left = UINT64_MAX;
    for (;;) {
        left = least(left, left_in_group(folder, limit_name, use_name));
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= strlen(root) || slash == NULL)
            return left;
        *slash = '\0';
    }
}

/* Both versions of control groups: "0::/path" is version 2, "9:memory:/path" version 1. */
static uint64_t left_in_groups(void)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return UINT64_MAX;
    char line[4096];
    uint64_t left = UINT64_MAX;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const char *controllers = strchr(line, ':');
        const char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        if (strncmp(line, "0::", 3) == 0)
            left = least(left, left_in_hierarchy("/sys/fs/cgroup", group + 1, "memory.max",
                                                 "memory.current"));
        else if (strncmp(controllers, ":memory:", 8) == 0)
            left = least(left, left_in_hierarchy("/sys/fs/cgroup/memory", group + 1,
                                                 "memory.limit_in_bytes", "memory.usage_in_bytes"));
    }
    fclose(file);
    return left;
}

uint64_t kolo__available_memory(void)
{
    uint64_t kib = field("/proc/meminfo", "MemAvailable:", UINT64_MAX);
    uint64_t machine = kib == UINT64_MAX ? UINT64_MAX : kib * 1024;
    return least(machine, left_in_groups());
}
