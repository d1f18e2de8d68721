/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher's signals come through a descriptor; its children get back what it was started with.
 */
#ifndef KOLO_LAUNCHER_SIGNALS_H
#define KOLO_LAUNCHER_SIGNALS_H

#include <kolo/kolo.h>
#include <signal.h>

struct kolo__signals {
    int fd; /* a signalfd */
    sigset_t old_mask;
    struct sigaction old_sigpipe;
};

/* Signals that are ignored (nohup) stay so, here and in the children. */
kolo_status kolo__signals_open(struct kolo__signals *signals);
void kolo__signals_close(struct kolo__signals *signals);
/* The next signal; 0: none is waiting. */
int kolo__signals_next(const struct kolo__signals *signals);

#endif
