/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo info`: what was found on this machine, in words that answer "why is it slow here?". */
#include "launcher/command.h"

#include "base/config.h"
#include "base/log.h"
#include "collectives/transport/huge_pages.h"
#include "launcher/bind.h"
#include "launcher/options.h"
#include "launcher/plan.h"
#include "kernels/kernels.h"
#include "runtime/comm.h"
#include "runtime/cpus.h"

#include <argp.h>
#include <hwloc.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

enum { KEY_CONFIG_DOCUMENT = 256, KEY_PLAN, KEY_HOSTS, KEY_DTYPE, RANKS_MAX = 4096 };

static const struct argp_option OPTIONS[] = {
    {.name = "config-doc",
     .key = KEY_CONFIG_DOCUMENT,
     .doc = "Print the reference of all options instead (docs/CONFIG.md)."},
    {.name = "plan",
     .key = KEY_PLAN,
     .arg = "BYTES",
     .doc = "Print which algorithm an allreduce of this size gets, and what the others would cost, "
            "instead; K, M, G are powers of two."},
    {.name = "ranks",
     .key = 'n',
     .arg = "N",
     .doc = "With --plan: ranks (2; under kolo run, those of the job)."},
    {.name = "hosts", .key = KEY_HOSTS, .arg = "N", .doc = "With --plan: hosts they run on (1)."},
    {.name = "dtype",
     .key = KEY_DTYPE,
     .arg = "NAME",
     .doc = "With --plan: fp32, bf16, ... (fp32)."},
    {0},
};

struct wanted {
    bool document, plan;
    struct kolo__plan_question question;
};

static error_t parse_one(int key, char *argument, struct argp_state *state)
{
    struct wanted *wanted = state->input;
    switch (key) {
    case KEY_CONFIG_DOCUMENT:
        wanted->document = true;
        return 0;
    case KEY_PLAN:
        wanted->plan = true;
        wanted->question.bytes =
            (size_t)kolo__number_argument(state, "--plan", argument, true, 1, LONG_MAX);
        return 0;
    case 'n':
        wanted->question.ranks =
            (uint32_t)kolo__number_argument(state, "--ranks", argument, true, 1, RANKS_MAX);
        return 0;
    case KEY_HOSTS:
        wanted->question.hosts =
            (uint32_t)kolo__number_argument(state, "--hosts", argument, true, 1, RANKS_MAX);
        return 0;
    case KEY_DTYPE:
        if (!kolo__dtype_parse(argument, &wanted->question.dtype))
            argp_error(state, "--dtype %s: there is no such dtype", argument);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is one argument too many", argument);
        return 0;
    case ARGP_KEY_END:
        if (wanted->question.hosts > wanted->question.ranks)
            argp_error(state, "%u hosts are more than %u ranks", wanted->question.hosts,
                       wanted->question.ranks);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static double gibibytes(unsigned long long bytes)
{
    return (double)bytes / (1 << 30);
}

/* A line of /proc/meminfo, in bytes; 0: not there. */
static unsigned long long memory_line(const char *name)
{
    char line[128];
    unsigned long long kilobytes = 0;
    size_t length = strlen(name);
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (kilobytes == 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':' &&
            sscanf(line + length + 1, "%llu", &kilobytes) != 1)
            break;
    fclose(file);
    return kilobytes * 1024;
}

static void print_machine(void)
{
    struct utsname system;
    struct kolo__binding *binding;
    printf("kolo       %s\n", kolo_version());
    printf("host       %s", kolo__host_name());
    if (uname(&system) == 0)
        printf(", %s %s, %s", system.sysname, system.release, system.machine);
    printf("\n");
    if (kolo__binding_open(NULL, &binding) != KOLO_OK) {
        printf("topology   unknown: %s\n", kolo_error_text());
        return;
    }
    const struct kolo__machine *machine = kolo__binding_machine(binding);
    printf("topology   packages %d, NUMA nodes %d, cores %d, processing units %d (hwloc %d.%d)\n",
           machine->packages, machine->numa_nodes, machine->cores, machine->pus,
           HWLOC_API_VERSION >> 16, HWLOC_API_VERSION >> 8 & 0xff);
    printf("usable     cores %d: affinity allows %d cores with %d processing units, cgroup quota "
           "and machine %d\n",
           machine->usable_cores, machine->allowed_cores, machine->allowed_pus,
           kolo__usable_cpus());
    kolo__binding_close(binding);
}

static void print_memory(void)
{
    struct statvfs shared;
    char text[256];
    printf("memory     %.1f GiB, %.1f GiB available\n", gibibytes(memory_line("MemTotal")),
           gibibytes(memory_line("MemAvailable")));
    printf("huge pages %s\n", kolo__huge_pages_text(text, sizeof text));
    if (statvfs("/dev/shm", &shared) == 0)
        printf("/dev/shm   %.2f GiB, %.2f GiB free (kolo does not need it: it shares memory by "
               "memfd)\n",
               gibibytes((unsigned long long)shared.f_blocks * shared.f_frsize),
               gibibytes((unsigned long long)shared.f_bavail * shared.f_frsize));
    else
        printf("/dev/shm   none (kolo does not need it: it shares memory by memfd)\n");
}

static void print_modules(void)
{
    printf("transports shm, tcp\n"
           "rdma       not in this version\n"
           "cuda       not in this version\n"
           "nccl       not in this version\n"
           "mpi        not in this version\n");
}

/* What would stop a program here before it begins. */
static void print_environment(void)
{
    struct kolo__config config;
    int count = 0;
    for (char *const *variable = environ; *variable != NULL; variable++) {
        if (strncmp(*variable, "KOLO_", 5) != 0)
            continue;
        bool secret = strncmp(*variable, "KOLO_TOKEN=", 11) == 0;
        printf("%s%s\n", count++ == 0 ? "options    " : "           ",
               secret ? "KOLO_TOKEN=(not shown)" : *variable);
    }
    if (count == 0)
        printf("options    none set (kolo info --config-doc lists them)\n");
    if (kolo__config_load(&config, environ) != KOLO_OK)
        printf("           wrong: %s\n", kolo_error_text());
}

static void describe_job(const kolo_context *context, struct kolo__plan_question *question)
{
    const kolo_comm *world = context->world;
    question->ranks = world->size;
    question->hosts = 1;
    for (uint32_t r = 0; r < world->size; r++)
        if (world->host_of[r] >= question->hosts)
            question->hosts = world->host_of[r] + 1;
    question->tcp |= world->plan_context.remote && question->hosts == 1;
    question->costs = &context->costs;
}

/* In a job, of this job: rank 0 answers. */
static int print_plan(struct kolo__plan_question *question)
{
    struct kolo__config config;
    kolo_context *context = NULL;
    kolo_status status = kolo__config_load(&config, environ);
    if (status == KOLO_OK && config.world_size > 0)
        status = kolo_init(NULL, &context);
    if (status == KOLO_OK) {
        question->preferred = config.algorithm;
        question->deterministic = config.deterministic != 0;
        question->tcp = strcmp(config.transport, "tcp") == 0;
        if (context != NULL)
            describe_job(context, question);
        if (context == NULL || kolo_comm_rank(kolo_world(context)) == 0)
            status = kolo__print_plan(question);
    }
    if (status != KOLO_OK)
        fprintf(stderr, "kolo info: %s\n", kolo_error_text());
    kolo_status end = kolo_finalize(context);
    if (status == KOLO_ERR_CONFIG)
        return KOLO__EXIT_USAGE;
    if (status != KOLO_OK || end != KOLO_OK)
        return KOLO__EXIT_FAILED;
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : KOLO__EXIT_OUTPUT;
}

int kolo__info_main(int argc, char **argv)
{
    static const char HELP[] = "Show what kolo finds on this machine: its version, the processors "
                               "it may use, memory, modules, and options that are set.";
    const struct argp argp = {.options = OPTIONS, .parser = parse_one, .doc = HELP};
    static char name[] = "kolo info";
    struct wanted wanted = {.question = {.ranks = 2, .hosts = 1, .dtype = KOLO_FP32}};
    argp_err_exit_status = KOLO__EXIT_USAGE;
    argv[0] = name;
    argp_parse(&argp, argc, argv, 0, NULL, &wanted);
    if (wanted.document) {
        kolo__config_document(stdout);
    } else if (wanted.plan) {
        return print_plan(&wanted.question);
    } else {
        print_machine();
        print_memory();
        print_modules();
        print_environment();
    }
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : KOLO__EXIT_OUTPUT;
}
