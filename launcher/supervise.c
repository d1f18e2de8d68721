/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/supervision.h"

#include "base/clock.h"
#include "launcher/counts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

enum {
    NOTICE_MS = 1000, /* for survivors to learn of a failure and say so themselves */
    REPORT_MS = 500,
    ANSWER_MS = 500, /* for other hosts to say what their ranks have recorded */
    LOOK_AGAIN_MS = 20,
    OWN_ENTRIES = 3, /* of the poll array: signals, rendezvous, input; then those of the ranks' ops,
                        and the output's */
};

/* ---- sending signals ----------------------------------------------------------------------- */

static void signal_ranks(const struct kolo__supervision *s, int number)
{
    s->job->ops->signal(s->job->self, number);
}

/* Tells every running rank to end. A stopped one must run to hear it. */
static void end_ranks(struct kolo__supervision *s, int number)
{
    for (uint32_t r = 0; r < s->started; r++) {
        s->asked += !s->endings[r].ended && !s->endings[r].asked;
        s->endings[r].asked |= !s->endings[r].ended;
    }
    signal_ranks(s, number);
    signal_ranks(s, SIGCONT);
}

static void write_flight_file(const char *path, const struct kolo__recorders *recorders)
{
    /* Not of a reader that has not come: that would wait for him. */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file != NULL)
        kolo__recorders_write_csv(recorders->ranks, recorders->count, file);
    if (file == NULL || (ferror(file) | fclose(file)) != 0)
        fprintf(stderr, "kolo run: KOLO_FLIGHT_FILE=%s: cannot write it: %s\n", path,
                strerror(errno));
}

/* Before anybody is told to end: afterwards ranks are as the launcher made them. */
void kolo__supervision_judge(struct kolo__supervision *s)
{
    struct kolo__recorders recorders = {0};
    if (s->asked > 0 || s->judged)
        return;
    s->judged = true;
    if (s->job->ops->recorders(s->job->self, &recorders) == KOLO_OK)
        kolo__flight_judge(recorders.ranks, recorders.count, kolo__now_ns(&kolo__real_clock),
                           &s->verdict);
    if (s->job->flight_file[0] != '\0')
        write_flight_file(s->job->flight_file, &recorders);
    kolo__recorders_free(&recorders);
}

void kolo__supervision_plan_end(struct kolo__supervision *s, uint64_t term_at_ns)
{
    if (s->term_at_ns != 0 || s->kill_at_ns != 0 || s->killing)
        return;
    s->term_at_ns = term_at_ns;
    if (s->job->ops->ask_recorders != NULL)
        s->job->ops->ask_recorders(s->job->self);
}

/* The job took longer than the user gives it. */
static void check_timeout(struct kolo__supervision *s, uint64_t now_ns)
{
    if (s->timeout_at_ns == 0 || now_ns < s->timeout_at_ns || s->running == 0)
        return;
    s->timeout_at_ns = 0;
    s->timed_out = s->failed_at_ns == 0 && s->signal == 0;
    kolo__supervision_plan_end(
        s, now_ns + (s->job->ops->ask_recorders != NULL ? ANSWER_MS * MILLISECOND : 0));
}

/* Who was expelled, stopped for instance, has nothing to do any more, and does not end by itself;
 * nor does a newcomer that nobody waits for. */
static void end_expelled(struct kolo__supervision *s, uint64_t now_ns)
{
    const struct kolo__rendezvous *rendezvous = s->job->rendezvous;
    if (s->job->min_ranks == 0 || rendezvous == NULL || s->running == 0 ||
        !kolo__rendezvous_has_formed(rendezvous))
        return;
    for (uint32_t r = 0; r < s->started; r++)
        if (!s->endings[r].ended && kolo__rendezvous_is_member(rendezvous, s->job->first_rank + r))
            return;
    kolo__supervision_plan_end(s, now_ns + NOTICE_MS * MILLISECOND);
}

static void keep_plan(struct kolo__supervision *s, uint64_t now_ns)
{
    check_timeout(s, now_ns);
    end_expelled(s, now_ns);
    kolo__supervision_end_expelled(s, now_ns);
    if (s->term_at_ns != 0 && now_ns >= s->term_at_ns) {
        s->kill_at_ns = s->term_at_ns + (uint64_t)s->job->grace_s * SECOND;
        s->term_at_ns = 0;
        kolo__supervision_judge(s);
        end_ranks(s, SIGTERM);
    }
    if (s->kill_at_ns != 0 && now_ns >= s->kill_at_ns) {
        s->kill_at_ns = 0;
        s->killing = true;
        end_ranks(s, SIGKILL);
    }
}

/* ---- hearing signals ----------------------------------------------------------------------- */

/* One that asks the job to end. Ranks may take their time: a checkpoint has to be written. */
static void pass_on_end(struct kolo__supervision *s, int number)
{
    bool urgent = number == SIGINT || number == SIGTERM;
    if (s->signal == 0)
        s->signal = number;
    kolo__supervision_judge(s);
    if (urgent && s->urged) {
        s->killing = true;
        end_ranks(s, SIGKILL);
    } else {
        s->urged |= urgent;
        end_ranks(s, number);
    }
}

static void hear_signals(struct kolo__supervision *s)
{
    int number;
    while ((number = kolo__signals_next(s->job->signals)) != 0) {
        switch (number) {
        case SIGINT:
        case SIGTERM:
        case SIGHUP:
        case SIGQUIT:
            pass_on_end(s, number);
            break;
        case SIGTSTP:
            signal_ranks(s, SIGTSTP);
            raise(SIGSTOP); /* the terminal's owner sees us stopped, and wakes us with SIGCONT */
            break;
        case SIGUSR1:
        case SIGUSR2:
        case SIGCONT:
            signal_ranks(s, number);
            break;
        default: /* SIGCHLD: reap looks for itself */
            break;
        }
    }
}

/* ---- reaping ------------------------------------------------------------------------------- */

void kolo__supervision_say(const struct kolo__supervision *s, const char *line)
{
    if (s->job->output != NULL)
        kolo__output_say(s->job->output, line);
    else
        fprintf(stderr, "%s\n", line);
}

void kolo__supervision_begin_end(struct kolo__supervision *s, uint64_t now_ns)
{
    s->failed_at_ns = now_ns;
    kolo__supervision_plan_end(s, now_ns + NOTICE_MS * MILLISECOND);
}

/* A rank that failed by itself begins the end of all, unless the others can go on without it, or
 * the user has asked for it anyway. */
static void note_ending(void *self, uint32_t rank, int wait_status, const char *lost)
{
    struct kolo__supervision *s = self;
    struct kolo__ending *ending = &s->endings[rank];
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    char why[480];
    if (ending->ended)
        return;
    ending->ended = true;
    ending->wait_status = wait_status;
    ending->lost = lost;
    ending->at_ns = now_ns;
    s->running--;
    if (lost == NULL)
        kolo__counts_ended(wait_status);
    else
        kolo__counts_lost();
    bool member =
        s->job->rendezvous != NULL && kolo__rendezvous_is_member(s->job->rendezvous, rank);
    kolo__ending_text(ending, why, sizeof why);
    if (s->job->rendezvous != NULL)
        kolo__rendezvous_rank_ended(s->job->rendezvous, rank, !kolo__ending_is_failure(ending),
                                    why);
    if (rank == 0)
        kolo__input_close(s->job->input);
    bool failed = kolo__ending_is_failure(ending) && !ending->asked && s->failed_at_ns == 0;
    if (failed && !kolo__supervision_survive(s, rank, why, member, now_ns))
        kolo__supervision_begin_end(s, now_ns);
    if (s->running == 0)
        s->ended_at_ns = now_ns;
}

static void clear_strays(struct kolo__supervision *s)
{
    s->strays_gone = s->job->ops->clear(s->job->self, s->killing);
    if (s->strays_gone && s->job->output != NULL)
        kolo__output_finish(s->job->output);
}

/* While nobody has failed. */
static void watch_over(struct kolo__supervision *s)
{
    char line[1200];
    if (s->failed_at_ns != 0 || s->asked > 0)
        return;
    kolo__watch_step(&s->watch, s->job, kolo__now_ns(&kolo__real_clock), line, sizeof line);
    if (line[0] != '\0')
        kolo__supervision_say(s, line);
}

/* ---- the loop ------------------------------------------------------------------------------ */

static bool is_reading(const struct kolo__supervision *s)
{
    return s->job->output != NULL && kolo__output_is_reading(s->job->output);
}

/* The first failure is named below the last output, unless that takes long to be written. */
static bool is_time_to_report(const struct kolo__supervision *s, uint64_t now_ns)
{
    return !s->reported && s->strays_gone &&
           (!is_reading(s) || now_ns >= s->ended_at_ns + REPORT_MS * MILLISECOND);
}

/* Milliseconds until something is due by the clock; -1: never. */
static int next_timeout_ms(const struct kolo__supervision *s, uint64_t now_ns)
{
    int timeout = s->job->rendezvous != NULL ? kolo__rendezvous_timeout_ms(s->job->rendezvous) : -1;
    int theirs = s->job->ops->timeout_ms(s->job->self);
    if (theirs >= 0 && (timeout < 0 || theirs < timeout))
        timeout = theirs;
    theirs = kolo__watch_timeout_ms(&s->watch);
    if (theirs >= 0 && (timeout < 0 || theirs < timeout))
        timeout = theirs;
    const uint64_t deadlines[] = {s->term_at_ns,
                                  s->kill_at_ns,
                                  s->timeout_at_ns,
                                  s->more_at_ns,
                                  kolo__restarts_next_ns(&s->restarts),
                                  kolo__supervision_expelled_due_ns(s)};
    for (size_t i = 0; i < sizeof deadlines / sizeof *deadlines; i++) {
        if (deadlines[i] == 0)
            continue;
        uint64_t left = deadlines[i] > now_ns ? (deadlines[i] - now_ns) / MILLISECOND + 1 : 0;
        if (timeout < 0 || left < (uint64_t)timeout)
            timeout = left > INT_MAX ? INT_MAX : (int)left;
    }
    bool look_again = s->running == 0 && (!s->strays_gone || is_reading(s));
    int pause = look_again ? LOOK_AGAIN_MS : kolo__input_is_waiting(s->job->input) ? 1000 : -1;
    return pause >= 0 && (timeout < 0 || pause < timeout) ? pause : timeout;
}

/* With this process its ranks die, and the guard clears up what they left. */
_Noreturn static void give_up(const struct kolo__supervised *job)
{
    fprintf(stderr, "kolo run: no memory for %u ranks\n", job->places);
    abort();
}

/* Hosts may have come since the last time. */
static void make_room(struct kolo__supervision *s, uint32_t entries)
{
    if (entries <= s->fds_room)
        return;
    struct pollfd *fds = realloc(s->fds, entries * sizeof *fds);
    if (fds == NULL)
        give_up(s->job);
    s->fds = fds;
    s->fds_room = entries;
}

static void wait_and_serve(struct kolo__supervision *s)
{
    const struct kolo__supervised *job = s->job;
    uint32_t count = OWN_ENTRIES + job->ops->poll_count(job->self), before_output = count;
    if (job->output != NULL)
        count += kolo__output_poll_count(job->output);
    make_room(s, count);
    struct pollfd *theirs = s->fds + OWN_ENTRIES, *outputs = s->fds + before_output;
    s->fds[0] = (struct pollfd){.fd = job->signals->fd, .events = POLLIN};
    s->fds[1] = (struct pollfd){.fd = -1, .events = POLLIN};
    if (job->rendezvous != NULL)
        s->fds[1].fd = kolo__rendezvous_fd(job->rendezvous);
    kolo__input_poll_fill(job->input, &s->fds[2]);
    job->ops->poll_fill(job->self, theirs);
    if (job->output != NULL)
        kolo__output_poll_fill(job->output, outputs);
    int ready = poll(s->fds, count, next_timeout_ms(s, kolo__now_ns(&kolo__real_clock)));
    if (ready < 0)
        return; /* EINTR: nothing was filled in */
    hear_signals(s);
    job->ops->step(job->self, theirs, note_ending, s);
    if (job->rendezvous != NULL)
        kolo__rendezvous_step(job->rendezvous);
    watch_over(s);
    kolo__input_step(job->input, &s->fds[2]);
    if (job->output != NULL) {
        kolo__output_step(job->output, outputs);
        if (kolo__output_failure(job->output) != 0)
            kolo__supervision_plan_end(s, kolo__now_ns(&kolo__real_clock));
    }
}

static bool is_over(const struct kolo__supervision *s)
{
    return s->running == 0 && s->strays_gone && s->reported && !is_reading(s) &&
           (s->job->output == NULL || !kolo__output_is_writing(s->job->output));
}

int kolo__supervise(const struct kolo__supervised *job)
{
    struct kolo__supervision s = {.job = job, .started = job->started, .running = job->started};
    s.endings = calloc(job->places, sizeof *s.endings);
    if (s.endings == NULL || !kolo__restarts_open(&s.restarts, job->places, job->restarts))
        give_up(job);
    if (job->timeout_s > 0)
        s.timeout_at_ns = kolo__now_ns(&kolo__real_clock) + (uint64_t)job->timeout_s * SECOND;
    s.ended_at_ns = job->started == 0 ? kolo__now_ns(&kolo__real_clock) : 0;
    if (job->started < job->ranks)
        kolo__supervision_plan_end(&s, kolo__now_ns(&kolo__real_clock));
    while (!is_over(&s)) {
        uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
        keep_plan(&s, now_ns);
        kolo__supervision_resize(&s, now_ns);
        if (s.running == 0 && !s.strays_gone)
            clear_strays(&s);
        if (is_time_to_report(&s, now_ns))
            kolo__supervision_report(&s);
        if (!is_over(&s))
            wait_and_serve(&s);
    }
    int code = kolo__supervision_exit_code(&s);
    kolo__restarts_close(&s.restarts);
    free(s.endings);
    free(s.fds);
    return code;
}
