/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/discovery.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

enum {
    PAUSE_S = 1,
    LIMIT_S = 10,
    PRINTED_MAX = 1 << 20, /* bytes */
    NOT_FOUND = 127,       /* the shell's code */
};

struct kolo__discovery {
    const char *script;
    long each;
    const struct kolo__hosts *named;
    char source[300]; /* what errors call its output */
    pid_t pid;        /* also its process group; 0: it does not run */
    int fd, err_fd;   /* reading ends of its stdout and stderr; -1: closed */
    uint64_t next_ns; /* when it is started, or killed */
    bool killed;
    char *printed; /* PRINTED_MAX + 1; owned */
    size_t bytes;
    char words[200]; /* the last of its stderr */
    bool has_news;
    struct kolo__hosts hosts; /* of the last list that was not taken */
    kolo_status status;       /* of the last run */
    char why[600];
};

kolo_status kolo__discovery_open(const char *script, long each, const struct kolo__hosts *named,
                                 struct kolo__discovery **result)
{
    struct kolo__discovery *discovery = calloc(1, sizeof *discovery);
    *result = discovery;
    if (discovery == NULL || (discovery->printed = malloc(PRINTED_MAX + 1)) == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for what --discover prints");
    discovery->script = script;
    discovery->each = each;
    discovery->named = named;
    discovery->fd = discovery->err_fd = -1;
    snprintf(discovery->source, sizeof discovery->source, "what --discover %.200s printed", script);
    return KOLO_OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Before its group exists, it is one process. */
static void kill_all(const struct kolo__discovery *discovery)
{
    kill(discovery->pid, SIGKILL);
    kill(-discovery->pid, SIGKILL);
}

void kolo__discovery_close(struct kolo__discovery *discovery)
{
    if (discovery == NULL)
        return;
    if (discovery->pid > 0) {
        kill_all(discovery);
        while (waitpid(discovery->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    close_fd(&discovery->fd);
    close_fd(&discovery->err_fd);
    kolo__hosts_free(&discovery->hosts);
    free(discovery->printed);
    free(discovery);
}

/* ---- one run ------------------------------------------------------------------------------- */

_Noreturn static void become(const char *script, int out_fd, int err_fd, pid_t launcher)
{
    sigset_t none;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigemptyset(&none);
    setsid(); /* a group of its own, to be killed as one; and no terminal */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(out_fd, STDOUT_FILENO) < 0 || dup2(err_fd, STDERR_FILENO) < 0)
        _exit(1);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl("/bin/sh", "sh", "-c", script, (char *)NULL);
    _exit(NOT_FOUND);
}

static kolo_status start(struct kolo__discovery *discovery)
{
    int out[2], err[2] = {-1, -1};
    pid_t launcher = getpid();
    if (pipe2(out, O_CLOEXEC) != 0)
        return kolo__error_errno(errno, "cannot make a pipe for --discover");
    pid_t pid = pipe2(err, O_CLOEXEC) == 0 ? fork() : -1;
    int reason = errno;
    if (pid == 0)
        become(discovery->script, out[1], err[1], launcher);
    close(out[1]);
    close_fd(&err[1]);
    if (pid < 0) {
        close(out[0]);
        close_fd(&err[0]);
        return kolo__error_errno(reason, "cannot start --discover %s", discovery->script);
    }
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    discovery->pid = pid;
    discovery->fd = out[0];
    discovery->err_fd = err[0];
    discovery->bytes = 0;
    discovery->words[0] = '\0';
    discovery->killed = false;
    return KOLO_OK;
}

/* One byte too many is noticed. */
static void read_output(struct kolo__discovery *discovery)
{
    while (discovery->fd >= 0 && discovery->bytes <= PRINTED_MAX) {
        ssize_t bytes = read(discovery->fd, discovery->printed + discovery->bytes,
                             PRINTED_MAX + 1 - discovery->bytes);
        if (bytes > 0)
            discovery->bytes += (size_t)bytes;
        else if (bytes < 0 && errno == EINTR)
            continue;
        else if (bytes < 0 && errno == EAGAIN)
            return;
        else
            close_fd(&discovery->fd);
    }
}

/* The last piece that was written, as one line. */
static void read_words(struct kolo__discovery *discovery)
{
    char text[sizeof discovery->words];
    ssize_t bytes;
    while (discovery->err_fd >= 0 && (bytes = read(discovery->err_fd, text, sizeof text - 1)) > 0) {
        while (bytes > 0 && text[bytes - 1] == '\n')
            bytes--;
        text[bytes] = '\0';
        for (char *c = text; *c != '\0'; c++)
            if ((unsigned char)*c < ' ' || *c == 0x7f)
                *c = ' ';
        if (bytes > 0)
            memcpy(discovery->words, text, sizeof text);
    }
}

static void fill_slots(const struct kolo__discovery *discovery, struct kolo__hosts *hosts)
{
    for (uint32_t i = 0; i < hosts->count; i++) {
        struct kolo__host *host = &hosts->list[i];
        if (discovery->each > 0)
            host->slots = discovery->each;
        for (uint32_t k = 0; host->slots == 0 && k < discovery->named->count; k++)
            if (kolo__host_is_same(host, &discovery->named->list[k]))
                host->slots = discovery->named->list[k].slots;
    }
}

static kolo_status read_list(const struct kolo__discovery *discovery, struct kolo__hosts *hosts)
{
    kolo_status status = KOLO_OK;
    if (discovery->bytes > PRINTED_MAX)
        status = kolo__error(KOLO_ERR_CONFIG, "%s is longer than %d bytes", discovery->source,
                             PRINTED_MAX);
    discovery->printed[discovery->bytes <= PRINTED_MAX ? discovery->bytes : 0] = '\0';
    if (status == KOLO_OK && strlen(discovery->printed) != discovery->bytes)
        status = kolo__error(KOLO_ERR_CONFIG,
                             "%s holds zero bytes: a line is HOST, HOST slots=N, or HOST:N",
                             discovery->source);
    if (status == KOLO_OK)
        status = kolo__hosts_read_text(hosts, discovery->source, discovery->printed);
    if (status == KOLO_OK)
        fill_slots(discovery, hosts);
    return status;
}

static kolo_status judge(const struct kolo__discovery *discovery, int wait_status,
                         struct kolo__hosts *hosts)
{
    const char *script = discovery->script, *words = discovery->words;
    if (discovery->bytes > PRINTED_MAX)
        return read_list(discovery, hosts);
    if (discovery->killed)
        return kolo__error(KOLO_ERR_TIMEOUT,
                           "--discover %s did not end within %d s, and was killed: what it said "
                           "before holds",
                           script, LIMIT_S);
    if (WIFSIGNALED(wait_status))
        return kolo__error(KOLO_ERR_WORLD,
                           "--discover %s was killed by signal %d: what it said before holds",
                           script, WTERMSIG(wait_status));
    if (WEXITSTATUS(wait_status) == NOT_FOUND || WEXITSTATUS(wait_status) == NOT_FOUND - 1)
        return kolo__error(KOLO_ERR_CONFIG,
                           "--discover %s cannot be executed (%s): give the path of an executable "
                           "file, or words for sh",
                           script, words);
    if (WEXITSTATUS(wait_status) != 0)
        return kolo__error(KOLO_ERR_WORLD,
                           "--discover %s exited with code %d%s%s: what it said before holds",
                           script, WEXITSTATUS(wait_status), words[0] != '\0' ? ", " : "", words);
    return read_list(discovery, hosts);
}

/* ---- run after run ------------------------------------------------------------------------- */

static void note(struct kolo__discovery *discovery, kolo_status status)
{
    bool same = status == discovery->status && strcmp(discovery->why, kolo_error_text()) == 0;
    discovery->status = status;
    discovery->has_news = status == KOLO_OK || !same;
    snprintf(discovery->why, sizeof discovery->why, "%s",
             status == KOLO_OK ? "" : kolo_error_text());
}

/* What it has left behind in its group ends with it. */
static void end(struct kolo__discovery *discovery, uint64_t now_ns)
{
    int wait_status = 0;
    struct kolo__hosts hosts = {0};
    kill_all(discovery);
    while (waitpid(discovery->pid, &wait_status, 0) < 0 && errno == EINTR)
        continue;
    read_output(discovery);
    read_words(discovery);
    close_fd(&discovery->fd);
    close_fd(&discovery->err_fd);
    kolo_status status = judge(discovery, wait_status, &hosts);
    kolo__hosts_free(status == KOLO_OK ? &discovery->hosts : &hosts);
    if (status == KOLO_OK)
        discovery->hosts = hosts;
    note(discovery, status);
    discovery->pid = 0;
    discovery->next_ns = now_ns + PAUSE_S * SECOND;
}

void kolo__discovery_step(struct kolo__discovery *discovery, uint64_t now_ns)
{
    siginfo_t information = {0};
    if (discovery == NULL)
        return;
    if (discovery->pid == 0 && now_ns >= discovery->next_ns) {
        kolo_status status = start(discovery);
        discovery->next_ns = now_ns + (status == KOLO_OK ? LIMIT_S : PAUSE_S) * SECOND;
        if (status != KOLO_OK)
            note(discovery, status);
    }
    if (discovery->pid == 0)
        return;
    read_output(discovery);
    read_words(discovery);
    if (!discovery->killed && (now_ns >= discovery->next_ns || discovery->bytes > PRINTED_MAX)) {
        discovery->killed = true;
        kill_all(discovery);
    }
    bool ended =
        waitid(P_PID, (id_t)discovery->pid, &information, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        information.si_pid == discovery->pid;
    if (ended)
        end(discovery, now_ns);
}

void kolo__discovery_poll_fill(const struct kolo__discovery *discovery, struct pollfd *fd)
{
    *fd = (struct pollfd){.fd = discovery != NULL ? discovery->fd : -1, .events = POLLIN};
}

enum kolo__discovery_news kolo__discovery_take(struct kolo__discovery *discovery,
                                               struct kolo__hosts *hosts)
{
    if (discovery == NULL || !discovery->has_news)
        return KOLO__DISCOVERY_NOTHING;
    discovery->has_news = false;
    if (kolo__discovery_fault(discovery) != KOLO_OK)
        return KOLO__DISCOVERY_FAULT;
    *hosts = discovery->hosts;
    discovery->hosts = (struct kolo__hosts){0};
    return KOLO__DISCOVERY_HOSTS;
}

kolo_status kolo__discovery_fault(const struct kolo__discovery *discovery)
{
    return discovery->status == KOLO_OK ? KOLO_OK
                                        : kolo__error(discovery->status, "%s", discovery->why);
}
