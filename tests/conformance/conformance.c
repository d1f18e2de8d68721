/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of transport.h, point by point. Checks with threads: conformance_threads.c. */
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

/* Expects all posts to end with this status, or to have succeeded before. */
static void expect_failed(const struct message *messages, size_t count, kolo_status status)
{
    for (size_t i = 0; i < count; i++) {
        assert_true(messages[i].post.complete);
        assert_true(messages[i].post.status == status || messages[i].post.status == KOLO_OK);
    }
}

/* After completion a post and its data belong to the caller again: nobody writes there any more. */
static void overwrite(struct message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        memset(&messages[i].post, 0x5c, sizeof(messages[i].post));
        if (messages[i].data != NULL)
            memset(messages[i].data, 0x5c, 1);
    }
}

static void expect_overwritten(const struct message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned char *bytes = (const unsigned char *)&messages[i].post;
        for (size_t k = 0; k < sizeof(messages[i].post); k++)
            assert_int_equal(bytes[k], 0x5c);
        assert_true(messages[i].data == NULL || messages[i].data[0] == 0x5c);
    }
}

static void check_fail_completes_once(void **state)
{
    (void)state;
    enum { COUNT = 24 };
    struct world world = open_world(3, 4);
    struct kolo__transport *transport = world.transports[0];
    struct message posts[COUNT], late[2], partner;
    make_send(&partner, 0, 2000000);
    send_message(&world, 1, 0, &partner);
    for (size_t i = 0; i < COUNT; i++) {
        uint32_t peer = 1 + (uint32_t)(i / 2 % 2);
        size_t bytes = i < 4 ? 2000000 : 1000;
        if (i % 2 == 0) {
            make_recv(&posts[i], i, bytes);
            recv_message(&world, 0, peer, &posts[i]);
        } else {
            make_send(&posts[i], i, bytes);
            send_message(&world, 0, peer, &posts[i]);
        }
    }
    for (int i = 0; i < 5; i++)
        turn(&world);

    struct kolo__fault fault = {.status = KOLO_ERR_PEER_LOST, .peer = 2, .text = "rank 2 died"};
    struct kolo__fault second = {.status = KOLO_ERR_ABORTED, .peer = 1, .text = "later"};
    /* The parentheses keep cmocka's macro fail() out of it. */
    (transport->ops->fail)(transport, &fault);
    (transport->ops->fail)(transport, &second);
    finish(&world, posts, COUNT);
    expect_failed(posts, COUNT, KOLO_ERR_PEER_LOST);
    overwrite(posts, COUNT);

    make_send(&late[0], 0, 100);
    make_recv(&late[1], 0, 0);
    send_message(&world, 0, 1, &late[0]);
    recv_message(&world, 0, 2, &late[1]);
    finish(&world, late, 2);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(late[i].post.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(transport->fault.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(transport->fault.peer, 2);
    assert_string_equal(transport->fault.text, "rank 2 died");
    for (int i = 0; i < 20; i++)
        turn(&world);
    close_world(&world);
    expect_overwritten(posts, COUNT);
    assert_true(partner.post.complete);
    free_messages(posts, COUNT);
    free_messages(late, 2);
    free_messages(&partner, 1);
}

static void check_close_completes(void **state)
{
    (void)state;
    enum { COUNT = 12 };
    struct world world = open_world(2, 5);
    struct message posts[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        if (i % 2 == 0) {
            make_recv(&posts[i], i, 5000000);
            recv_message(&world, 0, 1, &posts[i]);
        } else {
            make_send(&posts[i], i, 5000000);
            send_message(&world, 0, 1, &posts[i]);
        }
    }
    turn(&world);
    world.transports[0]->ops->close(world.transports[0]);
    world.transports[0] = NULL;
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(posts[i].post.complete);
        assert_int_not_equal(posts[i].post.status, KOLO_OK);
    }
    overwrite(posts, COUNT);
    for (int i = 0; i < 20; i++)
        turn(&world);
    expect_overwritten(posts, COUNT);
    close_world(&world);
    free_messages(posts, COUNT);
}

/* A receive of recv_bytes that expects `expected` meets a message of send_bytes that says `sent`.
 */
static void expect_mismatch(const struct kolo__signature *expected, size_t recv_bytes,
                            const struct kolo__signature *sent, size_t send_bytes)
{
    struct world world = open_world(3, 6);
    struct message send, recv, other;
    char theirs[160], ours[160];
    make_send(&send, 0, send_bytes);
    make_recv(&recv, 0, recv_bytes);
    make_recv(&other, 0, 100);
    send.signature = *sent;
    recv.signature = *expected;
    recv_message(&world, 1, 2, &other);
    recv_message(&world, 1, 0, &recv);
    send_message(&world, 0, 1, &send);
    finish(&world, &recv, 1);
    finish(&world, &other, 1);

    const struct kolo__fault *fault = &world.transports[1]->fault;
    assert_int_equal(recv.post.status, KOLO_ERR_MISMATCH);
    assert_int_equal(other.post.status, KOLO_ERR_MISMATCH);
    assert_int_equal(fault->status, KOLO_ERR_MISMATCH);
    assert_int_equal(fault->peer, 0);
    assert_true(untouched(&recv));
    kolo__signature_text(sent, theirs, sizeof(theirs));
    kolo__signature_text(expected, ours, sizeof(ours));
    if (strstr(fault->text, theirs) == NULL || strstr(fault->text, ours) == NULL)
        fail_msg("\"%s\" does not show both \"%s\" and \"%s\"", fault->text, theirs, ours);
    close_world(&world);
    free_messages(&send, 1);
    free_messages(&recv, 1);
    free_messages(&other, 1);
}

static void check_mismatch(void **state)
{
    (void)state;
    const struct kolo__signature right = signature_of(812, 777777);
    for (int field = 0; field < 9; field++) {
        struct kolo__signature wrong = right;
        switch (field) {
        case 0:
            wrong.epoch++;
            break;
        case 1:
            wrong.comm++;
            break;
        case 2:
            wrong.sequence = UINT64_C(1) << 40;
            break;
        case 3:
            wrong.collective = KOLO__REDUCE_SCATTER;
            break;
        case 4:
            wrong.dtype = KOLO_BF16;
            break;
        case 5:
            wrong.op = KOLO_MAX;
            break;
        case 6:
            wrong.algorithm = 1;
            break;
        case 7:
            wrong.root = 70000;
            break;
        default:
            wrong.count = UINT64_C(5000000003);
            break;
        }
        expect_mismatch(&right, 4000, &wrong, 4000);
    }
    struct kolo__signature longer = signature_of(812, 777778);
    expect_mismatch(&right, 0, &longer, 300000);
    expect_mismatch(&right, 300000, &longer, 0);
}

/* The same operation cut differently is a mismatch as well. */
static void check_mismatch_of_length(void **state)
{
    (void)state;
    const struct kolo__signature signature = signature_of(9, 5000);
    expect_mismatch(&signature, 4000, &signature, 4001);
    expect_mismatch(&signature, 200000, &signature, 100);
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
