/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo run` in a pod, told nothing else. Either the pods are alike, and each runs its part of the
 * ranks; or this is the launcher of an MPIJob, whose operator has written down the workers, and in
 * each of them a `kolo agent` waits.
 */
#include "launcher/run.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/token.h"
#include "launcher/agent_tcp.h"
#include "runtime/control.h"
#include "runtime/launch/bootstrap.h"
#include "runtime/launch/pods.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TELL_S = 5 };
/* The operator mounts it beside the hostfile: workers that run by now, as they come and go. */
static const char DISCOVER_HOSTS[] = "/etc/mpi/discover_hosts.sh";
static const uint64_t SECOND_NS = 1000000000;

/* ---- launcher and workers ------------------------------------------------------------------ */

static const char *find_hostfile(void)
{
    static const char *const VARIABLES[] = {"OMPI_MCA_orte_default_hostfile", "HYDRA_HOST_FILE",
                                            "I_MPI_HYDRA_HOST_FILE"};
    static const char MOUNTED[] = "/etc/mpi/hostfile";
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++) {
        const char *path = getenv(VARIABLES[i]);
        if (path != NULL && path[0] != '\0')
            return path;
    }
    return access(MOUNTED, F_OK) == 0 ? MOUNTED : NULL;
}

kolo_status kolo__run_check_operator(const struct kolo__run *run, long slots)
{
    long ranks = run->options.ranks, told = run->options.config.world_size;
    if (run->by_operator && told > 0 && told != slots)
        return kolo__error(KOLO_ERR_WORLD,
                           "KOLO_WORLD_SIZE is %ld, but the operator's %s has %ld slots: leave it "
                           "out, or set the job's slotsPerWorker x workers to as many",
                           told, run->options.hostfile, slots);
    if (!run->by_operator || ranks == 0 || ranks == slots)
        return KOLO_OK;
    return kolo__error(
        ranks > slots ? KOLO_ERR_WORLD : KOLO_ERR_CONFIG,
        "-n %ld, but the operator's %s has %ld slots: leave -n out, or set the job's "
        "slotsPerWorker x workers to as many",
        ranks, run->options.hostfile, slots);
}

/* ---- pods that are alike ------------------------------------------------------------------- */

static kolo_status check_asked(const struct kolo__run *run, const struct kolo__pod *pod)
{
    if (run->options.ranks != 0 && run->options.ranks != run->world_size)
        return kolo__error(KOLO_ERR_WORLD,
                           "-n %ld, but the pods of this job (%s) make a world of %ld ranks: leave "
                           "-n out, or set KOLO_WORLD_SIZE; --per-pod says how many each pod has",
                           run->options.ranks, pod->kind, run->world_size);
    return KOLO_OK;
}

static kolo_status name_rendezvous(struct kolo__run *run, const struct kolo__pod *pod)
{
    const char *given = run->options.config.rendezvous;
    if (given[0] != '\0')
        snprintf(run->rendezvous_name, sizeof run->rendezvous_name, "%s", given);
    else if (pod->first[0] != '\0')
        snprintf(run->rendezvous_name, sizeof run->rendezvous_name, "%s:%d", pod->first,
                 KOLO__POD_PORT);
    else if (run->world_size > run->ranks)
        return kolo__error(KOLO_ERR_CONFIG,
                           "KOLO_RENDEZVOUS is not set: the manifest has to set it to <pod "
                           "0>.<service>:%d, alike for all pods of this job (%s)",
                           KOLO__POD_PORT, pod->kind);
    else
        snprintf(run->rendezvous_name, sizeof run->rendezvous_name, "127.0.0.1:%d", KOLO__POD_PORT);
    return KOLO_OK;
}

/* Said here, once, rather than by each rank of each pod. */
static kolo_status read_token(struct kolo__run *run)
{
    kolo_status status = kolo__token_read(&run->options.config, run->pod_token);
    if (status == KOLO_OK && run->pod_token[0] == '\0' && run->world_size > run->ranks &&
        run->options.config.insecure == 0)
        status = kolo__error(KOLO_ERR_CONFIG,
                             "the job has no token, but its pods meet over the network: mount a "
                             "Secret and set KOLO_TOKEN_FILE to its file (or, where everybody who "
                             "reaches the pods may take part, KOLO_INSECURE=1)");
    return status;
}

/* The others would wait for this pod's ranks, and not know why in vain: pod 0 remembers it for
 * them, if it is there soon. */
static kolo_status tell_misfit(struct kolo__run *run, const struct kolo__pod *pod,
                               kolo_status misfit)
{
    char why[1024];
    struct kolo__control *control = NULL;
    snprintf(why, sizeof why, "%s", kolo_error_text());
    if (pod->index > 0 && name_rendezvous(run, pod) == KOLO_OK && read_token(run) == KOLO_OK) {
        const struct kolo__control_options options = {
            .rendezvous = run->rendezvous_name,
            .at_rank_0 = true,
            .in_pods = true,
            .job = run->pod_job,
            .token = run->pod_token,
            .rank = (uint32_t)pod->index * run->ranks,
            .deadline_ns = kolo__now_ns(&kolo__real_clock) + TELL_S * SECOND_NS,
            .timeout_s = TELL_S};
        if (kolo__control_connect(&options, &control) == KOLO_OK)
            kolo__control_join(control, why, strlen(why));
        kolo__control_close(control);
    }
    return kolo__error(misfit, "%s", why);
}

static kolo_status take_part(struct kolo__run *run, char *const *environment,
                             const struct kolo__pod *pod)
{
    long per_pod = run->options.per_pod > 0 ? run->options.per_pod : 1;
    const char *job = run->options.config.job;
    kolo_status status = kolo__pod_world_size(environment, pod, per_pod, &run->world_size);
    run->ranks = (uint32_t)per_pod;
    snprintf(run->pod_job, sizeof run->pod_job, "%s", job[0] != '\0' ? job : pod->job);
    if (status == KOLO_ERR_WORLD)
        return tell_misfit(run, pod, status);
    if (status == KOLO_OK)
        status = check_asked(run, pod);
    if (status == KOLO_OK)
        status = name_rendezvous(run, pod);
    if (status == KOLO_OK)
        status = read_token(run);
    if (status != KOLO_OK)
        return status;
    run->in_pod = true;
    run->first_rank = run->world_size > per_pod ? (uint32_t)(pod->index * per_pod) : 0;
    return KOLO_OK;
}

static kolo_status find_pod(struct kolo__run *run)
{
    const struct kolo__run_options *options = &run->options;
    char name[KOLO__HOST_VARIABLE_BYTES];
    struct kolo__pod pod;
    char **environment = kolo__launch_environment(name);
    if (environment == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the environment");
    kolo_status status = kolo__pod_detect(environment, &pod);
    /* Whoever asks for ranks in a job that is about no world gets them here. */
    bool alone = options->per_pod == 0 && options->config.world_size == 0 && options->ranks > 0;
    if (status == KOLO_OK && pod.kind == NULL && options->per_pod > 0)
        status = kolo__error(KOLO_ERR_CONFIG,
                             "--per-pod: nothing tells which pod of a job this is "
                             "(JOB_COMPLETION_INDEX, VC_TASK_INDEX, PET_NODE_RANK, or POD_NAME of "
                             "a StatefulSet with KOLO_WORLD_SIZE); -n starts ranks on this host");
    else if (status == KOLO_OK && pod.kind != NULL && !alone)
        status = take_part(run, environment, &pod);
    free(environment);
    return status;
}

kolo_status kolo__run_find_pods(struct kolo__run *run)
{
    const char *role;
    struct kolo__run_options *options = &run->options;
    if (options->hosts != NULL || options->hostfile != NULL) {
        if (options->per_pod > 0)
            return kolo__error(KOLO_ERR_CONFIG, "--per-pod is for pods that are alike, each with "
                                                "its own kolo run: hosts have slots");
        return KOLO_OK;
    }
    kolo_status status = kolo__pod_role(environ, &role);
    if (status != KOLO_OK)
        return status;
    bool worker = role != NULL && strcmp(role, "worker") == 0;
    if (worker && options->ranks == 0)
        return kolo__error(KOLO_ERR_CONFIG,
                           "this is a worker of an MPIJob (K_MPI_JOB_ROLE): it has to run `kolo "
                           "agent`, and the launcher `kolo run -- PROGRAM`; -n starts ranks here");
    if (!worker && (role != NULL || kolo__pod_is_around(environ)) && options->per_pod == 0)
        options->hostfile = find_hostfile();
    bool launcher = options->hostfile != NULL || (role != NULL && !worker);
    if (launcher && options->max_ranks > 0 && options->discover == NULL &&
        access(DISCOVER_HOSTS, X_OK) == 0)
        options->discover = DISCOVER_HOSTS;
    if (options->hostfile == NULL && options->discover == NULL && role != NULL && !worker &&
        options->ranks == 0 && options->per_pod == 0)
        return kolo__error(KOLO_ERR_CONFIG,
                           "this is the launcher of an MPIJob (K_MPI_JOB_ROLE), but there is no "
                           "hostfile of its workers (OMPI_MCA_orte_default_hostfile, "
                           "/etc/mpi/hostfile); -n starts ranks here");
    if (options->hostfile == NULL && !(launcher && options->discover != NULL))
        return role == NULL && options->discover == NULL ? find_pod(run) : KOLO_OK;
    run->by_operator = true;
    if (options->shell.agent_port == 0 && options->shell.command == NULL)
        options->shell.agent_port = KOLO__AGENT_PORT;
    return KOLO_OK;
}
