/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/pods.h"

#include "base/config.h"
#include "base/status.h"
#include "runtime/launch/sources.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INDEX_MAX = 1 << 20 };

/* ---- variables ----------------------------------------------------------------------------- */

static kolo_status read_index(const char *name, const char *text, long *number)
{
    if (kolo__parse_number(text, false, number) && *number >= 0 && *number <= INDEX_MAX)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "%s=%.40s is no number from 0 to %d: set it right, or unset it", name, text,
                       INDEX_MAX);
}

/* What is not there stays as it is. */
static kolo_status read_optional(char *const *environment, const char *name, long *number)
{
    const char *text = kolo__launch_get(environment, name);
    return text == NULL ? KOLO_OK : read_index(name, text, number);
}

/* With hostNetwork the host's name is the node's: the manifest then gives the pod's. */
static const char *get_name(char *const *environment)
{
    const char *name = kolo__launch_get(environment, "POD_NAME");
    return name != NULL ? name : kolo__launch_get(environment, "HOSTNAME");
}

bool kolo__pod_is_around(char *const *environment)
{
    return kolo__launch_get(environment, "KUBERNETES_SERVICE_HOST") != NULL;
}

kolo_status kolo__pod_role(char *const *environment, const char **role)
{
    *role = kolo__launch_get(environment, "K_MPI_JOB_ROLE");
    if (*role == NULL || strcmp(*role, "launcher") == 0 || strcmp(*role, "worker") == 0)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "K_MPI_JOB_ROLE=%.40s is no role of an MPIJob: mpi-operator sets it to "
                       "launcher or worker; unset it elsewhere",
                       *role);
}

/* The digits behind the last hyphen of the first label; NULL: there are none. "train-07" is
 * nobody's ordinal. */
static const char *find_ordinal(const char *name, size_t *digits)
{
    size_t end = strcspn(name, "."), begin = end;
    while (begin > 0 && isdigit((unsigned char)name[begin - 1]))
        begin--;
    *digits = end - begin;
    if (begin < 2 || *digits == 0 || *digits > 7 || name[begin - 1] != '-' ||
        (name[begin] == '0' && *digits > 1))
        return NULL;
    return name + begin;
}

/* ---- one kind after the other: each leaves pod->kind alone where it is not complete --------- */

/* PET_NPROC_PER_NODE counts the processes that torchrun would start, not kolo run. */
static kolo_status find_trainer(char *const *environment, struct kolo__pod *pod)
{
    const char *index = kolo__launch_get(environment, "PET_NODE_RANK");
    const char *count = kolo__launch_get(environment, "PET_NNODES");
    const char *first = kolo__launch_get(environment, "PET_MASTER_ADDR");
    if (index == NULL || count == NULL)
        return KOLO_OK;
    pod->kind = "TrainJob";
    pod->told = "PET_NODE_RANK";
    snprintf(pod->first, sizeof pod->first, "%s", first != NULL ? first : "");
    kolo_status status = read_index("PET_NODE_RANK", index, &pod->index);
    return status == KOLO_OK ? read_index("PET_NNODES", count, &pod->count) : status;
}

/* Its names count from 0 in the first job of the replicated job that this pod is of: that is pod 0
 * of all only where no other replicated job comes before. */
static kolo_status find_jobset(char *const *environment, struct kolo__pod *pod)
{
    const char *name = kolo__launch_get(environment, "JOBSET_NAME");
    const char *own = kolo__launch_get(environment, "JOB_COMPLETION_INDEX");
    const char *replicated = kolo__launch_get(environment, "JOBSET_REPLICATED_JOB");
    const char *attempt = kolo__launch_get(environment, "JOBSET_RESTART_ATTEMPT");
    const char *global = kolo__launch_get(environment, "JOBSET_JOB_GLOBAL_INDEX");
    long job = 0, local_job;
    if (name == NULL || own == NULL)
        return KOLO_OK;
    pod->kind = "JobSet";
    pod->told = "JOBSET_JOB_GLOBAL_INDEX x JOBSET_PODS_PER_JOB + JOB_COMPLETION_INDEX";
    kolo_status status = read_index("JOB_COMPLETION_INDEX", own, &pod->index);
    if (status == KOLO_OK)
        status = read_optional(
            environment, global != NULL ? "JOBSET_JOB_GLOBAL_INDEX" : "JOBSET_JOB_INDEX", &job);
    local_job = job;
    if (status == KOLO_OK)
        status = read_optional(environment, "JOBSET_JOB_INDEX", &local_job);
    if (status == KOLO_OK)
        status = read_optional(environment, "JOBSET_PODS_PER_JOB", &pod->per_job);
    if (status != KOLO_OK)
        return status;
    if (job > 0 && pod->per_job < 1)
        return kolo__error(KOLO_ERR_CONFIG,
                           "this is job %ld of JobSet %.80s, but JOBSET_PODS_PER_JOB is not set: "
                           "the manifest has to set it to the pods of each job (its parallelism)",
                           job, name);
    if (pod->per_job > 0 && pod->index >= pod->per_job)
        return kolo__error(KOLO_ERR_WORLD,
                           "JOB_COMPLETION_INDEX is %ld, but JOBSET_PODS_PER_JOB is %ld: the "
                           "manifest has to set that to the pods of each job (its parallelism)",
                           pod->index, pod->per_job);
    if (job > INDEX_MAX / (pod->per_job > 0 ? pod->per_job : 1))
        return kolo__error(KOLO_ERR_CONFIG, "JOBSET_JOB_GLOBAL_INDEX is %ld: no JobSet has so many",
                           job);
    pod->index += job * pod->per_job;
    if (replicated != NULL && local_job == job)
        snprintf(pod->first, sizeof pod->first, "%.63s-%.63s-0-0.%.63s", name, replicated, name);
    snprintf(pod->job, sizeof pod->job, "%.50s.%.8s", name, attempt != NULL ? attempt : "0");
    return KOLO_OK;
}

static kolo_status find_indexed_job(char *const *environment, struct kolo__pod *pod)
{
    const char *index = kolo__launch_get(environment, "JOB_COMPLETION_INDEX");
    if (index == NULL)
        return KOLO_OK;
    pod->kind = "Indexed Job";
    pod->told = "JOB_COMPLETION_INDEX";
    return read_index("JOB_COMPLETION_INDEX", index, &pod->index);
}

/* "VC_WORKER_HOSTS=job-worker-0.job,job-worker-1.job": of which task this pod is, only its own name
 * among those tells, unless there is one task. */
static const char *find_volcano_hosts(char *const *environment, long index)
{
    const char *name = get_name(environment), *only = NULL, *own = NULL;
    int lists = 0;
    for (; environment != NULL && *environment != NULL; environment++) {
        size_t length = strcspn(*environment, "=");
        if (strncmp(*environment, "VC_", 3) != 0 || length < 10 || (*environment)[length] != '=' ||
            (*environment)[length + 1] == '\0' ||
            strncmp(*environment + length - 6, "_HOSTS", 6) != 0)
            continue;
        only = *environment + length + 1;
        lists++;
        const char *host = only;
        for (long i = 0; i < index && host != NULL; i++) {
            host = strchr(host, ',');
            host = host != NULL ? host + 1 : NULL;
        }
        size_t label = host != NULL ? strcspn(host, ".,") : 0;
        if (label > 0 && name != NULL && strncmp(host, name, label) == 0 &&
            strcspn(name, ".") == label)
            own = only;
    }
    return own != NULL ? own : lists == 1 ? only : NULL;
}

static kolo_status find_volcano(char *const *environment, struct kolo__pod *pod)
{
    const char *index = kolo__launch_get(environment, "VC_TASK_INDEX");
    if (index == NULL)
        return KOLO_OK;
    kolo_status status = read_index("VC_TASK_INDEX", index, &pod->index);
    if (status != KOLO_OK)
        return status;
    const char *hosts = find_volcano_hosts(environment, pod->index);
    if (hosts == NULL)
        return kolo__error(
            KOLO_ERR_CONFIG,
            "VC_TASK_INDEX is %ld, but no VC_<TASK>_HOSTS has this pod: the job needs Volcano's "
            "plugins env and svc (plugins: {env: [], svc: []})",
            pod->index);
    pod->kind = "Volcano";
    pod->told = "VC_TASK_INDEX";
    snprintf(pod->first, sizeof pod->first, "%.*s", (int)strcspn(hosts, ","), hosts);
    for (pod->count = 1; (hosts = strchr(hosts, ',')) != NULL; hosts++)
        pod->count++;
    return KOLO_OK;
}

/* Any host's name may end in a number: it takes a pod, and a manifest that wants a world. */
static kolo_status find_stateful_set(char *const *environment, struct kolo__pod *pod)
{
    const char *name = get_name(environment);
    const char *size = kolo__launch_get(environment, "KOLO_WORLD_SIZE");
    size_t digits;
    if (name == NULL || size == NULL || strcmp(size, "0") == 0 || !kolo__pod_is_around(environment))
        return KOLO_OK;
    const char *ordinal = find_ordinal(name, &digits);
    if (ordinal == NULL)
        return KOLO_OK;
    pod->kind = "StatefulSet";
    pod->told = kolo__launch_get(environment, "POD_NAME") != NULL ? "POD_NAME" : "HOSTNAME";
    pod->index = strtol(ordinal, NULL, 10);
    return KOLO_OK;
}

kolo_status kolo__pod_detect(char *const *environment, struct kolo__pod *pod)
{
    static kolo_status (*const kinds[])(char *const *, struct kolo__pod *) = {
        find_trainer, find_jobset, find_indexed_job, find_volcano, find_stateful_set};
    kolo_status status = KOLO_OK;
    memset(pod, 0, sizeof *pod);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        status = kinds[i](environment, pod);
        if (status != KOLO_OK || pod->kind != NULL)
            break;
    }
    if (pod->job[0] == '\0')
        snprintf(pod->job, sizeof pod->job, "pods");
    return status;
}

/* ---- what follows from it ------------------------------------------------------------------ */

kolo_status kolo__pod_world_size(char *const *environment, const struct kolo__pod *pod,
                                 long per_pod, long *size)
{
    const char *text = kolo__launch_get(environment, "KOLO_WORLD_SIZE");
    bool said = text != NULL && strcmp(text, "0") != 0;
    kolo_status status = KOLO_OK;
    *size = 0;
    if (said)
        status = read_index("KOLO_WORLD_SIZE", text, size);
    else if (pod->count > 0 && pod->count <= INDEX_MAX / per_pod)
        *size = pod->count * per_pod;
    if (status != KOLO_OK)
        return status;
    if (*size == 0)
        return kolo__error(
            KOLO_ERR_CONFIG,
            "this is pod %ld of a job (%s, %s), but nothing says of how many: the manifest has to "
            "set KOLO_WORLD_SIZE to the ranks of all pods, and KOLO_RENDEZVOUS to "
            "<pod 0>.<service>:%d (KOLO_WORLD_SIZE=1 for a world of its own)",
            pod->index, pod->kind, pod->told, KOLO__POD_PORT);
    if (*size == 1 && per_pod == 1)
        return KOLO_OK; /* a world of its own, in whichever pod */
    if (*size % per_pod != 0)
        return kolo__error(
            KOLO_ERR_WORLD,
            "KOLO_WORLD_SIZE is %ld, which pods with %ld ranks each cannot make: the "
            "manifest has to set it to pods x ranks of a pod (--per-pod)",
            *size, per_pod);
    if (pod->count > 0 && *size != pod->count * per_pod)
        return kolo__error(KOLO_ERR_WORLD,
                           "KOLO_WORLD_SIZE is %ld, but %ld pods (%s) with %ld rank%s each make "
                           "%ld: raise or lower one of them (kolo run --per-pod)",
                           *size, pod->count, pod->kind, per_pod, per_pod == 1 ? "" : "s",
                           pod->count * per_pod);
    if (pod->index >= *size / per_pod)
        return kolo__error(KOLO_ERR_WORLD,
                           "this is pod %ld (%s, %s), but KOLO_WORLD_SIZE=%ld with %ld rank%s in "
                           "each needs pods 0 to %ld only: the manifest has to set it to pods x "
                           "ranks of a pod",
                           pod->index, pod->kind, pod->told, *size, per_pod,
                           per_pod == 1 ? "" : "s", *size / per_pod - 1);
    return KOLO_OK;
}

const char *kolo__pod_name(const char *first, long per_job, long index, char *text, size_t bytes)
{
    size_t digits, job_digits = 0;
    const char *ordinal = find_ordinal(first, &digits);
    char stem[256];
    text[0] = '\0';
    if (ordinal == NULL || digits != 1 || *ordinal != '0' || ordinal - first >= (long)sizeof stem)
        return text;
    snprintf(stem, sizeof stem, "%.*s", (int)(ordinal - first), first);
    if (per_job == 0) {
        snprintf(text, bytes, "%s%ld%s", stem, index, ordinal + digits);
        return text;
    }
    stem[strlen(stem) - 1] = '\0'; /* "set-workers-0" */
    const char *job = find_ordinal(stem, &job_digits);
    if (job == NULL || job_digits != 1 || *job != '0')
        return text;
    snprintf(text, bytes, "%.*s%ld-%ld%s", (int)(job - stem), stem, index / per_job,
             index % per_job, ordinal + digits);
    return text;
}
