/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fibers and time. Whoever waits, in poll, for a mutex, in a sleep, gives the thread to another
 * fiber, which of those that can go on is drawn. When none can, time goes on to the next event.
 */
#include "world.h"

#include "stacks.h"

#include "base/assert.h"

#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

/* So many events ahead has only somebody who is woken again and again and does nothing about it. */
enum { STACK_BYTES = 512 * 1024, EVENTS_MAX = 1 << 15 };
static const uint64_t LONGEST_NS = 3600 * SEC; /* of a job: it hangs */

struct fiber {
    ucontext_t context; /* to begin with */
    jmp_buf place;      /* later */
    struct stack stack;
    bool begun;
    struct process *process; /* NULL: free */
    fiber_run *run;
    void *argument;
    bool woken, ended;
    const void *waits_for; /* NULL: for nothing that has a name */
    uint64_t until_ns;
    char error[1024]; /* kolo_error_text of this thread */
};

struct event {
    uint64_t at_ns, number_of;
    void (*run)(void *self, uint64_t number);
    void *self;
    uint64_t number;
};

static struct fiber fibers[WORLD_FIBERS_MAX];
static void *stacks[WORLD_FIBERS_MAX]; /* kept for the next seed */
static uint32_t fiber_count;
static uint32_t waiters; /* at least so many wait for something that has a name */
static struct fiber *running;
static jmp_buf loop_place;
static struct stack loop_stack;
static struct event events[EVENTS_MAX]; /* a heap, the next one first */
static uint32_t event_count;
static uint64_t events_so_far;

/* ---- events ----------------------------------------------------------------------------------
 */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number_of < b->number_of;
}

void world_at(uint64_t at_ns, void (*run)(void *self, uint64_t number), void *self, uint64_t number)
{
    uint32_t place = event_count++;
    KOLO__ASSERT(event_count < EVENTS_MAX);
    const struct event event = {at_ns, events_so_far++, run, self, number};
    for (; place > 0 && is_before(&event, &events[(place - 1) / 2]); place = (place - 1) / 2)
        events[place] = events[(place - 1) / 2];
    events[place] = event;
}

static struct event take_event(void)
{
    struct event first = events[0], last = events[--event_count];
    uint32_t place = 0, child;
    while ((child = 2 * place + 1) < event_count) {
        if (child + 1 < event_count && is_before(&events[child + 1], &events[child]))
            child++;
        if (!is_before(&events[child], &last))
            break;
        events[place] = events[child];
        place = child;
    }
    events[place] = last;
    return first;
}

/* ---- switching -------------------------------------------------------------------------------
 */

/* swapcontext asks the kernel for the mask of signals each time, which is most of what a switch
 * costs; _setjmp does not. */
static void go_to_fiber(struct fiber *fiber)
{
    if (_setjmp(loop_place) != 0) {
        stack_arrive(&fiber->stack, &loop_stack);
        return;
    }
    stack_leave(&loop_stack, &fiber->stack);
    if (fiber->begun)
        _longjmp(fiber->place, 1);
    fiber->begun = true;
    setcontext(&fiber->context);
}

static void go_to_loop(struct fiber *fiber)
{
    if (_setjmp(fiber->place) == 0) {
        stack_leave(&fiber->stack, &loop_stack);
        _longjmp(loop_place, 1);
    }
    stack_arrive(&loop_stack, &fiber->stack);
}

static void enter_fiber(struct fiber *fiber)
{
    running = fiber;
    world->current = fiber->process;
    fiber->process->turns++;
    memcpy((char *)(uintptr_t)kolo_error_text(), fiber->error, sizeof fiber->error);
    go_to_fiber(fiber);
    memcpy(fiber->error, kolo_error_text(), sizeof fiber->error);
    running = NULL;
    world->current = NULL;
}

static void begin(void)
{
    struct fiber *fiber = running;
    stack_arrive(&loop_stack, &fiber->stack);
    fiber->run(fiber->argument);
    fiber->ended = true;
    fiber_wake_process(fiber->process); /* whoever joins it */
    go_to_loop(fiber);
}

struct fiber *fiber_start(struct process *process, fiber_run *run, void *argument)
{
    uint32_t i = 0;
    while (i < fiber_count && fibers[i].process != NULL)
        i++;
    KOLO__ASSERT(i < WORLD_FIBERS_MAX);
    fiber_count = i == fiber_count ? i + 1 : fiber_count;
    if (stacks[i] == NULL)
        stacks[i] = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    KOLO__ASSERT(stacks[i] != MAP_FAILED);
    struct fiber *fiber = &fibers[i];
    *fiber = (struct fiber){.process = process,
                            .run = run,
                            .argument = argument,
                            .woken = true,
                            .stack = {.bottom = stacks[i], .bytes = STACK_BYTES}};
    stack_new(&fiber->stack);
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stacks[i];
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, begin, 0);
    return fiber;
}

static void release(struct fiber *fiber)
{
    fiber->process = NULL;
}

void fiber_forget(struct fiber *fiber)
{
    release(fiber);
}

struct fiber *fiber_current(void)
{
    return running;
}

void fiber_wait(uint64_t until_ns)
{
    struct fiber *fiber = running;
    KOLO__ASSERT(fiber != NULL);
    fiber->woken = false;
    fiber->until_ns = until_ns;
    go_to_loop(fiber);
}

void fiber_wake(struct fiber *fiber)
{
    fiber->woken = true;
}

/* Whoever has it may be killed, which wakes nobody. */
void fiber_wait_for(const void *what)
{
    running->waits_for = what;
    waiters++;
    fiber_wait(world->now_ns + 10 * MS);
    running->waits_for = NULL;
    waiters--;
}

void fiber_wake_for(const void *what)
{
    for (uint32_t i = 0; waiters > 0 && i < fiber_count; i++)
        if (fibers[i].process != NULL && fibers[i].waits_for == what)
            fibers[i].woken = true;
}

void fiber_wake_process(const struct process *process)
{
    for (uint32_t i = 0; i < fiber_count; i++)
        if (fibers[i].process == process)
            fibers[i].woken = true;
}

bool fiber_has_ended(const struct fiber *fiber)
{
    return fiber->ended;
}

void fiber_end_process(const struct process *process)
{
    for (uint32_t i = 0; i < fiber_count; i++)
        if (fibers[i].process == process)
            release(&fibers[i]);
}

/* ---- the loop --------------------------------------------------------------------------------
 */

static bool can_run(const struct fiber *fiber)
{
    return fiber->process != NULL && !fiber->ended &&
           fiber->process->paused_until_ns <= world->now_ns &&
           (fiber->woken || fiber->until_ns <= world->now_ns);
}

static struct fiber *choose(void)
{
    uint32_t count = 0;
    struct fiber *ready[WORLD_FIBERS_MAX];
    for (uint32_t i = 0; i < fiber_count; i++)
        if (can_run(&fibers[i]))
            ready[count++] = &fibers[i];
    return count > 0 ? ready[count > 1 ? world_below(count) : 0] : NULL;
}

static uint64_t next_time(void)
{
    uint64_t next = event_count > 0 ? events[0].at_ns : NEVER;
    for (uint32_t i = 0; i < fiber_count; i++) {
        const struct fiber *fiber = &fibers[i];
        if (fiber->process == NULL || fiber->ended)
            continue;
        uint64_t at = fiber->woken ? 0 : fiber->until_ns;
        at = at < fiber->process->paused_until_ns ? fiber->process->paused_until_ns : at;
        next = at < next ? at : next;
    }
    return next;
}

static bool anybody_left(void)
{
    for (uint32_t i = 0; i < fiber_count; i++)
        if (fibers[i].process != NULL && !fibers[i].ended)
            return true;
    return false;
}

void fiber_loop(void)
{
    uint64_t began_ns = world->now_ns;
    while (anybody_left() && world->broken[0] == '\0') {
        while (event_count > 0 && events[0].at_ns <= world->now_ns) {
            struct event event = take_event();
            event.run(event.self, event.number);
        }
        struct fiber *fiber = choose();
        if (fiber != NULL) {
            plane_tick();
            world_note((uint64_t)(fiber - fibers) << 48 ^ world->now_ns);
            enter_fiber(fiber);
            struct process *process = fiber->process;
            if (process->turns >= process->dies_at_turn && !process->ended)
                faults_kill(process, false);
            world->now_ns += world_below(500);
            continue;
        }
        uint64_t next_ns = next_time();
        if (next_ns == NEVER) {
            world_broken("everybody waits for ever");
            break;
        }
        world->now_ns = next_ns > world->now_ns ? next_ns : world->now_ns;
        if (world->now_ns - began_ns > LONGEST_NS)
            world_broken("the job is not over after an hour");
    }
}

void fiber_release_all(void)
{
    for (uint32_t i = 0; i < fiber_count; i++)
        if (fibers[i].process != NULL)
            release(&fibers[i]);
    fiber_count = event_count = waiters = 0;
    events_so_far = 0;
}
