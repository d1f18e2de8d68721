/* SPDX-License-Identifier: Apache-2.0 */
/* See exchange_twin.h. */
#include <sched.h>
#define EXCHANGE_PAUSE sched_yield
#include "exchange_twin.h"

#include "kernels/cuda/exchange.h"
#include "kernels/cuda/forms.h"

/* A block's share of a step, as run_exchange in exchange.cu has it. False: a wait gave up. */
#define BLOCK(word, kind, name, format)                                                            \
    static bool word##_##name(const struct exchange *x, uint32_t epoch, uint32_t step,             \
                              uint32_t block, uint32_t blocks)                                     \
    {                                                                                              \
        for (uint32_t peer = 0; step > x->first_step && peer < EXCHANGE_RANKS; peer++)             \
            if (!exchange_wait(kind, x, epoch, step - 1, block, peer))                             \
                return false;                                                                      \
        for (uint32_t thread = 0; thread < EXCHANGE_THREADS; thread++)                             \
            exchange_work(kind, format, x, epoch, step, block, blocks, thread);                    \
        for (uint32_t peer = 0; step < x->last_step && peer < EXCHANGE_RANKS; peer++)              \
            exchange_tell(kind, x, epoch, step, block, peer);                                      \
        if (step == x->last_step)                                                                  \
            exchange_finish(kind, x, epoch, blocks);                                               \
        return true;                                                                               \
    }
KOLO__EXCHANGES(BLOCK)

#define OF(word, kind, name, format) word##_##name,
static bool (*const functions[])(const struct exchange *, uint32_t, uint32_t, uint32_t,
                                 uint32_t) = {KOLO__EXCHANGES(OF)};

/* Blocks in turns within a step: one that waits may need another one's share of the same rank. */
static bool run_step(int kind, int format, const struct exchange *x, uint32_t epoch, uint32_t step,
                     uint32_t blocks)
{
    for (uint32_t block = 0; block < blocks; block++)
        if (!functions[kind * KOLO__EXCHANGE_FORMATS + format](x, epoch, step, block, blocks))
            return false;
    return true;
}

void twin_exchange(int kind, int format, const struct exchange *x, uint32_t blocks)
{
    uint32_t epoch = exchange_epoch(x);
    for (uint32_t step = x->first_step; step <= x->last_step; step++)
        if (!run_step(kind, format, x, epoch, step, blocks))
            return;
}

void twin_exchange_together(int kind, int format, const void *parameter, uint32_t blocks)
{
    const struct exchange_launch *launch = parameter;
    const uint32_t each = blocks / (uint32_t)launch->rank_count;
    uint32_t epochs[EXCHANGE_RANKS] = {0};
    for (uint32_t i = 0; i < launch->rank_count && i < EXCHANGE_RANKS; i++)
        epochs[i] = exchange_epoch(&launch->ranks[i]);
    for (uint32_t step = launch->ranks[0].first_step; step <= launch->ranks[0].last_step; step++)
        for (uint32_t i = 0; i < launch->rank_count; i++)
            if (!run_step(kind, format, &launch->ranks[i], epochs[i], step, each))
                return;
}
