/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/options.h"

#include "launcher/command.h"
#include "launcher/options_table.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RANKS_MAX = 16384,
    TIMEOUT_MAX_S = 100000000,
    GRACE_MAX_S = 3600,
    RESTARTS_MAX = 1000000,
    GRACE_DEFAULT_S = 3
};

/* ---- numbers ------------------------------------------------------------------------------- */

long kolo__number_argument(struct argp_state *state, const char *name, const char *text,
                           bool suffixes, long minimum, long maximum)
{
    long value;
    if (!kolo__parse_number(text, suffixes, &value) || value < minimum || value > maximum)
        argp_error(state, "%s %s: give a number from %ld to %ld", name, text, minimum, maximum);
    return value;
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

static void take_named(struct argp_state *state, struct kolo__run_options *options,
                       const char *name, const char *value)
{
    for (size_t i = 0; i < kolo__option_count; i++)
        if (strcmp(kolo__options[i].name, name) == 0)
            take_flag(state, options, i, value);
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
            take_named(state, options, "bind", WORDS[i][1]);
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
    long minimum = options->config.min_ranks, most = options->max_ranks;
    if (options->discover != NULL && most == 0)
        argp_error(state, "--discover: say with --max how many ranks there may be at most");
    if (options->discover != NULL && (options->hosts != NULL || options->hostfile != NULL))
        argp_error(state, "--discover prints the hosts: leave --hosts and --hostfile out");
    if (minimum > 0 && options->ranks > 0 && minimum > options->ranks)
        argp_error(state, "--min %ld is more than the %ld ranks of -n: lower it", minimum,
                   options->ranks);
    if (most > 0 && (minimum > most || options->ranks > most))
        argp_error(state, "--max %ld is less than %s %ld: raise it", most,
                   minimum > most ? "--min" : "-n", minimum > most ? minimum : options->ranks);
    if ((options->restarts > 0 || most > 0) && minimum == 0)
        argp_error(state,
                   "%s %ld: say with --min how many ranks the others must be to go on meanwhile; "
                   "without it a job ends with its first failure",
                   most > 0 ? "--max" : "--restarts", most > 0 ? most : options->restarts);
}

/* As with horovodrun: whoever says -n and --max-np, means that -n is the least. */
static void default_minimum(struct argp_state *state, struct kolo__run_options *options)
{
    char text[24];
    if (options->max_ranks == 0 || options->config.min_ranks > 0 || options->ranks == 0)
        return;
    snprintf(text, sizeof text, "%ld", options->ranks);
    take_named(state, options, "min-ranks", text);
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
    case KEY_MAX:
        options->max_ranks = kolo__number_argument(state, "--max", argument, false, 1, RANKS_MAX);
        return 0;
    case KEY_MIN_NP:
        take_named(state, options, "min-ranks", argument);
        return 0;
    case KEY_DISCOVER:
        if (argument[0] == '\0')
            argp_error(state, "--discover: give a command that prints the hosts");
        options->discover = argument;
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
        default_minimum(state, options);
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
    const struct argp argp = {.options = kolo__run_options_table(),
                              .parser = parse_one,
                              .args_doc = "[--] PROGRAM [ARGUMENT...]",
                              .doc = kolo__run_help};
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
