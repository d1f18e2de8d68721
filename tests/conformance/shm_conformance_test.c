/* SPDX-License-Identifier: Apache-2.0 */
/* Rings in a shared heap keep the contract. Each rank maps the heap for itself, as processes do. */
#include "conformance.h"

#include "base/clock.h"
#include "collectives/transport/shm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct world {
    uint32_t size;
    char name[64];
    struct member {
        struct world *world;
        struct kolo__heap *heap;
        kolo_status status;
        pthread_t thread;
    } members[KOLO__CONFORMANCE_SIZE_MAX];
};

static void *open_heap(void *argument)
{
    struct member *member = argument;
    const struct kolo__heap_options options = {
        .name = member->world->name,
        .token = "",
        .member = (uint32_t)(member - member->world->members),
        .members = member->world->size,
        .share_bytes = 16 << 20,
        .deadline_ns = kolo__now_ns(&kolo__real_clock) + 10 * (uint64_t)1000000000,
    };
    member->status = kolo__heap_open(&options, &member->heap);
    return NULL;
}

static void destroy(void *argument)
{
    struct world *world = argument;
    for (uint32_t r = 0; r < world->size; r++)
        kolo__heap_close(world->members[r].heap);
    free(world);
}

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **result)
{
    static int count;
    (void)seed;
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        return KOLO_ERR_MEMORY;
    world->size = size;
    snprintf(world->name, sizeof world->name, "kolo-conformance-%d-%d", (int)getpid(), count++);
    for (uint32_t r = 0; r < size; r++) {
        world->members[r].world = world;
        if (pthread_create(&world->members[r].thread, NULL, open_heap, &world->members[r]) != 0)
            abort();
    }
    for (uint32_t r = 0; r < size; r++)
        pthread_join(world->members[r].thread, NULL);

    kolo_status status = KOLO_OK;
    uint64_t mailboxes[KOLO__CONFORMANCE_SIZE_MAX];
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        status = world->members[r].status;
        if (status == KOLO_OK)
            status = kolo__shm_mailbox_create(world->members[r].heap, size, false, &mailboxes[r]);
    }
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        const struct kolo__shm_options options = {.rank = r,
                                                  .size = size,
                                                  .heap = world->members[r].heap,
                                                  .mailboxes = mailboxes,
                                                  .doorbell = world->name};
        status = kolo__shm_create(&options, &transports[r], NULL);
    }
    *result = world;
    return status;
}

int main(void)
{
    static const struct kolo__conformance_fixture shm = {
        .name = "shm", .create = create, .destroy = destroy, .threads = true};
    return kolo__conformance_run(&shm);
}
