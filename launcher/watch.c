/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/watch.h"

#include <stdio.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

enum {
    LOOK_MS = 100,   /* between two looks */
    ANSWER_MS = 200, /* for agents to tell what their ranks do */
    LATER_MS = 600,  /* what is lost is found before anything is said of who waits for it */
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
static void say_stuck(struct kolo__watch *watch, const struct kolo__supervised *job,
                      const struct kolo__recorders *recorders, uint64_t now_ns, char *text,
                      size_t bytes)
{
    struct kolo__flight_verdict verdict;
    kolo__flight_judge(recorders->ranks, recorders->count, now_ns, &verdict);
    if (verdict.finding <= KOLO__FLIGHT_ELSEWHERE ||
        verdict.longest_ns < (uint64_t)job->peer_timeout_s * SECOND)
        return;
    watch->said_ns = verdict.longest_ns;
    snprintf(text, bytes, "kolo run: %s; KOLO_TIMEOUT ends that after %ld s", verdict.text,
             job->operation_timeout_s);
}

void kolo__watch_step(struct kolo__watch *watch, const struct kolo__supervised *job,
                      uint64_t now_ns, char *text, size_t bytes)
{
    text[0] = '\0';
    if (job->rendezvous == NULL || job->peer_timeout_s == 0 ||
        now_ns < watch->looked_ns + LOOK_MS * MILLISECOND)
        return;
    watch->looked_ns = now_ns;
    uint64_t limit_ns = (uint64_t)job->peer_timeout_s * SECOND + LATER_MS * MILLISECOND;
    uint64_t wait_ns = kolo__rendezvous_longest_wait_ns(job->rendezvous, now_ns);
    bool stuck = wait_ns >= limit_ns && wait_ns >= 2 * watch->said_ns;
    bool quiet = kolo__rendezvous_any_is_quiet(job->rendezvous, job->places);
    if (wait_ns < limit_ns)
        watch->said_ns = 0;
    if (!quiet && !stuck) {
        watch->asked_ns = 0;
        return;
    }
    if (watch->asked_ns == 0 || now_ns >= watch->asked_ns + limit_ns / 2) {
        watch->asked_ns = now_ns;
        if (job->ops->ask_recorders != NULL)
            job->ops->ask_recorders(job->self);
    }
    if (job->ops->ask_recorders != NULL && now_ns < watch->asked_ns + ANSWER_MS * MILLISECOND)
        return;
    struct kolo__recorders recorders = {0};
    if (job->ops->recorders(job->self, &recorders) == KOLO_OK) {
        note_states(job, &recorders);
        if (stuck)
            say_stuck(watch, job, &recorders, now_ns, text, bytes);
    }
    kolo__recorders_free(&recorders);
}

int kolo__watch_timeout_ms(const struct kolo__watch *watch)
{
    return watch->asked_ns != 0 ? LOOK_MS : -1;
}
