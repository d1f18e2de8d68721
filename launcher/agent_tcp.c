/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents without ssh. A long-running `kolo agent --listen` forks for each connection; the child
 * proves the token (TLS 1.3, both ways) and then is an ordinary agent behind a relay. `kolo run`
 * reaches it through a `kolo agent --connect`, which is to it what ssh is elsewhere:
 *
 *   kolo run == pipes == --connect ==== TLS ==== child of --listen == socket pair == agent
 *
 * So whatever strangers do, they do to a child that lives 10 s at most, and no more than
 * CHILDREN_MAX are there at once. Several jobs may run side by side: each has its own child.
 */
#include "launcher/agent.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/secure.h"
#include "base/socket.h"
#include "base/status.h"
#include "base/token.h"
#include "launcher/command.h"

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

enum { CHILDREN_MAX = 64, RELAY_BYTES = 64 << 10, HANDSHAKE_SECONDS = 10 };

static const uint64_t SECOND = 1000000000;

/* ---- relaying ------------------------------------------------------------------------------ */

/* One direction: what was read and is not written yet. */
struct half {
    char data[RELAY_BYTES];
    size_t begin, end;
    bool ended; /* no more comes in */
};

struct relay {
    struct kolo__secure *secure;
    int socket, in_fd, out_fd;
    struct half in, out; /* from in_fd to the socket; from the socket to out_fd */
    bool broken;
};

static bool is_empty(const struct half *half)
{
    return half->begin == half->end;
}

static void filled(struct half *half, size_t bytes)
{
    half->begin = 0;
    half->end = bytes;
}

static void from_local(struct relay *r)
{
    ssize_t got = is_empty(&r->in) && !r->in.ended ? read(r->in_fd, r->in.data, RELAY_BYTES) : -1;
    if (got > 0)
        filled(&r->in, (size_t)got);
    else if (got == 0)
        r->in.ended = true;
    size_t moved;
    while (!is_empty(&r->in)) {
        kolo_status status = kolo__secure_write(r->secure, r->in.data + r->in.begin,
                                                r->in.end - r->in.begin, &moved);
        if (status != KOLO_OK) {
            r->broken |= status != KOLO_AGAIN;
            return;
        }
        r->in.begin += moved;
    }
}

static void from_socket(struct relay *r)
{
    do {
        size_t moved;
        if (is_empty(&r->out) && !r->out.ended) {
            kolo_status status = kolo__secure_read(r->secure, r->out.data, RELAY_BYTES, &moved);
            if (status == KOLO_OK)
                filled(&r->out, moved);
            else if (status != KOLO_AGAIN)
                r->out.ended = true;
        }
        while (!is_empty(&r->out)) {
            ssize_t sent = write(r->out_fd, r->out.data + r->out.begin, r->out.end - r->out.begin);
            if (sent < 0) {
                r->broken |= errno != EAGAIN && errno != EINTR;
                return;
            }
            r->out.begin += (size_t)sent;
        }
    } while (!r->out.ended && kolo__secure_pending(r->secure));
}

/* Until either end has closed and what it said last was passed on. */
static void relay(struct kolo__secure *secure, int socket, int in_fd, int out_fd)
{
    struct relay *r = calloc(1, sizeof *r);
    if (r == NULL)
        return;
    *r = (struct relay){.secure = secure, .socket = socket, .in_fd = in_fd, .out_fd = out_fd};
    fcntl(in_fd, F_SETFL, O_NONBLOCK);
    fcntl(out_fd, F_SETFL, O_NONBLOCK);
    for (;;) {
        from_local(r);
        from_socket(r);
        if (r->broken || (r->in.ended && is_empty(&r->in)) || (r->out.ended && is_empty(&r->out)))
            break;
        struct pollfd fds[] = {{.fd = is_empty(&r->in) ? in_fd : -1, .events = POLLIN},
                               {.fd = is_empty(&r->out) ? -1 : out_fd, .events = POLLOUT},
                               {.fd = socket,
                                .events = (short)((is_empty(&r->out) ? POLLIN : 0) |
                                                  (is_empty(&r->in) ? 0 : POLLOUT))}};
        poll(fds, 3, -1);
    }
    free(r);
}

/* ---- both ends ----------------------------------------------------------------------------- */

static kolo_status read_token(char token[KOLO__TOKEN_BYTES])
{
    struct kolo__config config;
    kolo_status status = kolo__config_load(&config, environ);
    if (status == KOLO_OK)
        status = kolo__token_read(&config, token);
    if (status == KOLO_OK && token[0] == '\0')
        status = kolo__error(KOLO_ERR_CONFIG,
                             "there is no token, and whoever reaches an agent may start programs: "
                             "set KOLO_TOKEN_FILE to a file with the same secret on all hosts");
    return status;
}

static kolo_status secure_socket(int fd, enum kolo__secure_side side, const char *token,
                                 struct kolo__secure **secure)
{
    struct kolo__credentials *credentials;
    kolo__tune_stream(fd);
    kolo_status status = kolo__credentials_create(KOLO__PURPOSE_AGENT, "", token, &credentials);
    if (status == KOLO_OK)
        status = kolo__secure_create(credentials, side, fd, secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(*secure, kolo__now_ns(&kolo__real_clock) +
                                                        HANDSHAKE_SECONDS * SECOND);
    return status; /* the process has one connection, which ends with it */
}

int kolo__agent_connect(const char *address)
{
    char token[KOLO__TOKEN_BYTES];
    struct kolo__secure *secure;
    int fd;
    kolo_status status = read_token(token);
    int code = KOLO__EXIT_USAGE;
    if (status == KOLO_OK) {
        status = kolo__connect(address,
                               kolo__now_ns(&kolo__real_clock) + HANDSHAKE_SECONDS * SECOND, &fd);
        code = status == KOLO_OK || status == KOLO_ERR_CONFIG ? code : KOLO__EXIT_NO_WORLD;
    }
    if (status == KOLO_OK) {
        status = secure_socket(fd, KOLO__SECURE_INITIATOR, token, &secure);
        code = status == KOLO_ERR_NETWORK || status == KOLO_OK ? code : KOLO__EXIT_NO_WORLD;
    }
    explicit_bzero(token, sizeof token);
    if (status != KOLO_OK) {
        fprintf(stderr, "kolo agent at %s: %s\n", address, kolo_error_text());
        return code;
    }
    signal(SIGPIPE, SIG_IGN);
    relay(secure, fd, STDIN_FILENO, STDOUT_FILENO);
    return 0;
}

/* ---- listening ----------------------------------------------------------------------------- */

/* The agent itself, which knows of no socket. */
static pid_t start_agent(int ends[2], int socket)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    close(ends[0]);
    close(socket);
    _exit(kolo__agent_serve(ends[1], fcntl(ends[1], F_DUPFD_CLOEXEC, 3)));
}

/* In a child of the listener. */
_Noreturn static void serve_connection(int fd, const char *token, bool quiet)
{
    struct kolo__secure *secure;
    int ends[2];
    if (secure_socket(fd, KOLO__SECURE_ACCEPTOR, token, &secure) != KOLO_OK) {
        if (!quiet)
            kolo__log(KOLO__LOG_WARN, "kolo agent: refused a connection (more are not logged): %s",
                      kolo_error_text());
        _exit(1);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 || start_agent(ends, fd) < 0)
        _exit(1);
    close(ends[1]);
    relay(secure, fd, ends[0], ends[0]);
    close(ends[0]); /* the agent hears of it, and ends what it started */
    while (waitpid(-1, NULL, 0) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

static kolo_status listen_where(const char *where, int *fd)
{
    struct kolo__address bound;
    char host[256] = "", port[24], text[80];
    kolo_status status = KOLO_OK;
    if (strchr(where, ':') != NULL)
        status = kolo__split_host_port(where, host, sizeof host, port, sizeof port);
    else
        snprintf(port, sizeof port, "%s", where);
    long number = strtol(port, NULL, 10);
    if (status == KOLO_OK &&
        (port[strspn(port, "0123456789")] != '\0' || port[0] == '\0' || number > 65535))
        status = kolo__error(KOLO_ERR_CONFIG, "--listen %s: give [ADDRESS:]PORT", where);
    if (status != KOLO_OK)
        return status;
    status = kolo__listen(host[0] != '\0' ? host : "::", (int)number, fd, &bound);
    if (status != KOLO_OK && host[0] == '\0')
        status = kolo__listen("0.0.0.0", (int)number, fd, &bound); /* a host without IPv6 */
    if (status == KOLO_OK)
        printf("kolo agent listens at %s\n", kolo__address_text(&bound, text, sizeof text));
    fflush(stdout);
    return status;
}

/* Forks for each connection, until SIGTERM or SIGINT, which the children get from their parent's
 * end. */
static void accept_connections(int listener, int signals, const sigset_t *old_mask,
                               const char *token)
{
    unsigned children = 0;
    bool refused = false;
    for (;;) {
        struct pollfd fds[] = {{.fd = children < CHILDREN_MAX ? listener : -1, .events = POLLIN},
                               {.fd = signals, .events = POLLIN}};
        struct signalfd_siginfo information;
        int wait_status;
        poll(fds, 2, -1);
        while (read(signals, &information, sizeof information) == (ssize_t)sizeof information)
            if (information.ssi_signo != SIGCHLD)
                return;
        while (waitpid(-1, &wait_status, WNOHANG) > 0) {
            children--;
            refused |= WIFEXITED(wait_status) && WEXITSTATUS(wait_status) != 0;
        }
        int fd =
            fds[0].revents != 0 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;
        pid_t pid = fd >= 0 ? fork() : -1;
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            close(listener);
            close(signals);
            sigprocmask(SIG_SETMASK, old_mask, NULL);
            signal(SIGPIPE, SIG_IGN);
            serve_connection(fd, token, refused);
        }
        children += pid > 0;
        if (fd >= 0)
            close(fd);
    }
}

int kolo__agent_listen(const char *where)
{
    char token[KOLO__TOKEN_BYTES];
    sigset_t mask, old_mask;
    int listener;
    kolo_status status = read_token(token);
    if (status == KOLO_OK)
        status = listen_where(where, &listener);
    if (status != KOLO_OK) {
        fprintf(stderr, "kolo agent: %s\n", kolo_error_text());
        return status == KOLO_ERR_CONFIG ? KOLO__EXIT_USAGE : KOLO__EXIT_FAILED;
    }
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, &old_mask);
    int signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    unsetenv("KOLO_TOKEN"); /* ranks get their job's */
    unsetenv("KOLO_TOKEN_FILE");
    accept_connections(listener, signals, &old_mask, token);
    explicit_bzero(token, sizeof token);
    return KOLO__EXIT_SIGNAL + SIGTERM;
}
