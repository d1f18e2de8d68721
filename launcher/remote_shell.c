/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/remote_shell.h"

#include "base/status.h"
#include "launcher/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PATH_BYTES = 512,
    COMMAND_BYTES = 2048,
    WORDS_MAX = 16,
    ADDRESS_BYTES = KOLO__HOST_NAME_BYTES + 16
};

/* A question would wait for an answer for ever: a password or an unknown host key is an error. */
static const char SSH_OPTIONS[] = "-T -x -o BatchMode=yes -o ConnectTimeout=10 -o LogLevel=ERROR";

static kolo_status own_path(char path[PATH_BYTES])
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_BYTES - 1);
    if (length <= 0)
        return kolo__error_errno(errno, "cannot find out where this kolo is");
    path[length] = '\0';
    return KOLO_OK;
}

/* In single quotes. */
static void quote(char *text, size_t bytes, const char *word)
{
    size_t used = 0;
    text[used++] = '\'';
    for (; *word != '\0' && used + 6 < bytes; word++) {
        if (*word == '\'') {
            memcpy(text + used, "'\\''", 4);
            used += 4;
        } else {
            text[used++] = *word;
        }
    }
    text[used++] = '\'';
    text[used] = '\0';
}

static const char *part_of(const struct kolo__remote_shell *shell)
{
    return shell->part != NULL ? shell->part : "agent --stdio";
}

/* What the login shell of the host is to run, whatever shell that is: the same path as here, or
 * else what is called kolo there. Nothing of the job: all processes of a host see command lines. */
static kolo_status remote_command(const struct kolo__remote_shell *shell,
                                  char command[COMMAND_BYTES])
{
    char path[PATH_BYTES], script[PATH_BYTES + 128];
    kolo_status status = own_path(path);
    if (status != KOLO_OK)
        return status;
    if (strpbrk(path, "'\\!") != NULL)
        return kolo__error(KOLO_ERR_CONFIG,
                           "this kolo lies at %s, which cannot be told to another host's shell: "
                           "install it elsewhere",
                           path);
    snprintf(script, sizeof script, "K=\"%s\"; [ -x \"$K\" ] || K=kolo; exec \"$K\" %s", path,
             part_of(shell));
    memcpy(command, "exec sh -c ", 12);
    quote(command + 11, COMMAND_BYTES - 11, script);
    return KOLO_OK;
}

/* Without the remote command: what ssh is, how it shall behave, and whom it is to reach. */
static void shell_words(const struct kolo__remote_shell *shell, const struct kolo__host *host,
                        char *text, size_t bytes)
{
    char port[32] = "", name[2 * KOLO__HOST_NAME_BYTES];
    const char *command = shell->command != NULL ? shell->command : "ssh";
    size_t word = strcspn(command, " \t");
    size_t start = word;
    while (start > 0 && command[start - 1] != '/')
        start--;
    bool is_ssh = word - start == 3 && strncmp(command + start, "ssh", 3) == 0;
    if (shell->port != 0)
        snprintf(port, sizeof port, " -p %ld", shell->port);
    quote(name, sizeof name, host->name);
    /* Of two equal options ssh takes the first, so the user's come first. */
    snprintf(text, bytes, "%s%s%s%s%s %s", command, port, is_ssh ? " " : "",
             is_ssh ? SSH_OPTIONS : "", is_ssh && shell->verbose ? " -v" : "", name);
}

static const char *agent_address(const struct kolo__remote_shell *shell,
                                 const struct kolo__host *host, char address[ADDRESS_BYTES])
{
    bool v6 = strchr(host->name, ':') != NULL;
    snprintf(address, ADDRESS_BYTES, "%s%s%s:%ld", v6 ? "[" : "", host->name, v6 ? "]" : "",
             shell->agent_port);
    return address;
}

const char *kolo__remote_contradiction(const struct kolo__remote_shell *shell)
{
    if (shell->agent_port != 0 && shell->command != NULL)
        return "--ssh says how to reach hosts, and --agent-port does without ssh: give one";
    if (shell->agent_port != 0 && shell->port != 0)
        return "--ssh-port is of sshd, and --agent-port does without ssh: give one";
    return NULL;
}

kolo_status kolo__remote_check(const struct kolo__remote_shell *shell,
                               const struct kolo__hosts *hosts)
{
    for (uint32_t i = 0; shell->agent_port != 0 && i < hosts->count; i++)
        if (strchr(hosts->list[i].name, '@') != NULL)
            return kolo__error(KOLO_ERR_CONFIG,
                               "%s: with --agent-port ranks are of the user that `kolo agent` runs "
                               "as: leave out what stands before the @",
                               hosts->list[i].name);
    return KOLO_OK;
}

const char *kolo__remote_text(const struct kolo__remote_shell *shell, const struct kolo__host *host,
                              char *text, size_t bytes)
{
    char address[ADDRESS_BYTES];
    if (host->here)
        snprintf(text, bytes, "kolo %s", part_of(shell));
    else if (shell->agent_port != 0)
        snprintf(text, bytes, "the agent at %s", agent_address(shell, host, address));
    else
        shell_words(shell, host, text, bytes);
    return text;
}

/* ---- starting ------------------------------------------------------------------------------ */

/* On this machine, without a shell between. */
static void become_part(const struct kolo__remote_shell *shell)
{
    char first[64];
    const char *part = part_of(shell);
    size_t length = strcspn(part, " ");
    snprintf(first, sizeof first, "%.*s", (int)length, part);
    execl("/proc/self/exe", "kolo", first, part + length + (part[length] == ' '), (char *)NULL);
}

/* The same, started by the agent that waits there. */
static void become_connection(const struct kolo__remote_shell *shell, const struct kolo__host *host)
{
    char address[ADDRESS_BYTES], part[64], seconds[24];
    const char *words = part_of(shell);
    snprintf(part, sizeof part, "%.*s", (int)strcspn(words, " "), words);
    snprintf(seconds, sizeof seconds, "%ld", shell->agent_seconds);
    execl("/proc/self/exe", "kolo", "agent", "--connect", agent_address(shell, host, address), part,
          seconds, (char *)NULL);
}

_Noreturn static void become(const struct kolo__remote_shell *shell, const struct kolo__host *host,
                             const char *command, const char *remote, const int ends[3][2],
                             pid_t launcher)
{
    sigset_t none;
    sigemptyset(&none);
    setsid(); /* no terminal: Ctrl-C is ours to pass on, and there is nobody to ask */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != launcher)
        _exit(1);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(ends[0][0], STDIN_FILENO) < 0 || dup2(ends[1][1], STDOUT_FILENO) < 0 ||
        dup2(ends[2][1], STDERR_FILENO) < 0)
        _exit(1);
    if (host->here)
        become_part(shell);
    else if (shell->agent_port != 0)
        become_connection(shell, host);
    else
        execl("/bin/sh", "sh", "-c", command, "sh", remote, (char *)NULL);
    fprintf(stderr, "cannot be executed: %s\n", strerror(errno));
    _exit(KOLO__EXIT_CANNOT_EXECUTE);
}

kolo_status kolo__remote_start(const struct kolo__remote_shell *shell,
                               const struct kolo__host *host, struct kolo__remote *remote)
{
    char remote_words[COMMAND_BYTES], words[COMMAND_BYTES], command[COMMAND_BYTES + 32];
    int ends[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    kolo_status status = remote_command(shell, remote_words);
    if (status != KOLO_OK)
        return status;
    shell_words(shell, host, words, sizeof words);
    snprintf(command, sizeof command, "exec %s \"$1\"", words);
    for (int i = 0; i < 3 && status == KOLO_OK; i++)
        if (pipe2(ends[i], O_CLOEXEC) != 0)
            status = kolo__error_errno(errno, "cannot make a pipe");
    pid_t launcher = getpid(), pid = -1;
    if (status == KOLO_OK && (pid = fork()) < 0)
        status = kolo__error_errno(errno, "cannot start a process");
    if (pid == 0)
        become(shell, host, command, remote_words, ends, launcher);
    if (status == KOLO_OK) {
        *remote = (struct kolo__remote){
            .pid = pid, .in_fd = ends[1][0], .out_fd = ends[0][1], .err_fd = ends[2][0]};
        ends[1][0] = ends[0][1] = ends[2][0] = -1;
        fcntl(remote->err_fd, F_SETFL, O_NONBLOCK);
    }
    for (int i = 0; i < 6; i++)
        if (ends[i / 2][i % 2] >= 0)
            close(ends[i / 2][i % 2]);
    return status;
}

/* ---- when it did not work ------------------------------------------------------------------ */

struct kolo__remote_failure kolo__remote_explain(int wait_status, const char *words)
{
    static const struct {
        const char *words;
        struct kolo__remote_failure failure;
    } KNOWN[] = {
        {"Host key verification failed",
         {KOLO__EXIT_USAGE,
          "this host's key is not known here, or has changed: log in once by hand and look at it, "
          "or put it into known_hosts (ssh-keyscan)"}},
        {"Permission denied",
         {KOLO__EXIT_USAGE, "kolo run never asks for a password: give ssh a key that it may use "
                            "without one (ssh-copy-id, ssh-agent, IdentityFile in ssh_config)"}},
        {"Could not resolve",
         {KOLO__EXIT_NO_WORLD, "its name cannot be resolved: check it, or give its address"}},
        {"Connection refused",
         {KOLO__EXIT_NO_WORLD, "no sshd listens there: start it, or give its port (--ssh-port)"}},
        {"timed out", {KOLO__EXIT_NO_WORLD, "it is down, or a firewall is between"}},
        {"No route to host", {KOLO__EXIT_NO_WORLD, "it is down, or the network is"}},
    };
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == KOLO__EXIT_USAGE)
        return (struct kolo__remote_failure){KOLO__EXIT_USAGE, ""}; /* kolo agent --connect */
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == KOLO__EXIT_NOT_FOUND)
        return (struct kolo__remote_failure){
            KOLO__EXIT_USAGE, "kolo is not there, neither at the path that it has here nor in the "
                              "PATH of a shell without a terminal: install the same kolo there"};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (strstr(words, KNOWN[i].words) != NULL)
            return KNOWN[i].failure;
    return (struct kolo__remote_failure){KOLO__EXIT_NO_WORLD, ""};
}
