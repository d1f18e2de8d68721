/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each launcher tells its processes. A new launcher is a row; docs/LAUNCHING.md has the table
 * for users.
 *
 * Ports: a launcher's own port is in use on many set-ups (torchrun's store sits on MASTER_PORT),
 * and so are its neighbours (other jobs of that launcher). So kolo takes one of eight at a distance
 * of 1000; the handshake tells whose it is.
 */
#include "runtime/launch/sources.h"

#include "base/config.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TORCH_PORT = 29500,   /* torchrun's default */
    HOROVOD_PORT = 29400, /* where Horovod gives none */
    PORT_DISTANCE = 1000,
    ID_PORTS = 20000, /* ports from ids: below those that the kernel hands out */
    ID_WINDOWS = 1500,
};

const char *kolo__launch_get(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; environment != NULL && *environment != NULL; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return (*environment)[length + 1] != '\0' ? *environment + length + 1 : NULL;
    return NULL;
}

/* ---- ports and job ids --------------------------------------------------------------------- */

static kolo_status read_port(char *const *environment, const char *name, long default_port,
                             int *port)
{
    const char *text = kolo__launch_get(environment, name);
    long number = default_port;
    if (text != NULL && (!kolo__parse_number(text, false, &number) || number < 1 || number > 65535))
        return kolo__error(KOLO_ERR_CONFIG, "%s=%.40s: give a port from 1 to 65535", name, text);
    *port = (int)(number + PORT_DISTANCE + KOLO__LAUNCH_PORTS <= 65536 ? number + PORT_DISTANCE
                                                                       : number - PORT_DISTANCE);
    return KOLO_OK;
}

/* FNV-1a. */
static uint64_t hash(const char *text)
{
    uint64_t value = 14695981039346656037u;
    for (; *text != '\0'; text++)
        value = (value ^ (unsigned char)*text) * 1099511628211u;
    return value;
}

/* Ports of their own for jobs that have nothing but an id. */
static int port_of_id(const char *id)
{
    long number;
    uint64_t value =
        kolo__parse_number(id, false, &number) && number >= 0 ? (uint64_t)number : hash(id);
    return ID_PORTS + (int)(value % ID_WINDOWS) * KOLO__LAUNCH_PORTS;
}

/* "torchrun-ID.GENERATION"; ids that are too long are hashed. */
static void name_job(struct kolo__launch *launch, const char *launcher, const char *id,
                     const char *generation)
{
    char hashed[20];
    if (id != NULL && strlen(id) > 20) {
        snprintf(hashed, sizeof hashed, "%016llx", (unsigned long long)hash(id));
        id = hashed;
    }
    snprintf(launch->job, sizeof launch->job, "%s%s%s%s%.8s", launcher, id != NULL ? "-" : "",
             id != NULL ? id : "", generation != NULL ? "." : "",
             generation != NULL ? generation : "");
}

static void meet_near(struct kolo__launch *launch, const char *host)
{
    char bare[256];
    size_t length = strlen(host);
    launch->meeting = KOLO__MEET_NEAR;
    if (length > 2 && host[0] == '[' && host[length - 1] == ']') { /* as in URLs */
        snprintf(bare, sizeof bare, "%.*s", (int)length - 2, host + 1);
        host = bare;
    }
    if (strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0)
        launch->one_host = true;
    snprintf(launch->host, sizeof launch->host, "%s", launch->one_host ? "127.0.0.1" : host);
}

static void meet_where(struct kolo__launch *launch, const char *missing)
{
    launch->meeting = KOLO__MEET_UNKNOWN;
    snprintf(launch->missing, sizeof launch->missing, "%s", missing);
}

/* ---- Horovod ------------------------------------------------------------------------------- */

static kolo_status meet_horovod(char *const *environment, struct kolo__launch *launch)
{
    const char *host = kolo__launch_get(environment, "HOROVOD_GLOO_RENDEZVOUS_ADDR");
    name_job(launch, "horovod", kolo__launch_get(environment, "HOROVOD_GLOO_RENDEZVOUS_PORT"),
             NULL);
    if (launch->one_host || host != NULL)
        meet_near(launch, launch->one_host ? "127.0.0.1" : host);
    else
        meet_where(launch, "HOROVOD_GLOO_RENDEZVOUS_ADDR (the host of rank 0)");
    return read_port(environment, "HOROVOD_GLOO_RENDEZVOUS_PORT", HOROVOD_PORT, &launch->port);
}

/* ---- torch --------------------------------------------------------------------------------- */

static kolo_status meet_torch_at(char *const *environment, struct kolo__launch *launch,
                                 const char *address, const char *port)
{
    const char *host = kolo__launch_get(environment, address);
    char missing[80];
    snprintf(missing, sizeof missing, "%s (the host of rank 0)", address);
    if (launch->one_host || host != NULL)
        meet_near(launch, launch->one_host ? "127.0.0.1" : host);
    else
        meet_where(launch, missing);
    return read_port(environment, port, TORCH_PORT, &launch->port);
}

static kolo_status meet_torch(char *const *environment, struct kolo__launch *launch)
{
    name_job(launch, "torchrun", kolo__launch_get(environment, "TORCHELASTIC_RUN_ID"),
             kolo__launch_get(environment, "TORCHELASTIC_RESTART_COUNT"));
    return meet_torch_at(environment, launch, "MASTER_ADDR", "MASTER_PORT");
}

/* PET_* are torchrun's own options, the same for all processes of a node: they tell a rank only
 * where a node has one process, or LOCAL_RANK counts them. */
static kolo_status refine_pet(char *const *environment, struct kolo__launch *launch)
{
    const char *text = kolo__launch_get(environment, "PET_NPROC_PER_NODE");
    const char *local = kolo__launch_get(environment, "LOCAL_RANK");
    long each = 1, own = 0;
    if (text == NULL || !kolo__parse_number(text, false, &each)) /* "auto", "cpu", "gpu" */
        each = 1;
    if (each < 1 || each > 1 << 20 || launch->size > (1 << 20) / each)
        return kolo__error(KOLO_ERR_CONFIG,
                           "PET_NPROC_PER_NODE=%.40s: give a number of processes, from 1", text);
    if (each > 1 &&
        (local == NULL || !kolo__parse_number(local, false, &own) || own < 0 || own >= each))
        return kolo__error(KOLO_ERR_CONFIG,
                           "PET_NPROC_PER_NODE is %ld, but LOCAL_RANK does not tell which of these "
                           "this process is: start the program with torchrun",
                           each);
    launch->rank = launch->rank * each + own;
    launch->size *= each;
    launch->local_rank = own;
    launch->local_size = each;
    return KOLO_OK;
}

static kolo_status meet_pet(char *const *environment, struct kolo__launch *launch)
{
    name_job(launch, "pet", kolo__launch_get(environment, "PET_RDZV_ID"), NULL);
    return meet_torch_at(environment, launch, "PET_MASTER_ADDR", "PET_MASTER_PORT");
}

/* ---- MPI ----------------------------------------------------------------------------------- */

static kolo_status meet_open_mpi(char *const *environment, struct kolo__launch *launch)
{
    const char *id = kolo__launch_get(environment, "PMIX_NAMESPACE");
    if (id == NULL)
        id = kolo__launch_get(environment, "OMPI_MCA_ess_base_jobid");
    name_job(launch, "mpirun", id, NULL);
    if (launch->one_host && id != NULL) {
        meet_near(launch, "127.0.0.1");
        launch->port = port_of_id(id);
    }
    launch->meeting = KOLO__MEET_BY_MPI;
    return KOLO_OK;
}

static kolo_status meet_slurm(char *const *environment, struct kolo__launch *launch);

/* srun sets PMI_RANK too, for MPI programs, but speaks PMI-2 on that line: then Slurm's own
 * variables tell where. */
static kolo_status meet_pmi(char *const *environment, struct kolo__launch *launch)
{
    const char *task = kolo__launch_get(environment, "SLURM_PROCID");
    long rank;
    if (task != NULL && kolo__parse_number(task, false, &rank) && rank == launch->rank &&
        kolo__launch_get(environment, "HYDI_CONTROL_FD") == NULL)
        return meet_slurm(environment, launch);
    name_job(launch, "mpiexec", NULL, NULL); /* the process manager knows the rest */
    if (kolo__launch_get(environment, "PMI_FD") != NULL)
        launch->meeting = KOLO__MEET_BY_PMI;
    else
        meet_where(launch, "PMI_FD");
    return KOLO_OK;
}

/* ---- Slurm --------------------------------------------------------------------------------- */

/* The script of sbatch, and what is started in it without srun. */
static bool is_batch_script(char *const *environment)
{
    const char *kind = kolo__launch_get(environment, "ENVIRONMENT");
    return kind != NULL && strcmp(kind, "BATCH") == 0 &&
           kolo__launch_get(environment, "SLURM_STEP_ID") == NULL;
}

static kolo_status meet_slurm(char *const *environment, struct kolo__launch *launch)
{
    const char *list = kolo__launch_get(environment, "SLURM_STEP_NODELIST");
    const char *id = kolo__launch_get(environment, "SLURM_JOB_ID");
    char first[256];
    bool only = false;
    if (list == NULL)
        list = kolo__launch_get(environment, "SLURM_JOB_NODELIST");
    if (id == NULL)
        id = "0";
    name_job(launch, "slurm", id, kolo__launch_get(environment, "SLURM_STEP_ID"));
    const char *restarts = kolo__launch_get(environment, "SLURM_RESTART_COUNT");
    if (restarts != NULL) {
        size_t used = strlen(launch->job);
        snprintf(launch->job + used, sizeof launch->job - used, "r%.8s", restarts);
    }
    launch->port = port_of_id(id);
    if (list == NULL) {
        meet_where(launch, "SLURM_JOB_NODELIST");
        return KOLO_OK;
    }
    kolo_status status = kolo__hostlist_first(list, first, sizeof first, &only);
    if (status != KOLO_OK)
        return status;
    launch->one_host = launch->one_host || only;
    meet_near(launch, first);
    return KOLO_OK;
}

/* ---- kolo ---------------------------------------------------------------------------------- */

/* Reached only where KOLO_RENDEZVOUS is not set. */
static kolo_status meet_kolo(char *const *environment, struct kolo__launch *launch)
{
    (void)environment;
    meet_where(launch, "KOLO_RENDEZVOUS");
    return KOLO_OK;
}

const struct kolo__launch_source kolo__launch_sources[] = {
    {.name = "kolo",
     .rank = "KOLO_RANK",
     .size = "KOLO_WORLD_SIZE",
     .local_rank = "KOLO_LOCAL_RANK",
     .local_size = "KOLO_LOCAL_SIZE",
     .marker = "KOLO_RANK", /* who says this says it to kolo: nobody contradicts it */
     .alone_is_error = true,
     .meet = meet_kolo},
    {.name = "Horovod",
     .rank = "HOROVOD_RANK",
     .size = "HOROVOD_SIZE",
     .local_rank = "HOROVOD_LOCAL_RANK",
     .local_size = "HOROVOD_LOCAL_SIZE",
     .marker = "HOROVOD_GLOO_RENDEZVOUS_ADDR",
     .alone_is_error = true,
     .meet = meet_horovod},
    {.name = "torchrun",
     .rank = "RANK",
     .size = "WORLD_SIZE",
     .local_rank = "LOCAL_RANK",
     .local_size = "LOCAL_WORLD_SIZE",
     .marker = "TORCHELASTIC_RUN_ID",
     .alone_is_error = true,
     .meet = meet_torch},
    {.name = "Kubeflow Trainer",
     .rank = "PET_NODE_RANK",
     .size = "PET_NNODES",
     .refine = refine_pet,
     .meet = meet_pet},
    {.name = "Open MPI",
     .rank = "OMPI_COMM_WORLD_RANK",
     .size = "OMPI_COMM_WORLD_SIZE",
     .local_rank = "OMPI_COMM_WORLD_LOCAL_RANK",
     .local_size = "OMPI_COMM_WORLD_LOCAL_SIZE",
     .marker = "OMPI_COMM_WORLD_RANK",
     .alone_is_error = true,
     .meet = meet_open_mpi},
    {.name = "MPICH",
     .rank = "PMI_RANK",
     .size = "PMI_SIZE",
     .local_rank = "MPI_LOCALRANKID",
     .local_size = "MPI_LOCALNRANKS",
     .marker = "PMI_RANK",
     .meet = meet_pmi},
    {.name = "Slurm",
     .rank = "SLURM_PROCID",
     .size = "SLURM_NTASKS",
     .local_rank = "SLURM_LOCALID",
     .is_no_rank = is_batch_script,
     .meet = meet_slurm},
    /* Kubernetes follows in pods.c: a pod's index is no rank yet, and says nothing of who wins. */
};

const int kolo__launch_source_count =
    (int)(sizeof kolo__launch_sources / sizeof *kolo__launch_sources);
