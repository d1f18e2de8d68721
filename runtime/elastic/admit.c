/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who comes to a world has to train what it trains. A newcomer that was started with another model
 * goes again, and the others renew the world without it: they have the state, and nothing is wrong
 * with them. Where nobody has been before, nobody is right.
 */
#include "runtime/elastic/elastic.h"

#include "base/log.h"
#include "base/status.h"
#include "runtime/reducer/tensors.h"

#include <stdlib.h>

static kolo_status gather_digests(kolo_elastic *loop, uint64_t *digests)
{
    uint64_t own = kolo__tensors_digest(loop->state, loop->count, NULL, 0);
    return kolo_allgather(loop->context->world, &own, digests, 1, KOLO_UINT64, NULL);
}

/* How many ranks from the first on have what rank 0 has. */
static uint32_t count_alike(const uint64_t *digests, uint32_t size)
{
    uint32_t count = 0;
    while (count < size && digests[count] == digests[0])
        count++;
    return count;
}

/* It is at fault, and leaves; so that the others need not wait until its process ends. */
static kolo_status go_away(kolo_elastic *loop)
{
    const kolo_renew_options options = {.size = sizeof options, .leave = 1};
    char text[400];
    snprintf(text, sizeof text, "%s", kolo_error_text());
    kolo_renew(loop->context, &options);
    return kolo__error(KOLO_ERR_MISMATCH,
                       "%s. This newcomer trains another model than the world that it came to, "
                       "which goes on without it: start it with the same program and options",
                       text);
}

kolo_status kolo__elastic_admit(kolo_elastic *loop)
{
    uint32_t size = loop->context->size, rank = loop->context->rank;
    kolo_epoch_report report = {.size = sizeof report};
    uint64_t *digests = calloc(size, sizeof *digests);
    kolo_status status = kolo_get_epoch_report(loop->context, &report);
    if (digests == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_begin_step: no memory");
    if (status == KOLO_OK)
        status = gather_digests(loop, digests);
    uint32_t alike = status == KOLO_OK ? count_alike(digests, size) : size;
    bool newcomers_differ = report.survivors > 0 && alike >= (uint32_t)report.survivors;
    bool differs = status == KOLO_OK && digests[rank] != digests[0];
    if (alike < size)
        status = kolo__tensors_compare(loop->context->world, "kolo_elastic_begin_step", loop->state,
                                       loop->count, NULL, 0, NULL);
    free(digests);
    if (status != KOLO_ERR_MISMATCH || !newcomers_differ)
        return status;
    if (differs)
        return go_away(loop);
    kolo__log(KOLO__LOG_WARN, "a newcomer is refused, and the world renewed without it: %s",
              kolo_error_text());
    return kolo__error(KOLO_ERR_ABORTED, "kolo_elastic_begin_step: a newcomer is refused");
}
