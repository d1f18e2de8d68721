/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/transport/rdma_memory.h"

#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>

/* Blocks beyond these are not registered. */
enum { BLOCKS_MAX = 256 };

struct entry {
    struct kolo__heap_extent extent;
    bool registered; /* else a device has refused it, and is not asked again */
    struct kolo__rdma_block block;
};

struct kolo__rdma_memory {
    struct kolo__heap_watcher watcher; /* first */
    const struct kolo__rdma_module *module;
    struct kolo__rdma_device *devices[KOLO__RDMA_RAILS_MAX];
    uint32_t device_count;
    struct kolo__heap *heap;
    pthread_mutex_t lock; /* what follows */
    struct entry entries[BLOCKS_MAX];
    uint32_t count, latest; /* latest: where the last search has ended */
    bool complained;
};

static void forget(struct kolo__heap_watcher *watcher, const struct kolo__heap_extent *extent);

struct kolo__rdma_memory *kolo__rdma_memory_open(const struct kolo__rdma_module *module,
                                                 struct kolo__rdma_device *const *devices,
                                                 uint32_t device_count, struct kolo__heap *heap)
{
    struct kolo__rdma_memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return NULL;
    memory->module = module;
    memory->device_count = device_count;
    for (uint32_t i = 0; i < device_count; i++)
        memory->devices[i] = devices[i];
    memory->heap = heap;
    pthread_mutex_init(&memory->lock, NULL);
    memory->watcher.freed = forget;
    kolo__heap_watch(heap, &memory->watcher);
    return memory;
}

static void close_regions(const struct kolo__rdma_memory *memory, struct kolo__rdma_block *block)
{
    for (uint32_t i = 0; i < memory->device_count; i++)
        memory->module->region_close(block->regions[i]);
}

void kolo__rdma_memory_close(struct kolo__rdma_memory *memory)
{
    if (memory == NULL)
        return;
    kolo__heap_unwatch(memory->heap, &memory->watcher);
    for (uint32_t i = 0; i < memory->count; i++)
        close_regions(memory, &memory->entries[i].block);
    pthread_mutex_destroy(&memory->lock);
    free(memory);
}

static bool holds(const struct kolo__heap_extent *extent, const void *data, size_t bytes)
{
    uintptr_t begin = (uintptr_t)extent->memory, at = (uintptr_t)data;
    return at >= begin && at - begin <= extent->bytes && bytes <= extent->bytes - (at - begin);
}

static struct entry *find(struct kolo__rdma_memory *memory, const void *data, size_t bytes)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        uint32_t at = (memory->latest + i) % memory->count;
        if (holds(&memory->entries[at].extent, data, bytes)) {
            memory->latest = at;
            return &memory->entries[at];
        }
    }
    return NULL;
}

/* Under the lock. */
static void enter(struct kolo__rdma_memory *memory, const struct kolo__heap_extent *extent)
{
    char why[300];
    struct entry *entry = &memory->entries[memory->count++];
    *entry = (struct entry){.extent = *extent, .registered = true};
    for (uint32_t i = 0; i < memory->device_count && entry->registered; i++) {
        entry->block.regions[i] =
            memory->module->region_open(memory->devices[i], extent->memory, extent->bytes, true,
                                        &entry->block.keys[i], why, sizeof why);
        entry->registered = entry->block.regions[i] != NULL;
    }
    if (entry->registered)
        return;
    close_regions(memory, &entry->block);
    entry->block = (struct kolo__rdma_block){.regions = {NULL}};
    if (!memory->complained)
        kolo__log(KOLO__LOG_WARN,
                  "RDMA: messages in a buffer of kolo_alloc are copied, because a device does not "
                  "take it: %s",
                  why);
    memory->complained = true;
}

bool kolo__rdma_memory_find(struct kolo__rdma_memory *memory, const void *data, size_t bytes,
                            struct kolo__rdma_block *block)
{
    struct kolo__heap_extent extent;
    if (memory == NULL)
        return false;
    pthread_mutex_lock(&memory->lock);
    const struct entry *entry = find(memory, data, bytes);
    if (entry == NULL) {
        /* Not under this lock, which is taken within the heap's (forget). The block stays: there is
         * a message in it. */
        pthread_mutex_unlock(&memory->lock);
        if (!kolo__heap_find(memory->heap, data, bytes, &extent))
            return false;
        pthread_mutex_lock(&memory->lock);
        if (memory->count < BLOCKS_MAX)
            enter(memory, &extent);
        entry = find(memory, data, bytes);
    }
    bool known = entry != NULL && entry->registered;
    if (known)
        *block = entry->block;
    pthread_mutex_unlock(&memory->lock);
    return known;
}

static void forget(struct kolo__heap_watcher *watcher, const struct kolo__heap_extent *extent)
{
    struct kolo__rdma_memory *memory = (struct kolo__rdma_memory *)(void *)watcher;
    pthread_mutex_lock(&memory->lock);
    struct entry *entry = find(memory, extent->memory, extent->bytes);
    if (entry != NULL) {
        close_regions(memory, &entry->block);
        *entry = memory->entries[--memory->count];
        memory->latest = 0;
    }
    pthread_mutex_unlock(&memory->lock);
}
