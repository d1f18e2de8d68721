/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks in which every rank has a thread of its own: sleeping and waking through wait_fd, and
 * traffic at full speed (also for the thread sanitizer). Threads assert nothing: they return false.
 */
#include "harness.h"

#include "base/clock.h"
#include "base/random.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { WAKE_MS = 5000 };
static const uint64_t WAKE_NS = WAKE_MS * UINT64_C(1000000);

struct worker {
    struct world *world;
    struct message *messages; /* what the check's body works on */
    size_t count;
    atomic_bool *peer_sleeps;
    uint64_t seed;
    uint32_t rank;
    unsigned slept, turns;
    bool ok;
};

static void skip_without_threads(void)
{
    if (!fixture->threads) {
        print_message("%s: one thread only\n", fixture->name);
        skip();
    }
}

static void skip_without_sleep(struct world *world)
{
    if (world->transports[0]->ops->wait_fd(world->transports[0]) < 0) {
        close_world(world);
        print_message("%s: has no wait_fd\n", fixture->name);
        skip();
    }
}

/* Sleeps as the transport allows: every other time in a nap, where it has them. False: until the
 * end, which may be because the others are slow. */
static bool sleep_once(struct worker *worker, atomic_bool *sleeping)
{
    struct kolo__transport *transport = worker->world->transports[worker->rank];
    uint64_t before = kolo__now_ns(&kolo__real_clock);
    /* The sender may begin once it is told of the sleep: only where there is one. */
    bool naps = worker->turns++ % 2 == 1 && transport->ops->nap(transport, 0);
    if (naps) {
        if (sleeping != NULL)
            atomic_store(sleeping, true);
        worker->slept += transport->ops->nap(transport, WAKE_NS);
        return kolo__now_ns(&kolo__real_clock) - before < WAKE_NS;
    }
    if (!transport->ops->arm(transport))
        return true;
    struct pollfd fd = {.fd = transport->ops->wait_fd(transport), .events = POLLIN};
    if (sleeping != NULL)
        atomic_store(sleeping, true);
    worker->slept++;
    int ready = poll(&fd, 1, WAKE_MS);
    ready = ready == 0 ? poll(&fd, 1, 0) : ready; /* it came just now, or this thread came late */
    transport->ops->disarm(transport);
    return ready != 0;
}

/* Drives one rank until the post completes, sleeping whenever the transport allows it. False: it
 * slept while there was something to do, or it took too long. */
static bool wait_asleep(struct worker *worker, const struct kolo__post *post, atomic_bool *sleeping)
{
    struct kolo__transport *transport = worker->world->transports[worker->rank];
    uint64_t until = deadline();
    bool woken = true;
    while (!post->complete) {
        if (passed(until))
            return false;
        if (transport->ops->progress(transport) || post->complete) {
            if (!woken)
                return false;
            continue;
        }
        woken = sleep_once(worker, sleeping);
    }
    return post->status == KOLO_OK;
}

static void run_threads(struct worker *workers, uint32_t count, void *(*body)(void *))
{
    pthread_t threads[KOLO__CONFORMANCE_SIZE_MAX];
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, body, &workers[i]), 0);
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < count; i++)
        if (!workers[i].ok)
            fail_msg("rank %u of %u failed or was never woken up", i, count);
}

static void *receive_asleep(void *argument)
{
    struct worker *worker = argument;
    for (size_t i = 0; i < worker->count; i++) {
        recv_message(worker->world, 1, 0, &worker->messages[i]);
        if (!wait_asleep(worker, &worker->messages[i].post, &worker->peer_sleeps[i]))
            return NULL;
    }
    worker->ok = true;
    return NULL;
}

/* Sends each message only after the receiver has gone to sleep. */
static void *send_to_sleeper(void *argument)
{
    struct worker *worker = argument;
    uint64_t until = deadline();
    for (size_t i = 0; i < worker->count; i++) {
        while (!atomic_load(&worker->peer_sleeps[i])) {
            if (passed(until))
                return NULL;
            struct kolo__transport *transport = worker->world->transports[0];
            transport->ops->progress(transport);
            sched_yield();
        }
        send_message(worker->world, 0, 1, &worker->messages[i]);
        if (!wait_asleep(worker, &worker->messages[i].post, NULL))
            return NULL;
    }
    worker->ok = true;
    return NULL;
}

void check_sleeping_receiver(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    static const size_t lengths[] = {0, 8, 1000, 300000};
    skip_without_threads();
    struct world world = open_world(2, 1);
    skip_without_sleep(&world);
    struct message sends[COUNT], recvs[COUNT];
    atomic_bool sleeping[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        make_send(&sends[i], i, lengths[i % 4]);
        make_recv(&recvs[i], i, lengths[i % 4]);
        atomic_init(&sleeping[i], false);
    }
    struct worker workers[2] = {
        {.world = &world, .rank = 0, .messages = sends, .count = COUNT, .peer_sleeps = sleeping},
        {.world = &world, .rank = 1, .messages = recvs, .count = COUNT, .peer_sleeps = sleeping},
    };
    void *(*bodies[2])(void *) = {send_to_sleeper, receive_asleep};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], &workers[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_true(workers[1].ok);
    assert_true(workers[0].ok);
    assert_true(workers[1].slept >= COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(holds(&recvs[i], i));
    close_world(&world);
    free_messages(sends, COUNT);
    free_messages(recvs, COUNT);
}

/* Ring: send to the next, receive from the one before; everybody sleeps at every chance. */
static void *exchange_asleep(void *argument)
{
    struct worker *worker = argument;
    uint32_t size = worker->world->size;
    for (size_t i = 0; i + 1 < worker->count; i += 2) {
        struct message *send = &worker->messages[i], *recv = &worker->messages[i + 1];
        recv_message(worker->world, worker->rank, (worker->rank + size - 1) % size, recv);
        send_message(worker->world, worker->rank, (worker->rank + 1) % size, send);
        if (!wait_asleep(worker, &recv->post, NULL) || !wait_asleep(worker, &send->post, NULL))
            return NULL;
    }
    worker->ok = true;
    return NULL;
}

void check_sleeping_exchange(void **state)
{
    (void)state;
    enum { ROUNDS = 100 };
    skip_without_threads();
    for (uint32_t size = 2; size <= 3; size++) {
        struct world world = open_world(size, size);
        skip_without_sleep(&world);
        struct worker workers[3];
        for (uint32_t r = 0; r < size; r++) {
            workers[r] = (struct worker){.world = &world, .rank = r, .count = 2 * ROUNDS};
            workers[r].messages = calloc(2 * ROUNDS, sizeof(struct message));
            assert_non_null(workers[r].messages);
            for (size_t i = 0; i < ROUNDS; i++) {
                size_t bytes = i % 10 == 0 ? 700000 : (i * 37) % 5000;
                make_send(&workers[r].messages[2 * i], i, bytes);
                make_recv(&workers[r].messages[2 * i + 1], i, bytes);
            }
        }
        run_threads(workers, size, exchange_asleep);
        for (uint32_t r = 0; r < size; r++)
            for (size_t i = 0; i < ROUNDS; i++)
                assert_true(holds(&workers[r].messages[2 * i + 1], i));
        close_world(&world);
        for (uint32_t r = 0; r < size; r++) {
            free_messages(workers[r].messages, 2 * ROUNDS);
            free(workers[r].messages);
        }
    }
}

/* count messages to and from every other rank: message m of rank a to b lies at
 * [(2 * b + 0) * count + m], the one from b at [(2 * b + 1) * count + m]. */
static void *exchange_with_all(void *argument)
{
    struct worker *worker = argument;
    uint32_t size = worker->world->size;
    struct kolo__transport *transport = worker->world->transports[worker->rank];
    struct kolo__random random = {.state = worker->seed};
    size_t next[2 * KOLO__CONFORMANCE_SIZE_MAX] = {0};
    size_t left = (size_t)2 * (size - 1) * worker->count;
    uint64_t until = deadline();
    while (left > 0) {
        uint32_t lane = (uint32_t)kolo__random_below(&random, (uint64_t)2 * size);
        uint32_t peer = lane / 2;
        if (peer != worker->rank && next[lane] < worker->count) {
            struct message *message = &worker->messages[lane * worker->count + next[lane]++];
            if (lane % 2 == 0)
                send_message(worker->world, worker->rank, peer, message);
            else
                recv_message(worker->world, worker->rank, peer, message);
            left--;
        }
        if (kolo__random_below(&random, 3) == 0)
            transport->ops->progress(transport);
    }
    for (uint32_t lane = 0; lane < 2 * size; lane++) {
        for (size_t m = 0; lane / 2 != worker->rank && m < worker->count; m++) {
            const struct kolo__post *post = &worker->messages[lane * worker->count + m].post;
            while (!post->complete) {
                if (passed(until))
                    return NULL;
                if (!transport->ops->progress(transport))
                    sched_yield();
            }
            if (post->status != KOLO_OK)
                return NULL;
        }
    }
    worker->ok = true;
    return NULL;
}

static uint64_t key_of(uint32_t from, uint32_t to, size_t m)
{
    return 10000 * from + 1000 * to + m;
}

void check_threads_random_traffic(void **state)
{
    (void)state;
    enum { COUNT = 60 };
    skip_without_threads();
    for (uint32_t size = 2; size <= KOLO__CONFORMANCE_SIZE_MAX; size += 3) {
        struct world world = open_world(size, size);
        struct worker workers[KOLO__CONFORMANCE_SIZE_MAX];
        for (uint32_t r = 0; r < size; r++) {
            workers[r] =
                (struct worker){.world = &world, .rank = r, .count = COUNT, .seed = 17 * r + size};
            workers[r].messages = calloc((size_t)2 * size * COUNT, sizeof(struct message));
            assert_non_null(workers[r].messages);
            for (uint32_t peer = 0; peer < size; peer++) {
                struct message *messages = &workers[r].messages[(size_t)2 * peer * COUNT];
                for (size_t m = 0; peer != r && m < COUNT; m++) {
                    size_t bytes = m % 20 == 0 ? 400000 : (m * 131) % 9000;
                    make_send(&messages[m], key_of(r, peer, m), bytes);
                    make_recv(&messages[COUNT + m], key_of(peer, r, m), bytes);
                }
            }
        }
        run_threads(workers, size, exchange_with_all);
        for (uint32_t r = 0; r < size; r++)
            for (uint32_t peer = 0; peer < size; peer++)
                for (size_t m = 0; peer != r && m < COUNT; m++)
                    assert_true(holds(&workers[r].messages[((size_t)2 * peer + 1) * COUNT + m],
                                      key_of(peer, r, m)));
        close_world(&world);
        for (uint32_t r = 0; r < size; r++) {
            free_messages(workers[r].messages, (size_t)2 * size * COUNT);
            free(workers[r].messages);
        }
    }
}
