/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/spawn.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Ends of the pipes between the launcher and one child; -1: none. */
struct pipes {
    int out[2], err[2];
    int failed[2]; /* closes on exec; carries errno when there is none */
};

/* What the child says through pipes.failed. */
struct failure {
    int reason;
    bool exec; /* the program's fault, and not the machine's */
};

static void close_pipes(struct pipes *pipes)
{
    int *ends[] = {pipes->out, pipes->err, pipes->failed};
    for (size_t i = 0; i < 3; i++)
        for (size_t end = 0; end < 2; end++)
            if (ends[i][end] >= 0)
                close(ends[i][end]);
}

static bool open_pipes(struct pipes *pipes, bool output)
{
    *pipes = (struct pipes){{-1, -1}, {-1, -1}, {-1, -1}};
    return pipe2(pipes->failed, O_CLOEXEC) == 0 &&
           (!output || (pipe2(pipes->out, O_CLOEXEC) == 0 && pipe2(pipes->err, O_CLOEXEC) == 0));
}

/* ---- the child, between fork and exec ------------------------------------------------------ */

static void set_number(const char *name, uint32_t value)
{
    char text[16];
    snprintf(text, sizeof text, "%u", value);
    setenv(name, text, 1);
}

static void set_path(const char *name, const char *path)
{
    if (path != NULL && path[0] != '\0')
        setenv(name, path, 1);
    else
        unsetenv(name);
}

static void set_environment(const struct kolo__spawn *spawn, uint32_t rank, uint32_t local_rank)
{
    for (char **entry = spawn->environment; entry != NULL && *entry != NULL; entry++)
        putenv(*entry);
    set_number("KOLO_RANK", rank);
    set_number("KOLO_WORLD_SIZE", spawn->world_size);
    set_number("KOLO_LOCAL_RANK", local_rank);
    set_number("KOLO_LOCAL_SIZE", spawn->local_size);
    setenv("KOLO_RENDEZVOUS", spawn->rendezvous, 1);
    setenv("KOLO_JOB", spawn->job, 1);
    setenv("KOLO_TOKEN", spawn->token, 1);
    unsetenv("KOLO_TOKEN_FILE");
    set_path("KOLO_LAST_WORDS", spawn->last_words);
    set_path("KOLO_FLIGHT", spawn->flight);
    if (spawn->newcomer)
        setenv("KOLO_NEWCOMER", "1", 1);
}

static bool set_streams(const struct kolo__spawn *spawn, uint32_t rank, const struct pipes *pipes)
{
    if (rank != 0 || spawn->newcomer) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null < 0 || dup2(null, STDIN_FILENO) < 0)
            return false;
    } else if (spawn->stdin_fd != STDIN_FILENO && dup2(spawn->stdin_fd, STDIN_FILENO) < 0) {
        return false;
    }
    return !spawn->pipes ||
           (dup2(pipes->out[1], STDOUT_FILENO) >= 0 && dup2(pipes->err[1], STDERR_FILENO) >= 0);
}

_Noreturn static void give_up(const struct pipes *pipes, int reason, bool exec)
{
    struct failure failure = {.reason = reason, .exec = exec};
    ssize_t written = write(pipes->failed[1], &failure, sizeof failure);
    (void)written;
    _exit(1);
}

_Noreturn static void become_rank(const struct kolo__spawn *spawn, uint32_t rank,
                                  uint32_t local_rank, pid_t launcher, const struct pipes *pipes)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher)
        _exit(1); /* it died before the line above */
    set_environment(spawn, rank, local_rank);
    if (!set_streams(spawn, rank, pipes))
        give_up(pipes, errno, false);
    int reason = kolo__binding_apply(spawn->binding, local_rank);
    if (reason != 0)
        fprintf(stderr, "kolo run: rank %u cannot be bound and runs anywhere: %s\n", rank,
                strerror(reason));
    setrlimit(RLIMIT_NOFILE, &spawn->open_files);
    sigaction(SIGPIPE, &spawn->sigpipe, NULL);
    sigprocmask(SIG_SETMASK, &spawn->signal_mask, NULL);
    execvp(spawn->program[0], spawn->program);
    give_up(pipes, errno, true);
}

/* ---- the parent ---------------------------------------------------------------------------- */

/* Waits for exec, or for the reason why there is none. */
static kolo_status await_exec(const struct kolo__spawn *spawn, uint32_t rank, pid_t pid, int fd,
                              int *exec_errno)
{
    struct failure failure;
    ssize_t bytes;
    do
        bytes = read(fd, &failure, sizeof failure);
    while (bytes < 0 && errno == EINTR);
    if (bytes != (ssize_t)sizeof failure)
        return KOLO_OK;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    if (!failure.exec)
        return kolo__error_errno(failure.reason, "cannot prepare rank %u", rank);
    *exec_errno = failure.reason;
    return kolo__error_errno(failure.reason, "cannot execute %s", spawn->program[0]);
}

static int take(int *end)
{
    int fd = *end;
    *end = -1;
    if (fd >= 0)
        fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

kolo_status kolo__spawn_rank(const struct kolo__spawn *spawn, uint32_t rank, uint32_t local_rank,
                             struct kolo__child *child, int *exec_errno)
{
    struct pipes pipes;
    kolo_status status;
    *exec_errno = 0;
    pid_t launcher = getpid(), pid = -1;
    if (open_pipes(&pipes, spawn->pipes))
        pid = fork();
    if (pid < 0) {
        status = kolo__error_errno(errno, "cannot start rank %u of %u", rank, spawn->world_size);
        goto close;
    }
    if (pid == 0)
        become_rank(spawn, rank, local_rank, launcher, &pipes);
    setpgid(pid, pid); /* here too: whoever of the two comes first */
    close(pipes.failed[1]);
    pipes.failed[1] = -1;
    status = await_exec(spawn, rank, pid, pipes.failed[0], exec_errno);
    if (status == KOLO_OK)
        *child = (struct kolo__child){
            .pid = pid, .out_fd = take(&pipes.out[0]), .err_fd = take(&pipes.err[0])};

close:
    close_pipes(&pipes);
    return status;
}

void kolo__raise_open_files(struct rlimit *old)
{
    if (getrlimit(RLIMIT_NOFILE, old) != 0) {
        *old = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
        return;
    }
    struct rlimit all = {.rlim_cur = old->rlim_max, .rlim_max = old->rlim_max};
    setrlimit(RLIMIT_NOFILE, &all);
}
