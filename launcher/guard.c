/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/guard.h"

#include "base/clock.h"
#include "base/status.h"
#include "launcher/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Messages to the guard: a process group to watch, the same negated to forget it, or goodbye. A
 * pipe keeps writes this small whole. */
enum { GOODBYE = 0 };

static const uint64_t KILL_FOR_NS = 4000000000;
static const struct timespec PAUSE = {.tv_nsec = 20000000};

struct groups {
    pid_t *ids;
    size_t count, capacity;
};

static void watch(struct groups *groups, pid_t group)
{
    if (groups->count == groups->capacity) {
        size_t larger = groups->capacity == 0 ? 64 : 2 * groups->capacity;
        pid_t *moved = realloc(groups->ids, larger * sizeof *moved);
        if (moved == NULL)
            return; /* KOLO_JOB still finds it */
        groups->ids = moved;
        groups->capacity = larger;
    }
    groups->ids[groups->count++] = group;
}

static void forget(struct groups *groups, pid_t group)
{
    for (size_t i = 0; i < groups->count; i++)
        if (groups->ids[i] == group) {
            groups->ids[i] = groups->ids[--groups->count];
            return;
        }
}

/* Until nothing is found twice in a row: a process may fork while others are being listed. */
static void kill_job(const char *job, const struct groups *groups)
{
    uint64_t end_ns = kolo__now_ns(&kolo__real_clock) + KILL_FOR_NS;
    for (int quiet = 0; quiet < 2 && kolo__now_ns(&kolo__real_clock) < end_ns;) {
        int found = 0;
        for (size_t i = 0; i < groups->count; i++)
            found += kill(-groups->ids[i], SIGKILL) == 0;
        found += kolo__processes_signal(&(struct kolo__processes){.job = job}, SIGKILL);
        quiet = found == 0 ? quiet + 1 : 0;
        nanosleep(&PAUSE, NULL);
    }
}

/* Holds nothing of the user's: not the terminal, not stdout, not the working directory. */
static void let_go(int fd)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid();
    prctl(PR_SET_NAME, "kolo-guard");
    dup2(fd, 0);
    close_range(1, ~0u, 0);
    open("/dev/null", O_WRONLY);
    open("/dev/null", O_WRONLY);
    if (chdir("/") != 0)
        _exit(1);
}

_Noreturn static void guard(const char *job)
{
    struct groups groups = {0};
    for (;;) {
        pid_t message;
        ssize_t bytes = read(0, &message, sizeof message);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes != (ssize_t)sizeof message)
            break;
        if (message == GOODBYE)
            _exit(0);
        if (message > 0)
            watch(&groups, message);
        else
            forget(&groups, -message);
    }
    kill_job(job, &groups);
    _exit(0);
}

kolo_status kolo__guard_start(struct kolo__guard *result, const char *job)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return kolo__error_errno(errno, "cannot make a pipe");
    pid_t pid = fork();
    if (pid < 0) {
        kolo_status status = kolo__error_errno(errno, "cannot start a process");
        close(ends[0]);
        close(ends[1]);
        return status;
    }
    if (pid == 0) {
        let_go(ends[0]);
        guard(job);
    }
    close(ends[0]);
    *result = (struct kolo__guard){.pid = pid, .fd = ends[1], .start = kolo__process_start(pid)};
    return KOLO_OK;
}

/* A guard that is gone makes no difference to a launcher that lives. */
static void tell(const struct kolo__guard *guard, pid_t message)
{
    ssize_t written = write(guard->fd, &message, sizeof message);
    (void)written;
}

void kolo__guard_add(const struct kolo__guard *guard, pid_t group)
{
    tell(guard, group);
}

void kolo__guard_forget(const struct kolo__guard *guard, pid_t group)
{
    tell(guard, -group);
}

void kolo__guard_end(struct kolo__guard *guard)
{
    if (guard->pid == 0)
        return;
    tell(guard, GOODBYE);
    close(guard->fd);
    while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    *guard = (struct kolo__guard){0};
}
