/* SPDX-License-Identifier: Apache-2.0 */
/* The contract when something goes wrong: every post completes once, mismatches are told apart. */
#include "harness.h"

#include <string.h>

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

void check_fail_completes_once(void **state)
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

void check_close_completes(void **state)
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

void check_mismatch(void **state)
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
void check_mismatch_of_length(void **state)
{
    (void)state;
    const struct kolo__signature signature = signature_of(9, 5000);
    expect_mismatch(&signature, 4000, &signature, 4001);
    expect_mismatch(&signature, 200000, &signature, 100);
}
