/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { EPOCHS_MAX = 5 };

bool job_chance(struct job *job, unsigned percent)
{
    return kolo__random_below(&job->random, 100) < percent;
}

void job_note(struct job *job, uint64_t what)
{
    struct kolo__random mix = {.state = job->trace ^ what};
    job->trace = kolo__random_u64(&mix);
}

void job_broken(struct job *job, const char *format, ...)
{
    va_list arguments;
    if (job->broken[0] != '\0')
        return;
    va_start(arguments, format);
    int used = snprintf(job->broken, sizeof job->broken,
                        "epoch %u, %u ranks: ", job->membership.epoch, job->size);
    vsnprintf(job->broken + used, sizeof job->broken - (size_t)used, format, arguments);
    va_end(arguments);
}

bool job_run(uint64_t seed, struct job *job)
{
    memset(job, 0, sizeof *job);
    job->seed = seed;
    job->random.state = seed;
    job->size = 2 + (uint32_t)kolo__random_below(&job->random, 5);
    job->process_count = job->size;
    uint32_t least = 1 + (uint32_t)kolo__random_below(&job->random, job->size);
    if (!kolo__membership_begin(&job->membership, job->size, least)) {
        job_broken(job, "no memory");
        return false;
    }
    for (uint32_t id = 0; id < job->size; id++) {
        job->members[id] = id;
        job->processes[id] = (struct process){.rank = id, .size = job->size};
    }
    do {
        job->epochs++;
        job_steps(job);
    } while (job->epochs < EPOCHS_MAX && job->broken[0] == '\0' && job_agree(job));
    kolo__membership_end(&job->membership);
    return job->broken[0] == '\0';
}
