/* SPDX-License-Identifier: Apache-2.0 */
/* The `kolo` command: finds out which of its parts is meant. Called as `kolorun` it is `kolo run`.
 */
#include "bench/bench.h"
#include "launcher/command.h"

#include <argp.h>
#include <fcntl.h>
#include <kolo/kolo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char OVERVIEW[] =
    "Usage: kolo COMMAND [OPTION...]\n"
    "Distributed training with allreduce.\n"
    "\n"
    "  run        start N processes that find each other (kolorun is the same)\n"
    "  bench      measure collectives, and check their results\n"
    "  agent      what kolo run starts on other hosts\n"
    "  doctor     find what would stop or slow a job on these hosts\n"
    "  inspect    show what the ranks of a job do now, and who holds them up\n"
    "  sim        predict how long an allreduce takes on larger networks\n"
    "  k8s        print manifests for Kubernetes\n"
    "  info       show what was found on this machine\n"
    "  version    print the version\n"
    "  help       print this, or the help of a command: kolo help run\n"
    "\n"
    "kolo COMMAND --help tells more. Try: kolo run -n 2 -- build/bin/hello_allreduce\n";

static const struct command {
    const char *name;
    char *shown; /* how messages call it */
    int (*main)(int argc, char **argv);
} COMMANDS[] = {
    {"run", "kolo run", kolo__run_main},
    {"agent", "kolo agent", kolo__agent_main},
    {"bench", "kolo bench", kolo_bench_main},
    {"doctor", "kolo doctor", kolo__doctor_main},
    {"info", "kolo info", kolo__info_main},
    {"k8s", "kolo k8s", kolo__k8s_main},
    {"inspect", "kolo inspect", kolo__inspect_main},
    {"sim", "kolo sim", kolo__sim_main},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        if (strcmp(COMMANDS[i].name, name) == 0)
            return &COMMANDS[i];
    return NULL;
}

static int is_one_of(const char *word, const char *a, const char *b, const char *c)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

static int help(const char *topic)
{
    const struct command *command = topic != NULL ? find_command(topic) : NULL;
    if (command != NULL) {
        char option[] = "--help";
        char *arguments[] = {command->shown, option, NULL};
        return command->main(2, arguments);
    }
    if (topic != NULL) {
        fprintf(stderr, "kolo: there is no command '%s': kolo help lists them\n", topic);
        return KOLO__EXIT_USAGE;
    }
    fputs(OVERVIEW, stdout);
    return 0;
}

/* A closed stream's number would go to the next file or socket, and the output into that. What
 * stands in for stdout cannot be written, so that what is lost is said. */
static void fill_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null",
                 fd == STDERR_FILENO ? O_WRONLY : O_RDONLY); /* the lowest free number */
}

static void end_help(void)
{
    if (kolo__end_stdout("kolo") != 0)
        _exit(KOLO__EXIT_OUTPUT);
}

/* argp ends the process after help, with 0. */
static void expect_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (is_one_of(argv[i], "--help", "-?", "--usage") ||
            is_one_of(argv[i], "--version", "-V", "help") || strcmp(argv[i], "version") == 0) {
            atexit(end_help);
            return;
        }
}

int main(int argc, char **argv)
{
    static char version[64];
    fill_standard_streams();
    snprintf(version, sizeof version, "kolo %s", kolo_version());
    argp_program_version = version;

    expect_help(argc, argv);
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash != NULL ? slash + 1 : argc > 0 ? argv[0] : "kolo";
    if (strcmp(name, "kolorun") == 0)
        return kolo__run_main(argc, argv);
    if (argc < 2) {
        fputs(OVERVIEW, stderr);
        return KOLO__EXIT_USAGE;
    }
    if (is_one_of(argv[1], "help", "--help", "-h") || strcmp(argv[1], "-?") == 0)
        return help(argc > 2 ? argv[2] : NULL);
    if (is_one_of(argv[1], "version", "--version", "-V")) {
        puts(version);
        return 0;
    }
    const struct command *command = find_command(argv[1]);
    if (command == NULL) {
        fprintf(stderr, "kolo: there is no command '%s': kolo help lists them\n", argv[1]);
        return KOLO__EXIT_USAGE;
    }
    argv[1] = command->shown;
    return command->main(argc - 1, argv + 1);
}
