/* SPDX-License-Identifier: Apache-2.0 */
/* What the contract does not say of rings that a card writes: how often it writes, for messages and
 * for whole operations, what happens while the receiver takes nothing, and that nothing is lost
 * when the sender leaves. */
#include "harness.h"

#include "fake_rdma.h"

#include "collectives/execute.h"
#include "collectives/transport/rdma_transport.h"

#include <stdlib.h>
#include <string.h>

enum { MANY = 500 };

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    (void)seed;
    *world = NULL;
    return fake_rdma_create(size, false, transports);
}

static const struct kolo__conformance_fixture rdma = {
    .name = "rdma", .create = create, .threads = true};

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

/* An allreduce of so many elements, by all ranks of the world. */
static void allreduce(struct world *world, const char *algorithm, size_t count,
                      size_t segment_bytes)
{
    struct kolo__program *programs[KOLO__CONFORMANCE_SIZE_MAX];
    float *buffers[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__fault fault;
    const struct kolo__program_options options = {
        .dtype = KOLO_FP32, .op = KOLO_SUM, .segment_bytes = segment_bytes, .depth = 4};
    for (uint32_t r = 0; r < world->size; r++) {
        struct kolo__schedule schedule = {.steps = NULL};
        const struct kolo__problem problem = {.collective = KOLO__ALLREDUCE,
                                              .rank = r,
                                              .size = world->size,
                                              .count = count,
                                              .in_place = true};
        buffers[r] = malloc(count * sizeof *buffers[r]);
        assert_non_null(buffers[r]);
        for (size_t i = 0; i < count; i++)
            buffers[r][i] = (float)(i % 100 + r);
        assert_int_equal(kolo__algorithm_find(algorithm)->build(&problem, &schedule), KOLO_OK);
        assert_int_equal(kolo__program_create(&schedule, &options, &programs[r]), KOLO_OK);
        const struct kolo__run_arguments arguments = {.input = buffers[r],
                                                      .output = buffers[r],
                                                      .signature = signature_of(1, count),
                                                      .transport = world->transports[r]};
        kolo__run_begin(programs[r], &arguments);
    }
    uint64_t until = deadline();
    bool done[KOLO__CONFORMANCE_SIZE_MAX] = {false};
    for (uint32_t count_done = 0; count_done < world->size && !passed(until);) {
        for (uint32_t r = 0; r < world->size; r++) {
            world->transports[r]->ops->progress(world->transports[r]);
            if (done[r] || kolo__run_progress(programs[r], NULL, &fault) != KOLO_OK)
                continue;
            done[r] = true;
            count_done++;
        }
    }
    const size_t sum_of_ranks = (size_t)world->size * (world->size - 1) / 2;
    for (uint32_t r = 0; r < world->size; r++) {
        for (size_t i = 0; i < count; i++)
            assert_true(buffers[r][i] == (float)(i % 100 * world->size + sum_of_ranks));
        kolo__program_free(programs[r]);
        free(buffers[r]);
    }
}

/* Two operations: the second begins somewhere in the ring. All of a rank's messages have the same
 * length, and go to the same peer. */
static void check_operation(uint32_t size, const char *algorithm, size_t count,
                            size_t segment_bytes, uint64_t messages, size_t message_bytes)
{
    struct world world = open_world(size, 1);
    uint64_t writes = 0, bytes = 0;
    size_t length = message_bytes + KOLO__MESSAGE_HEADER_BYTES;
    for (int operation = 0; operation < 2; operation++) {
        allreduce(&world, algorithm, count, segment_bytes);
        for (uint64_t i = 0; i < messages; i++, bytes += length)
            writes += kolo__rdma_writes_of(bytes, length);
        for (uint32_t r = 0; r < size; r++) {
            struct kolo__rdma_counts counts = kolo__rdma_count(world.transports[r]);
            assert_int_equal(counts.data_bytes, bytes);
            assert_int_equal(counts.data_writes, writes);
            assert_true(counts.credit_writes <=
                        bytes / KOLO__RDMA_CREDIT_BYTES + writes / KOLO__RDMA_CREDIT_WRITES);
        }
    }
    close_world(&world);
}

static void check_operations(void **state)
{
    (void)state;
    /* n bytes to the partner, at once. */
    check_operation(2, "recursive_doubling", 2, 1 << 20, 1, 8);
    check_operation(2, "recursive_doubling", 1 << 18, 1 << 20, 1, 1 << 20);
    /* 2 (p - 1) slices of n / p to the next, each in segments. */
    check_operation(4, "ring", 1 << 18, 1 << 20, 6, 1 << 18);
    check_operation(4, "ring", 1 << 18, 1 << 16, 6 * 4, 1 << 16);
    check_operation(3, "ring", 3000, 1 << 16, 4, 4000);
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
        cmocka_unit_test(check_operations),
        cmocka_unit_test(check_receiver_that_takes_nothing),
        cmocka_unit_test(check_last_words_arrive),
    };
    fixture = &rdma;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
