/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that run though the others have gone on without them (--min): they were stopped, cut off or
 * stuck when the world was renewed, which takes nobody back.
 */
#include "launcher/supervision.h"

#include <signal.h>
#include <stdio.h>

static const uint64_t SECOND = 1000000000;

enum { NOTICE_S = 1 };

static void say(const struct kolo__supervision *s, uint32_t rank, const char *why)
{
    char where[160], line[800];
    snprintf(line, sizeof line,
             "kolo run: rank %u (%s) %s; the others go on without it, and it is ended",
             s->job->first_rank + rank, s->job->ops->where(s->job->self, rank, where, sizeof where),
             why);
    kolo__supervision_say(s, line);
}

/* A stopped one must run to hear it. */
static void go_on(struct kolo__supervision *s, uint32_t rank, const char *why, uint64_t now_ns)
{
    struct kolo__ending *ending = &s->endings[rank];
    bool first = ending->expelled++ == 1;
    if (first)
        say(s, rank, why);
    s->job->ops->signal_one(s->job->self, rank, first ? SIGTERM : SIGKILL);
    s->job->ops->signal_one(s->job->self, rank, SIGCONT);
    ending->expelled_due_ns = first ? now_ns + (uint64_t)s->job->grace_s * SECOND : 0;
}

void kolo__supervision_end_expelled(struct kolo__supervision *s, uint64_t now_ns)
{
    bool ending_all = s->asked > 0 || s->term_at_ns != 0 || s->killing;
    if (s->job->min_ranks == 0 || s->job->rendezvous == NULL || ending_all)
        return;
    for (uint32_t r = 0; r < s->started; r++) {
        struct kolo__ending *ending = &s->endings[r];
        const char *why = kolo__rendezvous_expelled(s->job->rendezvous, s->job->first_rank + r);
        if (ending->ended || ending->leave_by_ns != 0 || why == NULL)
            continue;
        if (ending->expelled == 0) {
            ending->expelled = 1;
            ending->expelled_due_ns = now_ns + NOTICE_S * SECOND;
        } else if (ending->expelled_due_ns != 0 && now_ns >= ending->expelled_due_ns) {
            go_on(s, r, why, now_ns);
        }
    }
}

uint64_t kolo__supervision_expelled_due_ns(const struct kolo__supervision *s)
{
    uint64_t due_ns = 0;
    for (uint32_t r = 0; s->job->min_ranks > 0 && r < s->started; r++) {
        const struct kolo__ending *ending = &s->endings[r];
        if (!ending->ended && ending->expelled_due_ns != 0 &&
            (due_ns == 0 || ending->expelled_due_ns < due_ns))
            due_ns = ending->expelled_due_ns;
    }
    return due_ns;
}
