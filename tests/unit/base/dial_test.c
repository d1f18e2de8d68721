/* SPDX-License-Identifier: Apache-2.0 */
/* Several addresses, some dead, some silent, some wrong: the one that answers is found. */
#include "base/clock.h"
#include "base/dial.h"
#include "base/local_addresses.h"
#include "base/socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG_FILLERS = 64 };

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * 1000000000ull;
}

static int listen_at(const char *host, char address[80])
{
    struct kolo__address bound;
    int fd;
    assert_int_equal(kolo__listen(host, 0, &fd, &bound), KOLO_OK);
    kolo__address_text(&bound, address, 80);
    return fd;
}

/* An address at which nobody listens any more. */
static void find_dead(char address[80])
{
    close(listen_at("127.0.0.1", address));
}

/* Fills the queue of a listener with a short one: the kernel then drops who wants to connect. */
static void fill(int listener, const char *address, int fillers[BACKLOG_FILLERS])
{
    struct kolo__address target;
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(kolo__address_parse(address, &target), KOLO_OK);
    for (int i = 0; i < BACKLOG_FILLERS; i++)
        assert_int_equal(kolo__connect_start(&target, NULL, &fillers[i]), KOLO_OK);
}

static void takes_the_one_that_answers(void **state)
{
    (void)state;
    char dead[80], alive[80], list[300];
    struct kolo__dial *dial;
    int listener = listen_at("127.0.0.1", alive), fd, more;
    find_dead(dead);
    snprintf(list, sizeof list, "%s,%s,nowhere.invalid:5000", dead, alive);
    assert_int_equal(kolo__dial_open(list, &dial), KOLO_OK);
    assert_int_equal(kolo__dial_next(dial, in_seconds(5), &fd), KOLO_OK);
    assert_true(accept(listener, NULL, NULL) >= 0);
    close(fd);

    /* It was the wrong one: then there is no other, and each is named with its reason. */
    kolo__dial_refuse(dial, "it is somebody else", false);
    assert_int_equal(kolo__dial_next(dial, in_seconds(20), &more), KOLO_ERR_NETWORK);
    char report[600], wanted[200];
    kolo__dial_report(dial, report, sizeof report);
    snprintf(wanted, sizeof wanted, "%s: cannot connect: Connection refused; ", dead);
    assert_non_null(strstr(report, wanted));
    snprintf(wanted, sizeof wanted, "%s: it is somebody else; ", alive);
    assert_non_null(strstr(report, wanted));
    assert_non_null(strstr(report, "nowhere.invalid:5000: cannot resolve 'nowhere.invalid': "));
    assert_false(kolo__dial_all_refused(dial));
    kolo__dial_close(dial);
    close(listener);
}

static void does_not_wait_for_a_silent_one(void **state)
{
    (void)state;
    char silent[80], alive[80], list[200], report[600];
    int fillers[BACKLOG_FILLERS], fd;
    struct kolo__dial *dial;
    int dumb = listen_at("127.0.0.1", silent), listener = listen_at("127.0.0.1", alive);
    fill(dumb, silent, fillers);
    snprintf(list, sizeof list, "%s,%s", silent, alive);
    assert_int_equal(kolo__dial_open(list, &dial), KOLO_OK);
    assert_int_equal(kolo__dial_next(dial, in_seconds(60), &fd), KOLO_OK);
    assert_true(accept(listener, NULL, NULL) >= 0);
    assert_non_null(strstr(kolo__dial_report(dial, report, sizeof report), "no answer; "));
    kolo__dial_close(dial);

    /* Alone, it is waited for until the deadline. */
    assert_int_equal(kolo__dial_open(silent, &dial), KOLO_OK);
    uint64_t soon = kolo__now_ns(&kolo__real_clock) + 300000000u;
    assert_int_equal(kolo__dial_next(dial, soon, &fd), KOLO_ERR_TIMEOUT);
    kolo__dial_close(dial);
    for (int i = 0; i < BACKLOG_FILLERS; i++)
        close(fillers[i]);
    close(dumb);
    close(listener);
}

static void takes_all_addresses_of_a_name(void **state)
{
    (void)state;
    struct kolo__dial *dial;
    char address[80], name[100];
    int listener = listen_at("127.0.0.1", address), fd;
    snprintf(name, sizeof name, "localhost%s", strrchr(address, ':'));
    assert_int_equal(kolo__dial_open(name, &dial), KOLO_OK);
    assert_int_equal(kolo__dial_next(dial, in_seconds(5), &fd), KOLO_OK);
    kolo__dial_refuse(dial, "wrong token", false);
    while (kolo__dial_next(dial, in_seconds(5), &fd) == KOLO_OK)
        kolo__dial_refuse(dial, "wrong token", false);
    assert_non_null(strstr(kolo_error_text(), name));
    assert_non_null(strstr(kolo_error_text(), address));
    kolo__dial_close(dial);
    close(listener);
}

/* A report is cut where it is full: 16 ports of one name must not fill it. */
static void says_once_what_ports_of_a_host_have_in_common(void **state)
{
    (void)state;
    char list[300] = "nowhere.invalid:5000,nowhere.invalid:5001,elsewhere.invalid:5001",
         report[600];
    char dead[80];
    struct kolo__dial *dial;
    int fd;
    find_dead(dead);
    snprintf(list + strlen(list), sizeof list - strlen(list), ",%s", dead);
    assert_int_equal(kolo__dial_open(list, &dial), KOLO_OK);
    assert_int_equal(kolo__dial_next(dial, in_seconds(20), &fd), KOLO_ERR_NETWORK);
    kolo__dial_report(dial, report, sizeof report);
    assert_non_null(
        strstr(report, "nowhere.invalid:5000 and 1 more of its ports: cannot resolve 'nowhere"));
    assert_null(strstr(report, "nowhere.invalid:5001"));
    assert_non_null(strstr(report, "; elsewhere.invalid:5001: cannot resolve 'elsewhere"));
    assert_non_null(strstr(report, dead));
    kolo__dial_close(dial);
}

static void refuses_what_is_no_list(void **state)
{
    (void)state;
    static const char *const bad[] = {"",         ",",         "a:1,", ",a:1",
                                      "a:1,,b:2", "a:1,::1:2", "a",    "a:1,b"};
    struct kolo__dial *dial;
    char many[KOLO__DIAL_MAX * 8] = "a:1";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(kolo__dial_open(bad[i], &dial), KOLO_ERR_CONFIG);
    for (int i = 0; i < KOLO__DIAL_MAX; i++)
        strcat(many, ",a:1");
    assert_int_equal(kolo__dial_open(many, &dial), KOLO_ERR_CONFIG);
}

static void local_addresses_can_be_listened_on(void **state)
{
    (void)state;
    char text[KOLO__LOCAL_ADDRESSES_BYTES], *rest = text, *host;
    struct kolo__address bound;
    int fd;
    assert_int_equal(kolo__local_addresses(text), KOLO_OK);
    while (text[0] != '\0' && (host = strsep(&rest, ",")) != NULL) {
        assert_int_equal(kolo__listen(host, 0, &fd, &bound), KOLO_OK);
        assert_false(kolo__address_is_loopback(&bound));
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_the_one_that_answers),
        cmocka_unit_test(does_not_wait_for_a_silent_one),
        cmocka_unit_test(takes_all_addresses_of_a_name),
        cmocka_unit_test(says_once_what_ports_of_a_host_have_in_common),
        cmocka_unit_test(refuses_what_is_no_list),
        cmocka_unit_test(local_addresses_can_be_listened_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
