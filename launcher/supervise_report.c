/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a job, in words and in an exit code. */
#include "launcher/supervision.h"

#include "launcher/command.h"
#include "launcher/report.h"
#include "launcher/termination.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

enum { HUNG_S = 2 }; /* healthy jobs wait less */

/* ---- the rendezvous, which may be elsewhere ------------------------------------------------ */

/* What kept the world from forming: only where the rendezvous is does anybody know. */
static kolo_status get_obstacle(const struct kolo__supervision *s, const char **text)
{
    *text = "";
    return s->job->rendezvous == NULL ? KOLO_OK
                                      : kolo__rendezvous_obstacle(s->job->rendezvous, text);
}

static bool has_joined(const struct kolo__supervision *s, uint32_t rank)
{
    return s->job->rendezvous == NULL || kolo__rendezvous_joined(s->job->rendezvous, rank);
}

/* ---- the end ------------------------------------------------------------------------------- */

static int lost_rank(const struct kolo__supervision *s)
{
    kolo_status status;
    int rank = -1;
    if (s->job->rendezvous == NULL ||
        kolo__rendezvous_fault(s->job->rendezvous, &status, &rank) == NULL ||
        status != KOLO_ERR_PEER_LOST)
        return -1;
    return rank;
}

static struct kolo__report_facts gather_facts(const struct kolo__supervision *s)
{
    struct kolo__report_facts facts = {
        .endings = s->endings,
        .started = s->started,
        .first_rank = s->job->first_rank,
        .first = kolo__first_failure(s->endings, s->started, lost_rank(s)),
        .fault_rank = -1};
    if (facts.first < 0 && s->signal == 0)
        facts.first = kolo__last_failure(s->endings, s->started);
    if (s->job->rendezvous != NULL) {
        facts.fault_ns = kolo__rendezvous_fault_ns(s->job->rendezvous);
        facts.fault_text =
            kolo__rendezvous_fault(s->job->rendezvous, &facts.fault, &facts.fault_rank);
        if (facts.fault_rank >= (int)s->started) /* a newcomer of elsewhere */
            facts.fault_rank = -1;
        facts.word = kolo__rendezvous_word(s->job->rendezvous, &facts.word_status, &facts.word_rank,
                                           &facts.word_ns);
        if (facts.word_rank >= (int)s->started)
            facts.word_rank = -1;
    }
    return facts;
}

/* A rank that wrote for itself to a reader that has gone: nobody wants to hear of that. */
static bool is_broken_pipe(const struct kolo__supervision *s, int first)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    int wait_status = s->endings[first].wait_status;
    return s->job->output == NULL && s->endings[first].lost == NULL && WIFSIGNALED(wait_status) &&
           WTERMSIG(wait_status) == SIGPIPE && poll(&out, 1, 0) > 0 && (out.revents & POLLERR) != 0;
}

/* What a rank that ended with code 0 has failed to do. */
static const char *describe_omission(const struct kolo__supervision *s, int first)
{
    if (kolo__ending_is_failure(&s->endings[first]))
        return "";
    return has_joined(s, (uint32_t)first)
               ? " without kolo_finalize, while others needed it"
               : " and never joined the world (kolo_init), while others waited for it";
}

/* ": why", by the rank itself. What it said of a failure that it then lived through is not why it
 * was killed. */
static void describe_words(const struct kolo__supervision *s, int first, char *text)
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
static void say_verdict(struct kolo__supervision *s)
{
    char line[1100];
    kolo__supervision_judge(s);
    if (s->verdict.finding <= KOLO__FLIGHT_ELSEWHERE)
        return;
    snprintf(line, sizeof line, "kolo run: %s", s->verdict.text);
    kolo__supervision_say(s, line);
}

static void say_last(struct kolo__supervision *s, const char *line)
{
    char whole[3300];
    say_verdict(s);
    bool useful = s->verdict.finding > KOLO__FLIGHT_ELSEWHERE;
    snprintf(whole, sizeof whole, "%s%s%s", line, useful ? "\n" : "",
             useful ? s->verdict.text : "");
    kolo__termination_note(whole);
    kolo__supervision_say(s, line);
}

/* Names the first failure, once: what kept the world from forming, or else the rank. */
void kolo__supervision_report(struct kolo__supervision *s)
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
    if (s->too_few) {
        snprintf(line, sizeof line,
                 "kolo run: fewer than the %ld ranks of --min were left for %ld s "
                 "(KOLO_INIT_TIMEOUT), and no host came that has room for more",
                 s->job->min_ranks, s->job->hosts_s);
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

static int failure_code(const struct kolo__supervision *s, const struct kolo__report_facts *facts)
{
    const char *text;
    kolo_status obstacle = get_obstacle(s, &text);
    int code = kolo__obstacle_exit_code(obstacle);
    if (code == 0 && obstacle == KOLO_OK && kolo__report_begins_with_fault(facts))
        code = kolo__report_exit_code(facts);
    return code != 0 ? code
                     : kolo__ending_exit_code(&s->endings[facts->first], obstacle == KOLO_OK);
}

int kolo__supervision_exit_code(const struct kolo__supervision *s)
{
    if (s->timed_out)
        return KOLO__EXIT_TIMEOUT;
    if (s->too_few)
        return KOLO__EXIT_NO_WORLD;
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
