/* SPDX-License-Identifier: Apache-2.0 */
/* How ranks agree on what each has begun with NCCL: in words that they tell each other by the
 * host's memory, in rounds, until all are ready or one has failed. */
#include "runtime/nccl_agree.h"

#include "base/clock.h"
#include "runtime/nccl_state.h"

#include <stdio.h>
#include <time.h>

static const uint64_t SECOND_NS = 1000000000;

enum { ROUND_MS_MOST = 20 }; /* between two rounds of asking whether all are ready */

kolo_status kolo__nccl_tell(kolo_comm *comm, const char *operation,
                            const struct kolo__nccl_word *mine, struct kolo__nccl_word *all)
{
    return kolo__call_gather(comm, operation, mine, all, sizeof *mine);
}

int kolo__nccl_find_failed(const kolo_comm *comm, const struct kolo__nccl_word *all, bool *pending)
{
    *pending = false;
    for (uint32_t r = 0; r < comm->size; r++) {
        if (all[r].status != KOLO_OK && all[r].status != KOLO_AGAIN)
            return (int)r;
        *pending |= all[r].status == KOLO_AGAIN;
    }
    return -1;
}

static void pause_ms(unsigned milliseconds)
{
    const struct timespec time = {.tv_sec = milliseconds / 1000,
                                  .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    nanosleep(&time, NULL);
}

kolo_status kolo__nccl_settle(kolo_comm *comm, const char *operation,
                              const struct kolo__nccl_module *module, struct kolo__nccl_comm *begun,
                              uint64_t limit_ns, const char *doing, struct kolo__nccl_word *mine,
                              struct kolo__nccl_word *all, int *failed)
{
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + limit_ns;
    unsigned round_ms = 1;
    for (bool pending = true; pending;) {
        if (mine->status == KOLO_OK || mine->status == KOLO_AGAIN)
            mine->status = (int32_t)module->comm_poll(begun, mine->why);
        if (mine->status == KOLO_AGAIN && kolo__now_ns(&kolo__real_clock) > deadline_ns) {
            mine->status = KOLO_ERR_TIMEOUT;
            snprintf(mine->why, sizeof mine->why, "%s did not finish within %llu s", doing,
                     (unsigned long long)(limit_ns / SECOND_NS));
        }
        kolo_status status = kolo__nccl_tell(comm, operation, mine, all);
        if (status != KOLO_OK)
            return status;
        *failed = kolo__nccl_find_failed(comm, all, &pending);
        if (*failed >= 0)
            break;
        if (pending)
            pause_ms(round_ms);
        round_ms = 2 * round_ms < ROUND_MS_MOST ? 2 * round_ms : ROUND_MS_MOST;
    }
    return KOLO_OK;
}

kolo_status kolo__nccl_await(struct kolo__nccl *nccl, unsigned limit_ms, char *why)
{
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + limit_ms * (SECOND_NS / 1000);
    kolo_status status = KOLO_AGAIN;
    while (status == KOLO_AGAIN && kolo__now_ns(&kolo__real_clock) < deadline_ns) {
        status = nccl->module->comm_poll(nccl->comm, why);
        if (status == KOLO_AGAIN)
            pause_ms(1);
    }
    return status;
}
