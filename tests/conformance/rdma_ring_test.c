/* SPDX-License-Identifier: Apache-2.0 */
/* What the contract does not say of rings that a card writes: how often it writes, for messages and
 * for whole operations, and when memory of long messages is whose. */
#include "harness.h"

#include "fake_rdma.h"
#include "fake_verbs.h"

#include "collectives/execute.h"
#include "collectives/transport/rdma_transport.h"

#include <stdlib.h>
#include <string.h>

static struct kolo__conformance_fixture rdma = {
    .name = "rdma", .create = fake_rdma_create, .threads = true};

/* Cards are given what is counted, and nothing else; but what a close sends. */
static void expect_posts(const struct world *world)
{
    uint64_t counted = 0;
    for (uint32_t r = 0; r < world->size; r++) {
        struct kolo__rdma_counts counts = kolo__rdma_count(world->transports[r]);
        const struct kolo__rdma *inside = (const struct kolo__rdma *)(void *)world->transports[r];
        counted += counts.data_writes + counts.offer_writes + counts.credit_writes;
        counted += (inside->rails - 1) * (uint64_t)(world->size - 1); /* which have been tried */
    }
    assert_int_equal(fake_verbs_take_posts().writes, counted);
}

static void check_counts(void **state)
{
    (void)state;
    static const size_t SIZES[] = {0, 1, 192, 193, 131008, 131009, 700000, 3000000, 8};
    fake_verbs_take_posts();
    struct world world = open_world(2, 1);
    uint64_t writes = 0, bytes = 0, position = 0, straight_bytes = 0, offers = 0;
    bool straight = rdma.heap != NULL;
    for (size_t i = 0; i < 3 * (sizeof SIZES / sizeof *SIZES); i++) {
        size_t payload = SIZES[i % (sizeof SIZES / sizeof *SIZES)];
        bool is_long = payload + KOLO__MESSAGE_HEADER_BYTES > KOLO__RDMA_PIECE_BYTES;
        writes += kolo__rdma_writes_of_message(&position, payload, straight);
        bytes += payload + KOLO__MESSAGE_HEADER_BYTES;
        straight_bytes += is_long && straight ? payload : 0;
        offers += is_long;
        pass_message(&world, payload);
        struct kolo__rdma_counts counts = kolo__rdma_count(world.transports[0]);
        assert_int_equal(counts.data_writes, writes);
        assert_int_equal(counts.data_bytes, bytes);
        assert_int_equal(counts.straight_bytes, straight_bytes);
    }
    struct kolo__rdma_counts back = kolo__rdma_count(world.transports[1]);
    expect_posts(&world);
    assert_int_equal(back.data_writes, 0);
    assert_int_equal(back.offer_writes, offers);
    assert_true(back.credit_writes + 1 >= position / KOLO__RDMA_RING_BYTES);
    assert_true(back.credit_writes <=
                position / KOLO__RDMA_CREDIT_BYTES + writes / KOLO__RDMA_CREDIT_WRITES);
    close_world(&world);
    /* 8 bytes go with their header; 3 MB in 128 KiB each; the ring's end cuts. */
    assert_int_equal(kolo__rdma_writes_of(0, 72), 1);
    assert_int_equal(kolo__rdma_writes_of(0, 3000000), 23);
    assert_int_equal(kolo__rdma_writes_of(KOLO__RDMA_RING_BYTES - 1, 2), 2);
}

static struct kolo__heap *heap;

static void with_heap(void (*check)(void **state), uint32_t ports)
{
    fake_rdma_how.heap = rdma.heap = heap;
    fake_rdma_how.ports = ports;
    check(NULL);
    fake_rdma_how = (struct fake_rdma_options){.ports = 0};
    rdma.heap = NULL;
}

static void check_counts_straight(void **state)
{
    (void)state;
    with_heap(check_counts, 1);
    with_heap(check_counts, 3);
}

/* An allreduce of so many elements, by all ranks of the world. */
static void allreduce(struct world *world, const char *algorithm, size_t count,
                      size_t segment_bytes)
{
    struct kolo__program *programs[KOLO__CONFORMANCE_SIZE_MAX];
    float *buffers[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__fault fault;
    const struct kolo__program_options options = {.dtype = KOLO_FP32,
                                                  .op = KOLO_SUM,
                                                  .segment_bytes = segment_bytes,
                                                  .depth = 4,
                                                  .heap = rdma.heap};
    for (uint32_t r = 0; r < world->size; r++) {
        struct kolo__schedule schedule = {.steps = NULL};
        const struct kolo__problem problem = {.collective = KOLO__ALLREDUCE,
                                              .rank = r,
                                              .size = world->size,
                                              .count = count,
                                              .in_place = true};
        void *memory = malloc(count * sizeof *buffers[r]);
        if (rdma.heap != NULL) {
            free(memory);
            assert_int_equal(kolo__heap_alloc(rdma.heap, count * sizeof *buffers[r], 64, &memory),
                             KOLO_OK);
        }
        buffers[r] = memory;
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
        if (rdma.heap != NULL)
            kolo__heap_free(rdma.heap, buffers[r]);
        else
            free(buffers[r]);
    }
}

/* Two operations: the second begins somewhere in the ring. All of a rank's messages have the same
 * length, and go to the same peer. */
static void check_operation(uint32_t size, const char *algorithm, size_t count,
                            size_t segment_bytes, uint64_t messages, size_t message_bytes)
{
    fake_verbs_take_posts();
    struct world world = open_world(size, 1);
    uint64_t writes = 0, bytes = 0, position = 0;
    size_t length = message_bytes + KOLO__MESSAGE_HEADER_BYTES;
    for (int operation = 0; operation < 2; operation++) {
        allreduce(&world, algorithm, count, segment_bytes);
        for (uint64_t i = 0; i < messages; i++, bytes += length)
            writes += kolo__rdma_writes_of_message(&position, message_bytes, rdma.heap != NULL);
        for (uint32_t r = 0; r < size; r++) {
            struct kolo__rdma_counts counts = kolo__rdma_count(world.transports[r]);
            assert_int_equal(counts.data_bytes, bytes);
            assert_int_equal(counts.data_writes, writes);
            assert_int_equal(counts.straight_bytes,
                             rdma.heap != NULL && length > KOLO__RDMA_PIECE_BYTES ? bytes - position
                                                                                  : 0);
            assert_true(counts.credit_writes <=
                        position / KOLO__RDMA_CREDIT_BYTES + writes / KOLO__RDMA_CREDIT_WRITES);
        }
    }
    expect_posts(&world);
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

static void check_operations_straight(void **state)
{
    (void)state;
    with_heap(check_operations, 1);
}

enum { LONG = 1000000 };

static void check_freed_blocks_are_forgotten(void **state)
{
    (void)state;
    rdma.heap = fake_rdma_how.heap = heap;
    struct world world = open_world(2, 1);
    for (int round = 0; round < 3; round++) {
        struct message both[2];
        make_send(&both[0], (uint64_t)round, LONG);
        make_recv(&both[1], (uint64_t)round, LONG);
        send_message(&world, 0, 1, &both[0]);
        recv_message(&world, 1, 0, &both[1]);
        finish(&world, both, 2);
        assert_true(holds(&both[1], (uint64_t)round));
        assert_int_equal(fake_verbs_regions(), 2 + 2); /* rings and messages */
        free_messages(both, 2);
        assert_int_equal(fake_verbs_regions(), 2);
    }
    assert_int_equal(kolo__rdma_count(world.transports[0]).straight_bytes, 3 * LONG);
    close_world(&world);
    assert_int_equal(fake_verbs_regions(), 0);
    rdma.heap = fake_rdma_how.heap = NULL;
}

/* What came by one rail is not said to be there before what belongs before it. */
static void check_rails_wait_for_each_other(void **state)
{
    (void)state;
    fake_rdma_how = (struct fake_rdma_options){.heap = heap, .ports = 3};
    rdma.heap = heap;
    fake_verbs_delay_others(true);
    struct world world = open_world(2, 1);
    for (uint64_t i = 0; i < 10; i++) {
        struct message out, in;
        make_send(&out, i, LONG + (size_t)i * KOLO__RDMA_STRAIGHT_BYTES);
        make_recv(&in, i, LONG + (size_t)i * KOLO__RDMA_STRAIGHT_BYTES);
        send_message(&world, 0, 1, &out);
        recv_message(&world, 1, 0, &in);
        finish(&world, &in, 1);
        assert_true(holds(&in, i));
        finish(&world, &out, 1);
        free_messages(&out, 1);
        free_messages(&in, 1);
    }
    close_world(&world);
    fake_verbs_delay_others(false);
    fake_rdma_how = (struct fake_rdma_options){.ports = 0};
    rdma.heap = NULL;
}

/* Two ranks whose heap is registered, and a long message between them that nobody has posted. */
static struct world open_long(struct message *out, struct message *in)
{
    rdma.heap = fake_rdma_how.heap = heap;
    struct world world = open_world(2, 1);
    pass_message(&world, 8);
    make_send(out, 1, LONG);
    make_recv(in, 1, LONG);
    return world;
}

/* The header tells the receiver, and nothing is where it would have belonged. */
static void check_mismatch_of_long_messages(void **state)
{
    (void)state;
    struct message out, in;
    struct world world = open_long(&out, &in);
    in.signature.sequence++;
    recv_message(&world, 1, 0, &in);
    send_message(&world, 0, 1, &out);
    finish(&world, &in, 1);
    assert_int_equal(in.post.status, KOLO_ERR_MISMATCH);
    for (int i = 0; i < 1000; i++)
        turn(&world);
    assert_true(untouched(&in));
    close_world(&world);
    assert_true(out.post.complete);
    free_messages(&out, 1);
    free_messages(&in, 1);
    rdma.heap = fake_rdma_how.heap = NULL;
}

/* As where memory may not be locked: everything is right, and copied. */
static void check_refused_blocks(void **state)
{
    (void)state;
    rdma.heap = fake_rdma_how.heap = heap;
    fake_verbs_set_region_bytes(KOLO__RDMA_MEMORY_BYTES);
    struct world world = open_world(2, 1);
    for (int i = 0; i < 3; i++)
        pass_message(&world, KOLO__RDMA_MEMORY_BYTES + 1);
    assert_int_equal(kolo__rdma_count(world.transports[0]).straight_bytes, 0);
    close_world(&world);
    fake_verbs_set_region_bytes(SIZE_MAX);
    rdma.heap = fake_rdma_how.heap = NULL;
}

/* The receiver has said where it wants it, and gives up: its memory is its own again. */
static void check_given_up_recv_is_not_written(void **state)
{
    (void)state;
    const struct kolo__fault fault = {.status = KOLO_ERR_ABORTED, .peer = -1, .text = "enough"};
    struct message out, in;
    struct world world = open_long(&out, &in);
    recv_message(&world, 1, 0, &in);
    (world.transports[1]->ops->fail)(world.transports[1], &fault); /* cmocka has a macro */
    world.transports[1]->ops->progress(world.transports[1]);
    assert_true(in.post.complete && in.post.status == KOLO_ERR_ABORTED);
    send_message(&world, 0, 1, &out);
    finish(&world, &out, 1);
    assert_int_not_equal(out.post.status, KOLO_OK);
    assert_true(untouched(&in));
    free_messages(&out, 1);
    free_messages(&in, 1);
    close_world(&world);
    rdma.heap = fake_rdma_how.heap = NULL;
}

/* It has come, and the sender's card does not know. */
static void receive_unconfirmed(struct world *world, struct message *out, struct message *in)
{
    recv_message(world, 1, 0, in);
    fake_verbs_lose_confirmations(true);
    send_message(world, 0, 1, out);
    finish(world, in, 1);
    fake_verbs_lose_confirmations(false);
}

/* It has come, and its receiver has gone, before the sender's card knew the one thing. */
static void check_receiver_that_leaves(void **state)
{
    (void)state;
    struct message out, in;
    struct world world = open_long(&out, &in);
    receive_unconfirmed(&world, &out, &in);
    assert_true(holds(&in, 1));
    assert_false(out.post.complete);
    world.transports[1]->ops->close(world.transports[1]);
    world.transports[1] = NULL;
    uint64_t until = deadline();
    while (!out.post.complete && !passed(until))
        world.transports[0]->ops->progress(world.transports[0]);
    assert_int_equal(out.post.status, KOLO_OK);
    free_messages(&out, 1);
    free_messages(&in, 1);
    close_world(&world);
    rdma.heap = fake_rdma_how.heap = NULL;
}

/* Rank 0's card gives up on what nobody takes any more; rank 0 looks only then. */
static void give_up_on_who_left(struct world *world, struct message *unanswered)
{
    make_send(unanswered, 3, 100);
    world->transports[1]->ops->close(world->transports[1]);
    world->transports[1] = NULL;
    send_message(world, 0, 1, unanswered);
    if (world->transports[0]->ops->arm(world->transports[0]))
        world->transports[0]->ops->disarm(world->transports[0]);
}

/* Who left did not fall silent. */
static void check_who_left_is_known(void **state)
{
    (void)state;
    struct message out, in;
    struct world world = open_world(2, 1);
    pass_message(&world, 8);
    make_recv(&in, 1, 8);
    give_up_on_who_left(&world, &out);
    recv_message(&world, 0, 1, &in);
    finish(&world, &in, 1);
    assert_int_equal(in.post.status, KOLO_ERR_PEER_LOST);
    assert_non_null(
        strstr(world.transports[0]->fault.text,
               "rank 1: it closed the connection from fake0 port 1, GID :: (index 0) to GID ::1"));
    free_messages(&out, 1);
    free_messages(&in, 1);
    close_world(&world);
}

/* As check_receiver_that_leaves. */
static void check_receiver_that_left_long_ago(void **state)
{
    (void)state;
    struct message out, in, unanswered;
    struct world world = open_long(&out, &in);
    receive_unconfirmed(&world, &out, &in);
    assert_false(out.post.complete);
    give_up_on_who_left(&world, &unanswered);
    finish(&world, &out, 1);
    assert_int_equal(out.post.status, KOLO_OK);
    free_messages(&out, 1);
    free_messages(&in, 1);
    free_messages(&unanswered, 1);
    close_world(&world);
    rdma.heap = fake_rdma_how.heap = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_counts),
        cmocka_unit_test(check_counts_straight),
        cmocka_unit_test(check_operations),
        cmocka_unit_test(check_operations_straight),
        cmocka_unit_test(check_freed_blocks_are_forgotten),
        cmocka_unit_test(check_rails_wait_for_each_other),
        cmocka_unit_test(check_mismatch_of_long_messages),
        cmocka_unit_test(check_refused_blocks),
        cmocka_unit_test(check_given_up_recv_is_not_written),
        cmocka_unit_test(check_receiver_that_leaves),
        cmocka_unit_test(check_who_left_is_known),
        cmocka_unit_test(check_receiver_that_left_long_ago),
    };
    const struct kolo__heap_options options = {.name = "", .token = "", .members = 1};
    fixture = &rdma;
    if (kolo__heap_open(&options, &heap) != KOLO_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kolo__heap_close(heap);
    return failed;
}
