/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of kolo's own beside the program's. */
#ifndef KOLO_BASE_THREAD_H
#define KOLO_BASE_THREAD_H

#include <pthread.h>

/* As pthread_create, with all signals blocked in the new thread: they are the program's, whose
 * handlers run on its own threads. Returns 0 or errno. */
int kolo__thread_start(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                       void *self);

#endif
