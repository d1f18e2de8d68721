/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank that knows nothing of kolo, for the launcher's tests.
 *
 *   lines COUNT             writes COUNT lines to stdout and to stderr, in odd pieces
 *   signals MARK [FILE]     says which signals come, and ends for none of them; after SIGTSTP there
 *                           is FILE.RANK
 *   wait MARK               sleeps
 *   scatter MARK            leaves two processes behind that are hard to find, and ends
 *   scatter_and_stay MARK   the same, and stays
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void write_pieces(int fd, const char *text, size_t bytes, unsigned *seed)
{
    while (bytes > 0) {
        *seed = *seed * 1103515245u + 12345u;
        size_t piece = 1 + (*seed >> 16) % 97;
        if (piece > bytes)
            piece = bytes;
        ssize_t written = write(fd, text, piece);
        if (written < 0)
            exit(1);
        text += written;
        bytes -= (size_t)written;
    }
}

static int lines(int count)
{
    const char *rank = getenv("KOLO_RANK");
    if (rank == NULL)
        return 1;
    unsigned seed = (unsigned)atoi(rank) + 1;
    char line[400];
    for (int i = 0; i < count; i++)
        for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
            int head = snprintf(line, sizeof line, "rank %s %s %d ", rank,
                                fd == STDOUT_FILENO ? "out" : "err", i);
            size_t fill = (seed >> 8) % 200;
            memset(line + head, 'x', fill);
            line[(size_t)head + fill] = '#';
            line[(size_t)head + fill + 1] = '\n';
            write_pieces(fd, line, (size_t)head + fill + 2, &seed);
        }
    return 0;
}

/* Runs until it is killed, or two minutes have passed whatever the test does. */
static void note(const char *file)
{
    char path[400];
    const char *rank = getenv("KOLO_RANK");
    snprintf(path, sizeof path, "%s.%s", file, rank != NULL ? rank : "none");
    FILE *empty = fopen(path, "we");
    if (empty != NULL)
        fclose(empty);
}

static int signals(const char *stopped)
{
    sigset_t all;
    const struct timespec deadline = {.tv_sec = 120};
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    for (int number; (number = sigtimedwait(&all, NULL, &deadline)) > 0;) {
        if (number == SIGCONT)
            continue;
        printf("got SIG%s\n", sigabbrev_np(number));
        fflush(stdout);
        if (number == SIGTSTP && stopped != NULL)
            note(stopped);
    }
    return 1;
}

/* An orphan: in a session of its own, or in our group but without an environment. The mark is among
 * its arguments, so that the test finds it. */
static void scatter(char *mark, int own_session)
{
    pid_t child = fork();
    if (child == 0) {
        char program[] = "launcher_worker", mode[] = "wait";
        char *arguments[] = {program, mode, mark, NULL}, *nothing[] = {NULL};
        if (fork() != 0)
            _exit(0);
        if (own_session)
            setsid();
        execve("/proc/self/exe", arguments, own_session ? environ : nothing);
        _exit(1);
    }
    waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 64;
    if (strcmp(argv[1], "lines") == 0)
        return lines(atoi(argv[2]));
    if (strcmp(argv[1], "signals") == 0)
        return signals(argc > 3 ? argv[3] : NULL);
    if (strcmp(argv[1], "wait") == 0)
        return (int)sleep(100);
    scatter(argv[2], 1);
    scatter(argv[2], 0);
    printf("scattered\n");
    fflush(stdout);
    return strcmp(argv[1], "scatter_and_stay") == 0 ? (int)sleep(120) : 0;
}
