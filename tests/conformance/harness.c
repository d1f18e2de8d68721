/* SPDX-License-Identifier: Apache-2.0 */
/* Worlds, messages with known contents, and waiting that ends. */
#include "harness.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { UNWRITTEN = 0xa5 };

const struct kolo__conformance_fixture *fixture;

uint64_t deadline(void)
{
    return kolo__now_ns(&kolo__real_clock) + (uint64_t)60 * 1000 * 1000 * 1000;
}

bool passed(uint64_t deadline_ns)
{
    return kolo__now_ns(&kolo__real_clock) > deadline_ns;
}

struct world open_world(uint32_t size, uint64_t seed)
{
    struct world world = {.size = size};
    assert_true(size <= KOLO__CONFORMANCE_SIZE_MAX);
    assert_int_equal(fixture->create(size, seed, world.transports, &world.inner), KOLO_OK);
    for (uint32_t r = 0; r < size; r++) {
        assert_int_equal(world.transports[r]->rank, r);
        assert_int_equal(world.transports[r]->size, size);
    }
    return world;
}

void close_world(struct world *world)
{
    for (uint32_t r = 0; r < world->size; r++)
        if (world->transports[r] != NULL)
            world->transports[r]->ops->close(world->transports[r]);
    if (fixture->destroy != NULL)
        fixture->destroy(world->inner);
}

void turn(struct world *world)
{
    for (uint32_t r = 0; r < world->size; r++)
        if (world->transports[r] != NULL)
            world->transports[r]->ops->progress(world->transports[r]);
    if (fixture->step != NULL)
        fixture->step(world->inner);
}

void finish(struct world *world, struct message *messages, size_t count)
{
    uint64_t until = deadline();
    for (size_t i = 0; i < count; i++) {
        while (!messages[i].post.complete) {
            if (passed(until))
                fail_msg("message %zu of %zu never completed (%zu of %zu bytes)", i, count,
                         messages[i].post.bytes_done, messages[i].post.bytes);
            turn(world);
        }
    }
}

struct kolo__signature signature_of(uint64_t sequence, uint64_t count)
{
    return (struct kolo__signature){.epoch = 3,
                                    .comm = 5,
                                    .sequence = sequence,
                                    .collective = KOLO__ALLREDUCE,
                                    .dtype = KOLO_FP32,
                                    .op = KOLO_SUM,
                                    .algorithm = 0,
                                    .count = count};
}

static void make(struct message *message, size_t bytes)
{
    memset(message, 0, sizeof(*message));
    static unsigned made;
    message->in_heap = fixture->heap != NULL && (made++ % 3 > 0 || !fixture->mixed);
    void *data = NULL;
    if (bytes > 0 && message->in_heap)
        assert_int_equal(kolo__heap_alloc(fixture->heap, bytes, 1, &data), KOLO_OK);
    else if (bytes > 0)
        data = malloc(bytes);
    message->data = data;
    assert_true(bytes == 0 || message->data != NULL);
    message->signature = signature_of(1, 100);
    message->post.data = message->data;
    message->post.bytes = bytes;
    message->post.bytes_done = SIZE_MAX; /* the transport sets it */
}

unsigned char content(uint64_t key, size_t i)
{
    return (unsigned char)(key * 37 + i * 31 + (i >> 8) * 7);
}

void make_send(struct message *message, uint64_t key, size_t bytes)
{
    make(message, bytes);
    for (size_t i = 0; i < bytes; i++)
        message->data[i] = content(key, i);
}

void make_recv(struct message *message, uint64_t key, size_t bytes)
{
    (void)key;
    make(message, bytes);
    if (bytes > 0)
        memset(message->data, UNWRITTEN, bytes);
}

void send_message(struct world *world, uint32_t from, uint32_t to, struct message *message)
{
    message->post.signature = &message->signature;
    world->transports[from]->ops->post_send(world->transports[from], to, &message->post);
}

void recv_message(struct world *world, uint32_t at, uint32_t from, struct message *message)
{
    message->post.signature = &message->signature;
    world->transports[at]->ops->post_recv(world->transports[at], from, &message->post);
}

bool holds(const struct message *message, uint64_t key)
{
    for (size_t i = 0; i < message->post.bytes; i++)
        if (message->data[i] != content(key, i))
            return false;
    return true;
}

bool untouched(const struct message *message)
{
    for (size_t i = 0; i < message->post.bytes; i++)
        if (message->data[i] != UNWRITTEN)
            return false;
    return true;
}

void free_messages(struct message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (messages[i].in_heap)
            kolo__heap_free(fixture->heap, messages[i].data);
        else
            free(messages[i].data);
}
