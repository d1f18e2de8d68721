/* SPDX-License-Identifier: Apache-2.0 */
/* A rank has several addresses, and some lead nowhere, to nobody or to somebody else. */
#include "collectives/transport/tcp.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

static const struct kolo__signature signature = {.sequence = 1, .collective = KOLO__BARRIER};

struct rank {
    int listener;
    struct kolo__address address;
    struct kolo__transport *transport;
};

static void listen_on(struct rank *rank, const char *host)
{
    assert_int_equal(kolo__listen(host, 0, &rank->listener, &rank->address), KOLO_OK);
}

static void create(struct rank *rank, uint32_t number, uint32_t comm,
                   const struct kolo__endpoint endpoints[2])
{
    const struct kolo__tcp_options options = {.rank = number,
                                              .size = 2,
                                              .epoch = 1,
                                              .comm = comm,
                                              .job = "job",
                                              .token = "secret",
                                              .listen_fd = rank->listener,
                                              .endpoints = endpoints,
                                              .connect_timeout_ns = 2000000000};
    assert_int_equal(kolo__tcp_create(&options, &rank->transport), KOLO_OK);
}

/* Drives all until the post is complete. */
static void finish(const struct kolo__post *post, struct rank *ranks, int count)
{
    uint64_t deadline = kolo__now_ns(&kolo__real_clock) + (uint64_t)15000000000;
    while (!post->complete && kolo__now_ns(&kolo__real_clock) < deadline)
        for (int r = 0; r < count; r++)
            ranks[r].transport->ops->progress(ranks[r].transport);
    assert_true(post->complete);
}

static void close_all(struct rank *ranks, int count)
{
    for (int r = 0; r < count; r++)
        ranks[r].transport->ops->close(ranks[r].transport);
}

/* A port whose queue is full: who connects hears nothing, as from a host that is not there. */
static void make_silent(struct rank *silent, int fillers[2])
{
    listen_on(silent, "127.0.0.1");
    assert_int_equal(listen(silent->listener, 0), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(kolo__connect_start(&silent->address, NULL, &fillers[i]), KOLO_OK);
}

/* The last `alternatives` of them are for when those before do not answer. */
static void find_the_address_that_works(uint32_t alternatives)
{
    struct rank ranks[3], silent, closed;
    struct kolo__endpoint endpoints[2] = {{.count = 4, .alternatives = alternatives}, {.count = 1}};
    struct kolo__endpoint others[2];
    int fillers[2];
    for (int r = 0; r < 3; r++)
        listen_on(&ranks[r], "127.0.0.1");
    make_silent(&silent, fillers);
    listen_on(&closed, "127.0.0.1");
    close(closed.listener);
    endpoints[0].addresses[0] = silent.address;
    endpoints[0].addresses[1] = closed.address;
    endpoints[0].addresses[2] = ranks[2].address; /* of another communicator */
    endpoints[0].addresses[3] = ranks[0].address;
    endpoints[1].addresses[0] = ranks[1].address;
    others[0] = (struct kolo__endpoint){.count = 1, .addresses = {ranks[2].address}};
    others[1] = endpoints[1];
    create(&ranks[0], 0, 1, endpoints);
    create(&ranks[1], 1, 1, endpoints);
    create(&ranks[2], 0, 2, others);

    char out[3] = "ab", in[3] = "";
    struct kolo__post sent = {.data = (void *)out, .bytes = 3, .signature = &signature};
    struct kolo__post received = {.data = (void *)in, .bytes = 3, .signature = &signature};
    ranks[1].transport->ops->post_send(ranks[1].transport, 0, &sent);
    ranks[0].transport->ops->post_recv(ranks[0].transport, 1, &received);
    finish(&received, ranks, 3);
    assert_int_equal(received.status, KOLO_OK);
    assert_string_equal(in, "ab");
    assert_int_equal(ranks[2].transport->fault.status, KOLO_OK);
    close_all(ranks, 3);
    close(silent.listener);
    close(fillers[0]);
    close(fillers[1]);
}

static void the_address_that_works_is_found(void **state)
{
    (void)state;
    find_the_address_that_works(0);
}

static void an_alternative_that_works_is_found(void **state)
{
    (void)state;
    find_the_address_that_works(1);
    find_the_address_that_works(3);
}

/* Rank 0 listens on everything, but only 127.0.0.2 is meant for data. */
static void an_address_that_is_not_meant_is_refused(void **state)
{
    (void)state;
    struct rank ranks[2];
    struct kolo__endpoint wrong[2] = {{.count = 1}, {.count = 1}}, right[2];
    listen_on(&ranks[0], "*");
    listen_on(&ranks[1], "127.0.0.1");
    assert_int_equal(kolo__address_parse("127.0.0.1:0", &wrong[0].addresses[0]), KOLO_OK);
    kolo__address_set_port(&wrong[0].addresses[0], kolo__address_port(&ranks[0].address));
    wrong[1].addresses[0] = ranks[1].address;
    memcpy(right, wrong, sizeof right);
    assert_int_equal(kolo__address_parse("127.0.0.2:0", &right[0].addresses[0]), KOLO_OK);
    create(&ranks[0], 0, 1, right);
    create(&ranks[1], 1, 1, wrong);
    struct kolo__post sent = {.signature = &signature};
    ranks[1].transport->ops->post_send(ranks[1].transport, 0, &sent);
    finish(&sent, ranks, 2);
    assert_int_equal(sent.status, KOLO_ERR_NETWORK);
    assert_non_null(strstr(ranks[1].transport->fault.text, "rank 0 at 127.0.0.1:"));
    assert_int_equal(ranks[0].transport->fault.status, KOLO_OK);
    close_all(ranks, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_address_that_works_is_found),
        cmocka_unit_test(an_alternative_that_works_is_found),
        cmocka_unit_test(an_address_that_is_not_meant_is_refused),
    };
    kolo__log_configure("error", -1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
