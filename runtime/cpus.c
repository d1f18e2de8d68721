/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/cpus.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
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
    char path[900], line[64];
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

/* The smallest quota on the way from a group to the root of its hierarchy. */
static int quota_of_hierarchy(const char *root, const char *group)
{
    char folder[800];
    snprintf(folder, sizeof folder, "%s%s", root, group);
    int least = 0;
    for (;;) {
        least = smaller_quota(least, quota_of_group(folder));
        char *slash = strrchr(folder, '/');
        if (slash == NULL || strlen(folder) <= strlen(root))
            return least;
        *slash = '\0';
    }
}

/* "cpu" among controllers "cpu,cpuacct". */
static bool has_cpu(const char *controllers)
{
    for (const char *word = controllers; word != NULL; word = strchr(word, ',')) {
        word += *word == ',';
        if (strncmp(word, "cpu", 3) == 0 && (word[3] == ',' || word[3] == '\0'))
            return true;
    }
    return false;
}

int kolo__cgroup_cpus(const char *membership, const char *mount)
{
    char line[512], root[256];
    int least = 0;
    FILE *file = fopen(membership, "re");
    if (file == NULL)
        return 0;
    /* "0::/group" is version 2, "4:cpu,cpuacct:/group" version 1. */
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        bool version_2 = controllers[1] == '\0';
        snprintf(root, sizeof root, "%s%s", mount, version_2 ? "" : "/cpu");
        if (version_2 || has_cpu(controllers + 1))
            least = smaller_quota(least, quota_of_hierarchy(root, group));
    }
    fclose(file);
    return least;
}

int kolo__usable_cpus(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int cpus = online < 1 ? 1 : (int)online;
    int quota = kolo__cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    return quota > 0 && quota < cpus ? quota : cpus;
}
