/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/options.h"

#include "base/assert.h"
#include "launcher/command.h"

#include <argp.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FLAGS_MAX = 24,
    RANKS_MAX = 16384,
    TIMEOUT_MAX_S = 100000000,
    GRACE_MAX_S = 3600,
    RESTARTS_MAX = 1000000,
    GRACE_DEFAULT_S = 3
};

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
    KEY_VERBOSE = 'v',
    KEY_TABLE = 512
};

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
    {.name = "no-prefix",
     .key = KEY_NO_PREFIX,
     .doc = "Do not write \"[rank] \" before each line of output."},
    {.name = "report-bindings",
     .key = KEY_REPORT,
     .doc = "Say on stderr which processors each rank may run on."},
};
enum { OWN_COUNT = sizeof OWN_OPTIONS / sizeof *OWN_OPTIONS };

static const char HELP_BEFORE[] =
    "Start N processes of PROGRAM that find each other, show their output line by line, and end "
    "them all when one fails.\v";
static const char HELP_AFTER[] =
    "Each process finds KOLO_RANK, KOLO_WORLD_SIZE, KOLO_LOCAL_RANK, KOLO_LOCAL_SIZE, "
    "KOLO_RENDEZVOUS, KOLO_JOB and KOLO_TOKEN in its environment; kolo_init reads them. Standard "
    "input goes to rank 0. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to "
    "all; a second SIGINT or SIGTERM kills.\n"
    "\n"
    "Exit codes: 0 all ranks exited with 0; 64 wrong usage or configuration; 65 the ranks do not "
    "fit one world; 74 stdout cannot be written; 75 the world did not form in time; 76 a rank was "
    "killed by a signal, or left with 0 while others needed it, or lost with its host; 124 the "
    "time of "
    "--timeout was over; 126 or 127 PROGRAM cannot be "
    "started; 128+N after signal N (143 after SIGTERM); otherwise that of the first rank that "
    "failed. 75 and 76 are worth another try, 64 and 65 are not.\n"
    "\n"
    "Examples:\n"
    "  kolo run -n 4 -- build/bin/train_bytes --steps 50\n"
    "  kolo run --hosts node1:4,node2:4 -- ./train";

/* ---- numbers ------------------------------------------------------------------------------- */

long kolo__number_argument(struct argp_state *state, const char *name, const char *text,
                           bool suffixes, long minimum, long maximum)
{
    long value;
    if (!kolo__parse_number(text, suffixes, &value) || value < minimum || value > maximum)
        argp_error(state, "%s %s: give a number from %ld to %ld", name, text, minimum, maximum);
    return value;
}

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

/* Own options, then those of the table, then the end. The texts live as long as the process: argp
 * wants them so. */
static const struct argp_option *all_options(void)
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

static void take_flag(struct argp_state *state, struct kolo__run_options *options, size_t index,
                      const char *value)
{
    const struct kolo__option *option = &kolo__options[index];
    char variable[64];
    if (kolo__config_set(&options->config, option->name, value) != KOLO_OK ||
        kolo__environment_set(&options->environment,
                              kolo__option_variable(option, variable, sizeof variable),
                              value) != KOLO_OK)
        argp_error(state, "%s", kolo_error_text());
}

/* ---- words of mpirun ----------------------------------------------------------------------- */

/* What places ranks within a host fills host after host, as slots do; the rest is --bind-to's. */
static void take_map_by(struct argp_state *state, struct kolo__run_options *options,
                        const char *word)
{
    static const char *const WITHIN[] = {"slot",    "core", "hwthread", "socket",
                                         "package", "numa", "l3cache"};
    static const char PREFIX[] = "ppr:", SUFFIX[] = ":node";
    size_t length = strlen(word), around = strlen(PREFIX) + strlen(SUFFIX);
    if (length > around && strncmp(word, PREFIX, strlen(PREFIX)) == 0 &&
        strcmp(word + length - strlen(SUFFIX), SUFFIX) == 0) {
        char each[16];
        snprintf(each, sizeof each, "%.*s", (int)(length - around), word + strlen(PREFIX));
        options->each =
            kolo__number_argument(state, "--map-by ppr:N:node", each, false, 1, RANKS_MAX);
        return;
    }
    options->by_node = strcmp(word, "node") == 0;
    bool known = options->by_node;
    for (size_t i = 0; i < sizeof WITHIN / sizeof *WITHIN; i++)
        known |= strcmp(word, WITHIN[i]) == 0;
    if (!known)
        argp_error(state,
                   "--map-by %s: give slot (or core, numa, ...: host after host), node (round the "
                   "hosts) or ppr:N:node; what ranks are bound to is --bind-to",
                   word);
}

static void take_bind_to(struct argp_state *state, struct kolo__run_options *options,
                         const char *word)
{
    static const char *const WORDS[][2] = {{"core", "core"},   {"numa", "numa"},
                                           {"socket", "numa"}, {"package", "numa"},
                                           {"none", "none"},   {"auto", "auto"}};
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (strcmp(word, WORDS[i][0]) == 0) {
            for (size_t k = 0; k < kolo__option_count; k++)
                if (strcmp(kolo__options[k].name, "bind") == 0)
                    take_flag(state, options, k, WORDS[i][1]);
            return;
        }
    argp_error(state, "--bind-to %s: give core, numa, socket, none or auto", word);
}

static void take_each(struct argp_state *state, struct kolo__run_options *options, const char *text)
{
    options->each = kolo__number_argument(state, "--npernode", text, false, 1, RANKS_MAX);
}

/* mpirun's words of one dash: "-np 4" and "-npernode 4" are -n with the rest of the word, and a
 * word that follows. */
static void take_ranks(struct argp_state *state, struct kolo__run_options *options,
                       const char *text)
{
    bool each = strcmp(text, "pernode") == 0;
    if ((each || strcmp(text, "p") == 0) && state->next < state->argc)
        text = state->argv[state->next++];
    if (each) {
        take_each(state, options, text);
        return;
    }
    long ranks = kolo__number_argument(state, "-n", text, false, 1, RANKS_MAX);
    if (options->ranks != 0 && options->ranks != ranks)
        argp_error(state, "-n (or -np) says %ld, and then %ld: give one number of ranks",
                   options->ranks, ranks);
    options->ranks = ranks;
}

/* ---- parsing ------------------------------------------------------------------------------- */

/* What only a world that goes on can do. */
static void check_elastic(struct argp_state *state, const struct kolo__run_options *options)
{
    long minimum = options->config.min_ranks;
    if (minimum > 0 && options->ranks > 0 && minimum > options->ranks)
        argp_error(state, "--min %ld is more than the %ld ranks of -n: lower it", minimum,
                   options->ranks);
    if (options->restarts > 0 && minimum == 0)
        argp_error(state,
                   "--restarts %ld: say with --min how many ranks the others must be to go on "
                   "meanwhile; without it a job ends with its first failure",
                   options->restarts);
}

static error_t parse_one(int key, char *argument, struct argp_state *state)
{
    struct kolo__run_options *options = state->input;
    switch (key) {
    case KEY_RANKS:
        take_ranks(state, options, argument);
        return 0;
    case KEY_HOSTS:
        options->hosts = argument;
        return 0;
    case KEY_HOSTFILE:
        options->hostfile = argument;
        return 0;
    case KEY_EACH:
        take_each(state, options, argument);
        return 0;
    case KEY_MAP_BY:
        take_map_by(state, options, argument);
        return 0;
    case KEY_BIND_TO:
        take_bind_to(state, options, argument);
        return 0;
    case KEY_TIMEOUT:
        options->timeout_s =
            kolo__number_argument(state, "--timeout", argument, false, 1, TIMEOUT_MAX_S);
        return 0;
    case KEY_OUTPUT:
        if (argument[0] == '\0')
            argp_error(state, "--output-filename: give a folder");
        options->output_folder = argument;
        return 0;
    case KEY_TAG:
        options->tag = true;
        return 0;
    case KEY_TIMESTAMP:
        options->timestamp = true;
        return 0;
    case KEY_DRY_RUN:
        options->dry_run = true;
        return 0;
    case KEY_VERBOSE:
        options->shell.verbose = true;
        return 0;
    case KEY_SSH:
        options->shell.command = argument;
        return 0;
    case KEY_SSH_PORT:
        options->shell.port = kolo__number_argument(state, "--ssh-port", argument, false, 1, 65535);
        return 0;
    case KEY_AGENT_PORT:
        options->shell.agent_port =
            kolo__number_argument(state, "--agent-port", argument, false, 1, 65535);
        return 0;
    case KEY_PER_POD:
        options->per_pod = kolo__number_argument(state, "--per-pod", argument, false, 1, RANKS_MAX);
        return 0;
    case KEY_WDIR:
        options->folder = argument;
        return 0;
    case 'x':
        if (kolo__environment_export(&options->environment, argument) != KOLO_OK)
            argp_error(state, "%s", kolo_error_text());
        return 0;
    case KEY_GRACE:
        options->grace_s = kolo__number_argument(state, "--grace", argument, false, 0, GRACE_MAX_S);
        return 0;
    case KEY_RESTARTS:
        options->restarts =
            kolo__number_argument(state, "--restarts", argument, false, 0, RESTARTS_MAX);
        return 0;
    case KEY_NO_PREFIX:
        options->prefix = false;
        return 0;
    case KEY_REPORT:
        options->report_bindings = true;
        return 0;
    case ARGP_KEY_ARG:
        /* The program: everything after it is its own. */
        options->program = &state->argv[state->next - 1];
        state->next = state->argc;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no program given");
        return 0;
    case ARGP_KEY_END:
        if (kolo__remote_contradiction(&options->shell) != NULL)
            argp_error(state, "%s", kolo__remote_contradiction(&options->shell));
        check_elastic(state, options);
        return 0;
    default:
        if (key < KEY_TABLE || key >= KEY_TABLE + (int)kolo__option_count)
            return ARGP_ERR_UNKNOWN;
        take_flag(state, options, (size_t)(key - KEY_TABLE), argument);
        return 0;
    }
}

void kolo__run_options_parse(int argc, char **argv, struct kolo__run_options *options)
{
    static char text[sizeof HELP_BEFORE + sizeof HELP_AFTER];
    snprintf(text, sizeof text, "%s%s", HELP_BEFORE, HELP_AFTER);
    const struct argp argp = {.options = all_options(),
                              .parser = parse_one,
                              .args_doc = "[--] PROGRAM [ARGUMENT...]",
                              .doc = text};
    *options = (struct kolo__run_options){.grace_s = GRACE_DEFAULT_S, .prefix = true};
    kolo_status environment = kolo__config_load(&options->config, environ);
    char complaint[512];
    snprintf(complaint, sizeof complaint, "%s", kolo_error_text());

    /* Flags first, so that --help works whatever the environment holds. */
    argp_err_exit_status = KOLO__EXIT_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, options);
    if (environment != KOLO_OK) {
        fprintf(stderr, "%s: %s\n", argv[0], complaint);
        exit(KOLO__EXIT_USAGE);
    }
    options->shell.agent_seconds = options->config.init_timeout;
}
