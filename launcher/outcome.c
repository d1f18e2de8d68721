/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/outcome.h"

#include "launcher/command.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* Endings within this time may have been seen in the wrong order. */
static const uint64_t SAME_TIME_NS = 200000000;

bool kolo__ending_is_failure(const struct kolo__ending *ending)
{
    return ending->ended && (ending->lost != NULL || !(WIFEXITED(ending->wait_status) &&
                                                       WEXITSTATUS(ending->wait_status) == 0));
}

bool kolo__ending_is_departure(int wait_status)
{
    return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == KOLO__EXIT_SIGNAL + SIGTERM;
}

const char *kolo__ending_text(const struct kolo__ending *ending, char *text, size_t bytes)
{
    if (ending->lost != NULL) {
        snprintf(text, bytes, "was lost: %s", ending->lost);
    } else if (WIFSIGNALED(ending->wait_status)) {
        int number = WTERMSIG(ending->wait_status);
        const char *name = sigabbrev_np(number);
        const char *core = WCOREDUMP(ending->wait_status) ? ", core dumped" : "";
        if (name != NULL)
            snprintf(text, bytes, "was killed by signal %d (SIG%s%s)", number, name, core);
        else
            snprintf(text, bytes, "was killed by signal %d%s", number, core);
    } else {
        snprintf(text, bytes, "exited with code %d", WEXITSTATUS(ending->wait_status));
    }
    return text;
}

int kolo__obstacle_exit_code(kolo_status obstacle)
{
    switch (obstacle) {
    case KOLO_ERR_CONFIG:
        return KOLO__EXIT_USAGE;
    case KOLO_ERR_WORLD:
        return KOLO__EXIT_WORLD;
    case KOLO_ERR_TIMEOUT:
        return KOLO__EXIT_NO_WORLD;
    default:
        return 0;
    }
}

int kolo__ending_exit_code(const struct kolo__ending *ending, bool formed)
{
    if (ending->lost != NULL || WIFSIGNALED(ending->wait_status))
        return KOLO__EXIT_PEER_LOST;
    if (WEXITSTATUS(ending->wait_status) == 0)
        return formed ? KOLO__EXIT_PEER_LOST : KOLO__EXIT_NO_WORLD;
    return WEXITSTATUS(ending->wait_status);
}

static bool failed_by_itself(const struct kolo__ending *ending)
{
    return kolo__ending_is_failure(ending) && !ending->asked && !ending->survived;
}

int kolo__first_failure(const struct kolo__ending *endings, uint32_t ranks, int lost_rank)
{
    int first = -1, first_killed = -1;
    for (uint32_t r = 0; r < ranks; r++) {
        if (!failed_by_itself(&endings[r]))
            continue;
        if (first < 0 || endings[r].at_ns < endings[first].at_ns)
            first = (int)r;
        if ((endings[r].lost != NULL || WIFSIGNALED(endings[r].wait_status)) &&
            (first_killed < 0 || endings[r].at_ns < endings[first_killed].at_ns))
            first_killed = (int)r;
    }
    bool lost_ended = lost_rank >= 0 && (uint32_t)lost_rank < ranks && endings[lost_rank].ended &&
                      !endings[lost_rank].asked && !endings[lost_rank].survived;
    if (first >= 0 && lost_ended)
        return lost_rank;
    if (first_killed >= 0 && endings[first_killed].at_ns - endings[first].at_ns <= SAME_TIME_NS)
        return first_killed;
    return first;
}

int kolo__last_failure(const struct kolo__ending *endings, uint32_t ranks)
{
    int last = -1;
    for (uint32_t r = 0; r < ranks; r++) {
        if (endings[r].ended && !kolo__ending_is_failure(&endings[r]))
            return -1;
        if (endings[r].ended && !endings[r].asked &&
            (last < 0 || endings[r].at_ns > endings[last].at_ns))
            last = (int)r;
    }
    return last;
}

int kolo__end_stdout(const char *command)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "%s: cannot write to stdout%s%s\n", command, errno != 0 ? ": " : "",
            errno != 0 ? strerror(errno) : "");
    return KOLO__EXIT_OUTPUT;
}
