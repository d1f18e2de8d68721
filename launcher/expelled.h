/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that run though the others have gone on without them (--min): they were stopped, cut off or
 * stuck when the world was renewed, and it takes them back no more.
 *
 *     expelled --- 1 s to notice and end by itself ---> SIGTERM --- grace ---> SIGKILL
 *
 * Each then counts as one that failed, and may be started again.
 */
#ifndef KOLO_LAUNCHER_EXPELLED_H
#define KOLO_LAUNCHER_EXPELLED_H

#include "launcher/supervise.h"

/* Finds them among those that run, says so, and does what is due. */
void kolo__expelled_step(const struct kolo__supervised *job, struct kolo__ending *endings,
                         uint64_t now_ns);
/* When something is due; 0: nothing is. */
uint64_t kolo__expelled_due_ns(const struct kolo__supervised *job,
                               const struct kolo__ending *endings);

#endif
