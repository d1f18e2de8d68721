/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a host's interfaces are used: the filter's grammar, the order, what is never taken. */
#include "base/interfaces.h"

#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static void test_filter(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *name;
        bool allowed, named;
    } cases[] = {
        {"", "eth0", true, false},          {"eth0", "eth0", true, true},
        {"eth0", "eth01", true, true},      {"=eth0", "eth01", false, false},
        {"=eth0", "eth0", true, true},      {"eth", "ib0", false, false},
        {"eth,ib", "ib0", true, true},      {"^docker0", "docker0", false, false},
        {"^docker0", "eth0", true, false},  {"^docker", "docker7", false, false},
        {"^=eth0", "eth01", true, false},   {"^=eth0", "eth0", false, false},
        {"eth,^eth1", "eth1", false, true}, {"eth,^eth1", "eth0", true, true},
        {"^eth1,ib", "ib0", false, false},  {"^a,^b", "b0", false, false},
        {"=eth0,ib", "ib0", false, false},  {"=eth0,ib", "ib", true, true},
        {"^=eth0,ib", "ib0", true, false},  {"^=eth0,ib", "ib", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool named;
        assert_int_equal(kolo__interface_filter_check(cases[i].filter), KOLO_OK);
        bool allowed = kolo__interface_filter_allows(cases[i].filter, cases[i].name, &named);
        if (allowed != cases[i].allowed || named != cases[i].named)
            fail_msg("%s, %s: allowed %d, named %d", cases[i].filter, cases[i].name, allowed,
                     named);
    }
}

static void test_bad_filter(void **state)
{
    (void)state;
    static const char *const bad[] = {",",      "eth0,", ",eth0",   "^",
                                      "=",      "^=",    "=^eth0",  "e h",
                                      "^^eth0", "a,,b",  "eth0/24", "name-that-is-too-long"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (kolo__interface_filter_check(bad[i]) != KOLO_ERR_CONFIG)
            fail_msg("'%s' was accepted", bad[i]);
        assert_non_null(strstr(kolo_error_text(), "KOLO_NET="));
    }
}

/* "eth0 10.0.0.1 24 25000": name, address, prefix, speed. Loopback is what begins with lo. */
static struct kolo__interface make(const char *text)
{
    struct kolo__interface made = {.prefix_bits = 0};
    char address[64], with_port[80];
    unsigned prefix, speed;
    assert_int_equal(sscanf(text, "%15s %63s %u %u", made.name, address, &prefix, &speed), 4);
    snprintf(with_port, sizeof with_port, strchr(address, ':') != NULL ? "[%s]:0" : "%s:0",
             address);
    assert_int_equal(kolo__address_parse(with_port, &made.address), KOLO_OK);
    made.prefix_bits = prefix;
    made.speed_mbps = speed;
    made.loopback = strncmp(made.name, "lo", 2) == 0;
    return made;
}

static void assert_choice(const char *filter, const char *expected)
{
    static const char *const host[] = {
        "lo 127.0.0.1 8 0",
        "lo ::1 128 0",
        "docker0 172.17.0.1 16 0",
        "eth0 fd00::5 64 1000",
        "eth0 10.0.0.5 24 1000",
        "eth1 10.1.0.5 24 25000",
        "cali12 169.254.1.1 32 10000",
    };
    struct kolo__interface interfaces[7];
    char names[200] = "";
    for (size_t i = 0; i < 7; i++)
        interfaces[i] = make(host[i]);
    size_t count = kolo__interfaces_choose(filter, interfaces, 7);
    for (size_t i = 0; i < count; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%.15s%s", i > 0 ? " " : "",
                 interfaces[i].name,
                 interfaces[i].address.storage.ss_family == AF_INET6 ? "/6" : "");
    if (strcmp(names, expected) != 0)
        fail_msg("'%s' chose '%s', not '%s'", filter, names, expected);
}

static void test_each_is_named_once(void **state)
{
    (void)state;
    struct kolo__interfaces found;
    assert_int_equal(kolo__interfaces_find("=none7", &found), KOLO_ERR_CONFIG);
    const char *first = strstr(kolo_error_text(), " lo");
    assert_non_null(first);
    for (const char *next = first + 3; (next = strstr(next, " lo")) != NULL; next += 3)
        assert_false(next[3] == ' ' || next[3] == '\0'); /* 127.0.0.1 and ::1 */
}

static void test_choice(void **state)
{
    (void)state;
    assert_choice("", "eth1 eth0 eth0/6");
    assert_choice("eth0", "eth0 eth0/6");
    assert_choice("^eth1", "eth0 eth0/6");
    assert_choice("docker0", "docker0");
    assert_choice("docker,eth1", "eth1 docker0");
    assert_choice("^eth", "cali12 docker0"); /* better than nothing */
    assert_choice("^eth,^docker,^cali", "lo lo/6");
    assert_choice("lo", "lo lo/6");
    assert_choice("wlan", "");
}

static void test_find(void **state)
{
    (void)state;
    struct kolo__interfaces found;
    assert_int_equal(kolo__interfaces_find("lo", &found), KOLO_OK);
    assert_true(found.count >= 1);
    assert_string_equal(found.list[0].name, "lo");
    assert_true(kolo__address_is_loopback(&found.list[0].address));
    assert_int_equal(kolo__interfaces_find("nosuch", &found), KOLO_ERR_CONFIG);
    assert_non_null(strstr(kolo_error_text(), " lo"));
    assert_int_equal(kolo__interfaces_find("", &found), KOLO_OK);
    assert_true(found.count >= 1);
}

static void test_reach(void **state)
{
    (void)state;
    struct kolo__interface v4 = make("eth0 10.0.8.5 21 0"), v6 = make("eth0 fd00:1::5 48 0");
    struct kolo__address other;
    static const struct {
        const char *address;
        bool v4, v6;
    } cases[] = {{"10.0.15.255:9", true, false},
                 {"10.0.16.0:9", false, false},
                 {"[fd00:1:0:ffff::1]:9", false, true},
                 {"[fd00:2::1]:9", false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(kolo__address_parse(cases[i].address, &other), KOLO_OK);
        assert_int_equal(kolo__interface_reaches(&v4, &other), cases[i].v4);
        assert_int_equal(kolo__interface_reaches(&v6, &other), cases[i].v6);
    }
}

static void test_sort(void **state)
{
    (void)state;
    struct kolo__interfaces own = {.count = 2};
    struct kolo__endpoint endpoint;
    char text[KOLO__ENDPOINT_TEXT_BYTES];
    own.list[0] = make("eth1 10.1.0.5 24 25000");
    own.list[1] = make("eth0 10.0.0.5 24 1000");
    assert_int_equal(
        kolo__endpoint_parse("10.9.0.1:7,10.0.0.9:7,[fd00::1]:7,10.1.0.9:7", &endpoint), KOLO_OK);
    kolo__interfaces_sort(&own, &endpoint);
    assert_string_equal(kolo__endpoint_text(&endpoint, text),
                        "10.1.0.9:7,10.0.0.9:7,10.9.0.1:7,[fd00::1]:7");
    /* An alternative that is near stays behind what is for use. */
    assert_int_equal(kolo__endpoint_parse("10.9.0.1:7;[fd00::1]:7,10.1.0.9:7", &endpoint), KOLO_OK);
    kolo__interfaces_sort(&own, &endpoint);
    assert_string_equal(kolo__endpoint_text(&endpoint, text), "10.9.0.1:7;10.1.0.9:7,[fd00::1]:7");
}

static void assert_endpoint(const char *const *host, size_t count, const char *expected)
{
    struct kolo__interfaces own = {.count = count};
    struct kolo__endpoint endpoint;
    char text[KOLO__ENDPOINT_TEXT_BYTES];
    for (size_t i = 0; i < count; i++)
        own.list[i] = make(host[i]);
    kolo__interfaces_endpoint(&own, &endpoint);
    assert_string_equal(kolo__endpoint_text(&endpoint, text), expected);
}

static void test_endpoint(void **state)
{
    (void)state;
    static const char *const one[] = {"eth0 10.0.0.5 24 0", "eth0 fd00::5 64 0"};
    assert_endpoint(one, 2, "10.0.0.5:0;[fd00::5]:0");
    assert_endpoint(one + 1, 1, "[fd00::5]:0");
    /* Half as fast serves, slower does not; whose speed is not known does. */
    static const char *const many[] = {"eth2 10.2.0.5 24 100000", "eth2 fd02::5 64 100000",
                                       "eth1 10.1.0.5 24 50000",  "eth0 10.0.0.5 24 40000",
                                       "ib0 fd03::5 64 0",        "ib0 10.3.0.5 24 0"};
    assert_endpoint(many, 6, "10.2.0.5:0,10.1.0.5:0,[fd03::5]:0;[fd02::5]:0,10.0.0.5:0,10.3.0.5:0");
}

static void test_source(void **state)
{
    (void)state;
    struct kolo__interfaces own = {.count = 3};
    struct kolo__address other;
    own.list[0] = make("eth0 10.0.0.5 24 0");
    own.list[1] = make("eth1 10.1.0.5 24 0");
    own.list[2] = make("eth2 10.1.0.6 24 0");
    assert_int_equal(kolo__address_parse("10.1.0.9:7", &other), KOLO_OK);
    assert_ptr_equal(kolo__interfaces_source(&own, &other, 0), &own.list[1].address);
    assert_ptr_equal(kolo__interfaces_source(&own, &other, 1), &own.list[2].address);
    assert_ptr_equal(kolo__interfaces_source(&own, &other, 2), &own.list[1].address);
    assert_int_equal(kolo__address_parse("10.2.0.9:7", &other), KOLO_OK);
    assert_null(kolo__interfaces_source(&own, &other, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_named_once),
        cmocka_unit_test(test_filter),
        cmocka_unit_test(test_bad_filter),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_reach),
        cmocka_unit_test(test_sort),
        cmocka_unit_test(test_endpoint),
        cmocka_unit_test(test_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
