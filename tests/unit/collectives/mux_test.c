/* SPDX-License-Identifier: Apache-2.0 */
/* What the mux adds to its children: the way a post goes, and faults and sleep in common. */
#include "collectives/transport/mux.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

/* A child that only notes what it is asked. */
struct child {
    struct kolo__transport transport; /* first */
    uint32_t last_peer;
    int posts, progresses, disarms, closes, event_fd;
    bool has_work;
};

static struct child children[2];

static struct child *child_of(struct kolo__transport *transport)
{
    return (struct child *)(void *)transport;
}

static void post(struct kolo__transport *transport, uint32_t peer, struct kolo__post *ignored)
{
    (void)ignored;
    child_of(transport)->last_peer = peer;
    child_of(transport)->posts++;
}

static bool progress(struct kolo__transport *transport)
{
    child_of(transport)->progresses++;
    return child_of(transport)->has_work;
}

static bool arm(struct kolo__transport *transport)
{
    return !child_of(transport)->has_work;
}

static void disarm(struct kolo__transport *transport)
{
    child_of(transport)->disarms++;
}

static int wait_fd(struct kolo__transport *transport)
{
    return child_of(transport)->event_fd;
}

static void fail_child(struct kolo__transport *transport, const struct kolo__fault *fault)
{
    if (transport->fault.status == KOLO_OK)
        transport->fault = *fault;
}

static void close_child(struct kolo__transport *transport)
{
    child_of(transport)->closes++;
}

static const struct kolo__transport_ops child_ops = {
    .name = "child",
    .post_send = post,
    .post_recv = post,
    .progress = progress,
    .arm = arm,
    .disarm = disarm,
    .wait_fd = wait_fd,
    .nap = kolo__transport_never_naps,
    .takes_gpu = kolo__transport_takes_no_gpu,
    .fail = fail_child,
    .close = close_child,
};

static struct kolo__transport *mux;

static int open_mux(void **state)
{
    static const uint8_t route[4] = {0, 0, 1, 0};
    struct kolo__transport *both[2];
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        children[i] = (struct child){.transport = {.ops = &child_ops, .rank = 1, .size = 4},
                                     .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
        both[i] = &children[i].transport;
    }
    return kolo__mux_create(1, 4, both, 2, route, &mux) == KOLO_OK ? 0 : -1;
}

static int close_mux(void **state)
{
    (void)state;
    mux->ops->close(mux);
    for (int i = 0; i < 2; i++) {
        close(children[i].event_fd);
        if (children[i].closes != 1)
            return -1;
    }
    return 0;
}

static void posts_go_by_the_peer(void **state)
{
    (void)state;
    struct kolo__post p = {0};
    mux->ops->post_send(mux, 0, &p);
    mux->ops->post_recv(mux, 3, &p);
    mux->ops->post_send(mux, 2, &p);
    assert_int_equal(children[0].posts, 2);
    assert_int_equal(children[0].last_peer, 3);
    assert_int_equal(children[1].posts, 1);
    assert_int_equal(children[1].last_peer, 2);
}

static void every_child_makes_progress(void **state)
{
    (void)state;
    assert_false(mux->ops->progress(mux));
    children[0].has_work = true;
    assert_true(mux->ops->progress(mux));
    children[0].has_work = false;
    children[1].has_work = true;
    assert_true(mux->ops->progress(mux));
    assert_int_equal(children[0].progresses, 3);
    assert_int_equal(children[1].progresses, 3);
}

static void a_fault_of_one_is_a_fault_of_all(void **state)
{
    (void)state;
    children[1].transport.fault =
        (struct kolo__fault){.status = KOLO_ERR_PEER_LOST, .peer = 2, .text = "rank 2 died"};
    mux->ops->progress(mux);
    assert_int_equal(mux->fault.status, KOLO_ERR_PEER_LOST);
    assert_string_equal(mux->fault.text, "rank 2 died");
    assert_int_equal(children[0].transport.fault.status, KOLO_ERR_PEER_LOST);
    const struct kolo__fault second = {.status = KOLO_ERR_ABORTED, .peer = -1, .text = "later"};
    (mux->ops->fail)(mux, &second); /* cmocka's fail is a macro */
    assert_string_equal(mux->fault.text, "rank 2 died");
}

static void work_of_any_child_keeps_all_awake(void **state)
{
    (void)state;
    children[1].has_work = true;
    assert_false(mux->ops->arm(mux));
    assert_int_equal(children[0].disarms, 1); /* it had been armed */
    assert_int_equal(children[1].disarms, 0);
    children[1].has_work = false;
    assert_true(mux->ops->arm(mux));
    struct pollfd ready = {.fd = mux->ops->wait_fd(mux), .events = POLLIN};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(poll(&ready, 1, 0), 0);
        assert_int_equal(eventfd_write(children[i].event_fd, 1), 0);
        assert_int_equal(poll(&ready, 1, 10000), 1);
        eventfd_t value;
        assert_int_equal(eventfd_read(children[i].event_fd, &value), 0);
    }
    mux->ops->disarm(mux);
    assert_int_equal(children[0].disarms, 2);
    assert_int_equal(children[1].disarms, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(posts_go_by_the_peer, open_mux, close_mux),
        cmocka_unit_test_setup_teardown(every_child_makes_progress, open_mux, close_mux),
        cmocka_unit_test_setup_teardown(a_fault_of_one_is_a_fault_of_all, open_mux, close_mux),
        cmocka_unit_test_setup_teardown(work_of_any_child_keeps_all_awake, open_mux, close_mux),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
