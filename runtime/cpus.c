/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/cpus.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "max 100000" or "200000 100000": microseconds of CPU time per period. 0: no limit. */
static int quota_of(const char *path)
{
    char line[64] = "";
    long quota, period;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    char *read = fgets(line, sizeof line, file);
    fclose(file);
    if (read == NULL || sscanf(line, "%ld %ld", &quota, &period) != 2 || quota <= 0 || period <= 0)
        return 0;
    return (int)((quota + period - 1) / period);
}

/* The smallest quota on the way from this process's cgroup (version 2) to the root. */
static int cgroup_quota(void)
{
    char line[512] = "", path[640];
    int least = 0;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL && strncmp(line, "0::", 3) != 0)
        line[0] = '\0';
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    for (char *end = line + strlen(line); end > line + 2; end--) {
        if (*end != '\0' && *end != '/')
            continue;
        *end = '\0';
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
        int quota = quota_of(path);
        if (quota > 0 && (least == 0 || quota < least))
            least = quota;
    }
    return least;
}

int kolo__usable_cpus(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int cpus = online < 1 ? 1 : (int)online;
    int quota = cgroup_quota();
    return quota > 0 && quota < cpus ? quota : cpus;
}
