/* SPDX-License-Identifier: Apache-2.0 */
/* What follows from measurements, on hosts that were never there; and who meets whom. */
#include "launcher/doctor/clinic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { HOSTS = 4 };

struct ward {
    struct kolo__doctor_host hosts[HOSTS];
    struct kolo__doctor_trial trials[HOSTS * HOSTS];
    struct kolo__doctor_case patient;
    struct kolo__findings findings;
};

static struct kolo__doctor_trial *trial(struct ward *ward, uint32_t from, uint32_t to)
{
    return &ward->trials[from * ward->patient.host_count + to];
}

/* So many hosts a, b, ... with nothing wrong: two addresses each, all links alike. */
static void make_healthy(struct ward *ward, uint32_t count)
{
    memset(ward, 0, sizeof *ward);
    ward->patient = (struct kolo__doctor_case){.host_count = count,
                                               .hosts = ward->hosts,
                                               .trials = ward->trials,
                                               .version = "1.2.3",
                                               .token_file = ""};
    for (uint32_t i = 0; i < count; i++) {
        struct kolo__doctor_host *host = &ward->hosts[i];
        snprintf(host->name, sizeof host->name, "%c", 'a' + (int)i);
        strcpy(host->version, "1.2.3");
        host->answers = true;
        host->slots = 2;
        host->facts = (struct kolo__doctor_facts){
            .host = {(char)('a' + i)},
            .limits = {.memlock_bytes = UINT64_MAX,
                       .open_files = 1024,
                       .shm_bytes = 1u << 30,
                       .processors = 8,
                       .memory_limit_bytes = UINT64_MAX},
            .address_count = 2,
            .addresses = {{"eth0", "10.0.0.1:1", 1500}, {"eth1", "10.1.0.1:1", 9000}}};
        for (uint32_t k = 0; k < count; k++) {
            if (k == i)
                continue;
            struct kolo__doctor_trial *made = trial(ward, i, k);
            made->tried = true;
            made->count = 2;
            for (uint32_t a = 0; a < 2; a++)
                made->links[a] = (struct kolo__link){.stage = KOLO__LINK_DONE,
                                                     .round_trip_ns = 50000,
                                                     .bytes_per_second = 1000000000};
        }
    }
}

/* Exactly these findings, in this order; up to a 0. */
static void expect(struct ward *ward, const int *wanted)
{
    uint32_t count = 0;
    kolo__judge(&ward->patient, &ward->findings);
    while (wanted[count] != 0)
        count++;
    for (uint32_t i = 0; i < ward->findings.count; i++) {
        if (i < count && (int)ward->findings.list[i].ailment == wanted[i])
            continue;
        fail_msg("finding %u is %d: %s", i, (int)ward->findings.list[i].ailment,
                 ward->findings.list[i].measured);
    }
    assert_int_equal(ward->findings.count, count);
    for (uint32_t i = 0; i < count; i++)
        assert_true(ward->findings.list[i].remedy[0] != '\0');
    kolo__findings_free(&ward->findings);
}

/* EXPECT(ward, ailment, ..., 0) */
#define EXPECT(ward, ...) expect((ward), (const int[]){__VA_ARGS__})

static void healthy_hosts(void **state)
{
    struct ward ward;
    for (uint32_t count = 1; count <= HOSTS; count++) {
        make_healthy(&ward, count);
        EXPECT(&ward, 0);
    }
    (void)state;
}

static void limits(void **state)
{
    struct ward ward;
    make_healthy(&ward, 1);
    ward.hosts[0].facts.limits.memlock_bytes = (8u << 20) - 1;
    EXPECT(&ward, KOLO__AILMENT_MEMLOCK, 0);
    make_healthy(&ward, 1);
    ward.hosts[0].facts.limits.memlock_bytes = 8u << 20;
    ward.hosts[0].facts.limits.shm_bytes = 64u << 20;
    ward.hosts[0].facts.limits.quota_centis = 200;
    EXPECT(&ward, 0);
    ward.hosts[0].facts.limits.shm_bytes--;
    ward.hosts[0].facts.limits.quota_centis--;
    EXPECT(&ward, KOLO__AILMENT_SHM, KOLO__AILMENT_PROCESSORS, 0);
    make_healthy(&ward, 1);
    ward.hosts[0].facts.limits.processors = 1;
    EXPECT(&ward, KOLO__AILMENT_PROCESSORS, 0);
    ward.hosts[0].slots = 0;
    EXPECT(&ward, 0);
    (void)state;
}

static void give_rdma(struct ward *ward, uint32_t host, uint32_t state, uint32_t kind)
{
    ward->hosts[host].facts.rdma = state;
    ward->hosts[host].facts.rdma_kind = kind;
    strcpy(ward->hosts[host].facts.rdma_text, "mlx5_0 port 1: down");
}

static void rdma_that_not_all_have(void **state)
{
    struct ward ward;
    make_healthy(&ward, 3);
    for (uint32_t i = 0; i < 3; i++)
        give_rdma(&ward, i, KOLO__RDMA_USABLE, 2);
    EXPECT(&ward, 0);
    give_rdma(&ward, 2, KOLO__RDMA_USABLE, 1);
    EXPECT(&ward, KOLO__AILMENT_RDMA, 0);
    give_rdma(&ward, 2, KOLO__RDMA_USELESS, 0);
    EXPECT(&ward, KOLO__AILMENT_RDMA, 0);
    give_rdma(&ward, 2, KOLO__RDMA_ABSENT, 0);
    EXPECT(&ward, KOLO__AILMENT_RDMA, 0);
    ward.hosts[0].answers = false; /* nothing is known of it but that */
    EXPECT(&ward, KOLO__AILMENT_DOWN, KOLO__AILMENT_RDMA, 0);
    make_healthy(&ward, 2);
    give_rdma(&ward, 0, KOLO__RDMA_USELESS, 0);
    EXPECT(&ward, KOLO__AILMENT_RDMA, 0);
    (void)state;
}

static void a_host_without_network_explains_what_fails(void **state)
{
    struct ward ward;
    make_healthy(&ward, 1);
    ward.hosts[0].facts.no_network = true;
    EXPECT(&ward, KOLO__AILMENT_NO_NETWORK, 0);
    ward.hosts[0].facts.no_loopback = true;
    EXPECT(&ward, KOLO__AILMENT_NO_NETWORK, KOLO__AILMENT_NO_NETWORK, 0);
    make_healthy(&ward, 3);
    ward.hosts[1].facts.no_network = true;
    ward.hosts[1].facts.address_count = 0;
    for (uint32_t i = 0; i < 3; i += 2) {
        trial(&ward, i, 1)->count = 0;
        trial(&ward, 1, i)->links[0].stage = trial(&ward, 1, i)->links[1].stage =
            KOLO__LINK_CONNECT;
    }
    EXPECT(&ward, KOLO__AILMENT_NO_NETWORK, 0);
    ward.hosts[1].facts.no_network = false;
    ward.hosts[1].facts.no_loopback = true; /* explains nothing between hosts */
    EXPECT(&ward, KOLO__AILMENT_NO_NETWORK, KOLO__AILMENT_UNREACHABLE, KOLO__AILMENT_UNREACHABLE,
           KOLO__AILMENT_UNREACHABLE, KOLO__AILMENT_UNREACHABLE, 0);
    (void)state;
}

static void absent_hosts_are_found_once(void **state)
{
    struct ward ward;
    make_healthy(&ward, 4);
    ward.hosts[1].answers = ward.hosts[2].answers = false;
    ward.hosts[1].version[0] = '\0';
    strcpy(ward.hosts[2].version, "9.9.9");
    /* What others found of them while they ended means nothing. */
    trial(&ward, 0, 1)->links[0].stage = trial(&ward, 0, 1)->links[1].stage = KOLO__LINK_CONNECT;
    EXPECT(&ward, KOLO__AILMENT_DOWN, KOLO__AILMENT_VERSION, 0);
    (void)state;
}

static void tokens(void **state)
{
    struct ward ward;
    make_healthy(&ward, 2);
    ward.hosts[1].facts.token_proof[7] = 1;
    EXPECT(&ward, 0); /* nobody asked */
    ward.patient.token_file = "/run/token";
    EXPECT(&ward, KOLO__AILMENT_TOKEN, 0);
    ward.patient.token_proof[7] = 1;
    strcpy(ward.hosts[1].facts.token_error, "no such file");
    EXPECT(&ward, KOLO__AILMENT_TOKEN, KOLO__AILMENT_TOKEN, 0);
    (void)state;
}

static void one_way(void **state)
{
    struct ward ward;
    make_healthy(&ward, 3);
    trial(&ward, 0, 2)->links[0].stage = trial(&ward, 0, 2)->links[1].stage = KOLO__LINK_CONNECT;
    kolo__judge(&ward.patient, &ward.findings);
    assert_int_equal(ward.findings.count, 1);
    assert_int_equal(ward.findings.list[0].ailment, KOLO__AILMENT_UNREACHABLE);
    assert_non_null(strstr(ward.findings.list[0].measured, "a cannot reach c (though"));
    kolo__findings_free(&ward.findings);
    trial(&ward, 2, 0)->links[0].stage = trial(&ward, 2, 0)->links[1].stage = KOLO__LINK_HANDSHAKE;
    kolo__judge(&ward.patient, &ward.findings);
    assert_int_equal(ward.findings.count, 2);
    assert_null(strstr(ward.findings.list[0].measured, "though"));
    kolo__findings_free(&ward.findings);
    (void)state;
}

/* What KOLO_NET left there is no firewall's fault. */
static void loopback_only(void **state)
{
    struct ward ward;
    make_healthy(&ward, 2);
    trial(&ward, 0, 1)->links[0].stage = trial(&ward, 0, 1)->links[1].stage = KOLO__LINK_CONNECT;
    kolo__judge(&ward.patient, &ward.findings);
    assert_non_null(strstr(ward.findings.list[0].remedy, "let TCP pass"));
    kolo__findings_free(&ward.findings);
    strcpy(ward.hosts[1].facts.addresses[0].text, "127.0.0.1:41045");
    strcpy(ward.hosts[1].facts.addresses[1].text, "[::1]:41045");
    kolo__judge(&ward.patient, &ward.findings);
    assert_int_equal(ward.findings.list[0].ailment, KOLO__AILMENT_UNREACHABLE);
    assert_null(strstr(ward.findings.list[0].remedy, "let TCP pass"));
    assert_non_null(strstr(ward.findings.list[0].remedy, "on b unset KOLO_NET"));
    kolo__findings_free(&ward.findings);
    (void)state;
}

static void no_interface_is_left_alone(void **state)
{
    struct ward ward;
    make_healthy(&ward, 1);
    strcpy(ward.hosts[0].facts.address_error, "KOLO_NET=nosuch leaves none");
    EXPECT(&ward, KOLO__AILMENT_NO_NETWORK, 0);
    ward.hosts[0].facts.no_network = true;
    EXPECT(&ward, KOLO__AILMENT_NO_NETWORK, 0);
    (void)state;
}

/* The same address alone may be a bridge's; the same name alone, a container's. */
static void named_twice(void **state)
{
    struct ward ward;
    make_healthy(&ward, 3);
    strcpy(ward.hosts[2].facts.host, "a");
    strcpy(ward.hosts[2].facts.addresses[0].text, "10.0.0.11:1");
    strcpy(ward.hosts[2].facts.addresses[1].text, "no address");
    EXPECT(&ward, 0);
    strcpy(ward.hosts[2].facts.addresses[1].text, "10.1.0.1:2");
    EXPECT(&ward, KOLO__AILMENT_TWICE, 0);
    ward.hosts[2].answers = false;
    EXPECT(&ward, KOLO__AILMENT_DOWN, 0);
    (void)state;
}

static void addresses(void **state)
{
    struct ward ward;
    make_healthy(&ward, 2);
    trial(&ward, 0, 1)->links[1].stage = KOLO__LINK_CONNECT;
    EXPECT(&ward, KOLO__AILMENT_ADDRESS, 0);
    trial(&ward, 0, 1)->links[1].stage = KOLO__LINK_LARGE;
    EXPECT(&ward, KOLO__AILMENT_BLACK_HOLE, 0);
    trial(&ward, 0, 1)->links[0].stage = KOLO__LINK_LARGE;
    EXPECT(&ward, KOLO__AILMENT_BLACK_HOLE, KOLO__AILMENT_BLACK_HOLE, 0);
    /* Others use the second address: its MTU counts. */
    make_healthy(&ward, 2);
    trial(&ward, 0, 1)->links[0].stage = KOLO__LINK_CONNECT;
    EXPECT(&ward, KOLO__AILMENT_MIXED_MTU, KOLO__AILMENT_ADDRESS, 0);
    (void)state;
}

static void mixed_mtu(void **state)
{
    struct ward ward;
    make_healthy(&ward, 3);
    ward.hosts[2].facts.addresses[0].mtu = 1400;
    EXPECT(&ward, KOLO__AILMENT_MIXED_MTU, 0);
    ward.hosts[2].facts.addresses[0].mtu = 0; /* unknown */
    EXPECT(&ward, 0);
    /* Nobody gets there, for only its loopback is up: that one's MTU means nothing. */
    make_healthy(&ward, 2);
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t a = 0; a < 2; a++)
            trial(&ward, i, 1 - i)->links[a].stage = KOLO__LINK_CONNECT;
    ward.hosts[1].facts.addresses[0].mtu = ward.hosts[1].facts.addresses[1].mtu = 65536;
    EXPECT(&ward, KOLO__AILMENT_UNREACHABLE, KOLO__AILMENT_UNREACHABLE, 0);
    /* But where small packets pass it tells why large ones do not. */
    trial(&ward, 0, 1)->links[0].stage = trial(&ward, 1, 0)->links[0].stage = KOLO__LINK_LARGE;
    EXPECT(&ward, KOLO__AILMENT_BLACK_HOLE, KOLO__AILMENT_BLACK_HOLE, KOLO__AILMENT_MIXED_MTU, 0);
    (void)state;
}

static void slow_links(void **state)
{
    struct ward ward;
    make_healthy(&ward, 3);
    trial(&ward, 1, 2)->links[0].bytes_per_second = 250000000;
    EXPECT(&ward, 0);
    trial(&ward, 1, 2)->links[0].bytes_per_second--;
    EXPECT(&ward, KOLO__AILMENT_SLOW_LINK, 0);
    /* Of two hosts, one way against the other. */
    make_healthy(&ward, 2);
    trial(&ward, 1, 0)->links[0].bytes_per_second = 1000;
    EXPECT(&ward, KOLO__AILMENT_SLOW_LINK, 0);
    /* All alike slow: nothing to compare with. */
    trial(&ward, 0, 1)->links[0].bytes_per_second = 1000;
    EXPECT(&ward, 0);
    (void)state;
}

static void set_clock(struct ward *ward, uint32_t host, int64_t ahead_ns)
{
    for (uint32_t k = 0; k < ward->patient.host_count; k++) {
        trial(ward, k, host)->links[0].clock_ahead_ns += ahead_ns;
        trial(ward, host, k)->links[0].clock_ahead_ns -= ahead_ns;
    }
}

static void clocks(void **state)
{
    struct ward ward;
    for (uint32_t host = 0; host < 3; host++) {
        make_healthy(&ward, 3);
        set_clock(&ward, host, -2000000000);
        kolo__judge(&ward.patient, &ward.findings);
        assert_int_equal(ward.findings.count, 1); /* the one that is off, and no other */
        char text[40];
        snprintf(text, sizeof text, "the clock of %c is 2.000 s behind", 'a' + (int)host);
        assert_non_null(strstr(ward.findings.list[0].measured, text));
        kolo__findings_free(&ward.findings);
    }
    make_healthy(&ward, 2);
    set_clock(&ward, 0, 200000000);
    EXPECT(&ward, KOLO__AILMENT_CLOCK, 0);
    make_healthy(&ward, 2);
    set_clock(&ward, 1, 100000000);
    EXPECT(&ward, 0);
    (void)state;
}

static void everybody_meets_everybody_once(void **state)
{
    for (uint32_t count = 1; count <= 33; count++) {
        unsigned char met[33][33] = {{0}};
        for (uint32_t round = 0; round < kolo__tournament_rounds(count); round++)
            for (uint32_t i = 0; i < count; i++) {
                uint32_t k = kolo__tournament_partner(count, round, i);
                assert_true(k < count);
                assert_int_equal(kolo__tournament_partner(count, round, k), i);
                met[i][k] += k != i;
            }
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t k = 0; k < count; k++)
                assert_int_equal(met[i][k], i != k);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(healthy_hosts),
        cmocka_unit_test(limits),
        cmocka_unit_test(rdma_that_not_all_have),
        cmocka_unit_test(a_host_without_network_explains_what_fails),
        cmocka_unit_test(absent_hosts_are_found_once),
        cmocka_unit_test(tokens),
        cmocka_unit_test(one_way),
        cmocka_unit_test(loopback_only),
        cmocka_unit_test(no_interface_is_left_alone),
        cmocka_unit_test(named_twice),
        cmocka_unit_test(addresses),
        cmocka_unit_test(mixed_mtu),
        cmocka_unit_test(slow_links),
        cmocka_unit_test(clocks),
        cmocka_unit_test(everybody_meets_everybody_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
