/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/options_table.h"

#include "base/assert.h"
#include "base/config.h"

#include <stdio.h>
#include <string.h>

enum { FLAGS_MAX = 24 };

static const struct argp_option OWN_OPTIONS[] = {
    {.name = "ranks",
     .key = KEY_RANKS,
     .arg = "N",
     .doc = "Start N processes. Default: one for each usable core, or for each slot of --hosts."},
    {.name = "np", .key = KEY_RANKS, .flags = OPTION_ALIAS},
    {.name = "hosts",
     .key = KEY_HOSTS,
     .arg = "HOST:SLOTS,...",
     .doc = "Where to start them, and how many at most on each; without SLOTS as many as it has "
            "usable cores. Over ssh. Default: here, as many as -n says."},
    {.name = "npernode",
     .key = KEY_EACH,
     .arg = "N",
     .doc = "So many ranks on each host, whatever its slots."},
    {.name = "slots-per-host", .key = KEY_EACH, .flags = OPTION_ALIAS},
    {.name = "hostfile",
     .key = KEY_HOSTFILE,
     .arg = "FILE",
     .doc = "The same from a file with lines of HOST slots=N, or HOST:N."},
    {.name = "machinefile", .key = KEY_HOSTFILE, .flags = OPTION_ALIAS},
    {.name = "map-by",
     .key = KEY_MAP_BY,
     .arg = "slot|node",
     .doc = "Fill a host before the next (slot, the default), or go round over the hosts (node)."},
    {.name = "ssh",
     .key = KEY_SSH,
     .arg = "COMMAND",
     .doc = "Instead of ssh: \"ssh -F my_config\", or whatever runs a command on a host."},
    {.name = "ssh-port", .key = KEY_SSH_PORT, .arg = "PORT", .doc = "Of sshd on the hosts."},
    {.name = "agent-port",
     .key = KEY_AGENT_PORT,
     .arg = "PORT",
     .doc =
         "Without ssh: on every host a `kolo agent` waits at this port (7701, if it was not told "
         "another), with the same token (KOLO_TOKEN_FILE) as here."},
    {.name = "per-pod",
     .key = KEY_PER_POD,
     .arg = "N",
     .doc = "In pods that are alike, each with its own kolo run: start N of the world's ranks in "
            "this one (default 1). Which ones, and where the others are, its environment tells."},
    {.name = "nproc-per-node", .key = KEY_PER_POD, .flags = OPTION_ALIAS},
    {.name = "wdir",
     .key = KEY_WDIR,
     .arg = "FOLDER",
     .doc = "Where ranks start, on every host. Default: the folder that kolo run is in."},
    {.key = 'x',
     .arg = "NAME[=VALUE]",
     .doc = "Give ranks on all hosts this variable too. KOLO_ variables they get anyway."},
    {.name = "bind-to",
     .key = KEY_BIND_TO,
     .arg = "core|numa|socket|none",
     .doc = "mpirun's word for --bind; a socket is taken for its NUMA node."},
    {.name = "timeout",
     .key = KEY_TIMEOUT,
     .arg = "SECONDS",
     .doc = "End the whole job after so long, with code 124. Default: never. (The limit of one "
            "operation is --operation-timeout.)"},
    {.name = "output-filename",
     .key = KEY_OUTPUT,
     .arg = "FOLDER",
     .doc = "Write what each rank says into FOLDER/rank.N too, here."},
    {.name = "tag-output", .key = KEY_TAG, .doc = "\"[rank]<stdout>: \" before each line."},
    {.name = "timestamp-output", .key = KEY_TIMESTAMP, .doc = "The time before each line, in UTC."},
    {.name = "dry-run",
     .key = KEY_DRY_RUN,
     .doc = "Say which ranks would run where, and how they would be started; start nothing."},
    {.name = "verbose", .key = KEY_VERBOSE, .doc = "Show what ssh says of itself (ssh -v)."},
    {.name = "grace",
     .key = KEY_GRACE,
     .arg = "SECONDS",
     .doc = "When a rank has failed, the others get 1 s to notice, then SIGTERM, then SECONDS to "
            "end by themselves, then SIGKILL (default 3)."},
    {.name = "restarts",
     .key = KEY_RESTARTS,
     .arg = "N",
     .doc = "With --min: start ranks that fail again, N times in all, 1 s later or more; they come "
            "to the world of the others (kolo_renew). Default: 0."},
    {.name = "max",
     .key = KEY_MAX,
     .arg = "N",
     .doc =
         "With --min: when there are more slots than ranks, start more, up to N in all, which come "
         "to the world of the others (kolo_renew). Without -n the job begins with as many."},
    {.name = "max-np", .key = KEY_MAX, .flags = OPTION_ALIAS},
    {.name = "min-np", .key = KEY_MIN_NP, .arg = "N", .doc = "horovodrun's word for --min."},
    {.name = "discover",
     .key = KEY_DISCOVER,
     .arg = "COMMAND",
     .doc = "With --max, instead of --hosts: what prints them, in lines of HOST, HOST slots=N or "
            "HOST:N. It runs every second; hosts that appear get ranks, those of hosts that vanish "
            "are "
            "told to leave (SIGTERM)."},
    {.name = "host-discovery-script", .key = KEY_DISCOVER, .flags = OPTION_ALIAS},
    {.name = "no-prefix",
     .key = KEY_NO_PREFIX,
     .doc = "Do not write \"[rank] \" before each line of output."},
    {.name = "report-bindings",
     .key = KEY_REPORT,
     .doc = "Say on stderr which processors each rank may run on."},
};
enum { OWN_COUNT = sizeof OWN_OPTIONS / sizeof *OWN_OPTIONS };

const char kolo__run_help[] =
    "Start N processes of PROGRAM that find each other, show their output line by line, and end "
    "them all when one fails.\v"
    "Each process finds KOLO_RANK, KOLO_WORLD_SIZE, KOLO_LOCAL_RANK, KOLO_LOCAL_SIZE, "
    "KOLO_RENDEZVOUS, KOLO_JOB and KOLO_TOKEN in its environment; kolo_init reads them. Standard "
    "input goes to rank 0. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to "
    "all; a second SIGINT or SIGTERM kills.\n"
    "\n"
    "Exit codes: 0 all ranks exited with 0; 64 wrong usage or configuration; 65 the ranks do not "
    "fit one world; 74 stdout cannot be written; 75 the world did not form in time, or "
    "fewer than --min were left for so long; 76 a rank was "
    "killed by a signal, or left with 0 while others needed it, or lost with its host; 124 the "
    "time of "
    "--timeout was over; 126 or 127 PROGRAM cannot be "
    "started; 128+N after signal N (143 after SIGTERM); otherwise that of the first rank that "
    "failed. 75 and 76 are worth another try, 64 and 65 are not.\n"
    "\n"
    "Examples:\n"
    "  kolo run -n 4 -- build/bin/train_bytes --steps 50\n"
    "  kolo run --hosts node1:4,node2:4 -- ./train";

/* ---- flags of the table -------------------------------------------------------------------- */

/* --token-file is for other launchers: kolo run makes a fresh token for each job. */
static bool is_flag(const struct kolo__option *option)
{
    return option->use == KOLO__OPTION_USER && strcmp(option->name, "token-file") != 0;
}

static const char *flag_name(const struct kolo__option *option)
{
    return option->flag != NULL ? option->flag : option->name;
}

/* What --help shows for the value: the choices, or a word in capitals. */
static const char *value_name(const struct kolo__option *option)
{
    if (option->type == KOLO__OPTION_CHOICE)
        return option->choices;
    if (option->type == KOLO__OPTION_BYTES)
        return "BYTES";
    if (option->type == KOLO__OPTION_TEXT)
        return "NAME";
    return option->unit != NULL && strcmp(option->unit, "s") == 0 ? "SECONDS" : "N";
}

const struct argp_option *kolo__run_options_table(void)
{
    static struct argp_option options[OWN_COUNT + FLAGS_MAX + 2];
    static char texts[FLAGS_MAX][512];
    size_t count = OWN_COUNT, flags = 0;
    memcpy(options, OWN_OPTIONS, sizeof OWN_OPTIONS);
    options[count++] =
        (struct argp_option){.doc = "Options of the library, set for all ranks:", .group = 2};
    for (size_t i = 0; i < kolo__option_count; i++) {
        const struct kolo__option *option = &kolo__options[i];
        if (!is_flag(option))
            continue;
        KOLO__ASSERT(flags < FLAGS_MAX);
        snprintf(texts[flags], sizeof *texts, "%s%s%s%s", option->help,
                 option->default_text[0] != '\0' ? " Default: " : "", option->default_text,
                 option->default_text[0] != '\0' ? "." : "");
        options[count++] = (struct argp_option){.name = flag_name(option),
                                                .key = KEY_TABLE + (int)i,
                                                .arg = value_name(option),
                                                .doc = texts[flags++],
                                                .group = 2};
    }
    return options;
}
