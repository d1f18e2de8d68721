/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of an RDMA connection that breaks: everybody who waits for it learns it in time,
 * with the device, the port, both addresses and what the card says; nothing is left behind. And
 * what is written while nothing breaks. Run in the virtual machine by faults_test.sh.
 */
#include "rdma_world.h"
#include "tcp_ends.h"

#include "base/clock.h"
#include "collectives/transport/rdma_load.h"
#include "collectives/transport/rdma_transport.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_S = 60, LARGE = 3000000 };

static struct kolo__transport *ranks[2]; /* of this process; NULL: the other's */
static int listeners[2];
static struct kolo__endpoint endpoints[2];
static unsigned char *buffers[4];
static uint64_t sequence[2];    /* of messages from this rank */
static struct kolo__heap *heap; /* where the buffers are */
static struct rdma_rank how;

static struct kolo__signature signatures[64];
static size_t signature_count;

static kolo_status join(uint32_t r)
{
    struct rdma_rank rank = how;
    rank.rank = r;
    rank.size = 2;
    return rdma_world_join(&rank, listeners[r], endpoints, &ranks[r]);
}

static int open_both(void **state)
{
    (void)state;
    memset(sequence, 0, sizeof sequence);
    signature_count = 0;
    if (tcp_ends_listen(2, listeners, endpoints) != KOLO_OK || join(0) != KOLO_OK ||
        join(1) != KOLO_OK) {
        print_error("%s\n", kolo_error_text());
        return -1;
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    for (int r = 0; r < 2; r++)
        if (ranks[r] != NULL)
            ranks[r]->ops->close(ranks[r]);
    ranks[0] = ranks[1] = NULL;
    how = (struct rdma_rank){.heap = NULL};
    return 0;
}

/* What messages are in, the cards reach. */
static int open_straight(void **state)
{
    how.heap = heap;
    return open_both(state);
}

static int open_rails(void **state)
{
    how.both = true;
    return open_straight(state);
}

static struct kolo__post post_of(uint64_t number, int buffer, size_t bytes)
{
    assert_true(signature_count < sizeof signatures / sizeof *signatures);
    struct kolo__signature *signature = &signatures[signature_count++];
    *signature = (struct kolo__signature){.epoch = 1,
                                          .comm = 7,
                                          .sequence = number,
                                          .collective = KOLO__POINT_TO_POINT,
                                          .algorithm = 0xff,
                                          .count = bytes};
    return (struct kolo__post){.data = buffers[buffer], .bytes = bytes, .signature = signature};
}

/* Progress, until all are complete. */
static void finish(struct kolo__post *const *posts, int count)
{
    uint64_t until = kolo__now_ns(&kolo__real_clock) + WAIT_S * (uint64_t)1000000000;
    for (int i = 0; i < count; i++)
        while (!posts[i]->complete) {
            if (kolo__now_ns(&kolo__real_clock) > until)
                fail_msg("post %d of %d is under way after %d s, with %zu of %zu bytes", i, count,
                         WAIT_S, posts[i]->bytes_done, posts[i]->bytes);
            for (int r = 0; r < 2; r++)
                if (ranks[r] != NULL)
                    ranks[r]->ops->progress(ranks[r]);
        }
}

static void start_send(uint32_t from, struct kolo__post *post, int buffer, size_t bytes)
{
    *post = post_of(++sequence[from], buffer, bytes);
    ranks[from]->ops->post_send(ranks[from], 1 - from, post);
}

static void start_recv(uint32_t at, uint64_t number, struct kolo__post *post, int buffer,
                       size_t bytes)
{
    *post = post_of(number, buffer, bytes);
    ranks[at]->ops->post_recv(ranks[at], 1 - at, post);
}

/* A message from 0 to 1, in both of which it is right afterwards. */
static void pass(size_t bytes)
{
    struct kolo__post out, in;
    for (size_t i = 0; i < bytes; i++)
        buffers[0][i] = (unsigned char)(i * 7 + i / 251 + bytes);
    start_send(0, &out, 0, bytes);
    start_recv(1, sequence[0], &in, 1, bytes);
    struct kolo__post *both[] = {&out, &in};
    finish(both, 2);
    if (out.status != KOLO_OK || in.status != KOLO_OK)
        fail_msg("sent: %s; received: %s", ranks[0]->fault.text, ranks[1]->fault.text);
    assert_memory_equal(buffers[0], buffers[1], bytes);
}

static struct kolo__rdma *inside(uint32_t r)
{
    return (struct kolo__rdma *)(void *)ranks[r];
}

static void expect_said(const struct kolo__transport *transport, kolo_status status,
                        const char *const *words)
{
    print_message("%s\n", transport->fault.text);
    assert_int_equal(transport->fault.status, status);
    for (; *words != NULL; words++)
        if (strstr(transport->fault.text, *words) == NULL)
            fail_msg("not said: %s", *words);
}

/* ---- what is written ---------------------------------------------------------------------- */

static void check_counts(void **state)
{
    (void)state;
    static const size_t SIZES[] = {0, 1, 100, 192, 193, 5000, 131008, 131009, 700000, LARGE, 8};
    uint64_t writes = 0, bytes = 0, position = 0, straight = 0;
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
            bool is_long = SIZES[i] + KOLO__MESSAGE_HEADER_BYTES > KOLO__RDMA_PIECE_BYTES;
            signature_count = 0;
            pass(SIZES[i]);
            writes += kolo__rdma_writes_of_message(&position, SIZES[i], how.heap != NULL);
            bytes += SIZES[i] + KOLO__MESSAGE_HEADER_BYTES;
            straight += how.heap != NULL && is_long ? SIZES[i] : 0;
            struct kolo__rdma_counts counts = kolo__rdma_count(ranks[0]);
            assert_int_equal(counts.data_writes, writes);
            assert_int_equal(counts.data_bytes, bytes);
            assert_int_equal(counts.straight_bytes, straight);
            assert_true(counts.inline_writes > 0);
            assert_int_equal(counts.credit_writes, 0);
        }
    struct kolo__rdma_counts back = kolo__rdma_count(ranks[1]);
    assert_int_equal(back.data_writes, 0);
    assert_int_equal(back.offer_writes, 3 * 3);
    assert_true(back.credit_writes > 0);
    assert_true(back.credit_writes <=
                position / KOLO__RDMA_CREDIT_BYTES + writes / KOLO__RDMA_CREDIT_WRITES);
    /* A message of 8 bytes in its header's write, from where it lies; 3 MB in 128 KiB each. */
    assert_int_equal(kolo__rdma_writes_of(0, 72), 1);
    assert_int_equal(kolo__rdma_writes_of(0, LARGE), 23);
    assert_int_equal(kolo__rdma_writes_of(KOLO__RDMA_RING_BYTES - 1, 2), 2);
}

/* ---- what breaks -------------------------------------------------------------------------- */

/* A card refuses a write to where it may not write: both ends of the link end in error. */
static void check_completion_with_error(void **state)
{
    (void)state;
    struct kolo__post out, in, back;
    pass(1000);
    inside(0)->peers[1].their_key ^= 0x5a5a5a;
    start_recv(0, 1, &back, 2, 100);
    start_send(0, &out, 0, LARGE);
    start_recv(1, sequence[0], &in, 1, LARGE);
    struct kolo__post *posts[] = {&out, &back};
    finish(posts, 2);
    assert_int_equal(out.status, KOLO_ERR_NETWORK);
    assert_int_equal(back.status, KOLO_ERR_NETWORK);
    static const char *const SAID[] = {
        "rank 1: the connection broke from rxe0 port 1, GID ",
        "::ffff:10.99.0.1 (index 1) to GID ::ffff:10.99.0.2: ", "(vendor error 0x", NULL};
    expect_said(ranks[0], KOLO_ERR_NETWORK, SAID);
    /* The other end's link is in error as well, and says so of what it still waits for. */
    struct kolo__post *other[] = {&in};
    finish(other, 1);
    static const char *const OTHER[] = {"rank 0: the connection broke from rxe1 port 1, GID ",
                                        NULL};
    expect_said(ranks[1], KOLO_ERR_NETWORK, OTHER);
}

/* A buffer that is freed while a message is on its way to it: nobody writes there any more. */
static void check_memory_that_is_gone(void **state)
{
    (void)state;
    struct kolo__post out, in;
    void *memory;
    pass(LARGE);
    assert_int_equal(kolo__heap_alloc(heap, LARGE, 4096, &memory), KOLO_OK);
    unsigned char *before = buffers[1];
    buffers[1] = memory;
    start_recv(1, sequence[0] + 1, &in, 1, LARGE);
    buffers[1] = before;
    kolo__heap_free(heap, memory);
    start_send(0, &out, 0, LARGE);
    struct kolo__post *posts[] = {&out, &in};
    finish(posts, 2);
    static const char *const SAID[] = {
        "rank 1: the connection broke from rxe0 port 1, GID ",
        "::ffff:10.99.0.1 (index 1) to GID ::ffff:10.99.0.2: ", "(vendor error 0x", NULL};
    expect_said(ranks[0], KOLO_ERR_NETWORK, SAID);
}

/* Nobody waits for a peer that has left: then nothing is wrong. */
static void check_peer_that_has_left(void **state)
{
    (void)state;
    pass(LARGE);
    ranks[0]->ops->close(ranks[0]);
    ranks[0] = NULL;
    for (int i = 0; i < 10000; i++)
        ranks[1]->ops->progress(ranks[1]);
    assert_int_equal(ranks[1]->fault.status, KOLO_OK);
    struct kolo__post in;
    start_recv(1, 9, &in, 1, 10);
    struct kolo__post *posts[] = {&in};
    finish(posts, 1);
    assert_int_equal(in.status, KOLO_ERR_PEER_LOST);
    static const char *const SAID[] = {"rank 0: it closed the connection from rxe1 port 1, GID ",
                                       " to GID ::ffff:10.99.0.1", NULL};
    expect_said(ranks[1], KOLO_ERR_PEER_LOST, SAID);
}

/* All that a rank has sent arrives, also when it leaves at once. */
static void check_last_words_arrive(void **state)
{
    (void)state;
    struct kolo__post out, in;
    pass(8);
    memset(buffers[0], 0x77, 100000);
    start_send(0, &out, 0, 100000);
    struct kolo__post *sent[] = {&out}, *came[] = {&in};
    finish(sent, 1);
    ranks[0]->ops->close(ranks[0]);
    ranks[0] = NULL;
    start_recv(1, sequence[0], &in, 1, 100000);
    finish(came, 1);
    assert_int_equal(in.status, KOLO_OK);
    assert_memory_equal(buffers[0], buffers[1], 100000);
}

static int open_own(void **state)
{
    (void)state;
    memset(sequence, 0, sizeof sequence);
    signature_count = 0;
    return tcp_ends_listen(2, listeners, endpoints) == KOLO_OK ? 0 : -1;
}

/* Rank 0 in a process that waits to be killed after the first message. */
static pid_t fork_peer(void)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct kolo__post out;
        close(listeners[1]);
        if (join(0) != KOLO_OK)
            _exit(1);
        start_send(0, &out, 0, 1000);
        while (!out.complete)
            ranks[0]->ops->progress(ranks[0]);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            ranks[0]->ops->progress(ranks[0]);
    }
    close(listeners[0]);
    close(ready[1]);
    assert_int_equal(join(1), KOLO_OK);
    struct kolo__post in;
    start_recv(1, 1, &in, 1, 1000);
    struct kolo__post *posts[] = {&in};
    finish(posts, 1);
    assert_int_equal(in.status, KOLO_OK);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void check_killed_while_received_from(void **state)
{
    (void)state;
    struct kolo__post in;
    pid_t child = fork_peer();
    start_recv(1, 2, &in, 1, 1000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct kolo__post *posts[] = {&in};
    finish(posts, 1);
    assert_int_equal(in.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(ranks[1]->fault.peer, 0);
    static const char *const SAID[] = {"rank 0: it closed the connection from rxe1 port 1, GID ",
                                       " to GID ::ffff:10.99.0.1", NULL};
    expect_said(ranks[1], KOLO_ERR_PEER_LOST, SAID);
}

/* Into its memory, or about to be. */
static void check_killed_while_written_to(void **state)
{
    (void)state;
    struct kolo__post out, in;
    how.heap = heap;
    pid_t child = fork_peer();
    start_send(1, &out, 1, LARGE);
    start_recv(1, 2, &in, 2, LARGE);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct kolo__post *posts[] = {&out, &in};
    finish(posts, 2);
    assert_int_equal(out.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(in.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(ranks[1]->fault.peer, 0);
}

static void check_killed_while_sent_to(void **state)
{
    (void)state;
    struct kolo__post out;
    pid_t child = fork_peer();
    start_send(1, &out, 1, LARGE); /* more than its ring, and it takes nothing */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct kolo__post *posts[] = {&out};
    finish(posts, 1);
    assert_int_equal(out.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(ranks[1]->fault.peer, 0);
}

/* No packet arrives any more, for they go to a card that is not there: the own one gives up.
 * (Packets that netem loses on their way out are none to Soft-RoCE, which then tries for ever.) */
static void check_unanswered(void **state)
{
    (void)state;
    struct kolo__post out;
    pass(1000);
    assert_int_equal(
        system("ip neighbour replace 10.99.0.2 lladdr 02:00:00:00:00:77 dev veth0 nud permanent"),
        0);
    start_send(0, &out, 0, 100);
    struct kolo__post *posts[] = {&out};
    finish(posts, 1);
    assert_int_equal(out.status, KOLO_OK); /* it is the card's now */
    start_send(0, &out, 0, LARGE);
    finish(posts, 1);
    assert_int_equal(
        system("ip neighbour replace 10.99.0.2 lladdr 02:00:00:00:00:01 dev veth0 nud permanent"),
        0);
    static const char *const SAID[] = {"rank 1: it does not answer from rxe0 port 1, GID ",
                                       " to GID ::ffff:10.99.0.2: ", "(vendor error 0x", NULL};
    expect_said(ranks[0], KOLO_ERR_PEER_LOST, SAID);
}

/* The first rail works. A message that needs no other is not sent either: a long one would find out
 * late. */
static void check_rail_that_leads_nowhere(void **state)
{
    (void)state;
    struct kolo__post out, in;
    assert_int_equal(
        system("ip neighbour replace 10.99.0.1 lladdr 02:00:00:00:00:77 dev veth1 nud permanent"),
        0);
    start_send(0, &out, 0, 100);
    start_recv(1, sequence[0], &in, 1, 100);
    struct kolo__post *posts[] = {&out, &in};
    finish(posts, 2);
    assert_int_equal(
        system("ip neighbour replace 10.99.0.1 lladdr 02:00:00:00:00:00 dev veth1 nud permanent"),
        0);
    static const char *const SAID[] = {"rank 1: it does not answer from rxe1 port 1, GID ",
                                       " to GID ::ffff:10.99.0.1: ", NULL};
    expect_said(ranks[0], KOLO_ERR_PEER_LOST, SAID);
}

/* The cable is pulled: neither sender nor receiver waits for ever. */
static void check_port_down(void **state)
{
    (void)state;
    struct kolo__post out, in;
    pass(1000);
    assert_int_equal(system("ip link set veth1 down"), 0);
    start_send(0, &out, 0, LARGE);
    start_recv(1, sequence[0], &in, 1, 100); /* a long one would write as well */
    struct kolo__post *posts[] = {&out, &in};
    finish(posts, 2);
    static const char *const SENDER[] = {"rank 1: it does not answer from rxe0 port 1, GID ",
                                         "; the own port has no link", NULL};
    expect_said(ranks[0], KOLO_ERR_NETWORK, SENDER);
    static const char *const RECEIVER[] = {"rxe1 port 1, GID ", "has had no link for 5 s", NULL};
    expect_said(ranks[1], KOLO_ERR_NETWORK, RECEIVER);
}

/* What a device has too few of is said, with what to do about it; and what it has does. */
static void check_limits(void **state)
{
    (void)state;
    const struct kolo__rdma_module *module;
    const uint32_t many = 1u << 30;
    const struct {
        struct kolo__rdma_needs needs;
        const char *words; /* "": it opens */
    } cases[] = {
        {{.links = 4, .depths = kolo__rdma_depths}, ""},
        {{.links = many, .depths = kolo__rdma_depths}, "queue pairs"},
        {{.links = 1, .depths = {.sends = many, .receives = 1}}, "work requests in a queue"},
        {{.links = 1, .depths = {.sends = 1, .receives = many}}, "work requests in a queue"},
        {{.links = 20000, .depths = {.sends = 1000, .receives = 1000}}, "completions in a queue"},
    };
    assert_int_equal(kolo__rdma_load(&module), KOLO_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[300] = "";
        struct kolo__rdma_device *device =
            module->open("rxe0", 1, &cases[i].needs, why, sizeof why);
        assert_true((device != NULL) == (cases[i].words[0] == '\0'));
        if (device != NULL)
            module->close(device);
        else if (strstr(why, cases[i].words) == NULL ||
                 strstr(why, "use another device (NCCL_IB_HCA), fewer ranks, or") == NULL)
            fail_msg("not said: %s, but: %s", cases[i].words, why);
    }
}

/* Of all that, the kernel keeps nothing for this process. */
static void check_nothing_is_left(void **state)
{
    (void)state;
    char command[200];
    for (int i = 0; i < 3; i++) {
        static const char *const KINDS[] = {"qp", "mr", "cq"};
        snprintf(command, sizeof command, "rdma resource show %s | grep 'pid %d '", KINDS[i],
                 (int)getpid());
        assert_int_equal(WEXITSTATUS(system(command)), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(check_counts, open_both, close_all),
        cmocka_unit_test_setup_teardown(check_counts, open_straight, close_all),
        cmocka_unit_test_setup_teardown(check_counts, open_rails, close_all),
        cmocka_unit_test_setup_teardown(check_memory_that_is_gone, open_straight, close_all),
        cmocka_unit_test_setup_teardown(check_completion_with_error, open_both, close_all),
        cmocka_unit_test_setup_teardown(check_peer_that_has_left, open_both, close_all),
        cmocka_unit_test_setup_teardown(check_last_words_arrive, open_both, close_all),
        cmocka_unit_test_setup_teardown(check_killed_while_received_from, open_own, close_all),
        cmocka_unit_test_setup_teardown(check_killed_while_sent_to, open_own, close_all),
        cmocka_unit_test_setup_teardown(check_killed_while_written_to, open_own, close_all),
        cmocka_unit_test_setup_teardown(check_unanswered, open_both, close_all),
        cmocka_unit_test_setup_teardown(check_rail_that_leads_nowhere, open_rails, close_all),
        /* Last: the other port's route does not come back with it. */
        cmocka_unit_test_setup_teardown(check_port_down, open_both, close_all),
        cmocka_unit_test(check_limits),
        cmocka_unit_test(check_nothing_is_left),
    };
    const struct kolo__heap_options options = {.name = "", .token = "", .members = 1};
    kolo_status status = kolo__heap_open(&options, &heap);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers && status == KOLO_OK; i++)
        status = kolo__heap_alloc(heap, LARGE, 4096, (void **)(void *)&buffers[i]);
    if (status != KOLO_OK) {
        print_error("%s\n", kolo_error_text());
        return 1;
    }
    rdma_world_begin();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kolo__heap_close(heap);
    return failed;
}
