/* SPDX-License-Identifier: Apache-2.0 */
/* See nccl.h. */
#include "runtime/nccl.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "kernels/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const uint64_t SECOND_NS = 1000000000;

enum {
    ABORT_MS = 5000,    /* as long as a fault may take until all ranks have ended */
    FINALIZE_MS = 5000, /* what is on the streams of a sound communicator ends sooner */
    ROUND_MS_MOST = 20, /* between two rounds of asking whether all are ready */
    /* Registering is a matter of milliseconds; who has not got through after this waits for a rank
     * that was refused. */
    WINDOW_MS = 3000,
    NEWS_MS = 5, /* between two looks at what other ranks say, by calls that wait for nobody */
};

struct kolo__nccl {
    const struct kolo__nccl_module *module;
    struct kolo__nccl_library library;
    struct kolo__nccl_comm *comm; /* NULL: none, see status */
    int ordinal;
    kolo_status status; /* of opening; the text goes with it */
    char text[512];
    uint64_t news_ns; /* when others were listened to last */
    bool no_windows;  /* some rank was refused one */
};

/* ---- agreeing ------------------------------------------------------------------------------- */

/* What each rank tells all others, by host memory. */
struct word {
    int32_t status; /* kolo_status; KOLO_AGAIN: not yet */
    int32_t version;
    int32_t has_windows;
    uint64_t bytes;
    unsigned char id[KOLO__NCCL_ID_BYTES];
    char why[KOLO__NCCL_WHY_BYTES];
};

/* Fills all with the words of the ranks. */
static kolo_status tell(kolo_comm *comm, const char *operation, const struct word *mine,
                        struct word *all)
{
    if (comm->size == 1) {
        *all = *mine;
        return KOLO_OK;
    }
    const struct kolo__call call = {.name = operation,
                                    .collective = KOLO__ALLGATHER,
                                    .send = mine,
                                    .recv = all,
                                    .count = sizeof *mine,
                                    .send_slices = 1,
                                    .recv_slices = comm->size,
                                    .dtype = KOLO_UINT8};
    return kolo__call_run(comm, &call);
}

/* The first rank whose word is an error; -1: none. *pending: somebody is not ready yet. */
static int find_failed(const kolo_comm *comm, const struct word *all, bool *pending)
{
    *pending = false;
    for (uint32_t r = 0; r < comm->size; r++) {
        if (all[r].status != KOLO_OK && all[r].status != KOLO_AGAIN)
            return (int)r;
        *pending |= all[r].status == KOLO_AGAIN;
    }
    return -1;
}

static void pause_ms(unsigned milliseconds)
{
    const struct timespec time = {.tv_sec = milliseconds / 1000,
                                  .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* Rounds until what each rank has begun on its NCCL communicator is done on all, or has failed on
 * one: *failed is then its number. mine->status is how beginning went. The result is how agreeing
 * went. */
static kolo_status settle(kolo_comm *comm, const char *operation, uint64_t limit_ns,
                          const char *doing, struct word *mine, struct word *all, int *failed)
{
    struct kolo__nccl *nccl = comm->nccl;
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + limit_ns;
    unsigned round_ms = 1;
    for (bool pending = true; pending;) {
        if (mine->status == KOLO_OK || mine->status == KOLO_AGAIN)
            mine->status = (int32_t)nccl->module->comm_poll(nccl->comm, mine->why);
        if (mine->status == KOLO_AGAIN && kolo__now_ns(&kolo__real_clock) > deadline_ns) {
            mine->status = KOLO_ERR_TIMEOUT;
            snprintf(mine->why, sizeof mine->why, "%s did not finish within %llu s", doing,
                     (unsigned long long)(limit_ns / SECOND_NS));
        }
        kolo_status status = tell(comm, operation, mine, all);
        if (status != KOLO_OK)
            return status;
        *failed = find_failed(comm, all, &pending);
        if (*failed >= 0)
            break;
        if (pending)
            pause_ms(round_ms);
        round_ms = 2 * round_ms < ROUND_MS_MOST ? 2 * round_ms : ROUND_MS_MOST;
    }
    return KOLO_OK;
}

/* ---- opening -------------------------------------------------------------------------------- */

static void abort_comm(kolo_comm *comm)
{
    struct kolo__nccl *nccl = comm->nccl;
    char why[KOLO__NCCL_WHY_BYTES] = "";
    if (nccl->comm == NULL)
        return;
    if (nccl->module->comm_abort(nccl->comm, ABORT_MS, why) != KOLO_OK)
        kolo__log(KOLO__LOG_WARN, "rank %u (host %s): %s", comm->rank, kolo__host_name(), why);
    nccl->comm = NULL;
}

/* What all ranks have to say to one that failed; remembered for later calls. */
static kolo_status refuse(kolo_comm *comm, const char *operation, kolo_status status,
                          const char *text)
{
    struct kolo__nccl *nccl = comm->nccl;
    abort_comm(comm);
    nccl->status = status;
    snprintf(nccl->text, sizeof nccl->text, "%s", text);
    return kolo__error(status, "%s: %s", operation, nccl->text);
}

static kolo_status refuse_for(kolo_comm *comm, const char *operation, const struct word *all,
                              int failed)
{
    char text[sizeof comm->nccl->text];
    snprintf(text, sizeof text, "NCCL cannot be used: on rank %d (host %s): %.*s", failed,
             comm->hosts[failed], KOLO__NCCL_WHY_BYTES - 1, all[failed].why);
    return refuse(comm, operation, KOLO_ERR_UNSUPPORTED, text);
}

static void introduce(kolo_comm *comm, struct word *mine)
{
    struct kolo__nccl *nccl = comm->nccl;
    const char *path = comm->context->config.nccl;
    if (strcmp(path, "off") == 0) {
        mine->status = KOLO_ERR_UNSUPPORTED;
        snprintf(mine->why, sizeof mine->why, "KOLO_NCCL=off");
        return;
    }
    mine->status = (int32_t)kolo__nccl_load(path, &nccl->module, &nccl->library);
    if (mine->status != KOLO_OK) {
        snprintf(mine->why, sizeof mine->why, "%.*s", KOLO__NCCL_WHY_BYTES - 1, kolo_error_text());
        return;
    }
    mine->version = nccl->library.version;
    mine->has_windows = nccl->library.has_windows;
    if (comm->rank == 0)
        mine->status = (int32_t)nccl->module->unique_id(mine->id, mine->why);
}

/* NCCL's own protocols differ from version to version. */
static kolo_status check_versions(kolo_comm *comm, const char *operation, const struct word *all)
{
    char text[400];
    for (uint32_t r = 1; r < comm->size; r++)
        if (all[r].version != all[0].version) {
            snprintf(text, sizeof text,
                     "NCCL cannot be used: rank 0 (host %.80s) has %d.%d.%d, rank %u (host %.80s) "
                     "has %d.%d.%d: install one version on all hosts",
                     comm->hosts[0], all[0].version / 10000, all[0].version % 10000 / 100,
                     all[0].version % 100, r, comm->hosts[r], all[r].version / 10000,
                     all[r].version % 10000 / 100, all[r].version % 100);
            return refuse(comm, operation, KOLO_ERR_UNSUPPORTED, text);
        }
    return KOLO_OK;
}

static uint64_t limit_ns(const kolo_comm *comm)
{
    return (uint64_t)comm->context->config.timeout * SECOND_NS;
}

/* all: room for the words of all ranks. An error that is not UNSUPPORTED is the host's
 * communicator's, which is poisoned then. */
static kolo_status open_all(kolo_comm *comm, const char *operation, struct word *all)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct word mine = {.status = KOLO_OK};
    bool pending;
    introduce(comm, &mine);
    kolo_status status = tell(comm, operation, &mine, all);
    if (status != KOLO_OK)
        return refuse(comm, operation, status, kolo_error_text());
    int failed = find_failed(comm, all, &pending);
    if (failed >= 0)
        return refuse_for(comm, operation, all, failed);
    status = check_versions(comm, operation, all);
    if (status != KOLO_OK)
        return status;
    for (uint32_t r = 0; r < comm->size; r++)
        nccl->no_windows |= all[r].has_windows == 0;
    mine.status = (int32_t)nccl->module->comm_begin(all[0].id, (int)comm->rank, (int)comm->size,
                                                    nccl->ordinal, &nccl->comm, mine.why);
    status = settle(comm, operation, limit_ns(comm), "making its communicator (KOLO_TIMEOUT)",
                    &mine, all, &failed);
    if (status != KOLO_OK)
        return refuse(comm, operation, status, kolo_error_text());
    return failed >= 0 ? refuse_for(comm, operation, all, failed) : KOLO_OK;
}

static kolo_status with_words(kolo_comm *comm, const char *operation, struct word **all)
{
    *all = calloc(comm->size, sizeof **all);
    if (*all != NULL)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for the words of %u ranks about NCCL",
                       operation, comm->size);
}

kolo_status kolo__nccl_open(kolo_comm *comm, const char *operation, int ordinal)
{
    struct word *all;
    if (comm->nccl != NULL) {
        struct kolo__nccl *nccl = comm->nccl;
        if (nccl->status != KOLO_OK)
            return kolo__error(nccl->status, "%s: %s", operation, nccl->text);
        if (nccl->ordinal != ordinal)
            return kolo__error(KOLO_ERR_INVALID,
                               "%s: the buffers are on GPU %d, and this communicator began on GPU "
                               "%d: a communicator keeps to one GPU on each rank",
                               operation, ordinal, nccl->ordinal);
        return KOLO_OK;
    }
    kolo_status status = with_words(comm, operation, &all);
    if (status != KOLO_OK)
        return status;
    comm->nccl = calloc(1, sizeof *comm->nccl);
    if (comm->nccl == NULL) {
        free(all);
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for NCCL's communicator", operation);
    }
    comm->nccl->ordinal = ordinal;
    status = open_all(comm, operation, all);
    free(all);
    return status;
}

/* ---- the end -------------------------------------------------------------------------------- */

void kolo__nccl_fail(kolo_comm *comm)
{
    if (comm->nccl == NULL || comm->nccl->comm == NULL)
        return;
    abort_comm(comm);
    comm->nccl->status = comm->fault.status != KOLO_OK ? comm->fault.status : KOLO_ERR_DEVICE;
    snprintf(comm->nccl->text, sizeof comm->nccl->text, "%s", comm->fault.text);
}

static bool finalize(struct kolo__nccl *nccl)
{
    char why[KOLO__NCCL_WHY_BYTES];
    if (nccl->module->comm_finalize(nccl->comm, why) != KOLO_OK)
        return false;
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + FINALIZE_MS * (SECOND_NS / 1000);
    kolo_status status = KOLO_AGAIN;
    while (status == KOLO_AGAIN && kolo__now_ns(&kolo__real_clock) < deadline_ns) {
        status = nccl->module->comm_poll(nccl->comm, why);
        if (status == KOLO_AGAIN)
            pause_ms(1);
    }
    return status == KOLO_OK;
}

void kolo__nccl_close(kolo_comm *comm)
{
    struct kolo__nccl *nccl = comm->nccl;
    if (nccl == NULL)
        return;
    if (nccl->comm != NULL && comm->fault.status == KOLO_OK && finalize(nccl)) {
        nccl->module->comm_destroy(nccl->comm);
        nccl->comm = NULL;
    }
    abort_comm(comm);
    comm->nccl = NULL;
    free(nccl);
}

/* ---- buffers -------------------------------------------------------------------------------- */

/* Whoever was refused has a communicator with an error, and whoever was not may wait in his for
 * that rank: both are good for nothing. Another one, whose memory is not registered. */
static kolo_status open_again(kolo_comm *comm, const char *operation, struct word *all)
{
    abort_comm(comm);
    kolo_status status = open_all(comm, operation, all);
    comm->nccl->no_windows = true;
    return status;
}

/* Registers on all ranks, or says so once and registers on none. */
static kolo_status register_all(kolo_comm *comm, const char *operation, struct word *all,
                                struct kolo__nccl_buffer *buffer)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct word mine = {.status = KOLO_OK};
    int failed;
    mine.status = (int32_t)nccl->module->window_begin(nccl->comm, buffer->memory, buffer->bytes,
                                                      &buffer->window, mine.why);
    kolo_status status = settle(comm, operation, WINDOW_MS * (SECOND_NS / 1000),
                                "registering memory", &mine, all, &failed);
    if (status != KOLO_OK || failed < 0)
        return status;
    if (comm->rank == 0)
        kolo__log(KOLO__LOG_INFO,
                  "NCCL's memory is registered on no rank: rank %d (host %s) was refused (%.*s)",
                  failed, comm->hosts[failed], KOLO__NCCL_WHY_BYTES - 1, all[failed].why);
    status = open_again(comm, operation, all);
    nccl->module->window_close(NULL, buffer->window);
    buffer->window = NULL;
    return status;
}

kolo_status kolo__nccl_buffer_open(kolo_comm *comm, const char *operation, size_t bytes,
                                   struct kolo__nccl_buffer *buffer)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct word mine = {.bytes = bytes}, *all;
    bool pending;
    *buffer = (struct kolo__nccl_buffer){.bytes = bytes};
    kolo_status status = with_words(comm, operation, &all);
    if (status != KOLO_OK)
        return status;
    mine.status = (int32_t)nccl->module->alloc(nccl->ordinal, bytes, &buffer->memory, mine.why);
    status = tell(comm, operation, &mine, all);
    int failed = status == KOLO_OK ? find_failed(comm, all, &pending) : -1;
    if (failed >= 0)
        status = kolo__error(KOLO_ERR_MEMORY,
                             "%s: no memory for NCCL, %zu bytes, on rank %d (host %s): %s",
                             operation, bytes, failed, comm->hosts[failed], all[failed].why);
    for (uint32_t r = 0; status == KOLO_OK && r < comm->size; r++)
        if (all[r].bytes != all[0].bytes)
            status = kolo__error(
                KOLO_ERR_INVALID, "%s: rank 0 wants %llu bytes of NCCL's memory, rank %u %llu",
                operation, (unsigned long long)all[0].bytes, r, (unsigned long long)all[r].bytes);
    if (status == KOLO_OK && !nccl->no_windows)
        status = register_all(comm, operation, all, buffer);
    free(all);
    if (status != KOLO_OK)
        kolo__nccl_buffer_close(comm, buffer);
    return status;
}

void kolo__nccl_buffer_close(kolo_comm *comm, struct kolo__nccl_buffer *buffer)
{
    struct kolo__nccl *nccl = comm->nccl;
    if (nccl == NULL || nccl->module == NULL)
        return;
    if (buffer->window != NULL && nccl->comm != NULL)
        nccl->module->window_close(nccl->comm, buffer->window);
    nccl->module->free(nccl->ordinal, buffer->memory);
    *buffer = (struct kolo__nccl_buffer){0};
}

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
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "%s: the send buffer is in memory of GPU %d, the recv buffer in that of "
                           "GPU %d: give buffers on one GPU",
                           call->name, send, recv);
    return kolo__error(
        KOLO_ERR_UNSUPPORTED,
        "%s: the %s buffer is in memory of GPU %d, the other one in the host's: give "
        "both on one GPU, or both on the host",
        call->name, send >= 0 ? "send" : "recv", send >= 0 ? send : recv);
}

static const char *find_lack(const struct kolo__call *call, bool in_place)
{
    bool reduces = kolo__collective_reduces(call->collective);
    if (call->options != NULL && call->options->algorithm != NULL &&
        call->options->algorithm[0] != '\0')
        return "no choice of algorithms";
    if (reduces && (call->op == KOLO_AVERAGE || call->op == KOLO_PREMUL_SUM))
        return "no scaling, which kolo does not do for it yet";
    return kolo__nccl_lacks(call->collective, call->dtype, call->op, in_place);
}

/* Who waits listens to the control plane; but these calls hardly wait, and a program that uses a
 * GPU may make no others. */
static void listen_to_others(kolo_comm *comm)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (comm->context->control == NULL ||
        now_ns - comm->nccl->news_ns < NEWS_MS * (SECOND_NS / 1000))
        return;
    comm->nccl->news_ns = now_ns;
    kolo__control_poll(comm->context->control);
}

kolo_status kolo__nccl_plan(kolo_comm *comm, const struct kolo__call *call, int ordinal,
                            struct kolo__plan_key *key, struct kolo__plan **plan)
{
    static const char CANNOT_JOIN[] = "NCCL carries its GPU buffers, and needs every rank";
    const char *buffer = call->send_slices > 0 ? "send" : "recv";
    const char *lack = find_lack(call, key->in_place);
    if (lack != NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "%s: the %s buffer is in memory of GPU %d, and NCCL has %s: copy it to "
                           "memory of the host first",
                           call->name, buffer, ordinal, lack);
    kolo_status status = kolo__nccl_open(comm, call->name, ordinal);
    if (status == KOLO_ERR_UNSUPPORTED)
        return kolo__error(status,
                           "%s: the %s buffer is in memory of GPU %d, and %s: copy it to memory of "
                           "the host first",
                           call->name, buffer, ordinal, comm->nccl->text);
    if (status != KOLO_OK)
        return status;
    comm->cannot_join = CANNOT_JOIN;
    listen_to_others(comm);
    key->forced = &kolo__offload_nccl;
    return kolo__plan_get(&comm->plans, &comm->plan_context, key, plan);
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

kolo_status kolo__nccl_begin(kolo_request *request, struct kolo__fault *fault)
{
    const struct kolo__signature *signature = &request->signature;
    struct kolo__nccl *nccl = request->comm->nccl;
    char why[KOLO__NCCL_WHY_BYTES] = "";
    const struct kolo__nccl_call call = {
        .collective = (enum kolo__collective)signature->collective,
        .dtype = (kolo_dtype)signature->dtype,
        .op = (kolo_op)signature->op,
        .send = request->input,
        .recv = request->output,
        .count = signature->count,
        .root = (int)signature->root,
        .stream = request->stream,
    };
    /* An error of what was queued before is told here at the latest. */
    kolo_status status = nccl->module->comm_poll(nccl->comm, why);
    KOLO__ASSERT(status != KOLO_AGAIN); /* requests run one at a time */
    if (status == KOLO_OK)
        status = nccl->module->queue(nccl->comm, &call, why);
    return status == KOLO_OK ? KOLO_OK : nccl_failed(request, status, why, fault);
}

kolo_status kolo__nccl_progress(kolo_request *request, struct kolo__fault *fault)
{
    struct kolo__nccl *nccl = request->comm->nccl;
    char why[KOLO__NCCL_WHY_BYTES] = "";
    kolo_status status = nccl->module->comm_poll(nccl->comm, why);
    if (status == KOLO_OK || status == KOLO_AGAIN)
        return status;
    return nccl_failed(request, status, why, fault);
}
