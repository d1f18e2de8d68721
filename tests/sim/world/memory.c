/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library takes by malloc belongs to the process that runs: it is gone when that is
 * killed, and none may be left when it has ended in good order. A head stands before each block:
 *
 *     | base ...... | head | what the caller gets ............ |
 */
#include "world.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_ALIGNMENT = 64 };

struct allocation {
    struct allocation *next, **link;
    struct process *owner; /* NULL: the world's */
    void *base;
    size_t bytes, unused;
};

void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
char *__wrap_strdup(const char *text);
void __wrap_free(void *memory);

static struct allocation *head_of(void *memory)
{
    return (struct allocation *)memory - 1;
}

static void *take(size_t alignment, size_t bytes)
{
    size_t before = alignment > sizeof(struct allocation) ? alignment : sizeof(struct allocation);
    void *base; /* not a byte more: behind it is what a sanitizer watches */
    if (posix_memalign(&base, alignment, before + bytes) != 0)
        return NULL;
    struct allocation *head = head_of((unsigned char *)base + before);
    *head = (struct allocation){
        .base = base, .bytes = bytes, .owner = world != NULL ? world->current : NULL};
    if (head->owner != NULL) {
        head->next = head->owner->heap;
        head->link = &head->owner->heap;
        if (head->next != NULL)
            head->next->link = &head->next;
        head->owner->heap = head;
        head->owner->heap_count++;
    }
    return head + 1;
}

void *__wrap_malloc(size_t bytes)
{
    void *memory = take(BLOCK_ALIGNMENT, bytes);
    if (memory != NULL && bytes > 0) /* the same for equal runs, and not what one hopes for */
        memset(memory, 0xa5, bytes < 256 ? bytes : 256);
    return memory;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    KOLO__ASSERT(bytes == 0 || count <= SIZE_MAX / 2 / bytes);
    void *memory = take(BLOCK_ALIGNMENT, count * bytes);
    if (memory != NULL)
        memset(memory, 0, count * bytes);
    return memory;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return take(alignment < BLOCK_ALIGNMENT ? BLOCK_ALIGNMENT : alignment, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    void *grown = __wrap_malloc(bytes);
    if (memory == NULL || grown == NULL)
        return grown;
    size_t kept = head_of(memory)->bytes < bytes ? head_of(memory)->bytes : bytes;
    memcpy(grown, memory, kept);
    __wrap_free(memory);
    return grown;
}

char *__wrap_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = __wrap_malloc(bytes);
    return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}

void __wrap_free(void *memory)
{
    if (memory == NULL)
        return;
    struct allocation *head = head_of(memory);
    if (head->owner != NULL) {
        *head->link = head->next;
        if (head->next != NULL)
            head->next->link = head->link;
        head->owner->heap_count--;
    }
    memset(memory, 0xdd, head->bytes < 64 ? head->bytes : 64);
    __real_free(head->base);
}

struct process *memory_step_out(void)
{
    struct process *inside = world->current;
    world->current = NULL;
    return inside;
}

void memory_step_in(struct process *inside)
{
    world->current = inside;
}

void memory_free_all(struct process *process)
{
    while (process->heap != NULL)
        __wrap_free(process->heap + 1);
}

size_t memory_left(const struct process *process, size_t *blocks)
{
    size_t bytes = 0;
    *blocks = process->heap_count;
    for (const struct allocation *head = process->heap; head != NULL; head = head->next)
        bytes += head->bytes;
    return bytes;
}
