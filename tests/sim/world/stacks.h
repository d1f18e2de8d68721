/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sanitizers must be told of a thread with many stacks: who leaves one for another says so
 * before, and who has arrived after. Without a sanitizer nothing is said.
 *
 * ThreadSanitizer counts calls by stack, so none may lie between leaving and the jump: inline.
 */
#ifndef KOLO_TESTS_SIM_STACKS_H
#define KOLO_TESTS_SIM_STACKS_H

#include <stddef.h>

#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

struct stack {
    const void *bottom; /* of the thread's own: found when one has left it */
    size_t bytes;
    void *known; /* what the sanitizer has of it */
};

#define STACKS_INLINE static inline __attribute__((always_inline))

#if defined __SANITIZE_ADDRESS__

/* Nothing is left of whoever ran on it before. */
STACKS_INLINE void stack_new(struct stack *stack)
{
    __asan_unpoison_memory_region(stack->bottom, stack->bytes);
}

STACKS_INLINE void stack_leave(struct stack *from, const struct stack *to)
{
    __sanitizer_start_switch_fiber(&from->known, to->bottom, to->bytes);
}

STACKS_INLINE void stack_arrive(struct stack *from, const struct stack *here)
{
    __sanitizer_finish_switch_fiber(here->known, &from->bottom, &from->bytes);
}

STACKS_INLINE void stack_gone(struct stack *stack)
{
    (void)stack;
}

#elif defined __SANITIZE_THREAD__

STACKS_INLINE void stack_new(struct stack *stack)
{
    stack->known = __tsan_create_fiber(0);
}

STACKS_INLINE void stack_leave(struct stack *from, const struct stack *to)
{
    from->known = from->known != NULL ? from->known : __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->known, 0);
}

STACKS_INLINE void stack_arrive(struct stack *from, const struct stack *here)
{
    (void)from;
    (void)here;
}

STACKS_INLINE void stack_gone(struct stack *stack)
{
    __tsan_destroy_fiber(stack->known);
}

#else

STACKS_INLINE void stack_new(struct stack *stack)
{
    (void)stack;
}

STACKS_INLINE void stack_leave(struct stack *from, const struct stack *to)
{
    (void)from;
    (void)to;
}

STACKS_INLINE void stack_arrive(struct stack *from, const struct stack *here)
{
    (void)from;
    (void)here;
}

STACKS_INLINE void stack_gone(struct stack *stack)
{
    (void)stack;
}

#endif
#endif
