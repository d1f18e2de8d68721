/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the moment all ranks run until nothing of the job is left: one loop around poll.
 *
 *   running --- a rank fails -------> 1 s for the others to notice --> SIGTERM --> grace -->
 * SIGKILL
 *      |------- stdout is closed -----------------------------------> SIGTERM --> grace --> SIGKILL
 *      |------- a signal for us ----> passed on; the second SIGINT or SIGTERM ------------> SIGKILL
 *      v
 *   all ranks ended --> what they left behind is killed --> their last output is written
 */
#ifndef KOLO_LAUNCHER_SUPERVISE_H
#define KOLO_LAUNCHER_SUPERVISE_H

#include "launcher/guard.h"
#include "launcher/input.h"
#include "launcher/outcome.h"
#include "launcher/output.h"
#include "launcher/signals.h"
#include "launcher/spawn.h"
#include "runtime/rendezvous.h"

/* Everything is borrowed. */
struct kolo__supervised {
    uint32_t ranks, started; /* started < ranks: the start went wrong; what runs is ended */
    const struct kolo__child *children;
    const char *job;
    long grace_s;
    struct kolo__signals *signals;
    struct kolo__guard *guard;
    struct kolo__rendezvous *rendezvous;
    struct kolo__input *input;
    struct kolo__output *output; /* NULL: the rank writes for itself */
};

/* Returns the job's exit code. */
int kolo__supervise(const struct kolo__supervised *supervised);

#endif
