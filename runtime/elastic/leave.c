/* SPDX-License-Identifier: Apache-2.0 */
/* A rank that is asked to go: SIGTERM is how schedulers ask, some time before they use force. */
#include "runtime/elastic/elastic.h"

#include "base/status.h"

#include <signal.h>

static _Atomic(kolo_elastic *) caught_for; /* whose SIGTERM it is; NULL: nobody's */
static struct sigaction before;

static void on_sigterm(int signal)
{
    (void)signal;
    kolo_elastic_leave(atomic_load(&caught_for));
}

void kolo_elastic_leave(kolo_elastic *loop)
{
    if (loop != NULL)
        atomic_store(&loop->leaving, 1);
}

kolo_status kolo__elastic_catch_sigterm(kolo_elastic *loop)
{
    struct sigaction action = {.sa_handler = on_sigterm, .sa_flags = SA_RESTART};
    kolo_elastic *nobody = NULL;
    sigemptyset(&action.sa_mask);
    if (!atomic_compare_exchange_strong(&caught_for, &nobody, loop))
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_elastic_create: another loop of this process takes SIGTERM: set "
                           "options->leave_on_sigterm for one of them");
    sigaction(SIGTERM, &action, &before);
    return KOLO_OK;
}

void kolo__elastic_release_sigterm(kolo_elastic *loop)
{
    if (atomic_load(&caught_for) != loop)
        return;
    sigaction(SIGTERM, &before, NULL);
    atomic_store(&caught_for, NULL);
}
