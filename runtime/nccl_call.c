/* SPDX-License-Identifier: Apache-2.0 */
/* See nccl.h: calls with buffers in a GPU's memory, from where they are to NCCL's queue. */
#include "runtime/exchange.h"
#include "runtime/nccl_state.h"
#include "runtime/staging.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/status.h"

#include <stdio.h>

/* ---- one collective ------------------------------------------------------------------------- */

static bool find_buffer(const struct kolo__call *call, size_t slices, const void *memory,
                        int *ordinal)
{
    struct kolo__memory_place place;
    *ordinal = -1;
    if (slices == 0 || call->count == 0)
        return false;
    kolo__memory_find(memory, &place);
    if (place.kind == KOLO_MEMORY_DEVICE)
        *ordinal = place.ordinal;
    return true;
}

kolo_status kolo__nccl_find_buffers(const struct kolo__call *call, int *ordinal)
{
    int send, recv;
    bool sends = find_buffer(call, call->send_slices, call->send, &send);
    bool receives = find_buffer(call, call->recv_slices, call->recv, &recv);
    *ordinal = sends ? send : recv;
    if (!sends || !receives || send == recv)
        return KOLO_OK;
    *ordinal = -1;
    if (send >= 0 && recv >= 0)
        return kolo__error(KOLO_ERR_INVALID,
                           "%s: the send buffer is in memory of GPU %d, the recv buffer in that of "
                           "GPU %d: give buffers on one GPU",
                           call->name, send, recv);
    return kolo__error(
        KOLO_ERR_INVALID,
        "%s: the %s buffer is in memory of GPU %d, the %s buffer in the host's: give "
        "both on one GPU, or both on the host (cudaMemcpyAsync moves one of them)",
        call->name, send >= 0 ? "send" : "recv", send >= 0 ? send : recv,
        send >= 0 ? "recv" : "send");
}

/* ---- scaling -------------------------------------------------------------------------------- */

/* NCCL sums, and kolo scales, by a kernel of its own on the same stream: NCCL's averages and scaled
 * sums are not for its symmetric kernels. An allreduce is scaled first, so that sums of 16-bit
 * floats do not overflow, from the send into the recv buffer. Where only a slice or only the root's
 * buffer may be written, an average is divided last. */
static bool is_scaled(enum kolo__collective collective, kolo_op op)
{
    return kolo__collective_reduces(collective) && (op == KOLO_AVERAGE || op == KOLO_PREMUL_SUM);
}

static kolo_status scale(const kolo_request *request, const void *from, char *why)
{
    const struct kolo__nccl *nccl = request->comm->nccl;
    bool average = request->signature.op == KOLO_AVERAGE;
    const struct kolo__reduction reduction = {
        .dtype = (kolo_dtype)request->signature.dtype,
        .op = average ? KOLO_SUM : KOLO_PREMUL_SUM,
        .divisor = average ? request->comm->size : 1,
        .scales = average ? NULL : &request->scale,
    };
    kolo_status status = nccl->gpus->reduce(nccl->device, &reduction, request->output, &from, 1,
                                            request->signature.count, request->stream);
    if (status != KOLO_OK)
        snprintf(why, KOLO__NCCL_WHY_BYTES, "scaling: %.200s", kolo_error_text());
    return status;
}

static const char *find_lack(const struct kolo__call *call, bool in_place)
{
    if (call->options != NULL && call->options->algorithm != NULL &&
        call->options->algorithm[0] != '\0')
        return "no choice of algorithms";
    if (is_scaled(call->collective, call->op)) {
        if (call->dtype != KOLO_FP16 && call->dtype != KOLO_BF16 && call->dtype != KOLO_FP32 &&
            call->dtype != KOLO_FP64)
            return "no average of integers";
        if (call->op == KOLO_PREMUL_SUM && call->collective != KOLO__ALLREDUCE)
            return "no premul_sum but in an allreduce";
    }
    return kolo__nccl_lacks(call->collective, call->dtype, call->op, in_place);
}

/* A plan without a program, whose ranks cannot do without each other. */
static kolo_status get_plan(kolo_comm *comm, const struct kolo__algorithm *offload,
                            struct kolo__plan_key *key, struct kolo__plan **plan)
{
    comm->cannot_join = offload == &kolo__offload_nccl
                            ? "NCCL carries its GPU buffers, and needs every rank"
                            : "its GPUs exchange buffers among them, and need every rank";
    key->forced = offload;
    return kolo__plan_get(&comm->plans, &comm->plan_context, key, plan);
}

kolo_status kolo__nccl_plan(kolo_comm *comm, const struct kolo__call *call, int ordinal,
                            struct kolo__plan_key *key, struct kolo__plan **plan)
{
    const char *lack = find_lack(call, key->in_place);
    char why[512];
    kolo_status status = kolo__comm_check(comm, call->name);
    if (status == KOLO_OK && kolo__exchange_takes(comm, call)) {
        status = kolo__exchange_open(comm, call->name, ordinal);
        if (status == KOLO_OK)
            return get_plan(comm, &kolo__offload_exchange, key, plan);
        if (status == KOLO_ERR_UNSUPPORTED)
            status = KOLO_OK;
    }
    if (status == KOLO_OK && lack != NULL) {
        snprintf(why, sizeof why, "NCCL has %s", lack);
        return kolo__staging_plan(comm, call, ordinal, why, key, plan);
    }
    if (status == KOLO_OK)
        status = kolo__nccl_open(comm, call->name, ordinal);
    if (status == KOLO_ERR_UNSUPPORTED)
        return kolo__staging_plan(comm, call, ordinal, comm->nccl->text, key, plan);
    if (status == KOLO_OK && comm->nccl->no_scaling && is_scaled(call->collective, call->op))
        return kolo__staging_plan(comm, call, ordinal,
                                  "kolo's kernels, which scale what NCCL sums, do not run on every "
                                  "rank's GPU",
                                  key, plan);
    return status == KOLO_OK ? get_plan(comm, &kolo__offload_nccl, key, plan) : status;
}

static kolo_status nccl_failed(const kolo_request *request, kolo_status status, const char *why,
                               struct kolo__fault *fault)
{
    fault->status = status == KOLO_ERR_INVALID ? KOLO_ERR_DEVICE : status;
    fault->peer = -1;
    snprintf(fault->text, sizeof fault->text, "NCCL failed on rank %u (host %s): %s",
             request->comm->rank, kolo__host_name(), why);
    return fault->status;
}

/* comm_poll, with the lock. Once the watch has ended NCCL it is for ever KOLO_AGAIN: what it found
 * is the communicator's fault, and reaches whoever waits as any other news does. */
static kolo_status ask(const struct kolo__nccl *nccl, char *why)
{
    return nccl->comm != NULL ? nccl->module->comm_poll(nccl->comm, why) : KOLO_AGAIN;
}

kolo_status kolo__nccl_begin(kolo_request *request, struct kolo__fault *fault)
{
    const struct kolo__signature *signature = &request->signature;
    struct kolo__nccl *nccl = request->comm->nccl;
    char why[KOLO__NCCL_WHY_BYTES] = "";
    struct kolo__nccl_call call = {
        .collective = (enum kolo__collective)signature->collective,
        .dtype = (kolo_dtype)signature->dtype,
        .op = (kolo_op)signature->op,
        .send = request->input,
        .recv = request->output,
        .count = signature->count,
        .root = (int)signature->root,
        .stream = request->stream,
    };
    pthread_mutex_lock(&nccl->watch.lock);
    /* An error of what was queued before is told here at the latest. */
    kolo_status status = ask(nccl, why);
    KOLO__ASSERT(status != KOLO_AGAIN || nccl->comm == NULL); /* requests run one at a time */
    bool scales = call.collective == KOLO__ALLREDUCE && is_scaled(call.collective, call.op);
    if (status == KOLO_OK && scales) {
        call.send = request->output;
        status = scale(request, request->input, why);
    }
    if (status == KOLO_OK)
        status = nccl->module->queue(nccl->comm, &call, why);
    pthread_mutex_unlock(&nccl->watch.lock);
    if (status == KOLO_OK || status == KOLO_AGAIN)
        return KOLO_OK;
    return nccl_failed(request, status, why, fault);
}

kolo_status kolo__nccl_progress(kolo_request *request, struct kolo__fault *fault)
{
    struct kolo__nccl *nccl = request->comm->nccl;
    char why[KOLO__NCCL_WHY_BYTES] = "";
    const struct kolo__signature *signature = &request->signature;
    bool divides =
        signature->op == KOLO_AVERAGE &&
        (signature->collective == KOLO__REDUCE_SCATTER ||
         (signature->collective == KOLO__REDUCE_TO_ROOT && signature->root == request->comm->rank));
    pthread_mutex_lock(&nccl->watch.lock);
    kolo_status status = ask(nccl, why);
    if (status == KOLO_OK && divides)
        status = scale(request, request->output, why);
    if (status == KOLO_OK)
        kolo__watch_note(&nccl->watch, request);
    pthread_mutex_unlock(&nccl->watch.lock);
    if (status == KOLO_OK || status == KOLO_AGAIN)
        return status;
    return nccl_failed(request, status, why, fault);
}
