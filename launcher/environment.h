/* SPDX-License-Identifier: Apache-2.0 */
/* Variables that ranks get: the options of the command line, and what -x names. */
#ifndef KOLO_LAUNCHER_ENVIRONMENT_H
#define KOLO_LAUNCHER_ENVIRONMENT_H

#include <kolo/kolo.h>
#include <stddef.h>

struct kolo__environment {
    char **entries; /* NAME=VALUE, up to a NULL; owned; NULL while there is none */
    size_t count;
};

/* Replaces what the name had. KOLO_ERR_MEMORY. */
kolo_status kolo__environment_set(struct kolo__environment *environment, const char *name,
                                  const char *value);
/* "NAME=VALUE", or "NAME": what it is here. KOLO_ERR_CONFIG: it is no name, not set here, or one
 * that only kolo run itself gives to ranks. */
kolo_status kolo__environment_export(struct kolo__environment *environment, const char *text);
/* All KOLO_ variables of ours that are not in there yet, for hosts that have their own environment;
 * secrets and what ranks are given apart are left out. */
kolo_status kolo__environment_add_options(struct kolo__environment *environment, char **ours);
void kolo__environment_free(struct kolo__environment *environment);

#endif
