/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* "cpu" among "cpu,cpuacct". */
static bool is_among(const char *controller, const char *controllers)
{
    size_t length = strlen(controller);
    for (const char *word = controllers; word != NULL; word = strchr(word, ',')) {
        word += *word == ',';
        if (strncmp(word, controller, length) == 0 && (word[length] == ',' || word[length] == '\0'))
            return true;
    }
    return false;
}

static void walk_up(const char *root, const char *group,
                    void (*visit)(const char *folder, void *data), void *data)
{
    char folder[4400];
    snprintf(folder, sizeof folder, "%s%s", root, group);
    for (;;) {
        visit(folder, data);
        char *slash = strrchr(folder, '/');
        if (slash == NULL || strlen(folder) <= strlen(root))
            return;
        *slash = '\0';
    }
}

void kolo__cgroup_walk(const char *membership, const char *mount, const char *controller,
                       void (*visit)(const char *folder, void *data), void *data)
{
    char line[4096], root[256];
    FILE *file = fopen(membership, "re");
    if (file == NULL)
        return;
    /* "0::/group" is version 2, "4:cpu,cpuacct:/group" version 1. */
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        bool version_2 = controllers[1] == '\0';
        snprintf(root, sizeof root, "%s%s%s", mount, version_2 ? "" : "/",
                 version_2 ? "" : controller);
        if (version_2 || is_among(controller, controllers + 1))
            walk_up(root, group, visit, data);
    }
    fclose(file);
}
