/* SPDX-License-Identifier: Apache-2.0 */
/* The few lines that every algorithm begins or ends with. */
#include "collectives/algorithm/algorithm.h"

#include "base/status.h"

void kolo__schedule_alone(struct kolo__schedule *s)
{
    const struct kolo__problem *problem = &s->problem;
    if (problem->collective == KOLO__BARRIER)
        return;
    uint32_t flags = 0;
    if (kolo__collective_reduces(problem->collective))
        flags = KOLO__FINISH | (problem->prescale ? KOLO__PRESCALE : 0);
    kolo__schedule_copy(s, kolo__here(s, KOLO__INPUT, 0), kolo__here(s, KOLO__OUTPUT, 0),
                        s->output_count, flags);
}

void kolo__schedule_copy_input(struct kolo__schedule *s, size_t offset, struct kolo__place to,
                               size_t count)
{
    bool scaled = s->problem.prescale && kolo__collective_reduces(s->problem.collective);
    bool same = s->problem.in_place && to.buffer == KOLO__OUTPUT &&
                to.offset == offset + s->input_in_output;
    if (!same || scaled)
        kolo__schedule_copy(s, kolo__here(s, KOLO__INPUT, offset), to, count,
                            scaled ? KOLO__PRESCALE : 0);
}

enum kolo__buffer kolo__schedule_contribution(struct kolo__schedule *s)
{
    if (!s->problem.prescale)
        return KOLO__INPUT;
    kolo__schedule_copy_input(s, 0, kolo__here(s, KOLO__OUTPUT, 0), s->problem.count);
    return KOLO__OUTPUT;
}

kolo_status kolo__schedule_built(struct kolo__schedule *s)
{
    if (!s->out_of_memory)
        return KOLO_OK;
    uint32_t steps = s->step_count;
    const char *algorithm = s->algorithm;
    kolo__schedule_free(s);
    return kolo__error(KOLO_ERR_MEMORY, "no memory for the schedule of %s after %u steps",
                       algorithm, steps);
}
