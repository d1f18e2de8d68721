/* SPDX-License-Identifier: Apache-2.0 */
/* When a loop's state is written to disk, and taken up from there: both by rank 0, whoever that is
 * by now; where ranks have parts of it, by all (parts.c). */
#include "runtime/elastic/elastic.h"

#include "base/log.h"
#include "base/status.h"

#include <inttypes.h>

static kolo_status load(kolo_elastic *loop, bool *found)
{
    uint64_t step;
    *found = false;
    if (loop->folder == NULL)
        return KOLO_OK;
    if (kolo__parts_are_saved(loop))
        return kolo__parts_restore(loop, found);
    kolo_status status = kolo__checkpoint_prepare(loop->folder);
    if (status == KOLO_OK)
        status = kolo__checkpoint_load(loop->folder, loop->state, loop->count, found, &step);
    if (status == KOLO_OK && *found)
        loop->step = loop->saved = step;
    return status;
}

kolo_status kolo__elastic_restore(kolo_elastic *loop)
{
    bool found, leader = loop->context->rank == 0;
    kolo_status status = load(loop, &found);
    if (status != KOLO_OK)
        return status;
    if (found)
        loop->stopped = false;
    if (found && leader)
        kolo__log(KOLO__LOG_INFO, "training goes on from the checkpoint of step %" PRIu64 " in %s",
                  loop->step, loop->folder);
    /* What the user has made there is a state where the job begins: a rank that has been in each
     * epoch, and never had one, knows that no step was done. A newcomer does not. */
    bool begins = loop->context->from_the_start && !loop->touched;
    loop->has_state = leader && (found || begins);
    return KOLO_OK;
}

kolo_status kolo__elastic_make_writer(kolo_elastic *loop)
{
    int keep = loop->options.checkpoint_keep > 0 ? loop->options.checkpoint_keep : 2;
    if (loop->writer != NULL)
        return KOLO_OK;
    kolo_status status = kolo__checkpoint_prepare(loop->folder);
    return status == KOLO_OK
               ? kolo__checkpoint_writer_create(loop->folder, keep, loop->saved, &loop->writer)
               : status;
}

/* Copies the state, and returns. The writer is idle. */
static kolo_status offer(kolo_elastic *loop)
{
    unsigned char *file = kolo__checkpoint_writer_file(
        loop->writer, kolo__checkpoint_file_bytes(loop->state, loop->count));
    if (file == NULL)
        return KOLO_ERR_MEMORY;
    kolo__checkpoint_lay_out(file, loop->state, loop->count, loop->step);
    kolo__checkpoint_writer_offer(loop->writer, loop->step, 0, 0);
    return KOLO_OK;
}

/* While one is written still, the next is late. */
bool kolo__elastic_save_is_due(const kolo_elastic *loop)
{
    uint64_t every = loop->options.checkpoint_every;
    return loop->folder != NULL && loop->context->rank == 0 && every > 0 &&
           loop->step / every > loop->saved / every && !loop->parts.pending &&
           (loop->writer == NULL || !kolo__checkpoint_writer_is_busy(loop->writer));
}

/* A checkpoint that cannot be written does not end the training that it is for: the log says so,
 * and the next one is tried. */
void kolo__elastic_save(kolo_elastic *loop)
{
    kolo_status status = kolo__elastic_make_writer(loop);
    if (status == KOLO_OK)
        status = offer(loop);
    if (status != KOLO_OK)
        kolo__log(KOLO__LOG_WARN, "%s", kolo_error_text());
    loop->saved = loop->step;
}

kolo_status kolo__elastic_save_last(kolo_elastic *loop)
{
    if (kolo__parts_are_saved(loop))
        return kolo__parts_save_last(loop);
    return loop->context->rank == 0 ? kolo__elastic_save_alone(loop) : KOLO_OK;
}

kolo_status kolo__elastic_save_alone(kolo_elastic *loop)
{
    if (loop->folder == NULL)
        return KOLO_OK;
    kolo_status status = kolo__elastic_make_writer(loop);
    if (status == KOLO_OK)
        status = kolo__checkpoint_writer_wait(loop->writer, NULL);
    if (status == KOLO_OK && loop->saved == loop->step)
        return KOLO_OK;
    if (loop->writer == NULL)
        return status;
    status = offer(loop);
    return status == KOLO_OK ? kolo__checkpoint_writer_wait(loop->writer, NULL) : status;
}
