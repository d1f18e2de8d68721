/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <signal.h>

int kolo__thread_start(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                       void *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(thread, attributes, run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}
