/* SPDX-License-Identifier: Apache-2.0 */
/* What the contract does not say of rings that a card writes: how often it writes, what happens
 * while the receiver takes nothing, and that nothing is lost when the sender leaves. */
#include "harness.h"

#include "fake_rdma.h"

#include "collectives/transport/rdma_transport.h"

#include <string.h>

enum { MANY = 500 };

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    (void)seed;
    *world = NULL;
    return fake_rdma_create(size, false, transports);
}

static void step(void *world)
{
    (void)world;
}

static const struct kolo__conformance_fixture rdma = {
    .name = "rdma", .create = create, .step = step, .destroy = step, .threads = true};

static void pass(struct world *world, size_t bytes)
{
    struct message both[2];
    make_send(&both[0], bytes, bytes);
    make_recv(&both[1], bytes, bytes);
    send_message(world, 0, 1, &both[0]);
    recv_message(world, 1, 0, &both[1]);
    finish(world, both, 2);
    assert_int_equal(both[0].post.status, KOLO_OK);
    assert_int_equal(both[1].post.status, KOLO_OK);
    assert_true(holds(&both[1], bytes));
    free_messages(both, 2);
}

static void check_counts(void **state)
{
    (void)state;
    static const size_t SIZES[] = {0, 1, 192, 193, 131008, 131009, 700000, 3000000, 8};
    struct world world = open_world(2, 1);
    uint64_t writes = 0, bytes = 0;
    for (size_t i = 0; i < 3 * (sizeof SIZES / sizeof *SIZES); i++) {
        size_t length = SIZES[i % (sizeof SIZES / sizeof *SIZES)] + KOLO__MESSAGE_HEADER_BYTES;
        writes += kolo__rdma_writes_of(bytes, length);
        bytes += length;
        pass(&world, length - KOLO__MESSAGE_HEADER_BYTES);
        assert_int_equal(kolo__rdma_count(world.transports[0]).data_writes, writes);
        assert_int_equal(kolo__rdma_count(world.transports[0]).data_bytes, bytes);
    }
    struct kolo__rdma_counts back = kolo__rdma_count(world.transports[1]);
    assert_int_equal(back.data_writes, 0);
    assert_true(back.credit_writes >= bytes / KOLO__RDMA_RING_BYTES - 1);
    assert_true(back.credit_writes <=
                bytes / KOLO__RDMA_CREDIT_BYTES + writes / KOLO__RDMA_CREDIT_WRITES);
    close_world(&world);
    /* 8 bytes go with their header; 3 MB in 128 KiB each; the ring's end cuts. */
    assert_int_equal(kolo__rdma_writes_of(0, 72), 1);
    assert_int_equal(kolo__rdma_writes_of(0, 3000000), 23);
    assert_int_equal(kolo__rdma_writes_of(KOLO__RDMA_RING_BYTES - 1, 2), 2);
}

/* Small messages, more than there are receive requests: the verbs assert that none goes without. */
static void check_receiver_that_takes_nothing(void **state)
{
    (void)state;
    static struct message out[MANY], in[MANY];
    struct world world = open_world(2, 1);
    pass(&world, 8);
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
    enum { BYTES = 500000 };
    struct world world = open_world(2, 1);
    struct message out, in;
    pass(&world, 8);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_counts),
        cmocka_unit_test(check_receiver_that_takes_nothing),
        cmocka_unit_test(check_last_words_arrive),
    };
    fixture = &rdma;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
