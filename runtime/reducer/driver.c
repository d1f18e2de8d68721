/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who drives a step: the progress thread while the caller computes, the caller once it waits.
 *
 *     end of a step   a long one, or the one before?     -> OFFERED to the thread, else CALLER
 *     the thread      a bucket is complete               OFFERED -> TAKEN
 *                     nothing is under way any more      TAKEN   -> OFFERED
 *                     all is done, or it is wanted back  TAKEN   -> CALLER
 *     the caller      in kolo_reducer_wait               OFFERED -> CALLER
 *
 * The caller does not sleep until the thread has done the rest: it would have to be woken in the
 * end, and for a last bucket that is complete only now the thread as well. Each costs more than a
 * small bucket.
 */
#include "runtime/reducer/reducer.h"

#include "base/clock.h"

#include <sched.h>

/* The thread takes part if so much time lies between the first gradient and kolo_reducer_wait: less
 * than waking it costs several times over. */
static const uint64_t WORTH_OVERLAPPING_NS = 200000;

/* What one turn of the thread takes, unless it naps for a peer. */
static const uint64_t YIELD_NS = 50000;
static const uint64_t NAP_NS = 1000000000;

/* One long step is enough to begin, since all steps of a training loop are alike; two short ones
 * to stop, so that long and short ones in turns are hidden, too. */
bool kolo__driver_pays(bool *was_long, uint64_t first_ready_ns, uint64_t entered_ns)
{
    bool is_long = first_ready_ns != 0 && first_ready_ns < entered_ns &&
                   entered_ns - first_ready_ns > WORTH_OVERLAPPING_NS;
    bool pays = is_long || *was_long;
    *was_long = is_long;
    return pays;
}

void kolo__driver_choose(kolo_reducer *reducer)
{
    uint64_t first = atomic_load_explicit(&reducer->first_ready_ns, memory_order_relaxed);
    bool pays = !reducer->options.no_overlap && reducer->comm->size > 1 &&
                kolo__driver_pays(&reducer->was_long, first, reducer->entered_ns);
    if (pays && reducer->thread == NULL)
        kolo__thread_adopt(reducer);
    reducer->threaded = pays && reducer->thread != NULL;
    reducer->waker = reducer->threaded ? kolo__thread_waker(reducer) : &reducer->own_waker;
}

void kolo__driver_offer(kolo_reducer *reducer)
{
    atomic_store(&reducer->driver, KOLO__DRIVER_OFFERED);
}

bool kolo__driver_take(kolo_reducer *reducer)
{
    int offered = KOLO__DRIVER_OFFERED;
    return atomic_compare_exchange_strong(&reducer->driver, &offered, KOLO__DRIVER_TAKEN);
}

void kolo__driver_give(kolo_reducer *reducer, enum kolo__driver to)
{
    atomic_store(&reducer->driver, to);
    kolo__waker_wake(&reducer->done);
}

/* True: the step is the caller's. */
static bool try_to_take_back(kolo_reducer *reducer)
{
    int seen = KOLO__DRIVER_OFFERED;
    if (!atomic_compare_exchange_strong(&reducer->driver, &seen, KOLO__DRIVER_CALLER) &&
        seen == KOLO__DRIVER_TAKEN)
        return false;
    atomic_store(&reducer->wanted_back, false);
    reducer->waker = &reducer->own_waker;
    return true;
}

static void sleep_until_given(kolo_reducer *reducer, uint64_t most_ns)
{
    struct kolo__waker *done = &reducer->done;
    atomic_store(&done->idle, true);
    if (atomic_load(&reducer->driver) == KOLO__DRIVER_TAKEN)
        kolo__waker_sleep(done, most_ns);
    atomic_store(&done->idle, false);
}

bool kolo__driver_take_back(kolo_reducer *reducer, uint64_t most_ns)
{
    if (try_to_take_back(reducer))
        return true;
    uint64_t begin = kolo__now_ns(&kolo__real_clock);
    atomic_store(&reducer->wanted_back, true);
    while (!try_to_take_back(reducer)) {
        uint64_t waited = kolo__now_ns(&kolo__real_clock) - begin;
        /* Not asked any more; but if the thread has heard it, it is about to give. */
        if (waited >= most_ns && atomic_exchange(&reducer->wanted_back, false))
            return false;
        if (waited < YIELD_NS || waited >= most_ns)
            sched_yield();
        else
            sleep_until_given(reducer, most_ns - waited < NAP_NS ? most_ns - waited : NAP_NS);
    }
    return true;
}
