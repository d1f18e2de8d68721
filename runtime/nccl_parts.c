/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL's communicators out of NCCL's communicators: of the parts of one that is split, of those
 * that stay when it shrinks. NCCL knows topology and connections already; a new unique id would
 * have it find out everything again. As everywhere, all ranks have it or none.
 */
#include "base/log.h"
#include "base/status.h"
#include "runtime/nccl_state.h"

#include <stdio.h>
#include <stdlib.h>

enum { ABORT_MS = 5000 };

/* What a part has from the one that it comes from. */
static struct kolo__nccl *create_part(const struct kolo__nccl *nccl)
{
    struct kolo__nccl *part = calloc(1, sizeof *part);
    if (part == NULL)
        return NULL;
    part->module = nccl->module;
    part->library = nccl->library;
    part->ordinal = nccl->ordinal;
    part->no_windows = nccl->no_windows;
    part->no_scaling = nccl->no_scaling;
    part->gpus = nccl->gpus;
    part->device = nccl->device;
    return part;
}

static void discard(struct kolo__nccl *part)
{
    char why[KOLO__NCCL_WHY_BYTES] = "";
    if (part == NULL)
        return;
    if (part->module->comm_abort(part->comm, ABORT_MS, why) != KOLO_OK)
        kolo__log(KOLO__LOG_WARN, "a part of NCCL's communicator: %s", why);
    free(part);
}

static void say_why(const kolo_comm *comm, const char *what, const struct kolo__nccl_word *all,
                    int failed)
{
    if (comm->rank == 0)
        kolo__log(KOLO__LOG_INFO,
                  "NCCL's communicator is not %s, new ones are begun: rank %d (host %s) could not "
                  "(%.*s)",
                  what, failed, comm->hosts[failed], KOLO__NCCL_WHY_BYTES - 1, all[failed].why);
}

static kolo_status status_of(struct kolo__nccl *nccl)
{
    pthread_mutex_lock(&nccl->watch.lock);
    kolo_status status = nccl->status;
    pthread_mutex_unlock(&nccl->watch.lock);
    return status;
}

/* NCCL may be at work on a part as long as the one that it comes from is there. */
static void end_with(kolo_comm *comm, kolo_status status, const char *text)
{
    struct kolo__fault fault = {.status = status, .peer = -1};
    snprintf(fault.text, sizeof fault.text, "%s", text);
    kolo__nccl_end(comm, &fault);
}

/* ---- split ---------------------------------------------------------------------------------- */

static kolo_status split(kolo_comm *comm, int color, uint32_t rank, uint32_t size,
                         struct kolo__nccl_word *all, struct kolo__nccl **result)
{
    static const char OPERATION[] = "kolo_comm_split";
    struct kolo__nccl *nccl = comm->nccl, *part = color < 0 ? NULL : create_part(nccl);
    struct kolo__nccl_comm *begun = NULL;
    struct kolo__nccl_word mine = {.status = KOLO_OK};
    int failed = -1;
    kolo_status status = kolo__nccl_take(comm, OPERATION);
    if (status == KOLO_OK && color >= 0 && part == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "%s: no memory for a part of NCCL's", OPERATION);
    if (status != KOLO_OK) {
        free(part);
        return status;
    }
    mine.status = (int32_t)nccl->module->comm_split(nccl->comm, color, (int)rank, (int)size, &begun,
                                                    mine.why);
    if (part != NULL)
        part->comm = begun;
    status = kolo__nccl_settle(comm, OPERATION, nccl->module, begun != NULL ? begun : nccl->comm,
                               kolo__nccl_limit_ns(comm), "splitting (KOLO_TIMEOUT)", &mine, all,
                               &failed);
    kolo__nccl_set_watched(nccl, status == KOLO_OK && failed < 0);
    if (status == KOLO_OK && failed < 0) {
        *result = part;
        return KOLO_OK;
    }
    if (status == KOLO_OK) {
        say_why(comm, "split", all, failed);
        status = kolo__nccl_open_again(comm, OPERATION, all);
    } else {
        end_with(comm, status, kolo_error_text());
    }
    discard(part); /* nobody is at work on it any more */
    return status == KOLO_ERR_UNSUPPORTED ? KOLO_OK : status;
}

kolo_status kolo__nccl_split(kolo_comm *comm, int color, uint32_t rank, uint32_t size,
                             struct kolo__nccl **part)
{
    *part = NULL;
    if (comm->nccl == NULL || status_of(comm->nccl) != KOLO_OK)
        return KOLO_OK;
    struct kolo__nccl_word *all = calloc(comm->size, sizeof *all);
    if (all == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_comm_split: no memory for words about NCCL");
    kolo_status status = split(comm, color, rank, size, all, part);
    free(all);
    return status;
}

kolo_status kolo__nccl_adopt(kolo_comm *comm, struct kolo__nccl *part)
{
    if (part == NULL)
        return KOLO_OK;
    if (comm == NULL) { /* there is none, after all */
        discard(part);
        return KOLO_OK;
    }
    comm->nccl = part;
    kolo__watch_init(&part->watch, comm, &kolo__nccl_watched);
    kolo_status status =
        kolo__watch_start(&part->watch, "kolo_comm_split", part->gpus, part->device, part->ordinal);
    kolo__nccl_set_watched(part, status == KOLO_OK);
    return status;
}

/* ---- shrink --------------------------------------------------------------------------------- */

static kolo_status shrink(kolo_comm *comm, const int *left, int left_count, kolo_comm *smaller,
                          struct kolo__nccl_word *all)
{
    static const char OPERATION[] = "shrinking";
    struct kolo__nccl *nccl = comm->nccl, *part = create_part(nccl);
    struct kolo__nccl_comm *begun = NULL;
    struct kolo__nccl_word mine = {.status = KOLO_ERR_MEMORY, .why = "no memory"};
    int failed = -1;
    kolo__nccl_set_watched(nccl, false);
    if (part != NULL && nccl->comm == NULL) {
        mine.status = KOLO_ERR_UNSUPPORTED;
        snprintf(mine.why, sizeof mine.why, "it was ended");
    } else if (part != NULL) {
        mine.status =
            (int32_t)nccl->module->comm_shrink(nccl->comm, left, left_count, &begun, mine.why);
        part->comm = begun;
    }
    kolo_status status =
        kolo__nccl_settle(smaller, OPERATION, nccl->module, begun, kolo__nccl_limit_ns(comm),
                          "shrinking (KOLO_TIMEOUT)", &mine, all, &failed);
    if (status == KOLO_OK && failed < 0) {
        kolo__nccl_set_watched(nccl, true);
        return kolo__nccl_adopt(smaller, part);
    }
    if (status == KOLO_OK)
        say_why(smaller, "shrunk", all, failed);
    end_with(comm, KOLO_ERR_DEVICE, "NCCL's communicator could not be shrunk");
    discard(part); /* nobody is at work on it any more */
    return status;
}

kolo_status kolo__nccl_shrink(kolo_comm *comm, const int *left, int left_count, kolo_comm *smaller)
{
    if (comm->nccl == NULL || status_of(comm->nccl) == KOLO_ERR_UNSUPPORTED)
        return KOLO_OK;
    struct kolo__nccl_word *all = calloc(smaller->size, sizeof *all);
    if (all == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "shrinking: no memory for words about NCCL");
    kolo_status status = shrink(comm, left, left_count, smaller, all);
    free(all);
    return status;
}
