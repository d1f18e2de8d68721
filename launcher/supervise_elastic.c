/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that come and go while the job runs. */
#include "launcher/supervision.h"

#include "launcher/counts.h"

#include <signal.h>
#include <stdio.h>

static const uint64_t SECOND = 1000000000;

enum { DONE_S = 5 };

/* ---- who fails ----------------------------------------------------------------------------- */

static bool are_enough(const struct kolo__supervision *s)
{
    return s->running > 0 && s->running + s->restarts.planned >= (uint32_t)s->job->min_ranks;
}

/* Too few wait in kolo_renew, if a host may come. */
static bool may_go_on(const struct kolo__supervision *s)
{
    return are_enough(s) || (s->running > 0 && s->job->hosts_s > 0);
}

/* "; the other 3 go on, and it is started again (1 of 3)". */
static void say_survived(const struct kolo__supervision *s, uint32_t rank, const char *why,
                         const char *again)
{
    char where[160], others[80] = "the other rank goes on", line[800];
    if (!are_enough(s))
        snprintf(others, sizeof others, "fewer than --min are left, and wait %ld s for hosts",
                 s->job->hosts_s);
    else if (s->running > 1)
        snprintf(others, sizeof others, "the other %u go on", s->running);
    snprintf(line, sizeof line, "kolo run: rank %u (%s) %s; %s%s", s->job->first_rank + rank,
             s->job->ops->where(s->job->self, rank, where, sizeof where), why, others, again);
    kolo__supervision_say(s, line);
}

static void say_again(const struct kolo__supervision *s, bool failed, char *text, size_t bytes)
{
    if (failed)
        snprintf(text, bytes, ", and it is started again (%ld of %ld)", s->restarts.used,
                 s->restarts.limit);
    else
        snprintf(text, bytes, ", and it is started again, which does not count: it was told to go");
}

bool kolo__supervision_survive(struct kolo__supervision *s, uint32_t rank, const char *why,
                               bool member, uint64_t now_ns)
{
    char again[100] = "";
    const struct kolo__rendezvous *rendezvous = s->job->rendezvous;
    if (s->job->min_ranks == 0 || rendezvous == NULL || !kolo__rendezvous_has_formed(rendezvous))
        return false;
    bool over = kolo__rendezvous_is_over(rendezvous);
    bool late = over && !member; /* a newcomer, when the others had ended their work */
    /* What was lost with its host is no failure of its own: others are started when hosts come. */
    const struct kolo__ending *ending = &s->endings[rank];
    bool by_host = s->job->hosts_s > 0 && ending->lost != NULL;
    bool failed = ending->lost != NULL || ending->expelled > 0 ||
                  !kolo__ending_is_departure(ending->wait_status);
    if (!over && !by_host && s->term_at_ns == 0 && s->asked == 0 &&
        kolo__restarts_plan(&s->restarts, rank, failed, now_ns))
        say_again(s, failed, again, sizeof again);
    if (!late && !may_go_on(s)) {
        kolo__restarts_drop(&s->restarts, rank);
        return false;
    }
    s->endings[rank].survived = true;
    if (!late)
        say_survived(s, rank, why, again);
    return true;
}

/* ---- who comes ----------------------------------------------------------------------------- */

/* Nobody is started any more. */
static bool is_ending(const struct kolo__supervision *s)
{
    return s->running == 0 || s->asked > 0 || s->term_at_ns != 0 || s->kill_at_ns != 0 ||
           s->killing;
}

/* There is a world to come to. */
static bool has_world(const struct kolo__supervision *s)
{
    return s->job->rendezvous != NULL && kolo__rendezvous_has_formed(s->job->rendezvous) &&
           !kolo__rendezvous_is_over(s->job->rendezvous);
}

static void note_started(struct kolo__supervision *s, uint32_t rank)
{
    kolo__counts_started(1);
    s->endings[rank] = (struct kolo__ending){0};
    s->started += rank == s->started;
    s->running++;
}

static void say_not_started(const struct kolo__supervision *s, uint32_t rank, const char *how)
{
    char line[800];
    snprintf(line, sizeof line, "kolo run: rank %u cannot be started%s: %s",
             s->job->first_rank + rank, how, kolo_error_text());
    kolo__supervision_say(s, line);
}

/* Whose time has come; nobody once the others end, or are ended. */
static void start_again(struct kolo__supervision *s, uint64_t now_ns)
{
    bool ending = is_ending(s) || (s->restarts.planned > 0 && !has_world(s));
    for (int r; (r = kolo__restarts_take(&s->restarts, now_ns)) >= 0;) {
        if (ending)
            continue;
        uint64_t later_ns = now_ns;
        kolo_status status =
            s->job->ops->start_again(s->job->self, (uint32_t)r, s->job->output, &later_ns);
        if (status == KOLO_AGAIN)
            kolo__restarts_postpone(&s->restarts, (uint32_t)r, later_ns);
        else if (status == KOLO_OK)
            note_started(s, (uint32_t)r);
        else
            say_not_started(s, (uint32_t)r, " again");
        if (status != KOLO_OK && status != KOLO_AGAIN && !may_go_on(s)) {
            s->endings[r].survived = false;
            kolo__supervision_begin_end(s, now_ns);
        }
    }
}

/* Where no rank is, nor will be started again; the number of places: there is none. */
static uint32_t find_place(const struct kolo__supervision *s)
{
    uint32_t place = s->started;
    if (place == s->job->places)
        for (place = 0; place < s->started; place++)
            if (s->endings[place].ended && !kolo__restarts_is_planned(&s->restarts, place))
                break;
    return place;
}

/* When a rank has just ended well, by itself, so may the others, and then nobody is to come: until
 * then. */
static uint64_t done_until_ns(const struct kolo__supervision *s)
{
    uint64_t until_ns = 0;
    for (uint32_t r = 0; r < s->started; r++) {
        const struct kolo__ending *ending = &s->endings[r];
        uint64_t its_ns = ending->at_ns + DONE_S * SECOND;
        if (ending->ended && !ending->asked && !kolo__ending_is_failure(ending) &&
            its_ns > until_ns)
            until_ns = its_ns;
    }
    return until_ns;
}

static void start_more(struct kolo__supervision *s, uint64_t now_ns)
{
    kolo_status status = KOLO_OK;
    s->more_at_ns = 0;
    if (!s->job->grows || is_ending(s) || !has_world(s))
        return;
    uint64_t at_ns = done_until_ns(s);
    if (now_ns < at_ns) {
        s->more_at_ns = at_ns;
        return;
    }
    while (status == KOLO_OK && s->running + s->restarts.planned < s->job->places) {
        uint32_t place = find_place(s);
        status = s->job->ops->start_more(s->job->self, place, s->job->output);
        if (status == KOLO_OK)
            note_started(s, place);
        else if (status != KOLO_AGAIN)
            say_not_started(s, place, "");
    }
}

/* ---- who goes ------------------------------------------------------------------------------ */

static bool is_surplus(const struct kolo__supervision *s, uint32_t rank)
{
    const struct kolo__ending *ending = &s->endings[rank];
    return !ending->ended && ending->leave_by_ns == 0 && s->job->ops->is_surplus != NULL &&
           s->job->ops->is_surplus(s->job->self, rank);
}

static bool is_member(const struct kolo__supervision *s, uint32_t rank)
{
    return kolo__rendezvous_is_member(s->job->rendezvous, s->job->first_rank + rank);
}

/* Of the present world, those that stay in it as far as we know. */
static uint32_t count_members(const struct kolo__supervision *s)
{
    uint32_t count = 0;
    for (uint32_t r = 0; r < s->started; r++)
        count += !s->endings[r].ended && s->endings[r].leave_by_ns == 0 && is_member(s, r);
    return count;
}

/* In good order: at the end of its step. The others need not be asked, for enough of them stay;
 * too few would end with it, so it stays until others have come, or its host goes by itself. */
static void tell_to_leave(struct kolo__supervision *s, uint32_t rank, uint64_t now_ns)
{
    struct kolo__ending *ending = &s->endings[rank];
    if (is_member(s, rank) && count_members(s) <= (uint32_t)s->job->min_ranks)
        return;
    ending->leave_by_ns = now_ns + (uint64_t)s->job->grace_s * SECOND;
    ending->asked = ending->survived = true;
    s->job->ops->signal_one(s->job->self, rank, SIGTERM);
    s->job->ops->signal_one(s->job->self, rank, SIGCONT); /* a stopped one must run to hear it */
}

static void kill_late(struct kolo__supervision *s, uint32_t rank)
{
    char line[200];
    snprintf(line, sizeof line,
             "kolo run: rank %u did not leave within the %ld s of --grace, and is killed",
             s->job->first_rank + rank, s->job->grace_s);
    kolo__supervision_say(s, line);
    s->endings[rank].leave_by_ns = UINT64_MAX;
    s->job->ops->signal_one(s->job->self, rank, SIGKILL);
}

static void have_leave(struct kolo__supervision *s, uint64_t now_ns)
{
    if (!s->job->grows || is_ending(s) || !has_world(s))
        return;
    for (uint32_t r = 0; r < s->started; r++) {
        const struct kolo__ending *ending = &s->endings[r];
        if (is_surplus(s, r))
            tell_to_leave(s, r, now_ns);
        else if (!ending->ended && ending->leave_by_ns != 0 && now_ns >= ending->leave_by_ns)
            kill_late(s, r);
    }
}

/* Ranks whose place is gone are as good as gone. */
static void check_enough(struct kolo__supervision *s, uint64_t now_ns)
{
    uint32_t left = s->restarts.planned;
    if (s->job->hosts_s == 0 || is_ending(s) || !has_world(s))
        return;
    for (uint32_t r = 0; r < s->started; r++)
        left += !s->endings[r].ended && s->endings[r].leave_by_ns == 0 && !is_surplus(s, r);
    if (left >= (uint32_t)s->job->min_ranks)
        s->too_few_at_ns = 0;
    else if (s->too_few_at_ns == 0)
        s->too_few_at_ns = now_ns;
    else if (now_ns >= s->too_few_at_ns + (uint64_t)s->job->hosts_s * SECOND)
        s->too_few = true;
    if (s->too_few)
        kolo__supervision_plan_end(s, now_ns);
}

void kolo__supervision_resize(struct kolo__supervision *s, uint64_t now_ns)
{
    start_again(s, now_ns);
    start_more(s, now_ns);
    have_leave(s, now_ns);
    check_enough(s, now_ns);
}
