/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/expelled.h"

#include <signal.h>
#include <stdio.h>

static const uint64_t SECOND = 1000000000;

enum { NOTICE_S = 1 };

static void say(const struct kolo__supervised *job, uint32_t rank, const char *why)
{
    char where[160], line[800];
    snprintf(line, sizeof line,
             "kolo run: rank %u (%s) %s; the others go on without it, and it is ended",
             job->first_rank + rank, job->ops->where(job->self, rank, where, sizeof where), why);
    kolo__supervised_say(job, line);
}

/* A stopped one must run to hear it. */
static void go_on(const struct kolo__supervised *job, uint32_t rank, struct kolo__ending *ending,
                  const char *why, uint64_t now_ns)
{
    bool first = ending->expelled++ == 1;
    if (first)
        say(job, rank, why);
    job->ops->signal_one(job->self, rank, first ? SIGTERM : SIGKILL);
    job->ops->signal_one(job->self, rank, SIGCONT);
    ending->expelled_due_ns = first ? now_ns + (uint64_t)job->grace_s * SECOND : 0;
}

void kolo__expelled_step(const struct kolo__supervised *job, struct kolo__ending *endings,
                         uint64_t now_ns)
{
    if (job->min_ranks == 0 || job->rendezvous == NULL)
        return;
    for (uint32_t r = 0; r < job->started; r++) {
        struct kolo__ending *ending = &endings[r];
        const char *why = kolo__rendezvous_expelled(job->rendezvous, job->first_rank + r);
        if (ending->ended || why == NULL)
            continue;
        if (ending->expelled == 0) {
            ending->expelled = 1;
            ending->expelled_due_ns = now_ns + NOTICE_S * SECOND;
        } else if (ending->expelled_due_ns != 0 && now_ns >= ending->expelled_due_ns) {
            go_on(job, r, ending, why, now_ns);
        }
    }
}

uint64_t kolo__expelled_due_ns(const struct kolo__supervised *job,
                               const struct kolo__ending *endings)
{
    uint64_t due_ns = 0;
    for (uint32_t r = 0; job->min_ranks > 0 && r < job->started; r++)
        if (!endings[r].ended && endings[r].expelled_due_ns != 0 &&
            (due_ns == 0 || endings[r].expelled_due_ns < due_ns))
            due_ns = endings[r].expelled_due_ns;
    return due_ns;
}
