/* SPDX-License-Identifier: Apache-2.0 */
/* ncclCommAbort waits for NCCL's threads and kernels, and has no deadline: so it runs on a thread
 * of its own, which is left behind when it hangs. */
#include "collectives/offload/nccl/library.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* The last of the two threads frees this. */
struct abort_job {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct kolo__nccl_comm *comm;
    ncclResult_t result;
    bool done, abandoned;
};

static void free_job(struct abort_job *job)
{
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    free(job->comm);
    free(job);
}

static void *run_abort(void *argument)
{
    struct abort_job *job = argument;
    void *entered = kolo__nccl_enter(job->comm->ordinal);
    ncclResult_t result = kolo__nccl.ncclCommAbort(job->comm->comm);
    kolo__nccl_leave(entered);
    pthread_mutex_lock(&job->lock);
    job->result = result;
    job->done = true;
    bool abandoned = job->abandoned;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
    if (abandoned)
        free_job(job);
    return NULL;
}

static bool start_job(struct abort_job *job)
{
    pthread_condattr_t clock;
    pthread_t thread;
    pthread_mutex_init(&job->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&job->changed, &clock);
    pthread_condattr_destroy(&clock);
    if (pthread_create(&thread, NULL, run_abort, job) != 0)
        return false;
    pthread_detach(thread);
    return true;
}

kolo_status kolo__nccl_abort(struct kolo__nccl_comm *comm, unsigned limit_ms, char *why)
{
    if (comm == NULL)
        return KOLO_OK;
    if (comm->comm == NULL) { /* a part that NCCL never made */
        free(comm);
        return KOLO_OK;
    }
    struct abort_job *job = calloc(1, sizeof *job);
    if (job == NULL)
        return kolo__nccl_no_memory(why);
    job->comm = comm;
    if (!start_job(job)) {
        free_job(job);
        snprintf(why, KOLO__NCCL_WHY_BYTES, "no thread to call ncclCommAbort on");
        return KOLO_ERR_SYSTEM;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += limit_ms / 1000;
    until.tv_nsec += (long)(limit_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&job->lock);
    int waited = 0;
    while (!job->done && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&job->changed, &job->lock, &until);
    bool done = job->done;
    job->abandoned = !done;
    ncclResult_t result = job->result;
    pthread_mutex_unlock(&job->lock);
    if (!done) {
        snprintf(why, KOLO__NCCL_WHY_BYTES,
                 "ncclCommAbort did not come back within %u ms: what it holds, and kernels of it "
                 "on the GPU, are left until this process ends",
                 limit_ms);
        return KOLO_ERR_TIMEOUT;
    }
    free_job(job);
    return kolo__nccl_check(result, NULL, "ncclCommAbort", why);
}
