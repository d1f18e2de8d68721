/* SPDX-License-Identifier: Apache-2.0 */
/* What AddressSanitizer must be told of a thread with many stacks: who leaves one for another says
 * so before, and who has arrived after. Without it nothing is said. */
#ifndef KOLO_TESTS_SIM_STACKS_H
#define KOLO_TESTS_SIM_STACKS_H

#include <stddef.h>

#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct stack {
    const void *bottom; /* of the thread's own: found when one has left it */
    size_t bytes;
    void *known; /* what the sanitizer has of it */
};

#if defined __SANITIZE_ADDRESS__

/* Nothing is left of whoever ran on it before. */
static inline void stack_new(struct stack *stack)
{
    __asan_unpoison_memory_region(stack->bottom, stack->bytes);
}

static inline void stack_leave(struct stack *from, const struct stack *to)
{
    __sanitizer_start_switch_fiber(&from->known, to->bottom, to->bytes);
}

static inline void stack_arrive(struct stack *from, const struct stack *here)
{
    __sanitizer_finish_switch_fiber(here->known, &from->bottom, &from->bytes);
}

#else

static inline void stack_new(struct stack *stack)
{
    (void)stack;
}

static inline void stack_leave(struct stack *from, const struct stack *to)
{
    (void)from;
    (void)to;
}

static inline void stack_arrive(struct stack *from, const struct stack *here)
{
    (void)from;
    (void)here;
}

#endif
#endif
