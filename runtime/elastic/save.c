/* SPDX-License-Identifier: Apache-2.0 */
/* When a loop's state is written to disk, and taken up from there: both by rank 0, whoever that is
 * by now. */
#include "runtime/elastic/elastic.h"

#include "base/log.h"
#include "base/status.h"

#include <inttypes.h>

kolo_status kolo__elastic_restore(kolo_elastic *loop)
{
    bool found = false;
    uint64_t step;
    kolo_status status = loop->folder != NULL ? kolo__checkpoint_prepare(loop->folder) : KOLO_OK;
    if (status == KOLO_OK && loop->folder != NULL)
        status = kolo__checkpoint_load(loop->folder, loop->state, loop->count, &found, &step);
    if (status != KOLO_OK)
        return status;
    if (found) {
        kolo__log(KOLO__LOG_INFO, "training goes on from the checkpoint of step %" PRIu64 " in %s",
                  step, loop->folder);
        loop->step = loop->saved = step;
        loop->stopped = false;
    }
    loop->has_state = found || !loop->touched; /* what the user has made there */
    return KOLO_OK;
}

/* The thread, and its copy of the state, are made when rank 0 needs them first. */
static kolo_status make_writer(kolo_elastic *loop)
{
    int keep = loop->options.checkpoint_keep > 0 ? loop->options.checkpoint_keep : 2;
    if (loop->writer != NULL)
        return KOLO_OK;
    kolo_status status = kolo__checkpoint_prepare(loop->folder);
    return status == KOLO_OK ? kolo__checkpoint_writer_create(loop->folder, keep, loop->state,
                                                              loop->count, &loop->writer)
                             : status;
}

/* A checkpoint that cannot be written does not end the training that it is for: the log says so,
 * and the next one is tried. While one is written still, the next is late. */
void kolo__elastic_save_if_due(kolo_elastic *loop)
{
    uint64_t every = loop->options.checkpoint_every;
    if (loop->folder == NULL || loop->context->rank != 0 || every == 0 ||
        loop->step / every <= loop->saved / every)
        return;
    if (make_writer(loop) != KOLO_OK) {
        kolo__log(KOLO__LOG_WARN, "%s", kolo_error_text());
        loop->saved = loop->step;
    } else if (kolo__checkpoint_writer_offer(loop->writer, loop->step)) {
        loop->saved = loop->step;
    }
}

kolo_status kolo__elastic_save_last(kolo_elastic *loop)
{
    if (loop->folder == NULL || loop->context->rank != 0)
        return KOLO_OK;
    kolo_status status = make_writer(loop);
    if (status == KOLO_OK)
        status = kolo__checkpoint_writer_wait(loop->writer);
    if (status == KOLO_OK && loop->saved == loop->step)
        return KOLO_OK;
    if (loop->writer == NULL)
        return status;
    kolo__checkpoint_writer_offer(loop->writer, loop->step);
    return kolo__checkpoint_writer_wait(loop->writer);
}
