/* SPDX-License-Identifier: Apache-2.0 */
/* Which port and GID are taken, on tables as fabrics have them: sparse, in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "collectives/transport/rdma_select.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct kolo__rdma_survey survey;
static struct kolo__rdma_options options;
static struct kolo__interfaces own;
static struct kolo__rdma_place place;

static int begin(void **state)
{
    (void)state;
    memset(&survey, 0, sizeof survey);
    memset(&own, 0, sizeof own);
    place = (struct kolo__rdma_place){.own = &own, .node = -1};
    char *none[] = {NULL};
    return kolo__rdma_options_read(none, &options);
}

static struct kolo__rdma_port *add_port(const char *device, uint32_t number)
{
    struct kolo__rdma_port *port = &survey.ports[survey.port_count++];
    *port = (struct kolo__rdma_port){.number = number,
                                     .active = true,
                                     .mtu_bytes = 4096,
                                     .speed_mbps = 100000,
                                     .node = -1,
                                     .state = "active"};
    snprintf(port->device, sizeof port->device, "%s", device);
    return port;
}

static void add_gid(struct kolo__rdma_port *port, uint32_t index, enum kolo__rdma_gid_kind kind,
                    const char *address)
{
    struct kolo__rdma_gid *gid = &port->gids[port->gid_count++];
    gid->index = index;
    gid->kind = kind;
    assert_int_equal(inet_pton(AF_INET6, address, gid->raw), 1);
}

static void add_interface(const char *address)
{
    char text[80];
    snprintf(text, sizeof text, strchr(address, ':') != NULL ? "[%s]:1" : "%s:1", address);
    assert_int_equal(kolo__address_parse(text, &own.list[own.count++].address), KOLO_OK);
}

/* The choice in words, or why there is none. */
static const char *chosen(void)
{
    static char text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    struct kolo__rdma_choice choice;
    uint32_t count;
    if (kolo__rdma_choose(&survey, &options, &place, 1, &choice, &count) != KOLO_OK)
        return kolo_error_text();
    return kolo__rdma_choice_text(&choice, text);
}

/* As a host of RoCE shows it: link-local first, both versions of each, holes in between. */
static struct kolo__rdma_port *add_roce(const char *device, const char *v4, const char *v6)
{
    char mapped[64];
    struct kolo__rdma_port *port = add_port(device, 1);
    add_gid(port, 0, KOLO__RDMA_GID_ROCE_V1, "fe80::1");
    add_gid(port, 1, KOLO__RDMA_GID_ROCE_V2, "fe80::1");
    if (v6 != NULL) {
        add_gid(port, 4, KOLO__RDMA_GID_ROCE_V1, v6);
        add_gid(port, 5, KOLO__RDMA_GID_ROCE_V2, v6);
    }
    if (v4 != NULL) {
        snprintf(mapped, sizeof mapped, "::ffff:%s", v4);
        add_gid(port, 118, KOLO__RDMA_GID_ROCE_V1, mapped);
        add_gid(port, 119, KOLO__RDMA_GID_ROCE_V2, mapped);
    }
    return port;
}

static void check_roce_v2_ipv4_is_found_anywhere(void **state)
{
    (void)state;
    add_roce("mlx5_0", "10.1.0.7", "fd00::7");
    assert_string_equal(chosen(), "mlx5_0 port 1, GID ::ffff:10.1.0.7 (index 119)");
}

static void check_ipv6_alone(void **state)
{
    (void)state;
    add_roce("mlx5_0", NULL, "fd00::7");
    assert_string_equal(chosen(), "mlx5_0 port 1, GID fd00::7 (index 5)");
}

static void check_v1_only_where_there_is_nothing_else(void **state)
{
    (void)state;
    struct kolo__rdma_port *port = add_port("old", 1);
    add_gid(port, 3, KOLO__RDMA_GID_ROCE_V1, "::ffff:10.1.0.7");
    assert_string_equal(chosen(), "old port 1, GID ::ffff:10.1.0.7 (index 3)");
    add_gid(port, 9, KOLO__RDMA_GID_ROCE_V2, "fd00::7");
    assert_string_equal(chosen(), "old port 1, GID fd00::7 (index 9)");
}

static void check_link_local_is_never_taken(void **state)
{
    (void)state;
    add_roce("mlx5_0", NULL, NULL);
    assert_non_null(strstr(chosen(), "mlx5_0 port 1: no GID that can be used"));
}

/* The address by which peers reach this host, also where it is IPv6 or on the slower port. */
static void check_the_route_decides(void **state)
{
    (void)state;
    add_roce("mlx5_0", "10.1.0.7", "fd00::7")->speed_mbps = 400000;
    add_roce("mlx5_1", "10.2.0.7", "fd01::7");
    assert_non_null(strstr(chosen(), "mlx5_0"));
    add_interface("10.2.0.7");
    assert_string_equal(chosen(), "mlx5_1 port 1, GID ::ffff:10.2.0.7 (index 119)");
    own.count = 0;
    add_interface("fd01::7");
    assert_string_equal(chosen(), "mlx5_1 port 1, GID fd01::7 (index 5)");
    add_interface("10.1.0.7"); /* both are for use */
    assert_string_equal(chosen(), "mlx5_0 port 1, GID ::ffff:10.1.0.7 (index 119)");
    own.count = 0;
    add_interface("192.168.0.1");
    assert_non_null(strstr(chosen(), "mlx5_0"));
}

static void check_a_port_without_link_is_left_out(void **state)
{
    (void)state;
    struct kolo__rdma_port *port = add_roce("mlx5_0", "10.1.0.7", NULL);
    port->active = false;
    snprintf(port->state, sizeof port->state, "down");
    assert_non_null(strstr(chosen(), "mlx5_0 port 1: down"));
    add_roce("mlx5_1", "10.2.0.7", NULL)->speed_mbps = 10000;
    assert_non_null(strstr(chosen(), "mlx5_1"));
}

/* As many cards as GPUs, and ranks as many as both; one more, for storage. */
static void check_ranks_share_the_ports(void **state)
{
    (void)state;
    char name[16], address[32];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "mlx5_%d", i);
        snprintf(address, sizeof address, "10.%d.0.7", i + 1);
        add_roce(name, address, NULL)->node = i / 2;
        add_interface(address);
    }
    add_roce("storage", "10.9.0.7", NULL)->speed_mbps = 25000;
    add_interface("10.9.0.7");
    static const char *const TURNS[] = {"mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3", "mlx5_0"};
    for (place.turn = 0; place.turn < 5; place.turn++)
        assert_non_null(strstr(chosen(), TURNS[place.turn]));
    place.node = 1;
    static const char *const NEAR[] = {"mlx5_2", "mlx5_3", "mlx5_2"};
    for (place.turn = 0; place.turn < 3; place.turn++)
        assert_non_null(strstr(chosen(), NEAR[place.turn]));
    survey.ports[2].active = survey.ports[3].active = false;
    place.turn = 1;
    assert_non_null(strstr(chosen(), "mlx5_1"));
}

/* Nearer to the GPU counts for more than the node, and for less than speed; of two as near, ranks
 * take one each. */
static void check_the_nearest_to_the_gpu(void **state)
{
    (void)state;
    char name[16], address[32];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "mlx5_%d", i);
        snprintf(address, sizeof address, "10.%d.0.7", i + 1);
        add_roce(name, address, NULL)->node = i / 2;
    }
    place.node = 1;
    survey.ports[0].gpu_near = 3;
    survey.ports[1].gpu_near = 15;
    survey.ports[2].gpu_near = 2;
    for (place.turn = 0; place.turn < 3; place.turn++)
        assert_non_null(strstr(chosen(), "mlx5_1"));
    survey.ports[3].gpu_near = 15;
    for (place.turn = 0; place.turn < 3; place.turn++)
        assert_non_null(strstr(chosen(), "mlx5_3"));
    place.node = -1;
    for (place.turn = 0; place.turn < 4; place.turn++)
        assert_non_null(strstr(chosen(), place.turn % 2 == 0 ? "mlx5_1" : "mlx5_3"));
    add_roce("mlx5_4", "10.5.0.7", NULL)->speed_mbps = 400000;
    assert_non_null(strstr(chosen(), "mlx5_4"));
}

/* While there are more ports than ranks, each takes as many. */
static void check_few_ranks_take_several_ports(void **state)
{
    (void)state;
    enum { MOST = 4 };
    char name[16], address[32];
    struct kolo__rdma_choice choices[MOST];
    uint32_t count;
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "mlx5_%d", i);
        snprintf(address, sizeof address, "10.%d.0.7", i + 1);
        add_roce(name, address, NULL);
    }
    static const struct {
        uint32_t ranks, turn, count, first, last;
    } CASES[] = {{0, 1, 1, 1, 1}, {1, 0, 4, 0, 3}, {2, 0, 3, 0, 4},
                 {2, 1, 3, 1, 5}, {4, 0, 2, 0, 4}, {8, 7, 1, 1, 1}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        place.ranks = CASES[i].ranks;
        place.turn = CASES[i].turn;
        assert_int_equal(kolo__rdma_choose(&survey, &options, &place, MOST, choices, &count),
                         KOLO_OK);
        assert_int_equal(count, CASES[i].count);
        assert_ptr_equal(choices[0].port, &survey.ports[CASES[i].first]);
        assert_ptr_equal(choices[count - 1].port, &survey.ports[CASES[i].last]);
    }
}

/* Only unasked, and unless it is named. */
static void check_software_is_not_taken_by_itself(void **state)
{
    (void)state;
    add_roce("rxe0", "10.1.0.7", NULL)->software = true;
    assert_non_null(strstr(chosen(), "rxe0 port 1, GID"));
    options.unasked = true;
    assert_non_null(strstr(chosen(), "rxe0 port 1: made of software"));
    options.devices = "^mlx5_7";
    assert_non_null(strstr(chosen(), "rxe0 port 1: made of software"));
    options.devices = "rxe";
    assert_non_null(strstr(chosen(), "rxe0 port 1, GID"));
    options.devices = "";
    add_roce("mlx5_0", "10.2.0.7", NULL);
    assert_non_null(strstr(chosen(), "mlx5_0 port 1, GID"));
}

static void check_no_device(void **state)
{
    (void)state;
    assert_non_null(strstr(chosen(), "has no RDMA device"));
}

static void check_infiniband(void **state)
{
    (void)state;
    struct kolo__rdma_port *port = add_port("mlx5_0", 2);
    port->infiniband = true;
    port->lid = 17;
    assert_string_equal(chosen(), "mlx5_0 port 2, LID 17");
    add_gid(port, 0, KOLO__RDMA_GID_IB, "fe80::ec0d:9a03:c:1");
    assert_string_equal(chosen(), "mlx5_0 port 2, GID fe80::ec0d:9a03:c:1 (index 0)");
    unsigned char near[16], far[16];
    inet_pton(AF_INET6, "fe80::2", near);
    inet_pton(AF_INET6, "fec0:0:0:1::2", far);
    assert_false(kolo__rdma_needs_gid(true, port->gids[0].raw, near));
    assert_true(kolo__rdma_needs_gid(true, port->gids[0].raw, far));
    assert_true(kolo__rdma_needs_gid(false, port->gids[0].raw, near));
    assert_int_equal(kolo__rdma_lid_towards(port->gids[0].raw, near, 17), 17);
    assert_int_equal(kolo__rdma_lid_towards(port->gids[0].raw, far, 17), 17); /* it names none */
    inet_pton(AF_INET6, "fec0:0:1234:1::2", far);
    assert_int_equal(kolo__rdma_lid_towards(port->gids[0].raw, far, 17), 0x1234);
}

static void check_a_demanded_index(void **state)
{
    (void)state;
    char *environment[] = {"NCCL_IB_GID_INDEX=5", "NCCL_IB_HCA=mlx5", NULL};
    add_roce("mlx5_0", "10.1.0.7", "fd00::7");
    assert_int_equal(kolo__rdma_options_read(environment, &options), KOLO_OK);
    assert_string_equal(chosen(), "mlx5_0 port 1, GID fd00::7 (index 5)");
    options.gid_index = 6;
    assert_non_null(strstr(chosen(), "NCCL_IB_GID_INDEX is set"));
}

static void check_names(void **state)
{
    (void)state;
    static const struct {
        const char *devices, *name;
        uint32_t port;
        bool allowed;
    } ROWS[] = {
        {"", "mlx5_0", 1, true},
        {"mlx5", "mlx5_0", 1, true},
        {"mlx5", "bnxt0", 1, false},
        {"=mlx5", "mlx5_0", 1, false},
        {"=mlx5_1", "mlx5_10", 1, false},
        {"mlx5_1", "mlx5_10", 1, true},
        {"=mlx5_0,mlx5_1", "mlx5_1", 1, true},
        {"=mlx5_0:2", "mlx5_0", 1, false},
        {"=mlx5_0:2", "mlx5_0", 2, true},
        {"mlx5_0:1,mlx5_1:2", "mlx5_1", 2, true},
        {"mlx5_0:1", "mlx5_0", 11, false},
        {"^mlx5_0,mlx5_1", "mlx5_1", 1, false},
        {"^mlx5_0,mlx5_1", "mlx5_2", 1, true},
        {"^=mlx5_1", "mlx5_10", 1, true},
        {"^", "mlx5_10", 1, true},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
        if (kolo__rdma_device_allowed(ROWS[i].devices, ROWS[i].name, ROWS[i].port) !=
            ROWS[i].allowed)
            fail_msg("'%s' and %s port %u", ROWS[i].devices, ROWS[i].name, ROWS[i].port);
}

static void check_options(void **state)
{
    (void)state;
    assert_int_equal(options.timeout, 20);
    assert_int_equal(options.retry_count, 7);
    assert_int_equal(options.gid_index, -1);
    assert_string_equal(options.devices, "");
    assert_int_equal(options.disabled, 0);
    assert_int_equal(options.partition, 0);
    assert_false(options.unasked);
    char *good[] = {"PATH=/bin",    "NCCL_IB_TC=106", "NCCL_IB_TIMEOUT=14",   "NCCL_IB_RETRY_CNT=0",
                    "NCCL_IB_SL=3", "NCCL_IB_PKEY=2", "NCCL_IB_GID_INDEX=-1", NULL};
    assert_int_equal(kolo__rdma_options_read(good, &options), KOLO_OK);
    assert_int_equal(options.traffic_class, 106);
    assert_int_equal(options.timeout, 14);
    assert_int_equal(options.retry_count, 0);
    assert_int_equal(options.service_level, 3);
    assert_int_equal(options.partition, 2);
    assert_int_equal(options.gid_index, -1);
    char *bad[] = {"NCCL_IB_TIMEOUT=32", NULL};
    assert_int_equal(kolo__rdma_options_read(bad, &options), KOLO_ERR_CONFIG);
    assert_string_equal(kolo_error_text(),
                        "NCCL_IB_TIMEOUT is '32': it must be a number from 1 to 31");
    char *beyond[] = {"NCCL_IB_GID_INDEX=256", NULL}; /* a connection cannot name it */
    assert_int_equal(kolo__rdma_options_read(beyond, &options), KOLO_ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(check_roce_v2_ipv4_is_found_anywhere, begin),
        cmocka_unit_test_setup(check_ipv6_alone, begin),
        cmocka_unit_test_setup(check_v1_only_where_there_is_nothing_else, begin),
        cmocka_unit_test_setup(check_link_local_is_never_taken, begin),
        cmocka_unit_test_setup(check_the_route_decides, begin),
        cmocka_unit_test_setup(check_a_port_without_link_is_left_out, begin),
        cmocka_unit_test_setup(check_ranks_share_the_ports, begin),
        cmocka_unit_test_setup(check_the_nearest_to_the_gpu, begin),
        cmocka_unit_test_setup(check_few_ranks_take_several_ports, begin),
        cmocka_unit_test_setup(check_software_is_not_taken_by_itself, begin),
        cmocka_unit_test_setup(check_no_device, begin),
        cmocka_unit_test_setup(check_infiniband, begin),
        cmocka_unit_test_setup(check_a_demanded_index, begin),
        cmocka_unit_test_setup(check_names, begin),
        cmocka_unit_test_setup(check_options, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
