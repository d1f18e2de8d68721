/* SPDX-License-Identifier: Apache-2.0 */
/* What `kolo run` may be told: between options_table.c, which lists it, and options.c, which takes
 * it. */
#ifndef KOLO_LAUNCHER_OPTIONS_TABLE_H
#define KOLO_LAUNCHER_OPTIONS_TABLE_H

#include <argp.h>

/* Keys of options without a letter. Those of the table of options count up from KEY_TABLE. */
enum {
    KEY_HOSTS = 'H',
    KEY_RANKS = 'n',
    KEY_EACH = 'N',
    KEY_GRACE = 256,
    KEY_NO_PREFIX,
    KEY_REPORT,
    KEY_HOSTFILE,
    KEY_MAP_BY,
    KEY_SSH,
    KEY_SSH_PORT,
    KEY_WDIR,
    KEY_BIND_TO,
    KEY_TIMEOUT,
    KEY_TAG,
    KEY_TIMESTAMP,
    KEY_OUTPUT,
    KEY_DRY_RUN,
    KEY_AGENT_PORT,
    KEY_PER_POD,
    KEY_RESTARTS,
    KEY_MAX,
    KEY_MIN_NP,
    KEY_DISCOVER,
    KEY_VERBOSE = 'v',
    KEY_TABLE = 512
};

/* Own options, then those of the library's table, then the end. They live as long as the process:
 * argp wants them so. */
const struct argp_option *kolo__run_options_table(void);
/* Before and after the options in --help. */
extern const char kolo__run_help[];

#endif
