/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as text, connections, and waits that end. */
#include "base/clock.h"
#include "base/socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static uint64_t soon(void)
{
    return kolo__now_ns(&kolo__real_clock) + 5000000000u;
}

static void test_address_text(void **state)
{
    (void)state;
    static const char *const good[] = {"127.0.0.1:80", "[::1]:65535", "10.1.2.3:0",
                                       "[fe80::1%lo]:80"}; /* nothing without its interface */
    static const char *const bad[] = {"127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80", ":80",
                                      "host:80",   "",           "1.2.3.4:8x",      "[::1]80"};
    struct kolo__address address;
    char text[80];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(kolo__address_parse(good[i], &address), KOLO_OK);
        assert_string_equal(kolo__address_text(&address, text, sizeof text), good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_not_equal(kolo__address_parse(bad[i], &address), KOLO_OK);
    assert_int_equal(kolo__address_parse("127.9.9.9:1", &address), KOLO_OK);
    assert_true(kolo__address_is_loopback(&address));
    assert_int_equal(kolo__address_parse("128.0.0.1:1", &address), KOLO_OK);
    assert_false(kolo__address_is_loopback(&address));
}

static void test_endpoint_text(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        ",",
        "1.2.3.4:5,",
        "1.2.3.4",
        "a:1",
        ";1.2.3.4:5",
        "1.2.3.4:5;",
        "1.2.3.4:5;1.2.3.5:5;1.2.3.6:5",
        "1.2.3.4:5,;1.2.3.5:5",
        "[::]:1,[::]:2,[::]:3,[::]:4,[::]:5,[::]:6,[::]:7,[::]:8,[::]:9"};
    const char *good = "10.0.0.1:5000,[fd00::1]:5001";
    struct kolo__endpoint endpoint;
    char text[KOLO__ENDPOINT_TEXT_BYTES];
    assert_int_equal(kolo__endpoint_parse(good, &endpoint), KOLO_OK);
    assert_int_equal(endpoint.count, 2);
    assert_string_equal(kolo__endpoint_text(&endpoint, text), good);
    assert_int_equal(endpoint.alternatives, 0);
    const char *both = "10.0.0.1:5000,10.1.0.1:5000;[fd00::1]:5001,[fd00::2]:5001";
    assert_int_equal(kolo__endpoint_parse(both, &endpoint), KOLO_OK);
    assert_int_equal(endpoint.count, 4);
    assert_int_equal(endpoint.alternatives, 2);
    assert_string_equal(kolo__endpoint_text(&endpoint, text), both);
    kolo__address_set_port(&endpoint.addresses[1], 65535);
    assert_int_equal(kolo__address_port(&endpoint.addresses[1]), 65535);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_not_equal(kolo__endpoint_parse(bad[i], &endpoint), KOLO_OK);
}

/* A socket of both families sees IPv4 as a kind of IPv6. */
static void test_both_families(void **state)
{
    (void)state;
    struct kolo__address bound, plain, mapped, other;
    char text[80];
    int listener, fd;
    assert_int_equal(kolo__listen("*", 0, &listener, &bound), KOLO_OK);
    assert_int_equal(kolo__address_parse("127.0.0.1:0", &plain), KOLO_OK);
    assert_int_equal(kolo__address_parse("[::ffff:127.0.0.1]:0", &mapped), KOLO_OK);
    assert_int_equal(kolo__address_parse("127.0.0.2:0", &other), KOLO_OK);
    assert_true(kolo__address_same_host(&plain, &mapped));
    assert_false(kolo__address_same_host(&plain, &other));
    assert_true(kolo__address_is_loopback(&mapped));
    assert_string_equal(kolo__address_text(&mapped, text, sizeof text), "127.0.0.1:0");
    kolo__address_set_port(&plain, kolo__address_port(&bound));
    assert_int_equal(kolo__connect(kolo__address_text(&plain, text, sizeof text), soon(), &fd),
                     KOLO_OK);
    close(fd);
    close(listener);
}

static void test_bytes_go_and_come(void **state)
{
    (void)state;
    struct kolo__address bound;
    char text[80], got[5];
    int listener, client;
    assert_int_equal(kolo__listen("127.0.0.1", 0, &listener, &bound), KOLO_OK);
    kolo__address_text(&bound, text, sizeof text);
    assert_int_equal(kolo__connect(text, soon(), &client), KOLO_OK);
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 5000), 1);
    int server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    kolo__tune_stream(client);
    assert_int_equal(kolo__send_all(client, "hello", 5, soon()), KOLO_OK);
    assert_int_equal(kolo__recv_all(server, got, 5, soon()), KOLO_OK);
    assert_memory_equal(got, "hello", 5);

    uint64_t short_deadline = kolo__now_ns(&kolo__real_clock) + 50000000u;
    assert_int_equal(kolo__recv_all(client, got, 1, short_deadline), KOLO_ERR_TIMEOUT);
    close(server);
    assert_int_equal(kolo__recv_all(client, got, 1, soon()), KOLO_ERR_PEER_LOST);
    close(client);
    close(listener);
    assert_int_equal(kolo__connect(text, soon(), &client), KOLO_ERR_NETWORK); /* refused */
}

/* A connection of this host whose system paces by timers is told not to; another is left alone. */
static void test_taken(void **state)
{
    (void)state;
    struct kolo__address bound;
    int first, second;
    assert_int_equal(kolo__listen("*", 0, &first, &bound), KOLO_OK);
    int port = kolo__address_port(&bound);
    assert_int_equal(kolo__listen("*", port, &second, &bound), KOLO_ERR_SYSTEM);
    assert_int_equal(errno, EADDRINUSE);
    assert_non_null(strstr(kolo_error_text(), "cannot listen on all addresses (*) port "));
    assert_int_equal(kolo__listen("127.0.0.1", port, &second, &bound), KOLO_ERR_SYSTEM);
    assert_non_null(strstr(kolo_error_text(), "cannot listen on 127.0.0.1 port "));
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(kolo__listen("192.0.2.1", port, &second, &bound), KOLO_ERR_SYSTEM);
    assert_int_equal(errno, EADDRNOTAVAIL);
    assert_int_not_equal(kolo__listen("here", port, &second, &bound), KOLO_OK);
    assert_int_equal(errno, EADDRNOTAVAIL);
    close(first);
}

static void check_congestion_control(const char *before, const char *after)
{
    struct kolo__address bound;
    char text[80], control[16] = "";
    socklen_t bytes = sizeof control - 1;
    int listener, client;
    assert_int_equal(kolo__listen("127.0.0.1", 0, &listener, &bound), KOLO_OK);
    assert_int_equal(kolo__connect(kolo__address_text(&bound, text, sizeof text), soon(), &client),
                     KOLO_OK);
    if (setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, before, (socklen_t)strlen(before)) == 0) {
        kolo__tune_data_stream(client);
        assert_int_equal(getsockopt(client, IPPROTO_TCP, TCP_CONGESTION, control, &bytes), 0);
        assert_string_equal(control, after);
    } else {
        print_message("this kernel has no %s\n", before);
    }
    close(client);
    close(listener);
}

static void test_congestion_control(void **state)
{
    (void)state;
    check_congestion_control("bbr", "reno");
    check_congestion_control("reno", "reno");
    check_congestion_control("cubic", "cubic");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_address_text),
        cmocka_unit_test(test_endpoint_text),
        cmocka_unit_test(test_both_families),
        cmocka_unit_test(test_bytes_go_and_come),
        cmocka_unit_test(test_congestion_control),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
