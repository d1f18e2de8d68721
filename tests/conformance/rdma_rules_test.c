/* SPDX-License-Identifier: Apache-2.0 */
/* Rules between the two ends of an RDMA connection: which work requests say that they are done,
 * what becomes of counters after days, and of a peer that breaks the rules. */
#include "harness.h"

#include "fake_rdma.h"
#include "fake_verbs.h"

#include "collectives/transport/rdma_transport.h"

#include <string.h>

enum { MANY = 500 };

static struct kolo__heap *heap;

static struct kolo__conformance_fixture rdma = {.name = "rdma", .create = fake_rdma_create};

/* Of the work requests of a rail one in 16 tells that it is done, and no other does. */
static void check_signals(void **state)
{
    (void)state;
    enum { MESSAGES = 1000 };
    struct world world = open_world(2, 1);
    fake_verbs_take_posts();
    for (int i = 0; i < MESSAGES; i++)
        pass_message(&world, 8);
    uint64_t credits = kolo__rdma_count(world.transports[1]).credit_writes;
    assert_int_equal(fake_verbs_take_posts().signalled,
                     MESSAGES / KOLO__RDMA_SIGNAL_EVERY + credits / KOLO__RDMA_SIGNAL_EVERY);
    close_world(&world);
}

/* Small messages, more than there are receive requests: the verbs assert that none goes without. */
static void check_receiver_that_takes_nothing(void **state)
{
    (void)state;
    static struct message out[MANY], in[MANY];
    struct world world = open_world(2, 1);
    pass_message(&world, 8);
    uint64_t before = kolo__rdma_count(world.transports[0]).data_writes;
    for (uint64_t i = 0; i < MANY; i++) {
        make_send(&out[i], i, 8);
        send_message(&world, 0, 1, &out[i]);
    }
    for (int i = 0; i < 10000; i++)
        world.transports[0]->ops->progress(world.transports[0]);
    assert_int_equal(kolo__rdma_count(world.transports[0]).data_writes - before,
                     KOLO__RDMA_WRITES_MAX - 1); /* one of before was not given credit for */
    for (uint64_t i = 0; i < MANY; i++) {
        make_recv(&in[i], i, 8);
        recv_message(&world, 1, 0, &in[i]);
    }
    finish(&world, in, MANY);
    for (uint64_t i = 0; i < MANY; i++)
        assert_true(holds(&in[i], i));
    finish(&world, out, MANY);
    free_messages(out, MANY);
    free_messages(in, MANY);
    close_world(&world);
}

static void check_last_words_arrive(void **state)
{
    (void)state;
    enum { BYTES = 100000 };
    struct world world = open_world(2, 1);
    struct message out, in;
    pass_message(&world, 8);
    make_send(&out, 1, BYTES);
    send_message(&world, 0, 1, &out);
    assert_true(out.post.complete);
    world.transports[0]->ops->close(world.transports[0]);
    world.transports[0] = NULL;
    make_recv(&in, 1, BYTES);
    recv_message(&world, 1, 0, &in);
    finish(&world, &in, 1);
    assert_int_equal(in.post.status, KOLO_OK);
    assert_true(holds(&in, 1));
    free_messages(&out, 1);
    free_messages(&in, 1);
    close_world(&world);
}

/* Counters that count messages turn over after four thousand million of them: days, for cards. */
static void check_numbers_turn_over(void **state)
{
    (void)state;
    enum { SO_MANY = 20, BYTES = 200000 };
    fake_rdma_how.heap = rdma.heap = heap;
    struct world world = open_world(2, 1);
    pass_message(&world, 8);
    for (uint32_t r = 0; r < 2; r++) {
        struct kolo__rdma *inside = (struct kolo__rdma *)(void *)world.transports[r];
        struct kolo__rdma_peer *peer = &inside->peers[1 - r];
        peer->lent_first = peer->lent_end = UINT32_MAX - SO_MANY / 2;
        peer->offers_first = peer->offers_end = UINT32_MAX - SO_MANY / 2;
        peer->offers_came = peer->offers_taken = UINT32_MAX - SO_MANY / 2;
    }
    for (int i = 0; i < SO_MANY; i++)
        pass_message(&world, BYTES);
    assert_int_equal(kolo__rdma_count(world.transports[0]).straight_bytes, SO_MANY * BYTES);
    close_world(&world);
    rdma.heap = fake_rdma_how.heap = NULL;
}

/* What a peer says is not believed. */
static void check_broken_rules(void **state)
{
    (void)state;
    static const struct {
        enum kolo__rdma_said said;
        uint32_t what;
        int times;
        const char *words;
    } ROWS[] = {
        {KOLO__RDMA_SAID_RING, KOLO__RDMA_RING_BYTES + 1, 1,
         "it wrote more than there is room for"},
        {KOLO__RDMA_SAID_RING, (1u << KOLO__RDMA_KIND_BITS) - 1, 1, "it wrote more than"},
        {KOLO__RDMA_SAID_STRAIGHT, 0, 1, "it wrote what was not asked for"},
        {KOLO__RDMA_SAID_STRAIGHT, (1u << KOLO__RDMA_KIND_BITS) - 1, 1, "it wrote what was not"},
        {KOLO__RDMA_SAID_CREDIT, 2u << KOLO__RDMA_BYTES_BITS, 1, "it read more than was written"},
        {KOLO__RDMA_SAID_CREDIT, 1000, 1, "it read more than was written"},
        {KOLO__RDMA_SAID_OFFER, 0, KOLO__RDMA_OFFERS_MAX + 1,
         "it asked for more than there is room for"},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct message in;
        char why[200];
        struct world world = open_world(2, 1);
        pass_message(&world, 8);
        const struct kolo__rdma *other = (const struct kolo__rdma *)(void *)world.transports[1];
        const struct kolo__rdma_write write = {
            .in_line = true, .immediate = kolo__rdma_immediate(ROWS[i].said, ROWS[i].what)};
        for (int n = 0; n < ROWS[i].times; n++)
            assert_true(
                fake_verbs.link_write(other->peers[0].rails[0].link, &write, why, sizeof why));
        make_recv(&in, 1, 8);
        recv_message(&world, 0, 1, &in);
        finish(&world, &in, 1);
        assert_int_equal(in.post.status, KOLO_ERR_NETWORK);
        const char *text = world.transports[0]->fault.text;
        if (strstr(text, "rank 1: it broke the rules from fake0 port 1, GID :: (index 0) to GID "
                         "::1: ") == NULL ||
            strstr(text, ROWS[i].words) == NULL)
            fail_msg("not said: %s, but: %s", ROWS[i].words, text);
        free_messages(&in, 1);
        close_world(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_signals),
        cmocka_unit_test(check_receiver_that_takes_nothing),
        cmocka_unit_test(check_last_words_arrive),
        cmocka_unit_test(check_numbers_turn_over),
        cmocka_unit_test(check_broken_rules),
    };
    const struct kolo__heap_options options = {.name = "", .token = "", .members = 1};
    fixture = &rdma;
    if (kolo__heap_open(&options, &heap) != KOLO_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kolo__heap_close(heap);
    return failed;
}
