/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of its own for each test of a program. */
#ifndef KOLO_TEST_FRESH_FOLDER_H
#define KOLO_TEST_FRESH_FOLDER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* folder: a name for mkdtemp, or what it became the last time. Returns 0, as cmocka's setups do. */
static inline int fresh_folder(char *folder)
{
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static inline int remove_folder(const char *folder)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

#endif
