/* SPDX-License-Identifier: Apache-2.0 */
/* kolo run on a terminal: typing reaches rank 0 although it is not in the foreground, Ctrl-C ends
 * the job, Ctrl-Z stops it and the shell's fg goes on. */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { DEADLINE_S = 20 };

/* A session with a terminal; kolo run is its leader, and in the foreground. */
struct session {
    pid_t pid;
    int terminal;
    size_t bytes;
    char screen[8192]; /* all that was shown */
};

static void start(struct session *session, const char *ranks, const char *script)
{
    char program[4096];
    memset(session, 0, sizeof *session);
    snprintf(program, sizeof program, "%s/kolo", getenv("BIN_DIR"));
    session->pid = forkpty(&session->terminal, NULL, NULL, NULL);
    assert_true(session->pid >= 0);
    if (session->pid == 0) {
        execl(program, program, "run", "-n", ranks, "--", "sh", "-c", script, NULL);
        _exit(127);
    }
}

/* Reads the terminal until it has shown the text; false after the deadline or at its end. */
static bool shows(struct session *session, const char *text)
{
    time_t end = time(NULL) + DEADLINE_S;
    while (strstr(session->screen, text) == NULL) {
        struct pollfd fd = {.fd = session->terminal, .events = POLLIN};
        if (time(NULL) > end || poll(&fd, 1, 1000) < 0)
            return false;
        if (fd.revents == 0)
            continue;
        ssize_t bytes = read(session->terminal, session->screen + session->bytes,
                             sizeof session->screen - 1 - session->bytes);
        if (bytes <= 0)
            return false;
        session->bytes += (size_t)bytes;
    }
    return true;
}

static void type(struct session *session, const char *keys)
{
    size_t bytes = strlen(keys);
    assert_int_equal(write(session->terminal, keys, bytes), bytes);
}

/* The wait status of the launcher when it ends (or stops); -1 after the deadline. */
static int await(struct session *session, int options)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int wait_status;
    for (int i = 0; i < DEADLINE_S * 100; i++) {
        if (waitpid(session->pid, &wait_status, options | WNOHANG) == session->pid)
            return wait_status;
        nanosleep(&pause, NULL);
    }
    return -1;
}

/* What does not end as it should must not outlive the test either. */
static int end(struct session *session)
{
    int wait_status = await(session, 0);
    if (wait_status == -1) {
        kill(session->pid, SIGKILL);
        waitpid(session->pid, NULL, 0);
    }
    close(session->terminal);
    return wait_status;
}

static void typing_reaches_rank_0(void **state)
{
    (void)state;
    struct session session;
    start(&session, "2", "read line; echo \"heard <$line>\"; cat; echo over");
    bool one = shows(&session, "[1] heard <>");
    type(&session, "hello\n");
    bool other = shows(&session, "[0] heard <hello>");
    type(&session, "\004"); /* Ctrl-D */
    bool over = shows(&session, "[0] over");
    assert_int_equal(end(&session), 0);
    assert_true(one && other && over);
}

static void typing_reaches_a_single_rank(void **state)
{
    (void)state;
    struct session session;
    start(&session, "1", "echo ready; read line; echo \"heard <$line>\"");
    bool ready = shows(&session, "ready");
    type(&session, "hello\n");
    bool heard = shows(&session, "heard <hello>");
    assert_int_equal(end(&session), 0);
    assert_true(ready && heard);
}

/* exec: a dash that is starting a command loses the SIGINT that comes then. */
static void interrupt_ends_the_job(void **state)
{
    (void)state;
    struct session session;
    start(&session, "2", "echo ready; exec sleep 100");
    bool ready = shows(&session, "[0] ready") && shows(&session, "[1] ready");
    type(&session, "\003"); /* Ctrl-C */
    int wait_status = end(&session);
    assert_true(ready);
    assert_true(WIFEXITED(wait_status));
    assert_int_equal(WEXITSTATUS(wait_status), 130);
}

/* Ranks that take no notice of the first: nobody has to wait for a grace, or 20 s. */
static void a_second_interrupt_hurries(void **state)
{
    (void)state;
    struct session session;
    start(&session, "2",
          "trap 'echo deaf' INT TERM; echo ready; for i in $(seq 200); do sleep 0.1; done");
    bool ready = shows(&session, "[0] ready") && shows(&session, "[1] ready");
    type(&session, "\003");
    bool deaf = shows(&session, "[0] deaf") && shows(&session, "[1] deaf");
    time_t began = time(NULL);
    type(&session, "\003");
    int wait_status = end(&session);
    assert_true(ready && deaf);
    assert_true(WIFEXITED(wait_status));
    assert_int_equal(WEXITSTATUS(wait_status), 130);
    assert_in_range(time(NULL) - began, 0, 4);
}

/* As an interactive shell runs it: in a group of its own, in the foreground of a terminal whose
 * session another process leads. Ctrl-C goes to the launcher's group alone. */
static void interrupt_reaches_a_foreground_group(void **state)
{
    (void)state;
    struct session session;
    char program[4096];
    memset(&session, 0, sizeof session);
    snprintf(program, sizeof program, "%s/kolo", getenv("BIN_DIR"));
    session.pid = forkpty(&session.terminal, NULL, NULL, NULL);
    assert_true(session.pid >= 0);
    if (session.pid == 0) {
        execlp("bash", "bash", "-c",
               "set -m; \"$0\" run -n 2 -- sh -c 'echo ready; exec sleep 100'; echo \"code $?\"",
               program, NULL);
        _exit(127);
    }
    bool ready = shows(&session, "[0] ready") && shows(&session, "[1] ready");
    type(&session, "\003");
    bool code = shows(&session, "code 130");
    end(&session);
    assert_true(ready);
    assert_true(code);
}

/* The launcher leads the session here, so its group is an orphaned one, which the terminal does not
 * stop: the signal comes as a shell's kill would send it. */
static void stops_and_continues(void **state)
{
    (void)state;
    struct session session;
    start(&session, "2", "echo ready; read line; echo \"heard <$line>\"");
    bool ready = shows(&session, "[1] heard <>") && shows(&session, "[0] ready");
    kill(session.pid, SIGTSTP);
    int stopped = await(&session, WUNTRACED);
    kill(session.pid, SIGCONT);
    type(&session, "again\n");
    bool heard = shows(&session, "[0] heard <again>");
    assert_int_equal(end(&session), 0);
    assert_true(stopped != -1 && WIFSTOPPED(stopped));
    assert_true(ready && heard);
}

static void the_end_of_the_terminal_ends_the_job(void **state)
{
    (void)state;
    struct session session;
    start(&session, "2", "echo ready; exec sleep 100");
    bool ready = shows(&session, "[0] ready") && shows(&session, "[1] ready");
    close(session.terminal);
    session.terminal = -1;
    int wait_status = end(&session);
    assert_true(ready);
    assert_true(WIFEXITED(wait_status));
    assert_int_equal(WEXITSTATUS(wait_status), 129); /* SIGHUP */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typing_reaches_rank_0),
        cmocka_unit_test(typing_reaches_a_single_rank),
        cmocka_unit_test(interrupt_ends_the_job),
        cmocka_unit_test(a_second_interrupt_hurries),
        cmocka_unit_test(interrupt_reaches_a_foreground_group),
        cmocka_unit_test(stops_and_continues),
        cmocka_unit_test(the_end_of_the_terminal_ends_the_job),
    };
    if (getenv("BIN_DIR") == NULL) {
        printf("BIN_DIR, the folder of the kolo program, is not set\n");
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
