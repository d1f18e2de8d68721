/* SPDX-License-Identifier: Apache-2.0 */
/* What /metrics says of given counters, and where it is to be had. (The text as a whole is read by
 * a strict parser in integration/metrics.) */
#include "runtime/metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static struct kolo__metrics metrics;
static struct kolo__sheet sheets[2];
static char *text;

static int begin(void **state)
{
    (void)state;
    memset(&metrics, 0, sizeof metrics);
    memset(sheets, 0, sizeof sheets);
    pthread_mutex_init(&metrics.lock, NULL);
    metrics.rank = 3;
    metrics.size = 5;
    metrics.sheets = &sheets[0];
    sheets[0].next = &sheets[1];
    sheets[0].lock = sheets[1].lock = &metrics.lock;
    return 0;
}

static int end(void **state)
{
    (void)state;
    free(text);
    text = NULL;
    pthread_mutex_destroy(&metrics.lock);
    return 0;
}

static void render(void)
{
    size_t bytes = 0;
    free(text);
    text = kolo__metrics_text(&metrics, &bytes);
    assert_non_null(text);
    assert_int_equal(strlen(text), bytes);
}

/* A line of its own. */
static void expect_line(const char *line)
{
    char wanted[400];
    snprintf(wanted, sizeof wanted, "\n%s\n", line);
    if (strstr(text, wanted) == NULL)
        fail_msg("no line '%s' in:\n%s", line, text);
}

static void test_labels_are_escaped(void **state)
{
    (void)state;
    snprintf(metrics.job, sizeof metrics.job, "%s", "a \"b\"\\c\nd\te\xc3\xa9");
    snprintf(metrics.host_name, sizeof metrics.host_name, "%s", "h");
    snprintf(metrics.launcher, sizeof metrics.launcher, "%s", "l");
    render();
    expect_line("kolo_world_info{rank=\"3\",host=\"h\",job_id=\"a \\\"b\\\"\\\\c\\nd?e"
                "\?\?\",launcher=\"l\"} 1");
    expect_line("kolo_world_size{rank=\"3\"} 5");
}

static void test_sheets_and_tallies_add_up(void **state)
{
    (void)state;
    struct kolo__tally tallies[2] = {
        {.collective = KOLO__ALLREDUCE, .bytes = 8, .sent = 4, .received = 2},
        {.collective = KOLO__ALLREDUCE, .bytes = 100, .sent = 50, .received = 50},
    };
    kolo__tally_begin(&tallies[0], &sheets[0]);
    kolo__tally_begin(&tallies[1], &sheets[1]);
    kolo__counter_add(&tallies[0].runs, 10);
    kolo__counter_add(&tallies[1].runs, 1);
    /* The same while they are there and after their end, in any order; and twice is once. */
    for (int i = 0; i < 4; i++) {
        render();
        expect_line("kolo_operations_total{rank=\"3\",collective=\"allreduce\"} 11");
        expect_line("kolo_operation_bytes_total{rank=\"3\",collective=\"allreduce\"} 180");
        expect_line("kolo_sent_bytes_total{rank=\"3\",transport=\"mapped\"} 90");
        expect_line("kolo_received_bytes_total{rank=\"3\",transport=\"mapped\"} 70");
        kolo__tally_end(&tallies[i % 2]);
    }
}

static void test_untimed_operations_are_in_the_first_bucket(void **state)
{
    (void)state;
    struct kolo__counter *timed = sheets[1].timed[KOLO__BROADCAST];
    kolo__counter_add(&sheets[0].operations[KOLO__BROADCAST], 6);
    kolo__counter_add(&sheets[1].operations[KOLO__BROADCAST], 4);
    kolo__counter_add(&timed[0], 1);
    kolo__counter_add(&timed[2], 2);
    kolo__counter_add(&timed[KOLO__METRICS_BUCKETS], 3);
    kolo__counter_add(&sheets[1].timed_ns[KOLO__BROADCAST], 12000000034);
    render();
#define SERIES(part) "kolo_operation_seconds_" part "{rank=\"3\",collective=\"broadcast\""
    expect_line(SERIES("bucket") ",le=\"0.00001\"} 5");
    expect_line(SERIES("bucket") ",le=\"0.0001\"} 5");
    expect_line(SERIES("bucket") ",le=\"0.001\"} 7");
    expect_line(SERIES("bucket") ",le=\"10\"} 7");
    expect_line(SERIES("bucket") ",le=\"+Inf\"} 10");
    expect_line(SERIES("count") "} 10");
    expect_line(SERIES("sum") "} 12.000000034");
}

/* A scrape between the two additions of an operation that is timed. */
static void test_a_time_may_come_before_its_operation(void **state)
{
    (void)state;
    kolo__counter_add(&sheets[0].operations[KOLO__BROADCAST], 1);
    kolo__counter_add(&sheets[0].timed[KOLO__BROADCAST][1], 2);
    render();
    expect_line(SERIES("bucket") ",le=\"0.00001\"} 0");
    expect_line(SERIES("bucket") ",le=\"+Inf\"} 2");
    expect_line(SERIES("count") "} 2");
}

static void test_waits_have_their_peers(void **state)
{
    (void)state;
    static kolo_context context = {.metrics = &metrics};
    uint32_t world_ranks[200];
    for (uint32_t i = 0; i < 200; i++)
        world_ranks[i] = 1000 + i;
    kolo_comm comm = {
        .context = &context, .size = 200, .world_ranks = world_ranks, .sheet = &sheets[0]};
    kolo__metrics_waited(&comm, 2000000000, 7, false);
    kolo__metrics_waited(&comm, 1000000, 7, true);  /* more of the same */
    kolo__metrics_waited(&comm, 99999, 7, false);   /* too short to be late */
    kolo__metrics_waited(&comm, 500000, -1, false); /* nobody knows for whom */
    render();
    expect_line("kolo_wait_seconds_total{rank=\"3\"} 2.001599999");
    expect_line("kolo_peer_wait_seconds_total{rank=\"3\",peer=\"1007\"} 2.001000000");
    expect_line("kolo_late_arrivals_total{rank=\"3\",peer=\"1007\"} 1");
    /* More peers than have their own number. */
    for (int i = 0; i < 200; i++)
        kolo__metrics_waited(&comm, 1000000, i, false);
    render();
    expect_line("kolo_late_arrivals_total{rank=\"3\",peer=\"1007\"} 2");
    expect_line("kolo_late_arrivals_total{rank=\"3\",peer=\"1062\"} 1");
    expect_line("kolo_late_arrivals_total{rank=\"3\",peer=\"other\"} 136");
}

static void test_failures_have_their_status(void **state)
{
    (void)state;
    kolo_comm comm = {.sheet = &sheets[1]};
    kolo__metrics_failed(&comm, KOLO_ERR_PEER_LOST);
    kolo__metrics_failed(&comm, (kolo_status)1000);
    render();
    expect_line("kolo_failures_total{rank=\"3\",status=\"KOLO_ERR_PEER_LOST\"} 1");
    expect_line("kolo_failures_total{rank=\"3\",status=\"KOLO_ERR_ABORTED\"} 0");
    expect_line("kolo_failures_total{rank=\"3\",status=\"KOLO_ERR_UNSUPPORTED\"} 0");
    assert_null(strstr(text, "KOLO_OK"));
}

static void test_places(void **state)
{
    (void)state;
    static const struct {
        const char *option;
        bool in_pod;
        const char *host;
        int port; /* -1: refused */
    } cases[] = {
        {"", false, "127.0.0.1", 0},
        {"", true, "*", 9700},
        {"0", false, "127.0.0.1", 0},
        {"0", true, "*", 0},
        {"9800", false, "127.0.0.1", 9800},
        {"9800", true, "*", 9800},
        {"10.0.0.1:1", true, "10.0.0.1", 1},
        {"[::]:65535", false, "::", 65535},
        {"*:9700", false, "*", 9700},
        {"65536", false, NULL, -1},
        {"-1", false, NULL, -1},
        {"x", true, NULL, -1},
        {"9700x", true, NULL, -1},
        {":", false, NULL, -1},
        {"127.0.0.1:", false, NULL, -1},
        {"127.0.0.1:0", false, NULL, -1},
        {"::1", false, NULL, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char host[64];
        int port = 0;
        kolo_status status =
            kolo__metrics_place(cases[i].option, cases[i].in_pod, host, sizeof host, &port);
        if (cases[i].port < 0) {
            if (status != KOLO_ERR_CONFIG)
                fail_msg("'%s' was taken", cases[i].option);
            assert_non_null(strstr(kolo_error_text(), cases[i].option));
            continue;
        }
        assert_int_equal(status, KOLO_OK);
        assert_int_equal(port, cases[i].port);
        assert_string_equal(host, cases[i].host);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_labels_are_escaped, begin, end),
        cmocka_unit_test_setup_teardown(test_sheets_and_tallies_add_up, begin, end),
        cmocka_unit_test_setup_teardown(test_untimed_operations_are_in_the_first_bucket, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_a_time_may_come_before_its_operation, begin, end),
        cmocka_unit_test_setup_teardown(test_waits_have_their_peers, begin, end),
        cmocka_unit_test_setup_teardown(test_failures_have_their_status, begin, end),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
