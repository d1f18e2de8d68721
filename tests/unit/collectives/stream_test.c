/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages over pipes of memory that give and take as few bytes at a time as the test wants: cut
 * anywhere, messages stay whole, and what is not the expected message touches nothing.
 */
#include "collectives/transport/stream.h"

#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PIPE_BYTES = 1 << 19 };

/* Rank 0's stream to itself over a loop would be refused, so two streams share two pipes. */
struct memory_pipe {
    unsigned char bytes[PIPE_BYTES];
    size_t begin, end;
};

struct end {
    struct kolo__stream stream; /* first */
    struct memory_pipe *out, *in;
    size_t step;      /* bytes a call moves at most */
    unsigned reads;   /* calls that moved something */
    kolo_status next; /* of the next call */
};

static size_t move(unsigned char *to, const unsigned char *from, size_t bytes, size_t *budget)
{
    size_t moved = bytes < *budget ? bytes : *budget;
    if (moved > 0)
        memcpy(to, from, moved);
    *budget -= moved;
    return moved;
}

static kolo_status write_pipe(struct kolo__stream *stream, uint32_t peer, const struct iovec *parts,
                              int part_count, size_t *moved)
{
    struct end *end = (struct end *)(void *)stream;
    size_t budget = end->step;
    (void)peer;
    if (end->next != KOLO_OK)
        return kolo__error(end->next, "broken on purpose");
    for (int i = 0; i < part_count; i++) {
        size_t room = PIPE_BYTES - end->out->end;
        size_t bytes = parts[i].iov_len < room ? parts[i].iov_len : room;
        size_t done = move(end->out->bytes + end->out->end, parts[i].iov_base, bytes, &budget);
        end->out->end += done;
        *moved += done;
    }
    return KOLO_OK;
}

static kolo_status read_pipe(struct kolo__stream *stream, uint32_t peer, const struct iovec *parts,
                             int part_count, size_t *moved)
{
    struct end *end = (struct end *)(void *)stream;
    size_t budget = end->step;
    (void)peer;
    for (int i = 0; i < part_count; i++) {
        size_t there = end->in->end - end->in->begin;
        size_t bytes = parts[i].iov_len < there ? parts[i].iov_len : there;
        size_t done = move(parts[i].iov_base, end->in->bytes + end->in->begin, bytes, &budget);
        end->in->begin += done;
        *moved += done;
    }
    end->reads += *moved > 0;
    return KOLO_OK;
}

static const struct kolo__pipe_ops header_ahead = {.write = write_pipe,
                                                   .read = read_pipe,
                                                   .read_ahead_bytes = KOLO__MESSAGE_HEADER_BYTES,
                                                   .stop = kolo__pipe_lends_nothing};
static const struct kolo__pipe_ops far_ahead = {.write = write_pipe,
                                                .read = read_pipe,
                                                .read_ahead_bytes = 1000,
                                                .stop = kolo__pipe_lends_nothing};
static const struct kolo__pipe_ops short_ahead = {.write = write_pipe,
                                                  .read = read_pipe,
                                                  .read_ahead_bytes = 100,
                                                  .short_message_bytes = 500,
                                                  .stop = kolo__pipe_lends_nothing};

static const char *const hosts[] = {"a", "b"};
static struct memory_pipe pipes[2];
static struct end ends[2];
static const struct kolo__signature signature = {.epoch = 3,
                                                 .comm = 1,
                                                 .sequence = 8,
                                                 .collective = KOLO__ALLREDUCE,
                                                 .dtype = KOLO_FP32,
                                                 .op = KOLO_SUM,
                                                 .algorithm = 0,
                                                 .count = 10};

static bool checksum;

static void open_ends(const struct kolo__pipe_ops *ops, size_t step)
{
    memset(pipes, 0, sizeof pipes);
    memset(ends, 0, sizeof ends);
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(kolo__stream_init(&ends[r].stream, r, 2, hosts, ops), KOLO_OK);
        ends[r].stream.checksum = checksum;
        ends[r].out = &pipes[r];
        ends[r].in = &pipes[1 - r];
        ends[r].step = step;
    }
}

static void close_ends(void)
{
    kolo__stream_release(&ends[0].stream);
    kolo__stream_release(&ends[1].stream);
}

static void send(struct kolo__post *post, void *data, size_t bytes)
{
    *post = (struct kolo__post){.data = data, .bytes = bytes, .signature = &signature};
    kolo__stream_post_send(&ends[0].stream.transport, 1, post);
}

static void receive(struct kolo__post *post, void *data, size_t bytes)
{
    *post = (struct kolo__post){.data = data, .bytes = bytes, .signature = &signature};
    kolo__stream_post_recv(&ends[1].stream.transport, 0, post);
}

static bool turn(void)
{
    bool sent = kolo__stream_progress(&ends[0].stream);
    return kolo__stream_progress(&ends[1].stream) || sent;
}

static void pass_messages(const struct kolo__pipe_ops *ops, size_t step)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 0, 999, 1000, 1001, 3000, 0};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    static unsigned char out[COUNT][3000], in[COUNT][3000];
    struct kolo__post sends[COUNT], recvs[COUNT];
    open_ends(ops, step);
    for (size_t i = 0; i < COUNT; i++) {
        memset(out[i], (int)(i + 1), sizeof out[i]);
        memset(in[i], 0, sizeof in[i]);
        receive(&recvs[i], sizes[i] == 0 ? NULL : in[i], sizes[i]);
        send(&sends[i], sizes[i] == 0 ? NULL : out[i], sizes[i]);
    }
    size_t before = 0;
    while (turn()) {
        assert_true(recvs[9].bytes_done >= before);
        before = recvs[9].bytes_done;
        /* The watermark never promises more than is there. */
        assert_memory_equal(in[9], out[9], before);
    }
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(sends[i].complete && recvs[i].complete);
        assert_int_equal(sends[i].status, KOLO_OK);
        assert_int_equal(recvs[i].status, KOLO_OK);
        assert_int_equal(recvs[i].bytes_done, sizes[i]);
        assert_memory_equal(in[i], out[i], sizes[i]);
        for (size_t j = sizes[i]; j < sizeof in[i]; j++)
            assert_int_equal(in[i][j], 0);
    }
    assert_false(kolo__stream_has_work(&ends[0].stream));
    assert_false(kolo__stream_has_work(&ends[1].stream));
    close_ends();
}

static void messages_survive_any_cut(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 7, 64, 65, 500, 1064, PIPE_BYTES};
    for (int with = 0; with < 2; with++)
        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
            checksum = with == 1;
            pass_messages(&header_ahead, steps[i]);
            pass_messages(&far_ahead, steps[i]);
            pass_messages(&short_ahead, steps[i]);
        }
    checksum = false;
}

/* The payload of a longer one is fetched where it belongs, once its header is known. */
static void a_short_message_takes_one_read(void **state)
{
    (void)state;
    static unsigned char out[501], in[501];
    for (size_t bytes = 500; bytes <= 501; bytes++) {
        struct kolo__post sent, received;
        open_ends(&short_ahead, PIPE_BYTES);
        receive(&received, in, bytes);
        send(&sent, out, bytes);
        while (turn())
            continue;
        assert_true(received.complete);
        assert_int_equal(ends[1].reads, bytes == 500 ? 1 : 2);
        close_ends();
    }
}

/* A message of `bytes`, of which nothing is done before its block is checked. */
static void pass_blocks(size_t bytes, size_t step)
{
    static unsigned char out[3 * KOLO__MESSAGE_BLOCK_BYTES], in[3 * KOLO__MESSAGE_BLOCK_BYTES];
    struct kolo__post sent, received, last_sent, last;
    open_ends(&far_ahead, step);
    for (size_t i = 0; i < bytes; i++)
        out[i] = (unsigned char)(i * 7 + i / 251);
    memset(in, 0, sizeof in);
    receive(&received, in, bytes);
    receive(&last, NULL, 0);
    send(&sent, out, bytes);
    send(&last_sent, NULL, 0);
    while (turn())
        assert_true(received.bytes_done % KOLO__MESSAGE_BLOCK_BYTES == 0 ||
                    received.bytes_done == bytes);
    assert_true(received.complete && last.complete);
    assert_int_equal(received.status, KOLO_OK);
    assert_int_equal(last.status, KOLO_OK);
    assert_memory_equal(in, out, bytes);
    close_ends();
}

static void checksums_stand_behind_each_block(void **state)
{
    (void)state;
    enum { BLOCK = KOLO__MESSAGE_BLOCK_BYTES };
    static const size_t sizes[] = {1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 5};
    static const size_t steps[] = {997, BLOCK, BLOCK + 4, PIPE_BYTES};
    checksum = true;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++)
            pass_blocks(sizes[i], steps[k]);
    checksum = false;
}

/* What has gone may be written to before the block's checksum has: it is of what went. */
static void a_sender_may_write_behind_itself(void **state)
{
    (void)state;
    unsigned char out[1000], in[1000], expected[1000];
    struct kolo__post sent, received;
    checksum = true;
    open_ends(&far_ahead, 100);
    memset(out, 5, sizeof out);
    memset(expected, 5, sizeof expected);
    receive(&received, in, sizeof in);
    send(&sent, out, sizeof out);
    do
        memset(out, 9, sent.bytes_done);
    while (turn());
    assert_int_equal(received.status, KOLO_OK);
    assert_memory_equal(in, expected, sizeof in);
    close_ends();
    checksum = false;
}

/* Any bit on the wire. */
static void every_change_is_found(void **state)
{
    (void)state;
    enum { BYTES = 100, WIRE = KOLO__MESSAGE_HEADER_BYTES + BYTES + KOLO__MESSAGE_CHECKSUM_BYTES };
    unsigned char out[BYTES], in[BYTES];
    checksum = true;
    for (size_t bit = 0; bit < 8 * WIRE; bit++) {
        struct kolo__post sent, received;
        open_ends(&far_ahead, PIPE_BYTES);
        memset(out, 0x5a, sizeof out);
        send(&sent, out, sizeof out);
        assert_false(kolo__stream_progress(&ends[0].stream) && !sent.complete);
        while (kolo__stream_progress(&ends[0].stream))
            continue;
        assert_int_equal(pipes[0].end, WIRE);
        pipes[0].bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        receive(&received, in, sizeof in);
        for (int i = 0; i < 4; i++)
            kolo__stream_progress(&ends[1].stream);
        const struct kolo__fault *fault = &ends[1].stream.transport.fault;
        assert_true(received.complete);
        assert_int_equal(received.status, KOLO_ERR_NETWORK);
        assert_int_equal(received.bytes_done, 0);
        assert_int_equal(fault->peer, 0);
        assert_non_null(strstr(fault->text, "changed on"));
        assert_non_null(strstr(fault->text, "ethtool"));
        assert_non_null(strstr(fault->text, "rank 0 (a)"));
        close_ends();
    }
    checksum = false;
}

/* More small messages than one turn moves: the rest is not forgotten. */
static void what_a_turn_leaves_is_work(void **state)
{
    (void)state;
    enum { COUNT = 50 };
    struct kolo__post sends[COUNT], recvs[COUNT];
    open_ends(&far_ahead, PIPE_BYTES);
    for (size_t i = 0; i < COUNT; i++) {
        send(&sends[i], NULL, 0);
        receive(&recvs[i], NULL, 0);
    }
    for (int i = 0; i < 5; i++)
        kolo__stream_progress(&ends[0].stream);
    assert_true(kolo__stream_has_work(&ends[1].stream));
    for (int i = 0; i < 10 && kolo__stream_has_work(&ends[1].stream); i++)
        kolo__stream_progress(&ends[1].stream);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(sends[i].complete && recvs[i].complete);
    close_ends();
}

static void a_mismatch_shows_both_sides_and_touches_nothing(void **state)
{
    (void)state;
    unsigned char out[44] = {1}, in[40] = {0};
    static const unsigned char zeros[40];
    struct kolo__signature other = signature;
    struct kolo__post sent, received, later;
    other.count = 11;
    open_ends(&far_ahead, PIPE_BYTES);
    sent = (struct kolo__post){.data = out, .bytes = sizeof out, .signature = &other};
    kolo__stream_post_send(&ends[0].stream.transport, 1, &sent);
    kolo__stream_progress(&ends[1].stream);
    /* Not judged before there is something to compare with. */
    assert_int_equal(ends[1].stream.transport.fault.status, KOLO_OK);
    receive(&received, in, sizeof in);
    receive(&later, NULL, 0);
    kolo__stream_progress(&ends[1].stream);
    const struct kolo__fault *fault = &ends[1].stream.transport.fault;
    assert_int_equal(fault->status, KOLO_ERR_MISMATCH);
    assert_int_equal(fault->peer, 0);
    assert_non_null(strstr(fault->text, "rank 0 (a) sent allreduce #8 (11 x fp32, sum"));
    assert_non_null(strstr(fault->text, "rank 1 (b) expects allreduce #8 (10 x fp32, sum"));
    assert_non_null(strstr(fault->text, "44 bytes instead of 40"));
    assert_true(received.complete && later.complete);
    assert_int_equal(received.status, KOLO_ERR_MISMATCH);
    assert_int_equal(later.status, KOLO_ERR_MISMATCH);
    assert_int_equal(received.bytes_done, 0);
    assert_memory_equal(in, zeros, sizeof in);
    close_ends();
}

static void expect_no_header(size_t at, unsigned char value)
{
    unsigned char in[8] = {0}, out[8] = {0};
    struct kolo__post sent, received;
    open_ends(&header_ahead, PIPE_BYTES);
    send(&sent, out, sizeof out);
    pipes[0].bytes[at] = value;
    receive(&received, in, sizeof in);
    kolo__stream_progress(&ends[1].stream);
    assert_true(received.complete);
    assert_int_equal(received.status, KOLO_ERR_NETWORK);
    assert_non_null(strstr(ends[1].stream.transport.fault.text, "rank 0 (a)"));
    assert_int_equal(received.bytes_done, 0);
    close_ends();
}

static void bytes_that_are_no_header_are_refused(void **state)
{
    (void)state;
    expect_no_header(0, 'K');
    expect_no_header(4, 2);  /* version */
    expect_no_header(7, 1);  /* reserved */
    expect_no_header(48, 1); /* a message is missing */
    expect_no_header(56, 1); /* another sender */
    expect_no_header(63, 1); /* reserved */
}

static void the_first_fault_stays(void **state)
{
    (void)state;
    struct kolo__post sent, received, late;
    open_ends(&header_ahead, PIPE_BYTES);
    struct kolo__fault lost = {.status = KOLO_ERR_PEER_LOST, .peer = 1, .text = "rank 1 died"};
    struct kolo__fault second = {.status = KOLO_ERR_ABORTED, .peer = -1, .text = "later"};
    receive(&received, NULL, 0);
    kolo__stream_fail(&ends[1].stream.transport, &lost);
    kolo__stream_fail(&ends[1].stream.transport, &second);
    assert_false(received.complete);
    assert_true(kolo__stream_has_work(&ends[1].stream));
    assert_true(kolo__stream_progress(&ends[1].stream));
    assert_true(received.complete);
    assert_int_equal(received.status, KOLO_ERR_PEER_LOST);
    receive(&late, NULL, 0);
    assert_true(late.complete);
    assert_int_equal(late.status, KOLO_ERR_PEER_LOST);
    assert_false(kolo__stream_progress(&ends[1].stream));

    ends[0].next = KOLO_ERR_PEER_LOST;
    send(&sent, NULL, 0);
    kolo__stream_progress(&ends[0].stream);
    assert_int_equal(sent.status, KOLO_ERR_PEER_LOST);
    assert_string_equal(ends[0].stream.transport.fault.text, "rank 1 (b): broken on purpose");
    close_ends();
}

static void headers_survive_the_wire(void **state)
{
    (void)state;
    unsigned char bytes[KOLO__MESSAGE_HEADER_BYTES];
    struct kolo__message out = {.signature = signature,
                                .bytes = 0x123456789abcdef0,
                                .number = UINT64_MAX,
                                .sender = 0xfedcba98},
                         in;
    out.signature.root = 77;
    out.signature.algorithm = 0xff;
    kolo__message_encode(&out, false, bytes);
    assert_memory_equal(bytes, "komg\1\0\0\0\3\0\0\0\1\0\0\0\10\0\0\0\0\0\0\0", 24);
    assert_int_equal(kolo__message_decode(bytes, false, &in), KOLO_OK);
    assert_true(kolo__signature_equal(&in.signature, &out.signature));
    assert_true(in.bytes == out.bytes && in.number == out.number && in.sender == out.sender);
}

static void signatures_have_words(void **state)
{
    (void)state;
    char text[160], tiny[8];
    struct kolo__signature s = {.sequence = 812,
                                .collective = KOLO__BROADCAST,
                                .dtype = KOLO_BF16,
                                .algorithm = 0xff,
                                .root = 2,
                                .count = 1048576};
    assert_string_equal(kolo__signature_text(&s, text, sizeof text),
                        "broadcast #812 (1048576 x bf16, root 2)");
    s.collective = KOLO__ALLREDUCE;
    s.op = KOLO_MAX;
    s.algorithm = 0;
    kolo__signature_text(&s, text, sizeof text);
    assert_non_null(strstr(text, "allreduce #812 (1048576 x bf16, max, "));
    assert_non_null(strstr(text, kolo__algorithms[0]->name));
    /* Whatever comes from a wire can be shown. */
    memset(&s, 0xfe, sizeof s);
    kolo__signature_text(&s, text, sizeof text);
    assert_non_null(strstr(text, "unknown"));
    kolo__signature_text(&s, tiny, sizeof tiny);
    assert_int_equal(strlen(tiny), sizeof tiny - 1);
}

static void signatures_differ_in_every_field(void **state)
{
    (void)state;
    struct kolo__signature others[9];
    for (int i = 0; i < 9; i++)
        others[i] = signature;
    others[0].epoch ^= 1;
    others[1].comm ^= 1;
    others[2].sequence ^= 1;
    others[3].collective ^= 1;
    others[4].dtype ^= 1;
    others[5].op ^= 1;
    others[6].algorithm ^= 1;
    others[7].root ^= 1;
    others[8].count ^= 1;
    assert_true(kolo__signature_equal(&signature, &signature));
    for (int i = 0; i < 9; i++)
        assert_false(kolo__signature_equal(&others[i], &signature));
}

/* Who ended by sending lets its peer have the processor, so a look that finds nothing is no move.
 */
static void the_last_move_is_known(void **state)
{
    unsigned char out[3] = "out", in[3];
    struct kolo__post sent, received;
    (void)state;
    open_ends(&header_ahead, SIZE_MAX);
    receive(&received, in, sizeof in);
    send(&sent, out, sizeof out);
    turn();
    assert_true(sent.complete && received.complete);
    assert_true(ends[0].stream.transport.sent_last);
    assert_false(ends[1].stream.transport.sent_last);
    received = (struct kolo__post){.data = in, .bytes = sizeof in, .signature = &signature};
    kolo__stream_post_recv(&ends[0].stream.transport, 1, &received);
    kolo__stream_progress(&ends[0].stream);
    assert_true(ends[0].stream.transport.sent_last);
    sent = (struct kolo__post){.data = out, .bytes = sizeof out, .signature = &signature};
    kolo__stream_post_send(&ends[1].stream.transport, 0, &sent);
    kolo__stream_progress(&ends[0].stream);
    assert_true(received.complete);
    assert_false(ends[0].stream.transport.sent_last);
    assert_true(ends[1].stream.transport.sent_last);
    close_ends();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_move_is_known),
        cmocka_unit_test(checksums_stand_behind_each_block),
        cmocka_unit_test(a_sender_may_write_behind_itself),
        cmocka_unit_test(every_change_is_found),
        cmocka_unit_test(messages_survive_any_cut),
        cmocka_unit_test(a_short_message_takes_one_read),
        cmocka_unit_test(what_a_turn_leaves_is_work),
        cmocka_unit_test(a_mismatch_shows_both_sides_and_touches_nothing),
        cmocka_unit_test(bytes_that_are_no_header_are_refused),
        cmocka_unit_test(the_first_fault_stays),
        cmocka_unit_test(headers_survive_the_wire),
        cmocka_unit_test(signatures_have_words),
        cmocka_unit_test(signatures_differ_in_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
