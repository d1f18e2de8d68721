/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/signals.h"

#include "base/status.h"

#include <errno.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int HANDLED[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGUSR1,
                              SIGUSR2, SIGTSTP, SIGCONT, SIGCHLD};

kolo_status kolo__signals_open(struct kolo__signals *signals)
{
    sigset_t mask;
    struct sigaction action;
    sigemptyset(&mask);
    /* With SIGCHLD ignored, children would vanish without a word. */
    signal(SIGCHLD, SIG_DFL);
    for (size_t i = 0; i < sizeof HANDLED / sizeof *HANDLED; i++)
        if (sigaction(HANDLED[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&mask, HANDLED[i]);
    sigprocmask(SIG_BLOCK, &mask, &signals->old_mask);

    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, &signals->old_sigpipe);
    signals->fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals->fd < 0)
        return kolo__error_errno(errno, "cannot receive signals");
    return KOLO_OK;
}

void kolo__signals_close(struct kolo__signals *signals)
{
    if (signals->fd >= 0)
        close(signals->fd);
    signals->fd = -1;
}

int kolo__signals_next(const struct kolo__signals *signals)
{
    struct signalfd_siginfo information;
    ssize_t bytes = read(signals->fd, &information, sizeof information);
    return bytes == (ssize_t)sizeof information ? (int)information.ssi_signo : 0;
}
