/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/offload.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "collectives/offload/mpi_load.h"
#include "kernels/kernels.h"
#include "runtime/call.h"
#include "runtime/exchange.h"
#include "runtime/nccl.h"
#include "runtime/staging.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 8, LARGE = 1 << 20, ROUNDS = 5 };

/* ---- measuring ------------------------------------------------------------------------------- */

/* Seconds of the fastest of some allreduces. int32: no order shows, no kernel differs. */
static kolo_status time_one(kolo_comm *comm, const char *algorithm, int32_t *data, size_t bytes,
                            double *seconds)
{
    kolo_call_options options = {.size = sizeof options, .algorithm = algorithm};
    kolo_status status = KOLO_OK;
    *seconds = 1e9;
    for (int i = 0; i < ROUNDS && status == KOLO_OK; i++) {
        struct kolo__call call =
            kolo__call_allreduce("kolo_init", data, bytes / sizeof *data, KOLO_INT32, KOLO_MAX);
        call.options = &options;
        uint64_t begin_ns = kolo__now_ns(&kolo__real_clock);
        status = kolo__call_run(comm, &call);
        double took = (double)(kolo__now_ns(&kolo__real_clock) - begin_ns) * 1e-9;
        *seconds = took < *seconds ? took : *seconds;
    }
    return status;
}

/* Rank 0's numbers count, so that all choose alike. */
static kolo_status measure(kolo_context *context)
{
    kolo_comm *world = context->world;
    double numbers[4] = {0}; /* MPI small and large, kolo small and large */
    int32_t *data = calloc(1, LARGE);
    kolo_status status = KOLO_OK;
    if (data == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_init: no memory to compare MPI");
    for (int i = 0; i < 4 && status == KOLO_OK; i++)
        status = time_one(world, i < 2 ? kolo__offload_mpi.name : "", data,
                          i % 2 == 0 ? SMALL : LARGE, &numbers[i]);
    free(data);
    if (status == KOLO_OK) {
        struct kolo__call call = kolo__call_broadcast("kolo_init", numbers, 4, KOLO_FP64, 0);
        status = kolo__call_run(world, &call);
    }
    if (status != KOLO_OK)
        return status;
    struct kolo__offload *offload = &context->offload;
    offload->latency = numbers[0];
    offload->per_byte = (numbers[1] - numbers[0]) / LARGE;
    offload->own_latency = numbers[2];
    offload->own_per_byte = (numbers[3] - numbers[2]) / LARGE;
    offload->measured = true;
    if (context->rank == 0)
        kolo__log(KOLO__LOG_INFO,
                  "allreduce of %d B and of %d KiB: %.1f and %.0f us by MPI, %.1f and %.0f by kolo",
                  SMALL, LARGE >> 10, numbers[0] * 1e6, numbers[1] * 1e6, numbers[2] * 1e6,
                  numbers[3] * 1e6);
    return KOLO_OK;
}

static bool is_worth_it(const struct kolo__offload *offload)
{
    return kolo__offload_is_faster(offload, SMALL) || kolo__offload_is_faster(offload, LARGE) ||
           kolo__offload_is_faster(offload, 64.0 * LARGE);
}

/* ---- the world ------------------------------------------------------------------------------- */

/* Why MPI does nothing here; NULL: it may. The same on all ranks. */
static const char *find_obstacle(const kolo_context *context)
{
    const struct kolo__mpi_module *mpi = context->place.mpi;
    if (mpi == NULL)
        return "MPI is not here: mpirun starts worlds that have it, and keeps it for "
               "KOLO_ALGORITHM=mpi or where it was measured to be faster";
    if (context->config.encrypt != 0 || context->config.checksum != 0)
        return "MPI neither encrypts nor checks what it sends, as KOLO_ENCRYPT or KOLO_CHECKSUM "
               "demand";
    if (!mpi->is_for_threads())
        return "the program's MPI is for one thread only: begin it with MPI_Init_thread and "
               "MPI_THREAD_SERIALIZED";
    return NULL;
}

kolo_status kolo__offload_open(kolo_context *context)
{
    struct kolo__offload *offload = &context->offload;
    bool forced = strcmp(context->config.algorithm, kolo__offload_mpi.name) == 0;
    offload->missing = find_obstacle(context);
    if (offload->missing != NULL && forced && context->rank == 0)
        kolo__log(KOLO__LOG_WARN, "KOLO_ALGORITHM=mpi is left aside: %s", offload->missing);
    if (offload->missing != NULL || forced)
        return KOLO_OK;
    kolo_status status = measure(context);
    if (status == KOLO_OK && !is_worth_it(offload)) {
        kolo__offload_detach(context->world);
        offload->missing =
            "MPI was measured to be slower, and has left: KOLO_ALGORITHM=mpi keeps it";
        kolo__plan_cache_clear(&context->world->plans);
        kolo__offload_close(context, true);
    }
    return status;
}

/* After a fault others may never come to MPI_Finalize, which has no deadline. */
void kolo__offload_close(kolo_context *context, bool sound)
{
    const struct kolo__mpi_module *mpi = context->place.mpi;
    context->place.mpi = NULL;
    if (mpi != NULL && sound)
        mpi->close();
}

void kolo__offload_attach(kolo_comm *comm)
{
    kolo_context *context = comm->context;
    char why[200] = "";
    comm->plan_context.offload = &context->offload;
    bool everybody = comm->size == context->size && comm->size > 1;
    for (uint32_t r = 0; everybody && r < comm->size; r++)
        everybody = comm->world_ranks[r] == r;
    if (!everybody || context->offload.missing != NULL || find_obstacle(context) != NULL)
        return;
    comm->mpi = context->place.mpi->comm_open(why, sizeof why);
    if (comm->mpi == NULL)
        kolo__log(KOLO__LOG_WARN, "MPI makes no communicator: %s", why);
}

void kolo__offload_detach(kolo_comm *comm)
{
    kolo__nccl_close(comm);
    kolo__exchange_close(comm);
    if (comm->mpi != NULL && comm->context->place.mpi != NULL)
        comm->context->place.mpi->comm_close(comm->mpi);
    comm->mpi = NULL;
}

/* ---- one allreduce --------------------------------------------------------------------------- */

static kolo_status mpi_failed(const kolo_request *request, const char *why,
                              struct kolo__fault *fault)
{
    fault->status = KOLO_ERR_NETWORK;
    fault->peer = -1;
    snprintf(fault->text, sizeof fault->text, "MPI failed on rank %u (host %s): %s",
             request->comm->rank, kolo__host_name(), why);
    return fault->status;
}

kolo_status kolo__offload_begin(kolo_request *request, struct kolo__fault *fault)
{
    const struct kolo__signature *signature = &request->signature;
    kolo_comm *comm = request->comm;
    char why[200] = "this communicator has none of MPI's: only those of all ranks have";
    if (request->plan->algorithm == &kolo__offload_nccl)
        return kolo__nccl_begin(request, fault);
    if (request->plan->algorithm == &kolo__offload_exchange)
        return kolo__exchange_begin(request, fault);
    if (request->plan->algorithm == &kolo__offload_staged)
        return kolo__staging_begin(request, fault);
    if (comm->mpi != NULL &&
        comm->context->place.mpi->allreduce_begin(
            comm->mpi, request->plan->key.in_place ? request->output : request->input,
            request->output, signature->count, (kolo_dtype)signature->dtype, (kolo_op)signature->op,
            kolo__signature_digest(signature), why, sizeof why))
        return KOLO_OK;
    return mpi_failed(request, why, fault);
}

kolo_status kolo__offload_progress(kolo_request *request, bool *moved, struct kolo__fault *fault)
{
    const struct kolo__signature *signature = &request->signature;
    kolo_comm *comm = request->comm;
    char why[200] = "", text[160];
    bool done = false, alike = true;
    if (request->plan->algorithm == &kolo__offload_nccl)
        return kolo__nccl_progress(request, fault);
    if (request->plan->algorithm == &kolo__offload_exchange)
        return kolo__exchange_progress(request);
    if (request->plan->algorithm == &kolo__offload_staged)
        return kolo__staging_progress(request, moved, fault);
    if (!comm->context->place.mpi->allreduce_test(comm->mpi, &done, &alike, why, sizeof why))
        return mpi_failed(request, why, fault);
    if (!alike) {
        fault->status = KOLO_ERR_MISMATCH;
        fault->peer = -1;
        snprintf(fault->text, sizeof fault->text,
                 "the ranks do not call the same: rank %u (host %s) calls %s", comm->rank,
                 kolo__host_name(), kolo__signature_text(signature, text, sizeof text));
        return fault->status;
    }
    if (!done)
        return KOLO_AGAIN;
    if (signature->op == KOLO_AVERAGE) {
        const struct kolo__reduction average = {
            .dtype = (kolo_dtype)signature->dtype, .op = KOLO_SUM, .divisor = comm->size};
        const void *sum = request->output;
        kolo__reduce(&average, request->output, &sum, 1, signature->count);
    }
    return KOLO_OK;
}

void kolo__offload_state(const kolo_request *request, char *text, size_t bytes)
{
    const struct kolo__algorithm *algorithm = request->plan->algorithm;
    if (algorithm == &kolo__offload_staged)
        kolo__staging_state(request, text, bytes);
    else
        snprintf(text, bytes, "%s",
                 algorithm == &kolo__offload_nccl       ? "NCCL to take it"
                 : algorithm == &kolo__offload_exchange ? "the cause of a failure"
                                                        : "MPI");
}

int kolo__offload_waiting_for(const kolo_request *request)
{
    return request->plan->algorithm == &kolo__offload_staged ? kolo__staging_waiting_for(request)
                                                             : -1;
}
