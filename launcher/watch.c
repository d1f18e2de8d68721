/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/watch.h"

#include <stdio.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

enum {
    LOOK_MS = 100,   /* between two looks */
    ANSWER_MS = 200, /* for agents to tell what their ranks do */
};

static void note_states(const struct kolo__supervised *job, const struct kolo__recorders *recorders)
{
    for (uint32_t i = 0; i < recorders->count; i++) {
        uint32_t place = recorders->ranks[i].place;
        if (place < job->places && kolo__rendezvous_is_quiet(job->rendezvous, place))
            kolo__rendezvous_note_state(job->rendezvous, place, recorders->ranks[i].state);
    }
}

/* Again when the wait has become twice as long. */
static void say_held_up(struct kolo__watch *watch, const struct kolo__supervised *job,
                        uint64_t now_ns, char *text, size_t bytes)
{
    uint64_t longest_ns = 0;
    const char *verdict = kolo__rendezvous_held_up(job->rendezvous, now_ns, &longest_ns);
    if (longest_ns < watch->said_ns)
        watch->said_ns = 0;
    if (verdict == NULL || longest_ns < 2 * watch->said_ns)
        return;
    watch->said_ns = longest_ns;
    snprintf(text, bytes, "kolo run: %s; KOLO_TIMEOUT ends that after %ld s", verdict,
             job->operation_timeout_s);
}

void kolo__watch_step(struct kolo__watch *watch, const struct kolo__supervised *job,
                      uint64_t now_ns, char *text, size_t bytes)
{
    text[0] = '\0';
    if (job->rendezvous == NULL || job->peer_timeout_s == 0)
        return;
    watch->early = now_ns < watch->looked_ns + LOOK_MS * MILLISECOND;
    if (watch->early)
        return;
    watch->looked_ns = now_ns;
    say_held_up(watch, job, now_ns, text, bytes);
    if (!kolo__rendezvous_any_is_quiet(job->rendezvous, job->places)) {
        watch->asked_ns = 0;
        return;
    }
    if (watch->asked_ns == 0 ||
        now_ns >= watch->asked_ns + (uint64_t)job->peer_timeout_s * SECOND / 2) {
        watch->asked_ns = now_ns;
        if (job->ops->ask_recorders != NULL)
            job->ops->ask_recorders(job->self);
    }
    if (job->ops->ask_recorders != NULL && now_ns < watch->asked_ns + ANSWER_MS * MILLISECOND)
        return;
    struct kolo__recorders recorders = {0};
    if (job->ops->recorders(job->self, &recorders) == KOLO_OK)
        note_states(job, &recorders);
    kolo__recorders_free(&recorders);
}

int kolo__watch_timeout_ms(const struct kolo__watch *watch)
{
    return watch->asked_ns != 0 || watch->early ? LOOK_MS : -1;
}
