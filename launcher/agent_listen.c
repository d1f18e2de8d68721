/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo agent --listen`: forks for each connection. The child proves the token, both ways, and then
 * relays between the connection and the part of kolo that was asked for. So whatever strangers do,
 * they do to a child that lives 10 s at most; and when there are many of them, the one that has
 * proved nothing for longest makes room. Several jobs may run side by side.
 */
#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/refusals.h"
#include "base/socket.h"
#include "base/status.h"
#include "launcher/agent_protocol.h"
#include "launcher/agent_tcp.h"
#include "launcher/command.h"
#include "launcher/counts.h"
#include "launcher/relay.h"
#include "launcher/termination.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

enum { CHILDREN_MAX = 256, UNPROVED_MAX = 64, DRAIN_SECONDS = 20 };

struct child {
    pid_t pid; /* 0: a free place */
    bool proved;
    uint64_t since_ns;
    struct kolo__address from;
};

struct listener {
    const struct kolo__credentials *credentials;
    const char *counts; /* path of what all parts count in */
    int fd, signals;
    int reports[2]; /* of children; a pipe, to which a report is written at once */
    sigset_t old_mask;
    struct kolo__refusals refusals;
    struct child children[CHILDREN_MAX];
    int ending; /* the signal that asked for it; 0: none */
};

/* What a child says once. */
struct report {
    pid_t pid;
    bool proved;
    char reason[300];
};

/* ---- in the child of a connection ------------------------------------------------------------ */

static void say(const struct listener *listener, bool proved, const char *reason)
{
    struct report report = {.pid = getpid(), .proved = proved};
    snprintf(report.reason, sizeof report.reason, "%s", reason);
    if (write(listener->reports[1], &report, sizeof report) < 0)
        _exit(KOLO__EXIT_FAILED); /* the listener is gone */
}

static kolo_status read_part(struct kolo__secure *secure, uint64_t deadline_ns, const char **first,
                             const char **second)
{
    char part[KOLO__AGENT_PART_BYTES + 1];
    kolo_status status = KOLO_OK;
    size_t used = 0;
    do {
        status = kolo__secure_recv_all(secure, part + used, 1, deadline_ns);
    } while (status == KOLO_OK && part[used++] != '\n' && used < KOLO__AGENT_PART_BYTES);
    part[used] = '\0';
    bool doctor = strcmp(part, "doctor\n") == 0;
    *first = doctor ? "doctor" : "agent";
    *second = doctor ? "--probe" : "--stdio";
    if (status == KOLO_OK && !doctor && strcmp(part, "agent\n") != 0)
        status = kolo__error(KOLO_ERR_NETWORK, "it asks for what this kolo does not have: install "
                                               "the same everywhere");
    return status;
}

/* A process of its own, which knows of no network. Returns our end of its standard streams. */
static int start_part(const struct listener *listener, const char *first, const char *second)
{
    int ends[2];
    pid_t parent = getpid();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGTERM, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent || dup2(ends[1], STDIN_FILENO) < 0 ||
            dup2(ends[1], STDOUT_FILENO) < 0)
            _exit(KOLO__EXIT_FAILED);
        const char *third = strcmp(first, "agent") == 0 ? listener->counts : NULL;
        execl("/proc/self/exe", "kolo", first, second, third, (char *)NULL);
        fprintf(stderr, "kolo agent: cannot start kolo %s: %s\n", first, strerror(errno));
        _exit(KOLO__EXIT_CANNOT_EXECUTE);
    }
    close(ends[1]);
    if (pid > 0)
        return ends[0];
    close(ends[0]);
    return -1;
}

_Noreturn static void serve_connection(const struct listener *listener, int fd)
{
    struct kolo__secure *secure;
    const char *first, *second;
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + KOLO__AGENT_HANDSHAKE_S * SECOND;
    kolo__tune_stream(fd);
    kolo_status status =
        kolo__secure_create(listener->credentials, KOLO__SECURE_ACCEPTOR, fd, &secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(secure, deadline_ns);
    if (status == KOLO_OK)
        status = read_part(secure, deadline_ns, &first, &second);
    /* Who connects and goes again, as probes of readiness do, is nobody worth a word. */
    if (status != KOLO_OK)
        say(listener, false, status == KOLO_ERR_PEER_LOST ? "" : kolo_error_text());
    if (status != KOLO_OK)
        _exit(KOLO__EXIT_FAILED);
    say(listener, true, "");
    signal(SIGTERM, SIG_IGN); /* it is for the part, whose last words are to get through */
    signal(SIGINT, SIG_IGN);
    int part = start_part(listener, first, second);
    if (part < 0)
        _exit(KOLO__EXIT_FAILED);
    kolo__relay(secure, part, part, KOLO__AGENT_ORPHAN_MS / 1000);
    close(part); /* an agent hears of it, and ends what it started */
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        continue;
    _exit(0);
}

/* ---- connections ------------------------------------------------------------------------------
 */

static struct child *find_child(struct listener *listener, pid_t pid)
{
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (listener->children[i].pid == pid)
            return &listener->children[i];
    return NULL;
}

/* Beyond some strangers, the oldest makes room: who knows the token needs milliseconds. */
static void make_room(struct listener *listener)
{
    struct child *oldest = NULL;
    int unproved = 0;
    for (int i = 0; i < CHILDREN_MAX; i++) {
        struct child *child = &listener->children[i];
        if (child->pid == 0 || child->proved)
            continue;
        unproved++;
        if (oldest == NULL || child->since_ns < oldest->since_ns)
            oldest = child;
    }
    if (unproved < UNPROVED_MAX)
        return;
    kolo__refusals_log(&listener->refusals, "agent", &oldest->from,
                       "it proved nothing while many others waited");
    kill(oldest->pid, SIGKILL);
    oldest->proved = true; /* as good as gone */
}

static void accept_one(struct listener *listener)
{
    struct child *child = find_child(listener, 0);
    struct kolo__address from = {.length = sizeof from.storage};
    int fd = accept4(listener->fd, (struct sockaddr *)&from.storage, &from.length,
                     SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    make_room(listener);
    pid_t pid = child != NULL ? fork() : -1;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        close(listener->fd);
        close(listener->signals);
        close(listener->reports[0]);
        sigprocmask(SIG_SETMASK, &listener->old_mask, NULL);
        signal(SIGPIPE, SIG_IGN);
        serve_connection(listener, fd);
    }
    close(fd);
    if (pid < 0)
        return;
    setpgid(pid, pid);
    *child = (struct child){.pid = pid, .since_ns = kolo__now_ns(&kolo__real_clock), .from = from};
}

static void hear_reports(struct listener *listener)
{
    struct report report;
    char address[80];
    while (read(listener->reports[0], &report, sizeof report) == (ssize_t)sizeof report) {
        struct child *child = find_child(listener, report.pid);
        if (child == NULL)
            continue;
        child->proved = report.proved;
        report.reason[sizeof report.reason - 1] = '\0';
        if (report.proved)
            kolo__log(KOLO__LOG_INFO, "agent: serves a kolo run at %s",
                      kolo__address_text(&child->from, address, sizeof address));
        else if (report.reason[0] != '\0')
            kolo__refusals_log(&listener->refusals, "agent", &child->from, report.reason);
    }
}

/* As process 1 of a pod it is also the parent of whatever was left behind there. */
static void reap(struct listener *listener)
{
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        struct child *child = find_child(listener, pid);
        if (child != NULL)
            child->pid = 0;
    }
}

/* ---- the listener -----------------------------------------------------------------------------
 */

static void count_connections(const struct listener *listener)
{
    uint32_t proved = 0;
    for (int i = 0; i < CHILDREN_MAX; i++)
        proved += listener->children[i].pid != 0 && listener->children[i].proved;
    kolo__counts_connections(proved);
}

static bool is_serving(const struct listener *listener)
{
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (listener->children[i].pid != 0)
            return true;
    return false;
}

/* Strangers are cut off. Parts end their ranks, and tell `kolo run` how those ended. */
static void begin_end(struct listener *listener, int number)
{
    listener->ending = number;
    close(listener->fd);
    listener->fd = -1;
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (listener->children[i].pid != 0)
            kill(-listener->children[i].pid, listener->children[i].proved ? SIGTERM : SIGKILL);
}

static void hear_signals(struct listener *listener)
{
    struct signalfd_siginfo information;
    while (read(listener->signals, &information, sizeof information) == (ssize_t)sizeof information)
        if (information.ssi_signo != SIGCHLD)
            begin_end(listener, (int)information.ssi_signo);
}

/* Until it is asked to end, and all it started has ended; whatever is left then is killed. */
static void serve(struct listener *listener)
{
    uint64_t deadline_ns = UINT64_MAX;
    while (listener->ending == 0 ||
           (is_serving(listener) && kolo__now_ns(&kolo__real_clock) < deadline_ns)) {
        bool room = find_child(listener, 0) != NULL;
        struct pollfd fds[] = {{.fd = room ? listener->fd : -1, .events = POLLIN},
                               {.fd = listener->signals, .events = POLLIN},
                               {.fd = listener->reports[0], .events = POLLIN}};
        if (poll(fds, 3, listener->ending != 0 ? 100 : -1) < 0 && errno != EINTR)
            return;
        hear_reports(listener); /* before the end of whoever wrote them */
        reap(listener);
        count_connections(listener);
        if (fds[0].revents != 0)
            accept_one(listener);
        hear_signals(listener);
        if (listener->ending != 0 && deadline_ns == UINT64_MAX)
            deadline_ns = kolo__now_ns(&kolo__real_clock) + DRAIN_SECONDS * SECOND;
    }
}

static kolo_status listen_where(const char *where, int *fd)
{
    struct kolo__address bound;
    char host[256] = "*", port[24], text[80];
    long number = KOLO__AGENT_PORT;
    kolo_status status = KOLO_OK;
    if (where != NULL && strchr(where, ':') != NULL)
        status = kolo__split_host_port(where, host, sizeof host, port, sizeof port);
    else if (where != NULL)
        snprintf(port, sizeof port, "%s", where);
    if (status == KOLO_OK && where != NULL &&
        (!kolo__parse_number(port, false, &number) || number < 0 || number > 65535))
        status = kolo__error(KOLO_ERR_CONFIG, "--listen %s: give [ADDRESS:]PORT", where);
    if (status == KOLO_OK)
        status = kolo__listen(host, (int)number, fd, &bound);
    if (status == KOLO_OK)
        fprintf(stderr, "kolo agent: listens at %s (kolo %s)\n",
                kolo__address_text(&bound, text, sizeof text), kolo_version());
    return status;
}

static kolo_status watch_signals(struct listener *listener)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, &listener->old_mask);
    listener->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (listener->signals < 0 || pipe2(listener->reports, O_CLOEXEC | O_NONBLOCK) != 0)
        return kolo__error_errno(errno, "cannot watch for signals");
    return KOLO_OK;
}

int kolo__agent_listen(const char *where)
{
    static struct listener listener;
    struct kolo__config config;
    struct kolo__credentials *credentials = NULL;
    kolo_status status = kolo__config_load(&config, environ);
    if (status == KOLO_OK) {
        kolo__log_configure(config.log, -1);
        status = watch_signals(&listener); /* early: process 1 is spared what it does not watch */
    }
    if (status == KOLO_OK)
        status = kolo__agent_credentials(&credentials);
    listener.credentials = credentials;
    if (status == KOLO_OK)
        status = listen_where(where, &listener.fd);
    if (status != KOLO_OK) {
        char line[1100];
        snprintf(line, sizeof line, "kolo agent: %s", kolo_error_text());
        fprintf(stderr, "%s\n", line);
        kolo__termination_note(line);
        kolo__credentials_free(credentials);
        return status == KOLO_ERR_CONFIG ? KOLO__EXIT_USAGE : KOLO__EXIT_FAILED;
    }
    unsetenv("KOLO_TOKEN"); /* ranks get their job's */
    unsetenv("KOLO_TOKEN_FILE");
    const char *counts = kolo__counts_share();
    listener.counts = counts[0] != '\0' ? counts : NULL;
    struct kolo__counts_server *server = kolo__counts_serve("agent", config.metrics_port);
    serve(&listener);
    kolo__counts_close(server);
    kolo__credentials_free(credentials);
    return KOLO__EXIT_SIGNAL + listener.ending;
}
