/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `kolo k8s render`. */
#include "launcher/k8s/manifest.h"

#include "launcher/command.h"
#include "launcher/options.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WORKERS_MAX = 16384,
    RANKS_MAX = 16384, /* as of kolo run */
    PER_POD_MAX = 1024,
    DEADLINE_DEFAULT_S = 7 * 24 * 3600,
    DEADLINE_MAX_S = 100000000,
    MEMORY_MIN_MIB = 64, /* what a rank of a small program takes, a few times */
    SHM_MIN_KIB = 64,
    SHM_DEFAULT_MIB = 1024,
    HOST_PORTS_FIRST = 20000, /* below those that nodes give out by themselves, and NodePorts */
    HOST_PORTS_BLOCKS = 150,
    HOST_PORTS_BLOCK = 64,
    HOST_PORTS_OTHER = 3, /* before those of ranks: rendezvous, agent, metrics of kolo itself */
    HELP_BYTES = 2048
};

enum {
    KEY_NAME = 256,
    KEY_PER_POD,
    KEY_GPUS,
    KEY_RDMA,
    KEY_IMAGE,
    KEY_CPU,
    KEY_MEMORY,
    KEY_SHM,
    KEY_TOKEN_SECRET,
    KEY_QUEUE,
    KEY_DEADLINE,
    KEY_COMMAND,
    KEY_LAUNCHER_AS_WORKER,
    KEY_HOST_NETWORK,
    KEY_MIN,
    KEY_MAX,
    KEY_NAMESPACE = 'n',
    KEY_WORKERS = 'w'
};

static const struct argp_option OPTIONS[] = {
    {.name = "name", .key = KEY_NAME, .arg = "NAME", .doc = "Of the job, and of all its objects."},
    {.name = "workers", .key = KEY_WORKERS, .arg = "N", .doc = "Pods with ranks."},
    {.name = "per-pod",
     .key = KEY_PER_POD,
     .arg = "N",
     .doc = "Ranks in each of them. Default: one for each GPU, or 1."},
    {.name = "nproc-per-node", .key = KEY_PER_POD, .flags = OPTION_ALIAS},
    {.name = "gpus", .key = KEY_GPUS, .arg = "N", .doc = "nvidia.com/gpu of each pod. Default: 0."},
    {.name = "rdma",
     .key = KEY_RDMA,
     .arg = "RESOURCE[=N]",
     .doc = "RDMA devices of each pod, by the name that their device plugin gives them; the "
            "capability IPC_LOCK, and a look at the memory that may be locked (KOLO_MEMLOCK)."},
    {.name = "image",
     .key = KEY_IMAGE,
     .arg = "IMAGE",
     .doc = "With kolo and the program in it; pinned by tag or digest. Default: kolo (mpijob-ssh: "
            "kolo-ssh) of this version, with GPUs that for CUDA (k8s/image)."},
    {.name = "namespace",
     .key = KEY_NAMESPACE,
     .arg = "NAMESPACE",
     .doc = "Default: whichever kubectl applies it to."},
    {.name = "cpu", .key = KEY_CPU, .arg = "CPUS", .doc = "Of each pod. Default: 1 a rank."},
    {.name = "memory", .key = KEY_MEMORY, .arg = "BYTES", .doc = "The same. Default: 2Gi a rank."},
    {.name = "shm",
     .key = KEY_SHM,
     .arg = "BYTES",
     .doc = "Size of /dev/shm, which is part of that memory. Default: 1Gi, or half of it."},
    {.name = "token-secret",
     .key = KEY_TOKEN_SECRET,
     .arg = "SECRET",
     .doc =
         "Take the job's token from this Secret (key: token). Default: a Secret with a fresh one "
         "is part of the manifest; an MPIJob derives it from its ssh key."},
    {.name = "queue",
     .key = KEY_QUEUE,
     .arg = "QUEUE",
     .doc = "Kueue's local queue; volcano: Volcano's queue."},
    {.name = "deadline",
     .key = KEY_DEADLINE,
     .arg = "SECONDS",
     .doc = "End the whole job after so long; jobset: each try. Default: 604800 (a week). "
            "StatefulSets and Volcano Jobs have none."},
    {.name = "run-launcher-as-worker",
     .key = KEY_LAUNCHER_AS_WORKER,
     .doc = "mpijob: the launcher has ranks too, as many as each of the N workers."},
    {.name = "min",
     .key = KEY_MIN,
     .arg = "N",
     .doc = "mpijob: elastic. Training goes on as long as N workers are left. Default with --max: "
            "as many as there are at first."},
    {.name = "max",
     .key = KEY_MAX,
     .arg = "N",
     .doc = "The same: it takes in workers up to N, as the MPIJob's replicas are patched. Default "
            "with --min: as many as there are at first."},
    {.name = "host-network",
     .key = KEY_HOST_NETWORK,
     .doc = "Pods have the network of their nodes, one pod of the job on each; ports follow from "
            "namespace and name."},
    {.name = "command",
     .key = KEY_COMMAND,
     .doc = "What follows is the program: the same as --, or before it, as kubectl run has it."},
    {0},
};

/* ---- one option ---------------------------------------------------------------------------- */

static const char *checked(struct argp_state *state, const char *option, const char *text,
                           const char *(*fault)(const char *))
{
    const char *complaint = fault(text);
    if (complaint != NULL)
        argp_error(state, "%s '%s': %s", option, text, complaint);
    return text;
}

static void take_rdma(struct argp_state *state, struct kolo__manifest *manifest, char *argument)
{
    char *equals = strchr(argument, '=');
    manifest->rdma_count = 1;
    if (equals != NULL) {
        *equals = '\0';
        manifest->rdma_count =
            kolo__number_argument(state, "--rdma RESOURCE=", equals + 1, false, 1, PER_POD_MAX);
    }
    manifest->rdma = checked(state, "--rdma", argument, kolo__k8s_resource_fault);
}

static void take_kind(struct argp_state *state, struct kolo__manifest *manifest, const char *name)
{
    for (size_t i = 0; i < kolo__k8s_kind_count; i++)
        if (strcmp(kolo__k8s_kinds[i].name, name) == 0)
            manifest->kind = &kolo__k8s_kinds[i];
    if (manifest->kind == NULL)
        argp_error(state, "there is no kind '%s': kolo k8s render --help lists them", name);
}

/* The kind comes first, then options, then the program, everything after which is its own. */
static void take_word(struct argp_state *state, struct kolo__manifest *manifest, char *word)
{
    /* argp steps over "--" without a word; what stands behind it is the program. */
    bool dashes = state->quoted != 0 && state->next - 1 >= state->quoted;
    if (manifest->kind == NULL && !dashes) {
        take_kind(state, manifest, word);
        return;
    }
    if (manifest->kind == NULL)
        argp_error(state, "KIND is missing");
    manifest->command = &state->argv[state->next - 1];
    state->next = state->argc;
}

/* ---- what options must be to each other ---------------------------------------------------- */

/* With the number of the last pod in it. */
static void fill_suffix(const struct kolo__manifest *manifest, char *suffix, size_t bytes)
{
    const char *text = manifest->kind->suffix, *mark = strchr(text, '#');
    if (mark == NULL)
        snprintf(suffix, bytes, "%s", text);
    else
        snprintf(suffix, bytes, "%.*s%ld%s", (int)(mark - text), text, kolo__k8s_most(manifest) - 1,
                 mark + 1);
}

static void check_length(struct argp_state *state, const struct kolo__manifest *manifest)
{
    char suffix[64];
    fill_suffix(manifest, suffix, sizeof suffix);
    size_t length = strlen(manifest->name) + strlen(suffix);
    if (length >= KOLO__K8S_NAME_BYTES)
        argp_error(state,
                   "--name %s: names of pods would have %zu characters (%s%s), and at most 63 are "
                   "allowed: take one of at most %zu",
                   manifest->name, length, manifest->name, suffix,
                   KOLO__K8S_NAME_BYTES - 1 - strlen(suffix));
}

static void check_command(struct argp_state *state, const struct kolo__manifest *manifest)
{
    char *const *command = manifest->command;
    if (command == NULL) {
        if (manifest->kind->needs_command)
            argp_error(state, "no program given: kolo k8s render %s ... -- PROGRAM [ARGUMENT...]",
                       manifest->kind->name);
        return;
    }
    if (command[0][0] == '\0')
        argp_error(state, "the program is an empty word: a variable of the shell that is not set?");
    const char *slash = strrchr(command[0], '/');
    const char *program = slash != NULL ? slash + 1 : command[0];
    if (manifest->command_announced && command[1] == NULL && strpbrk(program, " \t\n") != NULL)
        argp_error(state,
                   "--command '%s': give the program and each argument as a word of its "
                   "own, without quotes around them all; a shell's line is sh -c '...'",
                   command[0]);
    if (strcmp(program, "kolo") == 0 && command[1] != NULL && strcmp(command[1], "run") == 0)
        argp_error(state, "give the program alone: kolo run is written before it");
    for (; *command != NULL; command++)
        checked(state, "argument", *command, kolo__k8s_text_fault);
}

/* On a node's network the ports of two jobs must not be the same: each job has a block of its own,
 * as far as there are. Where two have one, the scheduler keeps their pods apart. */
static void choose_ports(struct kolo__manifest *manifest)
{
    const char *texts[] = {manifest->namespace_name != NULL ? manifest->namespace_name : "", "/",
                           manifest->name};
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    manifest->rendezvous_port = KOLO__K8S_RENDEZVOUS_PORT;
    manifest->agent_port = KOLO__AGENT_PORT;
    manifest->metrics_port = KOLO__K8S_METRICS_PORT;
    if (!manifest->host_network)
        return;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (const char *c = texts[i]; *c != '\0'; c++)
            hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    long first = HOST_PORTS_FIRST + (long)(hash % HOST_PORTS_BLOCKS) * HOST_PORTS_BLOCK;
    manifest->rendezvous_port = first;
    manifest->agent_port = first + 1;
    manifest->metrics_port = first + HOST_PORTS_OTHER;
}

static void complete_elastic(struct argp_state *state, struct kolo__manifest *manifest)
{
    if (manifest->fewest == 0 && manifest->most == 0)
        return;
    if (strcmp(manifest->kind->name, "mpijob") != 0 || manifest->launcher_has_ranks)
        argp_error(state,
                   "--min, --max: only workers of an mpijob come and go, where the launcher has no "
                   "ranks: in other kinds the first pod, which is one of them, holds the job "
                   "together");
    if (manifest->fewest == 0)
        manifest->fewest = manifest->workers;
    if (manifest->most == 0)
        manifest->most = manifest->workers;
    if (manifest->fewest > manifest->workers || manifest->workers > manifest->most)
        argp_error(state, "--workers %ld must be between --min %ld and --max %ld",
                   manifest->workers, manifest->fewest, manifest->most);
}

static void check_network(struct argp_state *state, const struct kolo__manifest *manifest)
{
    bool by_ssh = strcmp(manifest->kind->name, "mpijob-ssh") == 0;
    if (manifest->launcher_has_ranks && strcmp(manifest->kind->name, "mpijob") != 0)
        argp_error(state, "--run-launcher-as-worker is for mpijob");
    if (manifest->host_network && by_ssh)
        argp_error(state,
                   "--host-network: mpijob-ssh would open an sshd on each node; take mpijob");
    if (manifest->host_network && manifest->per_pod > HOST_PORTS_BLOCK - HOST_PORTS_OTHER)
        argp_error(state,
                   "--per-pod %ld: with --host-network a job has ports of the node for at most %d "
                   "ranks in each pod",
                   manifest->per_pod, HOST_PORTS_BLOCK - HOST_PORTS_OTHER);
}

/* Amounts that no pod could live with. */
static void check_memory(struct argp_state *state, const struct kolo__manifest *manifest)
{
    double memory = kolo__k8s_bytes(manifest->memory);
    if (memory < MEMORY_MIN_MIB * 0x1p20)
        argp_error(state, "--memory %s: a pod takes at least %dMi", manifest->memory,
                   MEMORY_MIN_MIB);
    if (kolo__k8s_bytes(manifest->shm) < SHM_MIN_KIB * 0x1p10)
        argp_error(state, "--shm %s: nothing fits into so little: give at least %dKi",
                   manifest->shm, SHM_MIN_KIB);
    if (kolo__k8s_bytes(manifest->shm) >= memory)
        argp_error(state, "--shm %s is part of --memory %s, and leaves the program nothing of it",
                   manifest->shm, manifest->memory);
}

/* Defaults that depend on others; texts live as long as the process. */
static void complete(struct argp_state *state, struct kolo__manifest *manifest)
{
    static char cpu[32], memory[32], shm[32], image[96];
    const char *missing = manifest->kind == NULL   ? "KIND"
                          : manifest->name == NULL ? "--name"
                          : manifest->workers == 0 ? "--workers"
                                                   : NULL;
    if (missing != NULL) {
        argp_error(state, "%s is missing", missing);
        exit(KOLO__EXIT_USAGE); /* argp_error has done that, which compilers do not know */
    }
    if (manifest->per_pod == 0)
        manifest->per_pod = manifest->gpus > 0 ? manifest->gpus : 1;
    complete_elastic(state, manifest);
    check_network(state, manifest);
    choose_ports(manifest);
    if ((kolo__k8s_most(manifest) + manifest->launcher_has_ranks) * manifest->per_pod > RANKS_MAX)
        argp_error(state, "%ld pods of %ld ranks are more than %d ranks", kolo__k8s_most(manifest),
                   manifest->per_pod, RANKS_MAX);
    if (manifest->token_secret != NULL && strcmp(manifest->kind->name, "mpijob-ssh") == 0)
        argp_error(state, "--token-secret: ranks under mpirun tell each other a fresh token");
    if (manifest->deadline_s == 0)
        manifest->deadline_s = DEADLINE_DEFAULT_S;
    else if (!manifest->kind->has_deadline)
        argp_error(state, "--deadline: a %s has none: delete it when it has gone on for too long",
                   strcmp(manifest->kind->name, "volcano") == 0 ? "Volcano Job" : "StatefulSet");
    check_length(state, manifest);
    check_command(state, manifest);
    snprintf(cpu, sizeof cpu, "%ld", manifest->per_pod);
    snprintf(memory, sizeof memory, "%ldGi", 2 * manifest->per_pod);
    snprintf(image, sizeof image, "kolo%s:%s%s",
             strcmp(manifest->kind->name, "mpijob-ssh") == 0 ? "-ssh" : "", kolo_version(),
             manifest->gpus > 0 ? "-cuda" : "");
    if (manifest->cpu == NULL)
        manifest->cpu = cpu;
    if (manifest->memory == NULL)
        manifest->memory = memory;
    if (manifest->image == NULL)
        manifest->image = image;
    double half_mib = kolo__k8s_bytes(manifest->memory) / 0x1p21;
    if (half_mib < SHM_DEFAULT_MIB)
        snprintf(shm, sizeof shm, "%dMi", (int)half_mib);
    else
        snprintf(shm, sizeof shm, "%dGi", SHM_DEFAULT_MIB / 1024);
    if (manifest->shm == NULL)
        manifest->shm = shm;
    check_memory(state, manifest);
}

static error_t parse_one(int key, char *argument, struct argp_state *state)
{
    struct kolo__manifest *manifest = state->input;
    switch (key) {
    case KEY_NAME:
        manifest->name = checked(state, "--name", argument, kolo__k8s_name_fault);
        return 0;
    case KEY_WORKERS:
        manifest->workers =
            kolo__number_argument(state, "--workers", argument, false, 1, WORKERS_MAX);
        return 0;
    case KEY_PER_POD:
        manifest->per_pod =
            kolo__number_argument(state, "--per-pod", argument, false, 1, PER_POD_MAX);
        return 0;
    case KEY_GPUS:
        manifest->gpus = kolo__number_argument(state, "--gpus", argument, false, 0, PER_POD_MAX);
        return 0;
    case KEY_RDMA:
        take_rdma(state, manifest, argument);
        return 0;
    case KEY_IMAGE:
        manifest->image = checked(state, "--image", argument, kolo__k8s_image_fault);
        return 0;
    case KEY_NAMESPACE:
        manifest->namespace_name =
            checked(state, "--namespace", argument, kolo__k8s_namespace_fault);
        return 0;
    case KEY_CPU:
        manifest->cpu = checked(state, "--cpu", argument, kolo__k8s_cpu_fault);
        return 0;
    case KEY_MEMORY:
        manifest->memory = checked(state, "--memory", argument, kolo__k8s_bytes_fault);
        return 0;
    case KEY_SHM:
        manifest->shm = checked(state, "--shm", argument, kolo__k8s_bytes_fault);
        return 0;
    case KEY_TOKEN_SECRET:
        manifest->token_secret =
            checked(state, "--token-secret", argument, kolo__k8s_subdomain_fault);
        return 0;
    case KEY_QUEUE:
        manifest->queue = checked(state, "--queue", argument, kolo__k8s_queue_fault);
        return 0;
    case KEY_DEADLINE:
        manifest->deadline_s =
            kolo__number_argument(state, "--deadline", argument, false, 1, DEADLINE_MAX_S);
        return 0;
    case KEY_LAUNCHER_AS_WORKER:
        manifest->launcher_has_ranks = true;
        return 0;
    case KEY_MIN:
        manifest->fewest = kolo__number_argument(state, "--min", argument, false, 1, WORKERS_MAX);
        return 0;
    case KEY_MAX:
        manifest->most = kolo__number_argument(state, "--max", argument, false, 1, WORKERS_MAX);
        return 0;
    case KEY_HOST_NETWORK:
        manifest->host_network = true;
        return 0;
    case KEY_COMMAND:
        manifest->command_announced = true;
        return 0;
    case ARGP_KEY_ARG:
        take_word(state, manifest, argument);
        return 0;
    case ARGP_KEY_END:
        complete(state, manifest);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What --help says, with the table of kinds in it. */
static const char *help_text(void)
{
    static char text[HELP_BYTES];
    size_t used = (size_t)snprintf(
        text, sizeof text,
        "Print a complete manifest of a job: kolo k8s render job --name train --workers 4 -- "
        "./program | kubectl apply -f -\v"
        "Kinds:\n");
    for (size_t i = 0; i < kolo__k8s_kind_count && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "  %-13s %s\n",
                                 kolo__k8s_kinds[i].name, kolo__k8s_kinds[i].help);
    if (used < sizeof text)
        snprintf(text + used, sizeof text - used,
                 "\nWhat is in the manifest, and what to do with it: docs/KUBERNETES.md.");
    return text;
}

void kolo__manifest_parse(int argc, char **argv, struct kolo__manifest *manifest)
{
    const struct argp argp = {.options = OPTIONS,
                              .parser = parse_one,
                              .args_doc = "KIND [--] PROGRAM [ARGUMENT...]",
                              .doc = help_text()};
    *manifest = (struct kolo__manifest){0};
    argp_err_exit_status = KOLO__EXIT_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, manifest);
}
