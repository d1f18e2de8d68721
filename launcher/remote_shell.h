/* SPDX-License-Identifier: Apache-2.0 */
/* Starts an agent, or another part of kolo, on a host: by ssh, or, on this machine, as a child.
 * Never asks anybody anything. */
#ifndef KOLO_LAUNCHER_REMOTE_SHELL_H
#define KOLO_LAUNCHER_REMOTE_SHELL_H

#include "launcher/hosts.h"

#include <sys/types.h>

struct kolo__remote_shell {
    const char *command; /* instead of ssh, in the shell's words; NULL: ssh */
    long port;           /* 0: what ssh thinks */
    long agent_port;     /* not 0: an agent listens there on every host, and ssh is not needed */
    long agent_seconds;  /* how long to keep trying to reach it */
    bool verbose;
    const char *part; /* of kolo, two words; NULL: "agent --stdio" */
};

struct kolo__remote {
    pid_t pid;
    int in_fd, out_fd, err_fd; /* reading ends of its stdout and stderr, writing end of its stdin */
};

/* Does not wait for it to be there. */
kolo_status kolo__remote_start(const struct kolo__remote_shell *shell,
                               const struct kolo__host *host, struct kolo__remote *remote);
/* What does not go together; NULL: nothing. */
const char *kolo__remote_contradiction(const struct kolo__remote_shell *shell);
/* Whether all of them can be reached so. */
kolo_status kolo__remote_check(const struct kolo__remote_shell *shell,
                               const struct kolo__hosts *hosts);
/* The command as one could type it, for messages. Returns text. */
const char *kolo__remote_text(const struct kolo__remote_shell *shell, const struct kolo__host *host,
                              char *text, size_t bytes);

/* What a start that failed means. */
struct kolo__remote_failure {
    int exit_code;      /* of kolo run */
    const char *remedy; /* "" : the remote shell's own words say it */
};
/* status: as from waitpid; words: what the remote shell wrote on stderr. */
struct kolo__remote_failure kolo__remote_explain(int wait_status, const char *words);

#endif
