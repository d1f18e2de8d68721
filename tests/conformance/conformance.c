/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of transport.h, point by point. Faults: conformance_faults.c; threads:
 * conformance_threads.c. */
#include "harness.h"

#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Odd sizes around what transports are likely to cut at. */
static const size_t sizes[] = {0,    1,    7,     48,    63,    64,     65,   1000,
                               4095, 4096, 16384, 65535, 65536, 262145, 3000, 0};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void expect_ok(const struct message *messages, size_t count, uint64_t first_key)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(messages[i].post.status, KOLO_OK);
        assert_true(holds(&messages[i], first_key + i));
    }
}

static void check_order_per_peer(void **state)
{
    (void)state;
    enum { COUNT = 64 };
    struct world world = open_world(2, 1);
    struct message sends[COUNT], recvs[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        make_send(&sends[i], i, sizes[i % SIZES]);
        make_recv(&recvs[i], i, sizes[i % SIZES]);
    }
    /* One after the other, the receive first in every second. */
    for (size_t i = 0; i < COUNT; i++) {
        if (i % 2 == 0)
            recv_message(&world, 1, 0, &recvs[i]);
        send_message(&world, 0, 1, &sends[i]);
        turn(&world);
        if (i % 2 == 1)
            recv_message(&world, 1, 0, &recvs[i]);
        /* Completions come in order as well. */
        for (size_t k = 0; k < i; k++)
            assert_true(recvs[k].post.complete || !recvs[k + 1].post.complete);
    }
    finish(&world, recvs, COUNT);
    finish(&world, sends, COUNT);
    expect_ok(recvs, COUNT, 0);
    expect_ok(sends, COUNT, 0);
    close_world(&world);
    free_messages(sends, COUNT);
    free_messages(recvs, COUNT);
}

static void check_many_posts_before_progress(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    struct world world = open_world(2, 2);
    struct message *sends = calloc(2 * COUNT, sizeof(*sends));
    struct message *recvs = calloc(2 * COUNT, sizeof(*recvs));
    assert_non_null(sends);
    assert_non_null(recvs);
    for (size_t i = 0; i < 2 * COUNT; i++) {
        uint32_t from = i < COUNT ? 0 : 1;
        size_t bytes = (i * 97) % 3000;
        make_send(&sends[i], i, bytes);
        make_recv(&recvs[i], i, bytes);
        send_message(&world, from, 1 - from, &sends[i]);
        recv_message(&world, 1 - from, from, &recvs[i]);
    }
    finish(&world, recvs, 2 * COUNT);
    finish(&world, sends, 2 * COUNT);
    expect_ok(recvs, 2 * COUNT, 0);
    close_world(&world);
    free_messages(sends, 2 * COUNT);
    free_messages(recvs, 2 * COUNT);
    free(sends);
    free(recvs);
}

/* Nobody waits for the other to read first; what has arrived is valid and only grows. */
static void check_large_both_ways(void **state)
{
    (void)state;
    const size_t bytes = 3 * 1024 * 1024 + 17;
    struct world world = open_world(2, 3);
    struct message sends[2], recvs[2];
    size_t seen[2] = {0, 0};
    for (uint32_t r = 0; r < 2; r++) {
        make_send(&sends[r], r, bytes);
        make_recv(&recvs[r], r, bytes);
        send_message(&world, r, 1 - r, &sends[r]);
    }
    for (uint32_t r = 0; r < 2; r++)
        recv_message(&world, 1 - r, r, &recvs[r]);
    uint64_t until = deadline();
    while (!recvs[0].post.complete || !recvs[1].post.complete) {
        assert_false(passed(until));
        turn(&world);
        for (size_t r = 0; r < 2; r++) {
            size_t done = recvs[r].post.bytes_done;
            assert_true(done >= seen[r] && done <= bytes);
            for (size_t i = seen[r]; i < done; i++)
                assert_true(recvs[r].data[i] == content(r, i));
            seen[r] = done;
        }
    }
    finish(&world, sends, 2);
    assert_true(seen[0] == bytes && seen[1] == bytes);
    expect_ok(sends, 2, 0);
    close_world(&world);
    free_messages(sends, 2);
    free_messages(recvs, 2);
}

struct channel {
    struct message *sends, *recvs;
    size_t count, sent, received;
};

/* Messages between all pairs, posted in random order, at random times. */
static void random_traffic(uint32_t size, uint64_t seed)
{
    enum { MESSAGES = 30 };
    struct kolo__random random = {.state = seed};
    struct world world = open_world(size, seed);
    struct channel channels[KOLO__CONFORMANCE_SIZE_MAX * KOLO__CONFORMANCE_SIZE_MAX] = {0};
    size_t left = 0;
    for (uint32_t i = 0; i < size * size; i++) {
        struct channel *channel = &channels[i];
        if (i / size == i % size)
            continue;
        channel->count = MESSAGES;
        channel->sends = calloc(MESSAGES, sizeof(*channel->sends));
        channel->recvs = calloc(MESSAGES, sizeof(*channel->recvs));
        for (size_t m = 0; m < MESSAGES; m++) {
            size_t bytes = (size_t)kolo__random_below(&random, 1 + sizes[m % SIZES]);
            make_send(&channel->sends[m], 1000 * i + m, bytes);
            make_recv(&channel->recvs[m], 1000 * i + m, bytes);
        }
        left += 2 * MESSAGES;
    }
    while (left > 0) {
        uint32_t i = (uint32_t)kolo__random_below(&random, size * size);
        struct channel *channel = &channels[i];
        bool send = kolo__random_below(&random, 2) == 0;
        if (send && channel->sent < channel->count) {
            send_message(&world, i / size, i % size, &channel->sends[channel->sent++]);
            left--;
        } else if (!send && channel->received < channel->count) {
            recv_message(&world, i % size, i / size, &channel->recvs[channel->received++]);
            left--;
        }
        if (kolo__random_below(&random, 4) == 0)
            turn(&world);
    }
    for (uint32_t i = 0; i < size * size; i++) {
        struct channel *channel = &channels[i];
        finish(&world, channel->recvs, channel->count);
        finish(&world, channel->sends, channel->count);
        expect_ok(channel->recvs, channel->count, 1000 * i);
    }
    close_world(&world);
    for (uint32_t i = 0; i < size * size; i++) {
        free_messages(channels[i].sends, channels[i].count);
        free_messages(channels[i].recvs, channels[i].count);
        free(channels[i].sends);
        free(channels[i].recvs);
    }
}

static void check_random_traffic(void **state)
{
    (void)state;
    for (uint32_t size = 2; size <= KOLO__CONFORMANCE_SIZE_MAX; size++)
        for (uint64_t seed = 1; seed <= 3; seed++)
            random_traffic(size, 100 * seed + size);
}

/* Worlds come and go, also unused and with a single rank. */
static void check_open_close(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= KOLO__CONFORMANCE_SIZE_MAX; size++) {
        struct world world = open_world(size, size);
        turn(&world);
        assert_int_equal(world.transports[0]->fault.status, KOLO_OK);
        close_world(&world);
    }
}

int kolo__conformance_run(const struct kolo__conformance_fixture *chosen)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_open_close),
        cmocka_unit_test(check_order_per_peer),
        cmocka_unit_test(check_many_posts_before_progress),
        cmocka_unit_test(check_large_both_ways),
        cmocka_unit_test(check_fail_completes_once),
        cmocka_unit_test(check_close_completes),
        cmocka_unit_test(check_mismatch),
        cmocka_unit_test(check_mismatch_of_length),
        cmocka_unit_test(check_random_traffic),
        cmocka_unit_test(check_sleeping_receiver),
        cmocka_unit_test(check_sleeping_exchange),
        cmocka_unit_test(check_threads_random_traffic),
    };
    fixture = chosen;
    return cmocka_run_group_tests_name(chosen->name, tests, NULL, NULL);
}
