/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `kolo run`. */
#ifndef KOLO_LAUNCHER_OPTIONS_H
#define KOLO_LAUNCHER_OPTIONS_H

#include "base/config.h"
#include "launcher/environment.h"
#include "launcher/remote_shell.h"

#include <argp.h>

struct kolo__run_options {
    long ranks;           /* 0: not said */
    long per_pod;         /* 0: not said */
    const char *hosts;    /* NULL: not said; borrowed from argv, as all texts */
    const char *hostfile; /* NULL: not said */
    long each;            /* ranks on each host; 0: as many as it has slots */
    bool by_node;         /* ranks go round over the hosts */
    struct kolo__remote_shell shell;
    const char *folder;   /* working directory of ranks; NULL: ours */
    long grace_s;         /* from SIGTERM to SIGKILL, for those that outlive a failed rank */
    long max_ranks;       /* that there may be at once, as hosts come; 0: as many as at first */
    const char *discover; /* command that prints the hosts; NULL: not said */
    long restarts;        /* of ranks, in the whole job; with config.min_ranks */
    bool prefix;          /* "[rank] " before each line */
    bool report_bindings;
    bool dry_run;                         /* say what would be done, and do nothing */
    bool tag, timestamp;                  /* before each line: the stream too, the time */
    const char *output_folder;            /* a file for each rank's output; NULL: none */
    long timeout_s;                       /* of the whole job; 0: none */
    char **program;                       /* name and arguments, up to a NULL; borrowed from argv */
    struct kolo__config config;           /* environment and flags, checked */
    struct kolo__environment environment; /* of ranks: flags, and -x; owned */
};

/* What is wrong is said on stderr, and the process exits with 64; --help exits with 0. */
void kolo__run_options_parse(int argc, char **argv, struct kolo__run_options *options);

/* A number that the user gave for `name`; K, M, G where suffixes are allowed. Wrong: as above. */
long kolo__number_argument(struct argp_state *state, const char *name, const char *text,
                           bool suffixes, long minimum, long maximum);

#endif
