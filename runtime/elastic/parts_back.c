/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last good checkpoint of state of which ranks have parts. Any number of ranks may have written
 * it: whoever reads looks into all parts for the elements that are its own now. Before that parts
 * are found good, rank 0's number of ranks by turns.
 */
#include "runtime/elastic/elastic.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/comm.h"
#include "runtime/reducer/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char operation[] = "kolo_elastic_begin_step";

/* Collective: KOLO_OK if it is that on all ranks; else all have the text of who found it, or that
 * of what broke the world. */
static kolo_status agree(kolo_elastic *loop, kolo_status own)
{
    kolo_comm *world = loop->context->world;
    return own == KOLO_OK
               ? kolo__tensors_compare(world, operation, loop->state, loop->count, NULL, 0, NULL)
               : kolo__tensors_refuse(world, operation, own);
}

/* ---- one folder for all -----------------------------------------------------------------------
 */

/* A file that rank 0 has just made, of a name that no host can remember not to be there. */
static kolo_status look_for(const kolo_elastic *loop, const char *path)
{
    enum { TRIES = 20, PAUSE_US = 100000 }; /* a network's file system may be late */
    const kolo_comm *world = loop->context->world;
    for (int i = 0; i < TRIES; i++) {
        if (access(path, F_OK) == 0)
            return KOLO_OK;
        usleep(PAUSE_US);
    }
    return kolo__error(KOLO_ERR_CONFIG,
                       "checkpoints in %s: rank %" PRIu32 " on %s does not find there what rank 0 "
                       "on %s has written. With sharded state each rank writes its part: give "
                       "options->checkpoint_folder a folder that all hosts share",
                       loop->folder, world->rank, world->hosts[world->rank], world->hosts[0]);
}

static kolo_status check_folder(kolo_elastic *loop)
{
    char path[PATH_MAX] = "";
    bool leader = loop->context->rank == 0;
    uint64_t name[2] = {(uint64_t)getpid(), kolo__now_ns(&kolo__real_clock)};
    kolo_status status = leader ? kolo__checkpoint_prepare(loop->folder) : KOLO_OK;
    kolo_status reached = kolo_broadcast(loop->context->world, name, 2, KOLO_UINT64, 0, NULL);
    if (reached != KOLO_OK)
        return reached;
    if (snprintf(path, sizeof path, "%s/.shared-%" PRIu64 "-%" PRIu64, loop->folder, name[0],
                 name[1]) >= PATH_MAX)
        status = kolo__error_errno(ENAMETOOLONG, "checkpoints in %s", loop->folder);
    int fd = leader && status == KOLO_OK ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (leader && status == KOLO_OK && fd < 0)
        status = kolo__error_errno(errno, "checkpoints cannot be written into %s", loop->folder);
    status = agree(loop, status);
    if (status == KOLO_OK) {
        status = leader ? KOLO_OK : look_for(loop, path);
        if (status == KOLO_OK && !leader)
            status = kolo__checkpoint_prepare(loop->folder);
        status = agree(loop, status);
    }
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    return status;
}

/* ---- one checkpoint ---------------------------------------------------------------------------
 */

/* Collective. *worst: of what ranks found; who of them comes first says so. */
static kolo_status compare_verdicts(kolo_elastic *loop, uint64_t step,
                                    enum kolo__checkpoint_verdict *worst, const char *why)
{
    uint32_t rank = loop->context->rank, size = loop->context->size;
    uint32_t most[2] = {*worst, *worst != KOLO__CHECKPOINT_GOOD ? size - rank : 0};
    kolo_status status =
        kolo_allreduce(loop->context->world, most, most, 2, KOLO_UINT32, KOLO_MAX, NULL);
    if (status != KOLO_OK)
        return status;
    enum kolo__checkpoint_verdict own = *worst;
    *worst = (enum kolo__checkpoint_verdict)most[0];
    if (*worst == KOLO__CHECKPOINT_DAMAGED)
        return size - rank == most[1] ? kolo__checkpoint_judge(loop->folder, step, own, why)
                                      : KOLO_OK;
    return *worst == KOLO__CHECKPOINT_GOOD
               ? KOLO_OK
               : agree(loop, own == *worst ? kolo__checkpoint_judge(loop->folder, step, own, why)
                                           : KOLO_OK);
}

/* This rank's pieces, and on rank 0 what all have, from where all get it. */
static bool fill(const kolo_elastic *loop, const struct kolo__checkpoint *checkpoint)
{
    bool good = true;
    for (size_t k = 0; k < loop->shards.count && good; k++) {
        const kolo_elastic_piece *piece = &loop->shards.pieces[k];
        good = kolo__checkpoint_fill(checkpoint, piece->tensor, piece->first, piece->count,
                                     piece->data);
    }
    for (size_t i = 0; i < loop->count && loop->context->rank == 0 && good; i++)
        if (loop->state[i].data != NULL)
            good =
                kolo__checkpoint_fill(checkpoint, i, 0, loop->state[i].count, loop->state[i].data);
    return good;
}

/* Collective. *verdict: KOLO__CHECKPOINT_GOOD, and it is taken, or damaged. */
static kolo_status try_step(kolo_elastic *loop, uint64_t step,
                            enum kolo__checkpoint_verdict *verdict)
{
    struct kolo__checkpoint *checkpoint;
    char why[KOLO__CHECKPOINT_WHY_BYTES] = "";
    *verdict =
        kolo__checkpoint_open(loop->folder, step, loop->state, loop->count, &checkpoint, why);
    if (*verdict == KOLO__CHECKPOINT_GOOD)
        *verdict =
            kolo__checkpoint_verify(checkpoint, loop->context->rank, loop->context->size, why);
    kolo_status status = compare_verdicts(loop, step, verdict, why);
    if (status == KOLO_OK && *verdict == KOLO__CHECKPOINT_GOOD) {
        loop->touched = true;
        if (!fill(loop, checkpoint))
            *verdict = KOLO__CHECKPOINT_LOST;
        status = compare_verdicts(loop, step, verdict, why);
    }
    kolo__checkpoint_close(checkpoint);
    return status;
}

/* ---- the last good one ------------------------------------------------------------------------
 */

enum { NO_STEP = 0, A_STEP, STEP_WORDS = 2 };

/* Rank 0's next one, if there is one, for all. */
static kolo_status next_step(kolo_elastic *loop, const uint64_t *steps, size_t count, size_t index,
                             uint64_t next[STEP_WORDS])
{
    next[0] = index < count ? A_STEP : NO_STEP;
    next[1] = index < count ? steps[index] : 0;
    return kolo_broadcast(loop->context->world, next, STEP_WORDS, KOLO_UINT64, 0, NULL);
}

kolo_status kolo__parts_restore(kolo_elastic *loop, bool *found)
{
    uint64_t *steps = NULL, next[STEP_WORDS] = {A_STEP, 0};
    size_t count = 0;
    *found = false;
    kolo_status status = check_folder(loop);
    if (status == KOLO_OK)
        status = agree(loop, loop->context->rank == 0
                                 ? kolo__checkpoint_steps(loop->folder, &steps, &count)
                                 : KOLO_OK);
    for (size_t i = 0; status == KOLO_OK && !*found && next[0] == A_STEP; i++) {
        enum kolo__checkpoint_verdict verdict = KOLO__CHECKPOINT_DAMAGED;
        status = next_step(loop, steps, count, i, next);
        if (status == KOLO_OK && next[0] == A_STEP)
            status = try_step(loop, next[1], &verdict);
        *found = status == KOLO_OK && verdict == KOLO__CHECKPOINT_GOOD;
    }
    if (status == KOLO_OK && !*found && count > 0)
        kolo__log(KOLO__LOG_WARN, "none of the %zu checkpoints in %s is good", count, loop->folder);
    free(steps);
    if (status == KOLO_OK && *found) {
        loop->step = loop->saved = next[1];
        loop->stopped = false;
    }
    return status;
}
