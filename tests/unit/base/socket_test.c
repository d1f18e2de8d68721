/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as text, connections, and waits that end. */
#include "base/clock.h"
#include "base/socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
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
    static const char *const good[] = {"127.0.0.1:80", "[::1]:65535", "10.1.2.3:0"};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_text),
        cmocka_unit_test(test_bytes_go_and_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
