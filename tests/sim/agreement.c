/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From one epoch to the next: messages that take their time on the way to the server, or never get
 * there, because who would send them has died. Everything that reaches the server goes into the
 * real state machine, which is asked what to do after each, and when its time is over.
 */
#include "job.h"

#include <string.h>

enum { EVENTS_MAX = 128 };
static const uint64_t LIMIT_NS = 1000000, SPREAD_NS = 400000, NEVER = UINT64_MAX;

enum kind { COMES, LOST, ARRIVES };

struct event {
    uint64_t at_ns;
    enum kind kind;
    uint32_t id, epoch;
};

struct agreement {
    struct job *job;
    struct event events[EVENTS_MAX];
    uint32_t count;
    uint64_t limit_ns; /* NEVER: nobody has come yet */
    bool come[JOB_PROCESSES_MAX], heard_lost[JOB_PROCESSES_MAX], expelled[JOB_PROCESSES_MAX];
    uint32_t before[JOB_RANKS_MAX], before_size;
    bool formed, ended;
};

static void plan(struct agreement *a, uint64_t at_ns, enum kind kind, uint32_t id, uint32_t epoch)
{
    if (a->count < EVENTS_MAX)
        a->events[a->count++] = (struct event){at_ns, kind, id, epoch};
}

static uint64_t soon(struct agreement *a)
{
    return a->job->now_ns + kolo__random_below(&a->job->random, SPREAD_NS);
}

/* ---- what is drawn -----------------------------------------------------------------------------
 */

static void draw_member(struct agreement *a, uint32_t id)
{
    struct job *job = a->job;
    struct process *process = &job->processes[id];
    uint32_t epoch = job->membership.epoch;
    uint64_t comes_ns = soon(a);
    if (process->dead) {
        plan(a, soon(a), LOST, id, 0);
        return;
    }
    if (job_chance(job, 10)) /* stopped, or in something long */
        comes_ns += LIMIT_NS + SPREAD_NS;
    if (job_chance(job, 15)) { /* it dies before it has sent that, or after */
        uint64_t dies_ns = soon(a);
        process->dead = true;
        job->deaths++;
        plan(a, dies_ns + kolo__random_below(&job->random, SPREAD_NS), LOST, id, 0);
        if (dies_ns < comes_ns)
            return;
    }
    plan(a, comes_ns + kolo__random_below(&job->random, SPREAD_NS), COMES, id, epoch);
    if (epoch > 0 && job_chance(job, 10)) /* an old message, late */
        plan(a, soon(a), COMES, id, epoch - 1);
    if (job_chance(job, 5)) /* the same once more */
        plan(a, comes_ns + 2 * SPREAD_NS, COMES, id, epoch);
}

static void draw_newcomers(struct agreement *a)
{
    struct job *job = a->job;
    for (unsigned i = 0; i < 2; i++) {
        if (!job_chance(job, 25) || job->process_count == JOB_PROCESSES_MAX ||
            kolo__membership_count(&job->membership, KOLO__MEMBER_WAITING) + a->before_size + 2 >
                JOB_RANKS_MAX)
            continue;
        uint32_t id = job->process_count++;
        job->processes[id] = (struct process){0};
        uint64_t at_ns = soon(a);
        plan(a, at_ns, ARRIVES, id, 0);
        if (job_chance(job, 20)) {
            job->processes[id].dead = true;
            plan(a, at_ns + kolo__random_below(&job->random, 2 * SPREAD_NS), LOST, id, 0);
        }
    }
}

/* ---- what must hold ----------------------------------------------------------------------------
 */

static bool was_member(const struct agreement *a, uint32_t id, uint32_t *rank)
{
    for (*rank = 0; *rank < a->before_size; ++*rank)
        if (a->before[*rank] == id)
            return true;
    return false;
}

/* Members are those that came and were not heard to be lost, in the old order; then newcomers, in
 * theirs. Each is told the same. */
static void check_members(struct agreement *a, uint32_t epoch_before)
{
    struct job *job = a->job;
    const struct kolo__membership *m = &job->membership;
    uint32_t rank, last = 0, last_new = 0, survivors = 0, expected = 0;
    bool newcomers = false;
    if (m->epoch != epoch_before + 1)
        job_broken(job, "epoch %u follows %u", m->epoch, epoch_before);
    if (m->count < m->least || m->count == 0)
        job_broken(job, "%u members are fewer than %u", m->count, m->least);
    for (uint32_t i = 0; i < m->count; i++) {
        uint32_t id = m->entries[i].id;
        bool old = was_member(a, id, &rank);
        if (a->heard_lost[id] || a->expelled[id])
            job_broken(job, "process %u is a member, and known to be %s", id,
                       a->expelled[id] ? "expelled" : "lost");
        if (old && (newcomers || !a->come[id] || (survivors > 0 && rank <= last)))
            job_broken(job, "process %u, rank %u before, is not where it belongs", id, rank);
        if (!old && newcomers && id <= last_new && a->come[id])
            job_broken(job, "newcomer %u stands behind %u", id, last_new);
        survivors += old;
        newcomers |= !old;
        last = old ? rank : last;
        last_new = old ? last_new : id;
    }
    for (uint32_t r = 0; r < a->before_size; r++)
        expected += a->come[a->before[r]] && !a->heard_lost[a->before[r]];
    if (survivors != expected)
        job_broken(job, "%u survivors of %u that came are members", survivors, expected);
    if (m->count > JOB_RANKS_MAX)
        job_broken(job, "%u members", m->count);
}

static void check_time(struct agreement *a)
{
    if (a->job->now_ns > a->limit_ns)
        job_broken(a->job, "decided %llu ns after the time was over",
                   (unsigned long long)(a->job->now_ns - a->limit_ns));
}

/* ---- the server --------------------------------------------------------------------------------
 */

static void form(struct agreement *a, uint32_t epoch_before)
{
    struct job *job = a->job;
    check_members(a, epoch_before);
    job->size = job->membership.count < JOB_RANKS_MAX ? job->membership.count : JOB_RANKS_MAX;
    for (uint32_t rank = 0; rank < job->size; rank++) {
        uint32_t id = job->membership.entries[rank].id;
        job->members[rank] = id;
        job->processes[id].epoch = job->membership.epoch;
        job->processes[id].rank = rank;
        job->processes[id].size = job->size;
        job_note(job, (uint64_t)job->membership.epoch << 32 | (uint64_t)rank << 16 | id);
    }
    a->formed = true;
}

static void decide(struct agreement *a)
{
    struct job *job = a->job;
    enum kolo__membership_decision decision;
    uint32_t id = 0, before = job->membership.epoch;
    if (!kolo__membership_is_forming(&job->membership))
        a->limit_ns = NEVER;
    else if (a->limit_ns == NEVER)
        a->limit_ns = job->now_ns + LIMIT_NS;
    bool over = job->now_ns >= a->limit_ns;
    while (!a->formed && !a->ended &&
           (decision = kolo__membership_decide(&job->membership, over, &id)) !=
               KOLO__MEMBERSHIP_NOTHING) {
        check_time(a);
        job_note(job, (uint64_t)decision << 32 | id);
        if (decision == KOLO__MEMBERSHIP_EXPEL) {
            if (!over || a->come[id])
                job_broken(job, "process %u is expelled, and %s", id,
                           a->come[id] ? "has come" : "the time is not over");
            a->expelled[id] = true;
            job->processes[id].dead = job->processes[id].expelled = true;
            job->expulsions++;
        } else if (decision == KOLO__MEMBERSHIP_FORM) {
            form(a, before);
        } else {
            a->ended = true;
            job->ends++;
        }
    }
    if (over && !a->formed && !a->ended)
        job_broken(job, "the time is over and nothing is decided");
}

static void handle(struct agreement *a, const struct event *event)
{
    struct job *job = a->job;
    struct kolo__membership *m = &job->membership;
    job_note(job, event->at_ns ^ (uint64_t)event->kind << 60 ^ event->id);
    if (event->kind == LOST) {
        a->heard_lost[event->id] = true;
        kolo__membership_remove(m, event->id);
    } else if (event->kind == ARRIVES) {
        if (!a->heard_lost[event->id] && kolo__membership_arrive(m, event->id))
            job->newcomers++;
    } else {
        bool wanted = event->epoch == m->epoch && !a->come[event->id] &&
                      !a->heard_lost[event->id] && !a->expelled[event->id];
        if (kolo__membership_come(m, event->id, event->epoch) != wanted)
            job_broken(job, "process %u, that comes from epoch %u, is %s", event->id, event->epoch,
                       wanted ? "refused" : "taken");
        a->come[event->id] |= wanted;
        job->refused += !wanted;
    }
}

/* The next event, or the end of the time, whichever is first. False: there is neither. */
static bool go_on(struct agreement *a)
{
    uint32_t next = 0;
    for (uint32_t i = 1; i < a->count; i++)
        if (a->events[i].at_ns < a->events[next].at_ns)
            next = i;
    if (a->count == 0 && a->limit_ns == NEVER)
        return false;
    if (a->count == 0 || a->limit_ns <= a->events[next].at_ns) {
        a->job->now_ns = a->limit_ns;
        return true;
    }
    struct event event = a->events[next];
    a->events[next] = a->events[--a->count];
    a->job->now_ns = event.at_ns;
    handle(a, &event);
    return true;
}

/* Who is heard of only after the epoch has formed is a member that is dead. */
static void keep_for_later(struct agreement *a)
{
    for (uint32_t i = 0; i < a->count; i++) {
        uint32_t id = a->events[i].id;
        if (a->events[i].kind == ARRIVES && !a->job->processes[id].dead &&
            kolo__membership_arrive(&a->job->membership, id))
            a->job->newcomers++;
    }
}

bool job_agree(struct job *job)
{
    struct agreement a = {.job = job, .limit_ns = NEVER, .before_size = job->size};
    memcpy(a.before, job->members, sizeof a.before);
    for (uint32_t rank = 0; rank < job->size; rank++)
        draw_member(&a, job->members[rank]);
    draw_newcomers(&a);
    while (!a.formed && !a.ended && job->broken[0] == '\0' && go_on(&a))
        decide(&a);
    uint32_t alive = 0;
    for (uint32_t r = 0; r < a.before_size; r++)
        alive += !job->processes[a.before[r]].dead;
    if (!a.formed && !a.ended && alive > 0)
        job_broken(job, "%u processes wait for an epoch for ever", alive);
    if (a.formed)
        keep_for_later(&a);
    return a.formed;
}
