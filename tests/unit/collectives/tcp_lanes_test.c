/* SPDX-License-Identifier: Apache-2.0 */
/* Several connections between two ranks: bytes keep their order, lanes find addresses that answer,
 * and the pair breaks with any of them. */
#include "collectives/transport/tcp.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DESCRIPTORS = 256, BYTES = 3000001 };

static struct kolo__transport *ranks[2];
static struct kolo__endpoint endpoints[2];
static int listeners[2];
static const struct kolo__signature signature = {.sequence = 1, .collective = KOLO__BARRIER};

static int listen_both(void **state)
{
    (void)state;
    kolo__log_configure("error", -1);
    for (int r = 0; r < 2; r++) {
        ranks[r] = NULL;
        endpoints[r] = (struct kolo__endpoint){.count = 1};
        if (kolo__listen("*", 0, &listeners[r], &endpoints[r].addresses[0]) != KOLO_OK)
            return -1;
        uint16_t port = kolo__address_port(&endpoints[r].addresses[0]);
        if (kolo__address_parse("127.0.0.1:0", &endpoints[r].addresses[0]) != KOLO_OK)
            return -1;
        kolo__address_set_port(&endpoints[r].addresses[0], port);
    }
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    for (int r = 0; r < 2; r++)
        if (ranks[r] != NULL)
            ranks[r]->ops->close(ranks[r]);
    return 0;
}

static void create(uint32_t rank, uint32_t streams, bool encrypt)
{
    const struct kolo__tcp_options options = {.rank = rank,
                                              .size = 2,
                                              .epoch = 1,
                                              .comm = 1,
                                              .job = "job",
                                              .token = "secret",
                                              .encrypt = encrypt,
                                              .listen_fd = listeners[rank],
                                              .endpoints = endpoints,
                                              .streams = streams,
                                              .connect_timeout_ns = 10000000000u};
    assert_int_equal(kolo__tcp_create(&options, &ranks[rank]), KOLO_OK);
}

static void finish(const struct kolo__post *post)
{
    uint64_t deadline = kolo__now_ns(&kolo__real_clock) + (uint64_t)20000000000;
    while (!post->complete && kolo__now_ns(&kolo__real_clock) < deadline)
        for (int r = 0; r < 2; r++)
            ranks[r]->ops->progress(ranks[r]);
    assert_true(post->complete);
}

/* Both send to each other at once, messages of lengths that fit no stripe. */
static void exchange(size_t bytes)
{
    unsigned char *data = malloc(4 * bytes + 4);
    struct kolo__post sent[2], received[2];
    for (size_t i = 0; i < 2 * bytes; i++)
        data[i] = (unsigned char)((uint32_t)i * 2654435761u >> 21);
    for (int r = 0; r < 2; r++) {
        sent[r] = (struct kolo__post){
            .data = data + (size_t)r * bytes, .bytes = bytes, .signature = &signature};
        received[r] = (struct kolo__post){
            .data = data + (size_t)(2 + r) * bytes, .bytes = bytes, .signature = &signature};
        ranks[r]->ops->post_recv(ranks[r], (uint32_t)!r, &received[r]);
        ranks[r]->ops->post_send(ranks[r], (uint32_t)!r, &sent[r]);
    }
    for (int r = 0; r < 2; r++) {
        finish(&sent[r]);
        finish(&received[r]);
        assert_int_equal(received[r].status, KOLO_OK);
        assert_memory_equal(received[r].data, data + (size_t)!r * bytes, bytes);
    }
    free(data);
}

/* The sockets that rank 0 has accepted, and by which of its addresses each came. */
static int find_lanes(int fds[DESCRIPTORS], const char *host)
{
    uint16_t port = kolo__address_port(&endpoints[0].addresses[0]);
    struct kolo__address wanted;
    int count = 0;
    assert_int_equal(kolo__address_parse(host, &wanted), KOLO_OK);
    for (int fd = 3; fd < DESCRIPTORS; fd++) {
        struct kolo__address local = {.length = sizeof local.storage}, remote = local;
        if (getsockname(fd, (struct sockaddr *)&local.storage, &local.length) == 0 &&
            getpeername(fd, (struct sockaddr *)&remote.storage, &remote.length) == 0 &&
            kolo__address_port(&local) == port && kolo__address_same_host(&local, &wanted))
            fds[count++] = fd;
    }
    return count;
}

static void bytes_keep_their_order(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 65471, 65472, 65473, 65536, BYTES, 7, 327680};
    int fds[DESCRIPTORS];
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        listen_both(NULL);
        create(0, 5, encrypt);
        create(1, 5, encrypt);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            exchange(lengths[i]);
        assert_int_equal(find_lanes(fds, "127.0.0.1:0"), 5);
        close_both(NULL);
    }
    ranks[0] = ranks[1] = NULL;
}

/* Rank 0 has two addresses for use, and rank 1 as well: a lane to each. */
static void two_addresses(const char *first, const char *second)
{
    const char *texts[2] = {first, second};
    uint16_t port = kolo__address_port(&endpoints[0].addresses[0]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kolo__address_parse(texts[i], &endpoints[0].addresses[i]), KOLO_OK);
        kolo__address_set_port(&endpoints[0].addresses[i], port);
        endpoints[1].addresses[i] = endpoints[1].addresses[0];
    }
    endpoints[0].count = endpoints[1].count = 2;
}

static void each_address_has_a_lane(void **state)
{
    (void)state;
    int fds[DESCRIPTORS];
    two_addresses("127.0.0.1:0", "127.0.0.2:0");
    create(0, 1, false);
    create(1, 1, false);
    exchange(BYTES);
    assert_int_equal(find_lanes(fds, "127.0.0.1:0"), 1);
    assert_int_equal(find_lanes(fds, "127.0.0.2:0"), 1);
}

static void alternatives_have_none(void **state)
{
    (void)state;
    int fds[DESCRIPTORS];
    two_addresses("127.0.0.1:0", "127.0.0.2:0");
    endpoints[0].alternatives = 1;
    create(0, 2, false);
    create(1, 2, false);
    exchange(BYTES);
    assert_int_equal(find_lanes(fds, "127.0.0.1:0"), 2);
    assert_int_equal(find_lanes(fds, "127.0.0.2:0"), 0);
}

/* The first address belongs to nobody. */
static void lanes_avoid_what_does_not_answer(void **state)
{
    (void)state;
    int fds[DESCRIPTORS];
    two_addresses("127.0.0.3:0", "127.0.0.2:0");
    kolo__address_set_port(&endpoints[0].addresses[0], 1);
    create(0, 4, false);
    create(1, 4, false);
    kolo__address_set_port(&endpoints[0].addresses[0],
                           kolo__address_port(&endpoints[0].addresses[1]));
    exchange(BYTES);
    assert_int_equal(find_lanes(fds, "127.0.0.2:0"), 4);
}

static void streams_must_be_alike(void **state)
{
    (void)state;
    create(0, 2, false);
    create(1, 3, false);
    struct kolo__post sent = {.signature = &signature};
    ranks[1]->ops->post_send(ranks[1], 0, &sent);
    finish(&sent);
    assert_int_equal(sent.status, KOLO_ERR_WORLD);
    assert_non_null(strstr(ranks[1]->fault.text, "set KOLO_STREAMS alike"));
    assert_int_equal(ranks[0]->fault.status, KOLO_OK);
}

/* A lane breaks whose turn it is not, and no byte will ever come by the one whose turn it is. */
static void a_broken_lane_breaks_the_pair(void **state)
{
    (void)state;
    int fds[DESCRIPTORS], none = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct linger abrupt = {.l_onoff = 1, .l_linger = 0};
    create(0, 3, false);
    create(1, 3, false);
    exchange(1);
    int count = find_lanes(fds, "127.0.0.1:0");
    assert_int_equal(count, 3);
    /* Connected first, accepted first: the last is not the first lane. */
    assert_int_equal(setsockopt(fds[2], SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt), 0);
    assert_true(dup2(none, fds[2]) >= 0);
    close(none);
    char in;
    struct kolo__post received = {.data = (void *)&in, .bytes = 1, .signature = &signature};
    ranks[1]->ops->post_recv(ranks[1], 0, &received);
    uint64_t deadline = kolo__now_ns(&kolo__real_clock) + (uint64_t)20000000000;
    while (!received.complete && kolo__now_ns(&kolo__real_clock) < deadline)
        ranks[1]->ops->progress(ranks[1]);
    assert_true(received.complete);
    assert_int_equal(received.status, KOLO_ERR_PEER_LOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_keep_their_order),
        cmocka_unit_test_setup_teardown(each_address_has_a_lane, listen_both, close_both),
        cmocka_unit_test_setup_teardown(alternatives_have_none, listen_both, close_both),
        cmocka_unit_test_setup_teardown(lanes_avoid_what_does_not_answer, listen_both, close_both),
        cmocka_unit_test_setup_teardown(streams_must_be_alike, listen_both, close_both),
        cmocka_unit_test_setup_teardown(a_broken_lane_breaks_the_pair, listen_both, close_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
