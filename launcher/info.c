/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo info`: what was found on this machine, in words that answer "why is it slow here?". */
#include "launcher/command.h"

#include "base/config.h"
#include "base/interfaces.h"
#include "base/log.h"
#include "base/secure.h"
#include "collectives/offload/mpi_load.h"
#include "collectives/transport/huge_pages.h"
#include "launcher/bind.h"
#include "launcher/limits.h"
#include "launcher/options.h"
#include "launcher/plan.h"
#include "kernels/kernels.h"
#include "runtime/comm.h"
#include "runtime/cpus.h"

#include <argp.h>
#include <hwloc.h>
#include <limits.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
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

/* "L1d 32 KiB x 2, L2 1 MiB x 2, L3 32 MiB": of each size, how many there are. */
static void print_caches(void)
{
    static const struct {
        hwloc_obj_type_t type;
        const char *name;
    } LEVELS[] = {{HWLOC_OBJ_L1CACHE, "L1d"}, {HWLOC_OBJ_L2CACHE, "L2"}, {HWLOC_OBJ_L3CACHE, "L3"}};
    hwloc_topology_t topology;
    int shown = 0;
    if (hwloc_topology_init(&topology) != 0)
        return;
    hwloc_topology_set_cache_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (hwloc_topology_load(topology) == 0)
        for (size_t i = 0; i < sizeof LEVELS / sizeof *LEVELS; i++) {
            int count = hwloc_get_nbobjs_by_type(topology, LEVELS[i].type);
            hwloc_obj_t first = hwloc_get_obj_by_type(topology, LEVELS[i].type, 0);
            if (count <= 0 || first == NULL || first->attr == NULL || first->attr->cache.size == 0)
                continue;
            printf("%s%s %llu KiB x %d", shown++ == 0 ? "caches     " : ", ", LEVELS[i].name,
                   (unsigned long long)first->attr->cache.size / 1024, count);
        }
    printf("%s\n", shown == 0 ? "caches     unknown: the system does not tell" : "");
    hwloc_topology_destroy(topology);
}

static void print_machine(void)
{
    struct utsname system;
    struct kolo__binding *binding;
    printf("kolo       %s, protocol %d, %s\n", kolo_version(), KOLO__PROTOCOL_VERSION,
           OpenSSL_version(OPENSSL_VERSION));
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

static const char *limit_text(uint64_t bytes, char text[32])
{
    if (bytes == UINT64_MAX)
        return "none";
    if (bytes < (uint64_t)1 << 20)
        snprintf(text, 32, "%.1f KiB", (double)bytes / 1024);
    else if (bytes < (uint64_t)1 << 30)
        snprintf(text, 32, "%.1f MiB", (double)bytes / (1 << 20));
    else
        snprintf(text, 32, "%.1f GiB", gibibytes(bytes));
    return text;
}

static void print_memory(const struct kolo__limits *limits)
{
    char text[256];
    printf("memory     %.1f GiB, %.1f GiB available\n", gibibytes(memory_line("MemTotal")),
           gibibytes(memory_line("MemAvailable")));
    printf("huge pages %s\n", kolo__huge_pages_text(text, sizeof text));
    if (limits->shm_bytes > 0)
        printf("/dev/shm   %.2f GiB, %.2f GiB free (kolo does not need it: it shares memory by "
               "memfd)\n",
               gibibytes(limits->shm_bytes), gibibytes(limits->shm_free_bytes));
    else
        printf("/dev/shm   none (kolo does not need it: it shares memory by memfd)\n");
}

static void print_limits(const struct kolo__limits *limits)
{
    char memlock[32], memory[32], files[32] = "none", quota[32] = "none";
    if (limits->open_files != UINT64_MAX)
        snprintf(files, sizeof files, "%llu", (unsigned long long)limits->open_files);
    if (limits->quota_centis > 0)
        snprintf(quota, sizeof quota, "%.2f processors", limits->quota_centis / 100.0);
    printf("limits     locked memory %s, open files %s; of the control group: memory %s, CPU %s\n",
           limit_text(limits->memlock_bytes, memlock), files,
           limit_text(limits->memory_limit_bytes, memory), quota);
}

/* As ranks would offer them to each other, best first. */
static void print_addresses(void)
{
    struct kolo__config config;
    struct kolo__interfaces found;
    kolo_status status = kolo__config_load(&config, environ);
    if (status == KOLO_OK)
        status = kolo__interfaces_find(config.net, &found);
    if (status != KOLO_OK) {
        printf("addresses  none: %s\n", kolo_error_text());
        return;
    }
    for (size_t i = 0; i < found.count; i++) {
        const struct kolo__interface *interface = &found.list[i];
        char host[NI_MAXHOST] = "?", speed[32] = "";
        getnameinfo((const struct sockaddr *)&interface->address.storage, interface->address.length,
                    host, sizeof host, NULL, 0, NI_NUMERICHOST);
        if (interface->speed_mbps > 0)
            snprintf(speed, sizeof speed, ", %u Mbit/s", interface->speed_mbps);
        printf("%s%s %s/%u%s%s\n", i == 0 ? "addresses  " : "           ", interface->name, host,
               interface->prefix_bits, speed,
               kolo__address_is_loopback(&interface->address) ? ", this host only" : "");
    }
}

static void print_modules(void)
{
    const struct kolo__mpi_module *mpi;
    printf("transports shm, tcp\n");
    printf("mpi        %s\n", kolo__mpi_load(&mpi) == KOLO_OK ? "found" : kolo_error_text());
    printf("rdma       not in this version\n"
           "cuda       not in this version\n"
           "nccl       not in this version\n");
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
    question->offload = &context->offload;
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
                               "it may use, memory, limits, addresses, modules, and "
                               "options that are set.";
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
        struct kolo__limits limits;
        kolo__limits_find(&limits);
        print_machine();
        print_caches();
        print_memory(&limits);
        print_limits(&limits);
        print_addresses();
        print_modules();
        print_environment();
    }
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : KOLO__EXIT_OUTPUT;
}
