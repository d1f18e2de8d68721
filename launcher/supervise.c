/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/supervise.h"

#include "base/clock.h"
#include "launcher/command.h"
#include "launcher/counts.h"
#include "launcher/expelled.h"
#include "launcher/report.h"
#include "launcher/restarts.h"
#include "launcher/termination.h"
#include "launcher/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

enum {
    NOTICE_MS = 1000, /* for survivors to learn of a failure and say so themselves */
    REPORT_MS = 500,
    HUNG_S = 2,      /* healthy jobs wait less */
    ANSWER_MS = 500, /* for other hosts to say what their ranks have recorded */
    LOOK_AGAIN_MS = 20,
    OWN_ENTRIES = 3, /* of the poll array: signals, rendezvous, input; then those of the ranks' ops,
                        and the output's */
};

struct supervision {
    const struct kolo__supervised *job;
    struct kolo__ending *endings; /* by rank */
    struct pollfd *fds;
    uint32_t running;
    uint32_t asked; /* ranks that had to be told to end */
    struct kolo__restarts restarts;
    int signal;                      /* the first that asks the job to end; 0: none */
    uint64_t failed_at_ns;           /* 0: no rank has failed by itself */
    uint64_t term_at_ns, kill_at_ns; /* 0: not planned, or done */
    uint64_t timeout_at_ns;          /* 0: the job may take as long as it likes, or took too long */
    bool timed_out;
    uint64_t ended_at_ns; /* 0: some rank runs */
    bool urged;           /* SIGINT or SIGTERM came */
    bool killing, strays_gone, reported, judged;
    struct kolo__flight_verdict verdict; /* before anybody was told to end */
    struct kolo__watch watch;
};

/* ---- the rendezvous, which may be elsewhere ------------------------------------------------ */

/* What kept the world from forming: only where the rendezvous is does anybody know. */
static kolo_status get_obstacle(const struct supervision *s, const char **text)
{
    *text = "";
    return s->job->rendezvous == NULL ? KOLO_OK
                                      : kolo__rendezvous_obstacle(s->job->rendezvous, text);
}

static bool has_joined(const struct supervision *s, uint32_t rank)
{
    return s->job->rendezvous == NULL || kolo__rendezvous_joined(s->job->rendezvous, rank);
}

/* ---- sending signals ----------------------------------------------------------------------- */

static void signal_ranks(const struct supervision *s, int number)
{
    s->job->ops->signal(s->job->self, number);
}

/* Tells every running rank to end. A stopped one must run to hear it. */
static void end_ranks(struct supervision *s, int number)
{
    for (uint32_t r = 0; r < s->job->started; r++) {
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
static void judge(struct supervision *s)
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

static void plan_end(struct supervision *s, uint64_t term_at_ns)
{
    if (s->term_at_ns != 0 || s->kill_at_ns != 0 || s->killing)
        return;
    s->term_at_ns = term_at_ns;
    if (s->job->ops->ask_recorders != NULL)
        s->job->ops->ask_recorders(s->job->self);
}

/* The job took longer than the user gives it. */
static void check_timeout(struct supervision *s, uint64_t now_ns)
{
    if (s->timeout_at_ns == 0 || now_ns < s->timeout_at_ns || s->running == 0)
        return;
    s->timeout_at_ns = 0;
    s->timed_out = s->failed_at_ns == 0 && s->signal == 0;
    plan_end(s, now_ns + (s->job->ops->ask_recorders != NULL ? ANSWER_MS * MILLISECOND : 0));
}

/* Who was expelled, stopped for instance, has nothing to do any more, and does not end by itself;
 * nor does a newcomer that nobody waits for. */
static void end_expelled(struct supervision *s, uint64_t now_ns)
{
    const struct kolo__rendezvous *rendezvous = s->job->rendezvous;
    if (s->job->min_ranks == 0 || rendezvous == NULL || s->running == 0 ||
        !kolo__rendezvous_has_formed(rendezvous))
        return;
    for (uint32_t r = 0; r < s->job->started; r++)
        if (!s->endings[r].ended && kolo__rendezvous_is_member(rendezvous, s->job->first_rank + r))
            return;
    plan_end(s, now_ns + NOTICE_MS * MILLISECOND);
}

static void keep_plan(struct supervision *s, uint64_t now_ns)
{
    check_timeout(s, now_ns);
    end_expelled(s, now_ns);
    if (s->asked == 0 && s->term_at_ns == 0 && !s->killing)
        kolo__expelled_step(s->job, s->endings, now_ns);
    if (s->term_at_ns != 0 && now_ns >= s->term_at_ns) {
        s->kill_at_ns = s->term_at_ns + (uint64_t)s->job->grace_s * SECOND;
        s->term_at_ns = 0;
        judge(s);
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
static void pass_on_end(struct supervision *s, int number)
{
    bool urgent = number == SIGINT || number == SIGTERM;
    if (s->signal == 0)
        s->signal = number;
    judge(s);
    if (urgent && s->urged) {
        s->killing = true;
        end_ranks(s, SIGKILL);
    } else {
        s->urged |= urgent;
        end_ranks(s, number);
    }
}

static void hear_signals(struct supervision *s)
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

void kolo__supervised_say(const struct kolo__supervised *job, const char *line)
{
    if (job->output != NULL)
        kolo__output_say(job->output, line);
    else
        fprintf(stderr, "%s\n", line);
}

static void say(const struct supervision *s, const char *line)
{
    kolo__supervised_say(s->job, line);
}

static void begin_end(struct supervision *s, uint64_t now_ns)
{
    s->failed_at_ns = now_ns;
    plan_end(s, now_ns + NOTICE_MS * MILLISECOND);
}

static bool are_enough(const struct supervision *s)
{
    return s->running > 0 && s->running + s->restarts.planned >= (uint32_t)s->job->min_ranks;
}

/* The others can make a world without it (kolo_renew), or with the process that takes its place.
 * False: they cannot. member: it has been in their world. */
static bool survive(struct supervision *s, uint32_t rank, const char *why, bool member,
                    uint64_t now_ns)
{
    char where[160], others[24] = "rank goes", again[80] = "", line[800];
    const struct kolo__rendezvous *rendezvous = s->job->rendezvous;
    if (s->job->min_ranks == 0 || rendezvous == NULL || !kolo__rendezvous_has_formed(rendezvous))
        return false;
    bool over = kolo__rendezvous_is_over(rendezvous);
    bool late = over && !member; /* a newcomer, when the others had ended their work */
    if (!over && s->term_at_ns == 0 && s->asked == 0 &&
        kolo__restarts_plan(&s->restarts, rank, now_ns))
        snprintf(again, sizeof again, ", and it is started again (%ld of %ld)", s->restarts.used,
                 s->restarts.limit);
    if (!late && !are_enough(s)) {
        kolo__restarts_drop(&s->restarts, rank);
        return false;
    }
    s->endings[rank].survived = true;
    if (s->running > 1)
        snprintf(others, sizeof others, "%u go", s->running);
    snprintf(line, sizeof line, "kolo run: rank %u (%s) %s; the other %s on%s",
             s->job->first_rank + rank, s->job->ops->where(s->job->self, rank, where, sizeof where),
             why, others, again);
    if (!late)
        say(s, line);
    return true;
}

/* Whose time has come; nobody once the others end, or are ended. */
static void start_again(struct supervision *s, uint64_t now_ns)
{
    char line[800];
    bool ending = s->running == 0 || s->asked > 0 || s->term_at_ns != 0 || s->killing ||
                  (s->restarts.planned > 0 && kolo__rendezvous_is_over(s->job->rendezvous));
    for (int r; (r = kolo__restarts_take(&s->restarts, now_ns)) >= 0;) {
        if (ending)
            continue;
        uint64_t later_ns = now_ns;
        kolo_status status =
            s->job->ops->start_again(s->job->self, (uint32_t)r, s->job->output, &later_ns);
        if (status == KOLO_AGAIN)
            kolo__restarts_postpone(&s->restarts, (uint32_t)r, later_ns);
        if (status == KOLO_AGAIN)
            continue;
        if (status == KOLO_OK) {
            kolo__counts_started(1);
            s->endings[r] = (struct kolo__ending){0};
            s->running++;
            continue;
        }
        snprintf(line, sizeof line, "kolo run: rank %u cannot be started again: %s",
                 s->job->first_rank + (uint32_t)r, kolo_error_text());
        say(s, line);
        if (!are_enough(s)) {
            s->endings[r].survived = false;
            begin_end(s, now_ns);
        }
    }
}

/* A rank that failed by itself begins the end of all, unless the others can go on without it, or
 * the user has asked for it anyway. */
static void note_ending(void *self, uint32_t rank, int wait_status, const char *lost)
{
    struct supervision *s = self;
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
    if (failed && !survive(s, rank, why, member, now_ns))
        begin_end(s, now_ns);
    if (s->running == 0)
        s->ended_at_ns = now_ns;
}

static void clear_strays(struct supervision *s)
{
    s->strays_gone = s->job->ops->clear(s->job->self, s->killing);
    if (s->strays_gone && s->job->output != NULL)
        kolo__output_finish(s->job->output);
}

/* ---- the end ------------------------------------------------------------------------------- */

static int lost_rank(const struct supervision *s)
{
    kolo_status status;
    int rank = -1;
    if (s->job->rendezvous == NULL ||
        kolo__rendezvous_fault(s->job->rendezvous, &status, &rank) == NULL ||
        status != KOLO_ERR_PEER_LOST)
        return -1;
    return rank;
}

static struct kolo__report_facts gather_facts(const struct supervision *s)
{
    struct kolo__report_facts facts = {
        .endings = s->endings,
        .started = s->job->started,
        .first_rank = s->job->first_rank,
        .first = kolo__first_failure(s->endings, s->job->started, lost_rank(s)),
        .fault_rank = -1};
    if (s->job->rendezvous != NULL) {
        facts.fault_ns = kolo__rendezvous_fault_ns(s->job->rendezvous);
        facts.fault_text =
            kolo__rendezvous_fault(s->job->rendezvous, &facts.fault, &facts.fault_rank);
        if (facts.fault_rank >= (int)s->job->started) /* a newcomer of elsewhere */
            facts.fault_rank = -1;
    }
    return facts;
}

/* A rank that wrote for itself to a reader that has gone: nobody wants to hear of that. */
static bool is_broken_pipe(const struct supervision *s, int first)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    int wait_status = s->endings[first].wait_status;
    return s->job->output == NULL && s->endings[first].lost == NULL && WIFSIGNALED(wait_status) &&
           WTERMSIG(wait_status) == SIGPIPE && poll(&out, 1, 0) > 0 && (out.revents & POLLERR) != 0;
}

/* What a rank that ended with code 0 has failed to do. */
static const char *describe_omission(const struct supervision *s, int first)
{
    if (kolo__ending_is_failure(&s->endings[first]))
        return "";
    return has_joined(s, (uint32_t)first)
               ? " without kolo_finalize, while others needed it"
               : " and never joined the world (kolo_init), while others waited for it";
}

/* ": why", by the rank itself. What it said of a failure that it then lived through is not why it
 * was killed. */
static void describe_words(const struct supervision *s, int first, char *text)
{
    char words[KOLO__LAST_WORDS_BYTES];
    const struct kolo__ending *ending = &s->endings[first];
    text[0] = '\0';
    if (!kolo__ending_is_failure(ending) || ending->lost != NULL ||
        WIFSIGNALED(ending->wait_status))
        return;
    if (kolo__last_words_read(s->job->last_words, (uint32_t)first, words)[0] != '\0')
        snprintf(text, KOLO__LAST_WORDS_BYTES + 2, ": %s", words);
}

/* Above the last line, which names the first failure. */
static void say_verdict(struct supervision *s)
{
    char line[1100];
    judge(s);
    if (s->verdict.finding <= KOLO__FLIGHT_ELSEWHERE)
        return;
    snprintf(line, sizeof line, "kolo run: %s", s->verdict.text);
    say(s, line);
}

static void say_last(struct supervision *s, const char *line)
{
    char whole[3300];
    say_verdict(s);
    bool useful = s->verdict.finding > KOLO__FLIGHT_ELSEWHERE;
    snprintf(whole, sizeof whole, "%s%s%s", line, useful ? "\n" : "",
             useful ? s->verdict.text : "");
    kolo__termination_note(whole);
    say(s, line);
}

/* Names the first failure, once: what kept the world from forming, or else the rank. */
static void report(struct supervision *s)
{
    char where[160], said[KOLO__LAST_WORDS_BYTES + 2], line[2048];
    const char *obstacle;
    const struct kolo__report_facts facts = gather_facts(s);
    int first = facts.first;
    s->reported = true;
    if (s->timed_out) {
        snprintf(line, sizeof line, "kolo run: the job did not end within the %ld s of --timeout",
                 s->job->timeout_s);
        say_last(s, line);
        return;
    }
    bool hung = s->verdict.longest_ns >= HUNG_S * SECOND;
    if (first < 0 && s->signal != 0 && hung) /* that may be why the user ended it */
        say_verdict(s);
    if (first < 0 || is_broken_pipe(s, first))
        return;
    kolo_status status = get_obstacle(s, &obstacle);
    if (kolo__obstacle_exit_code(status) != 0) {
        snprintf(line, sizeof line, "kolo run: the world did not form: %s", obstacle);
    } else {
        describe_words(s, first, said);
        s->job->ops->where(s->job->self, (uint32_t)first, where, sizeof where);
        kolo__report_line(&facts, where, describe_omission(s, first), said, line, sizeof line);
    }
    say_last(s, line);
}

static int failure_code(const struct supervision *s, const struct kolo__report_facts *facts)
{
    const char *text;
    kolo_status obstacle = get_obstacle(s, &text);
    int code = kolo__obstacle_exit_code(obstacle);
    if (code == 0 && obstacle == KOLO_OK && kolo__report_begins_with_fault(facts))
        code = kolo__report_exit_code(facts);
    return code != 0 ? code
                     : kolo__ending_exit_code(&s->endings[facts->first], obstacle == KOLO_OK);
}

static int exit_code(const struct supervision *s)
{
    if (s->timed_out)
        return KOLO__EXIT_TIMEOUT;
    int failure = s->job->output != NULL ? kolo__output_failure(s->job->output) : 0;
    const struct kolo__report_facts facts = gather_facts(s);
    if (facts.first >= 0 && is_broken_pipe(s, facts.first))
        return KOLO__EXIT_SIGNAL + SIGPIPE;
    if (facts.first >= 0)
        return failure_code(s, &facts);
    if (s->signal != 0)
        return KOLO__EXIT_SIGNAL + s->signal;
    if (failure == EPIPE)
        return KOLO__EXIT_SIGNAL + SIGPIPE;
    if (failure != 0) {
        fprintf(stderr, "kolo run: cannot write to stdout: %s\n", strerror(failure));
        return KOLO__EXIT_OUTPUT;
    }
    failure = s->job->output != NULL ? kolo__output_copies_failure(s->job->output) : 0;
    if (failure != 0) {
        fprintf(stderr, "kolo run: cannot write to the files of --output-filename: %s\n",
                strerror(failure));
        return KOLO__EXIT_OUTPUT;
    }
    return 0;
}

/* While nobody has failed. */
static void watch_over(struct supervision *s)
{
    char line[1200];
    if (s->failed_at_ns != 0 || s->asked > 0)
        return;
    kolo__watch_step(&s->watch, s->job, kolo__now_ns(&kolo__real_clock), line, sizeof line);
    if (line[0] != '\0')
        say(s, line);
}

/* ---- the loop ------------------------------------------------------------------------------ */

static bool is_reading(const struct supervision *s)
{
    return s->job->output != NULL && kolo__output_is_reading(s->job->output);
}

/* The first failure is named below the last output, unless that takes long to be written. */
static bool is_time_to_report(const struct supervision *s, uint64_t now_ns)
{
    return !s->reported && s->strays_gone &&
           (!is_reading(s) || now_ns >= s->ended_at_ns + REPORT_MS * MILLISECOND);
}

/* Milliseconds until something is due by the clock; -1: never. */
static int next_timeout_ms(const struct supervision *s, uint64_t now_ns)
{
    int timeout = s->job->rendezvous != NULL ? kolo__rendezvous_timeout_ms(s->job->rendezvous) : -1;
    int theirs = s->job->ops->timeout_ms(s->job->self);
    if (theirs >= 0 && (timeout < 0 || theirs < timeout))
        timeout = theirs;
    theirs = kolo__watch_timeout_ms(&s->watch);
    if (theirs >= 0 && (timeout < 0 || theirs < timeout))
        timeout = theirs;
    const uint64_t deadlines[] = {s->term_at_ns, s->kill_at_ns, s->timeout_at_ns,
                                  kolo__restarts_next_ns(&s->restarts),
                                  kolo__expelled_due_ns(s->job, s->endings)};
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

static void wait_and_serve(struct supervision *s)
{
    const struct kolo__supervised *job = s->job;
    struct pollfd *theirs = s->fds + OWN_ENTRIES;
    struct pollfd *outputs = theirs + job->ops->poll_count(job->self);
    uint32_t count = (uint32_t)(outputs - s->fds);
    s->fds[0] = (struct pollfd){.fd = job->signals->fd, .events = POLLIN};
    s->fds[1] = (struct pollfd){.fd = -1, .events = POLLIN};
    if (job->rendezvous != NULL)
        s->fds[1].fd = kolo__rendezvous_fd(job->rendezvous);
    kolo__input_poll_fill(job->input, &s->fds[2]);
    job->ops->poll_fill(job->self, theirs);
    if (job->output != NULL) {
        kolo__output_poll_fill(job->output, outputs);
        count += kolo__output_poll_count(job->output);
    }
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
            plan_end(s, kolo__now_ns(&kolo__real_clock));
    }
}

static bool is_over(const struct supervision *s)
{
    return s->running == 0 && s->strays_gone && s->reported && !is_reading(s) &&
           (s->job->output == NULL || !kolo__output_is_writing(s->job->output));
}

int kolo__supervise(const struct kolo__supervised *job)
{
    struct supervision s = {.job = job, .running = job->started};
    uint32_t entries = OWN_ENTRIES + job->ops->poll_count(job->self);
    if (job->output != NULL)
        entries += kolo__output_poll_count(job->output);
    s.endings = calloc(job->ranks, sizeof *s.endings);
    s.fds = calloc(entries, sizeof *s.fds);
    if (s.endings == NULL || s.fds == NULL ||
        !kolo__restarts_open(&s.restarts, job->ranks, job->restarts)) {
        /* With this process its ranks die, and the guard clears up what they left. */
        fprintf(stderr, "kolo run: no memory for %u ranks\n", job->ranks);
        abort();
    }
    if (job->timeout_s > 0)
        s.timeout_at_ns = kolo__now_ns(&kolo__real_clock) + (uint64_t)job->timeout_s * SECOND;
    s.ended_at_ns = job->started == 0 ? kolo__now_ns(&kolo__real_clock) : 0;
    if (job->started < job->ranks)
        plan_end(&s, kolo__now_ns(&kolo__real_clock));
    while (!is_over(&s)) {
        uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
        keep_plan(&s, now_ns);
        start_again(&s, now_ns);
        if (s.running == 0 && !s.strays_gone)
            clear_strays(&s);
        if (is_time_to_report(&s, now_ns))
            report(&s);
        if (!is_over(&s))
            wait_and_serve(&s);
    }
    int code = exit_code(&s);
    kolo__restarts_close(&s.restarts);
    free(s.endings);
    free(s.fds);
    return code;
}
