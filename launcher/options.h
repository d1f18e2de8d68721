/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `kolo run`. */
#ifndef KOLO_LAUNCHER_OPTIONS_H
#define KOLO_LAUNCHER_OPTIONS_H

#include "base/config.h"

#include <argp.h>

enum { KOLO__SETTINGS_MAX = 16 };

/* A flag that becomes a variable of every rank: --timeout 60 is KOLO_TIMEOUT=60. */
struct kolo__setting {
    char variable[64];
    const char *value; /* borrowed from argv */
};

struct kolo__run_options {
    long ranks;        /* 0: not said */
    const char *hosts; /* NULL: not said; borrowed from argv */
    long grace_s;      /* from SIGTERM to SIGKILL, for those that outlive a failed rank */
    bool prefix;       /* "[rank] " before each line */
    bool report_bindings;
    char **program;             /* name and arguments, up to a NULL; borrowed from argv */
    struct kolo__config config; /* environment and flags, checked */
    struct kolo__setting settings[KOLO__SETTINGS_MAX];
    size_t setting_count;
};

/* What is wrong is said on stderr, and the process exits with 64; --help exits with 0. */
void kolo__run_options_parse(int argc, char **argv, struct kolo__run_options *options);

/* A number that the user gave for `name`; K, M, G where suffixes are allowed. Wrong: as above. */
long kolo__number_argument(struct argp_state *state, const char *name, const char *text,
                           bool suffixes, long minimum, long maximum);

#endif
