/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the RDMA module tells the verbs, and makes of what they say, with stand-ins for those
 * (verbs_card.h): attributes that Soft-RoCE takes no notice of, limits and faults that it has not,
 * and tables as cards have them. With real verbs: faults_test.sh and the others here.
 */
#include "verbs_card.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINK_COMPLETIONS = 30 };

static const struct kolo__rdma_depths DEPTHS = {.sends = 20, .receives = 10, .inline_bytes = 256};
static const struct kolo__rdma_module *const module = &kolo__rdma_module;
static char why[400];

static struct kolo__rdma_device *open_card(uint32_t links, uint32_t links_most)
{
    const struct kolo__rdma_needs needs = {
        .links = links, .links_most = links_most, .depths = DEPTHS};
    why[0] = '\0';
    return module->open("card0", 1, &needs, why, sizeof why);
}

static struct kolo__rdma_link *open_link(struct kolo__rdma_device *device, uint32_t *inline_bytes)
{
    why[0] = '\0';
    return module->link_open(device, 5, &DEPTHS, inline_bytes, why, sizeof why);
}

static void expect_said(const char *words)
{
    if (strstr(why, words) == NULL)
        fail_msg("not said: %s, but: %s", words, why);
}

static struct kolo__rdma_path path_to(uint32_t mtu_bytes)
{
    struct kolo__rdma_path path = {.link_number = 0x123456,
                                   .global = true,
                                   .own_gid_index = 200,
                                   .lid = 0xabcd,
                                   .mtu_bytes = mtu_bytes,
                                   .first_out = 0xfffffe,
                                   .first_in = 0x765432,
                                   .service_level = 5,
                                   .traffic_class = 106,
                                   .partition = 300,
                                   .timeout = 17,
                                   .retry_count = 6};
    inet_pton(AF_INET6, "fd00::7", path.gid);
    return path;
}

static void check_path(void **state)
{
    (void)state;
    uint32_t inline_bytes;
    struct kolo__rdma_device *device = open_card(1, 1);
    struct kolo__rdma_link *link = open_link(device, &inline_bytes);
    struct kolo__rdma_path path = path_to(2048);
    assert_int_equal(verbs_card.to_init.port_num, 1);
    assert_int_equal(verbs_card.to_init.qp_access_flags,
                     IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    assert_true(module->link_connect(link, &path, why, sizeof why));
    const struct ibv_qp_attr *in = &verbs_card.to_receive, *out = &verbs_card.to_send;
    assert_int_equal(in->path_mtu, IBV_MTU_2048);
    assert_int_equal(in->dest_qp_num, 0x123456);
    assert_int_equal(in->rq_psn, 0x765432);
    assert_int_equal(in->pkey_index, 300);
    assert_int_equal(in->ah_attr.is_global, 1);
    assert_int_equal(in->ah_attr.sl, 5);
    assert_int_equal(in->ah_attr.port_num, 1);
    assert_int_equal(in->ah_attr.grh.sgid_index, 200);
    assert_int_equal(in->ah_attr.grh.traffic_class, 106);
    assert_true(in->ah_attr.grh.hop_limit > 1);
    assert_memory_equal(in->ah_attr.grh.dgid.raw, path.gid, sizeof path.gid);
    assert_int_equal(out->sq_psn, 0xfffffe);
    assert_int_equal(out->timeout, 17);
    assert_int_equal(out->retry_cnt, 6);
    path.global = false; /* within a subnet of InfiniBand */
    assert_true(module->link_connect(link, &path, why, sizeof why));
    assert_int_equal(in->ah_attr.is_global, 0);
    assert_int_equal(in->ah_attr.dlid, 0xabcd);
    static const struct {
        uint32_t bytes;
        enum ibv_mtu mtu;
    } MTUS[] = {{0, IBV_MTU_256},     {256, IBV_MTU_256},   {1023, IBV_MTU_512},
                {1024, IBV_MTU_1024}, {4096, IBV_MTU_4096}, {65536, IBV_MTU_4096}};
    for (size_t i = 0; i < sizeof MTUS / sizeof *MTUS; i++) {
        path = path_to(MTUS[i].bytes);
        assert_true(module->link_connect(link, &path, why, sizeof why));
        assert_int_equal(in->path_mtu, MTUS[i].mtu);
    }
    module->link_close(link);
    module->close(device);
}

static void check_writes(void **state)
{
    (void)state;
    uint32_t inline_bytes, key;
    struct kolo__rdma_device *device = open_card(1, 1);
    struct kolo__rdma_link *link = open_link(device, &inline_bytes);
    assert_int_equal(inline_bytes, 32); /* half, until the card takes it */
    assert_int_equal(verbs_card.asked.sq_sig_all, 0);
    struct kolo__rdma_region *region =
        module->region_open(device, why, sizeof why, false, &key, why, sizeof why);
    assert_int_equal(key, 99);
    struct iovec parts[] = {{why, 8}, {NULL, 0}, {why + 20, 4}};
    struct kolo__rdma_write write = {.parts = parts,
                                     .part_count = 3,
                                     .region = region,
                                     .remote_address = 0x123456789abc,
                                     .remote_key = 0xfedcba98,
                                     .immediate = 0x80000102,
                                     .signalled = true};
    assert_true(module->link_write(link, &write, why, sizeof why));
    assert_int_equal(verbs_card.write.opcode, IBV_WR_RDMA_WRITE_WITH_IMM);
    assert_int_equal(verbs_card.write.imm_data, htobe32(0x80000102));
    assert_int_equal(verbs_card.write.send_flags, IBV_SEND_SIGNALED);
    assert_true(verbs_card.write.wr.rdma.remote_addr == 0x123456789abc);
    assert_true(verbs_card.write.wr.rdma.rkey == 0xfedcba98);
    assert_int_equal(verbs_card.write.num_sge, 2);
    assert_true(verbs_card.pieces[1].addr == (uintptr_t)(why + 20));
    assert_int_equal(verbs_card.pieces[1].length, 4);
    assert_int_equal(verbs_card.pieces[1].lkey, 98);
    write.in_line = true;
    write.signalled = false;
    assert_true(module->link_write(link, &write, why, sizeof why));
    assert_int_equal(verbs_card.write.send_flags, IBV_SEND_INLINE);
    module->region_close(region);
    module->link_close(link);
    module->close(device);
}

static void check_completions(void **state)
{
    (void)state;
    struct kolo__rdma_completion found;
    uint32_t inline_bytes;
    struct kolo__rdma_device *device = open_card(1, 1);
    struct kolo__rdma_link *link = open_link(device, &inline_bytes);
    struct kolo__rdma_write write = {.in_line = true};
    assert_true(module->link_write(link, &write, why, sizeof why));
    verbs_card.completion =
        (struct ibv_wc){.wr_id = verbs_card.write.wr_id, .imm_data = htobe32(7)};
    assert_int_equal(module->poll(device, &found, 1), 1);
    assert_int_equal(found.tag, 5);
    assert_int_equal(found.kind, KOLO__RDMA_SENT);
    assert_false(found.failed);
    static const struct {
        enum ibv_wc_status status;
        bool unreachable;
    } FAULTS[] = {{IBV_WC_RETRY_EXC_ERR, true},
                  {IBV_WC_RNR_RETRY_EXC_ERR, true},
                  {IBV_WC_REM_ACCESS_ERR, false},
                  {IBV_WC_WR_FLUSH_ERR, false}};
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        verbs_card.completion.status = FAULTS[i].status;
        verbs_card.completion.vendor_err = 0x81;
        assert_int_equal(module->poll(device, &found, 1), 1);
        assert_true(found.failed);
        assert_int_equal(found.unreachable, FAULTS[i].unreachable);
        assert_int_equal(found.vendor_error, 0x81);
        assert_string_equal(found.text, ibv_wc_status_str(FAULTS[i].status));
    }
    module->link_close(link);
    module->close(device);
}

/* Each limit by itself, and what has no number. */
static void check_limits(void **state)
{
    (void)state;
    uint32_t inline_bytes, key;
    const struct {
        int *limit;
        const char *words;
    } limits[] = {
        {&verbs_card.attr.max_qp, "it has 2 queue pairs, and 3 peers need 3: use another"},
        {&verbs_card.attr.max_mr, "it has 2 memory regions, and 3 peers need 3: use another"},
        {&verbs_card.attr.max_qp_wr, "it has 2 work requests in a queue"},
        {&verbs_card.attr.max_sge, "it has 2 pieces in a work request"},
        {&verbs_card.attr.max_cqe, "it has 2 completions in a queue, and 3 peers need 90"}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        int before = *limits[i].limit;
        *limits[i].limit = 2;
        assert_null(open_card(3, 3));
        expect_said(limits[i].words);
        expect_said("(NCCL_IB_HCA), fewer ranks, or KOLO_TRANSPORT=tcp");
        *limits[i].limit = before;
    }
    verbs_card.cq_fails = ENOMEM;
    assert_null(open_card(1, 1));
    expect_said(
        "cannot make a completion queue: Cannot allocate memory; raise the limit of locked");
    verbs_card.cq_fails = 0;
    struct kolo__rdma_device *device = open_card(1, 1);
    verbs_card.qp_fails = EAGAIN;
    assert_null(open_link(device, &inline_bytes));
    expect_said("cannot create a queue pair: Resource temporarily unavailable; the control group's "
                "limit of RDMA objects is reached");
    verbs_card.mr_fails = ENOMEM;
    assert_null(module->region_open(device, why, 1, true, &key, why, sizeof why));
    expect_said(
        "cannot register 1 bytes: Cannot allocate memory; raise the limit of locked memory");
    module->close(device);
}

/* Where memory may not be locked a device may look for pages, if it can and the caller lets it. */
static void check_on_demand(void **state)
{
    (void)state;
    uint32_t key;
    verbs_card.on_demand = true;
    struct kolo__rdma_device *device = open_card(1, 1);
    struct kolo__rdma_region *region =
        module->region_open(device, why, 1, true, &key, why, sizeof why);
    assert_int_equal(verbs_card.mr_access & IBV_ACCESS_ON_DEMAND, 0); /* the second choice */
    module->region_close(region);
    verbs_card.mr_fails = ENOMEM;
    assert_null(module->region_open(device, why, 1, false, &key, why, sizeof why));
    region = module->region_open(device, why, 1, true, &key, why, sizeof why);
    assert_non_null(region);
    assert_int_equal(verbs_card.mr_access & IBV_ACCESS_ON_DEMAND, IBV_ACCESS_ON_DEMAND);
    module->region_close(region);
    module->close(device);
}

/* It grows with the links; where it cannot, it has room for all from the beginning. */
static void check_completion_queue(void **state)
{
    (void)state;
    uint32_t inline_bytes;
    struct kolo__rdma_link *links[3];
    struct kolo__rdma_device *device = open_card(2, 100);
    assert_int_equal(verbs_card.cq_size, 2 * LINK_COMPLETIONS);
    for (int i = 0; i < 3; i++)
        links[i] = open_link(device, &inline_bytes);
    assert_true(verbs_card.cq_size >= 3 * LINK_COMPLETIONS);
    for (int i = 0; i < 3; i++)
        module->link_close(links[i]);
    module->close(device);

    device = open_card(2, 2);
    verbs_card.resize_fails = EINVAL;
    errno = 0;
    links[0] = open_link(device, &inline_bytes);
    links[1] = open_link(device, &inline_bytes);
    assert_null(open_link(device, &inline_bytes));
    expect_said("cannot grow the completion queue: Invalid argument");
    module->link_close(links[0]);
    module->link_close(links[1]);
    module->close(device);

    verbs_card.resize_fails = EOPNOTSUPP;
    device = open_card(2, 100);
    assert_int_equal(verbs_card.cq_size, 100 * LINK_COMPLETIONS);
    module->close(device);
    device = open_card(2, 100000);
    assert_int_equal(verbs_card.cq_size, verbs_card.attr.max_cqe);
    module->close(device);
}

static void check_survey(void **state)
{
    (void)state;
    struct kolo__rdma_survey *survey = calloc(1, sizeof *survey);
    assert_non_null(survey);
    for (uint32_t i = 0; i < VERBS_CARD_GIDS; i++) {
        verbs_card.gids[i] = (struct ibv_gid_entry){.gid_index = i, .port_num = 1 + (i == 7)};
        verbs_card.gids[i].gid_type = i % 2 == 0 ? IBV_GID_TYPE_ROCE_V1 : IBV_GID_TYPE_ROCE_V2;
        verbs_card.gids[i].gid.raw[0] = i == 9 ? 0 : 0xfd;
        verbs_card.gids[i].gid.raw[15] = (uint8_t)i * (i != 9);
    }
    assert_true(module->survey(survey, why, sizeof why));
    assert_int_equal(survey->port_count, 1);
    const struct kolo__rdma_port *port = &survey->ports[0];
    assert_string_equal(port->device, "card0");
    assert_true(port->active && !port->infiniband && !port->software && !port->needs_global);
    assert_int_equal(port->speed_mbps, 400000);
    assert_int_equal(port->mtu_bytes, 4096);
    assert_int_equal(port->gid_count, 254); /* the other port's not, nor the empty one */
    const struct kolo__rdma_gid *last = &port->gids[253];
    assert_int_equal(last->index, 255); /* what is behind cannot be named */
    assert_int_equal(last->kind, KOLO__RDMA_GID_ROCE_V2);
    assert_int_equal(last->raw[15], 255);

    verbs_card.port.link_layer = IBV_LINK_LAYER_INFINIBAND;
    verbs_card.port.flags = IBV_QPF_GRH_REQUIRED;
    verbs_card.port.lid = 0xabcd;
    assert_true(module->survey(survey, why, sizeof why));
    assert_true(port->infiniband && port->needs_global);
    assert_int_equal(port->lid, 0xabcd);

    verbs_card.port_fails = ENODEV;
    assert_true(module->survey(survey, why, sizeof why));
    assert_int_equal(survey->port_count, 1);
    assert_false(port->active);
    assert_string_equal(port->state, "it cannot be read: No such device");
    verbs_card.open_fails = EIO;
    assert_true(module->survey(survey, why, sizeof why));
    assert_int_equal(survey->port_count, 1);
    assert_string_equal(port->device, "card0");
    assert_false(port->active);
    assert_string_equal(port->state,
                        "cannot open /dev/infiniband/no such: No such file or directory");
    free(survey);
}

static void check_trouble(void **state)
{
    (void)state;
    static const struct {
        enum ibv_event_type event;
        uint8_t port;
        bool fatal, down, up;
    } ROWS[] = {{IBV_EVENT_PORT_ERR, 1, false, true, false},
                {IBV_EVENT_PORT_ERR, 2, false, false, false}, /* another's */
                {IBV_EVENT_PORT_ACTIVE, 1, false, false, true},
                {IBV_EVENT_PORT_ACTIVE, 2, false, false, false},
                {IBV_EVENT_DEVICE_FATAL, 0, true, false, false},
                {IBV_EVENT_CQ_ERR, 0, true, false, false},
                {IBV_EVENT_QP_FATAL, 0, true, false, false},
                {IBV_EVENT_GID_CHANGE, 1, false, false, false}};
    struct kolo__rdma_device *device = open_card(1, 1);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        bool fatal, down, up;
        const char *text;
        verbs_card.event = ROWS[i].event;
        verbs_card.event_port = ROWS[i].port;
        verbs_card.events = 1;
        assert_true(module->take_trouble(device, &fatal, &down, &up, &text));
        assert_true(fatal == ROWS[i].fatal && down == ROWS[i].down && up == ROWS[i].up);
        assert_string_equal(text, ibv_event_type_str(ROWS[i].event));
        assert_false(module->take_trouble(device, &fatal, &down, &up, &text));
    }
    module->close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(check_path, verbs_card_begin, verbs_card_end),
        cmocka_unit_test_setup_teardown(check_writes, verbs_card_begin, verbs_card_end),
        cmocka_unit_test_setup_teardown(check_completions, verbs_card_begin, verbs_card_end),
        cmocka_unit_test_setup_teardown(check_limits, verbs_card_begin, verbs_card_end),
        cmocka_unit_test_setup_teardown(check_on_demand, verbs_card_begin, verbs_card_end),
        cmocka_unit_test_setup_teardown(check_completion_queue, verbs_card_begin, verbs_card_end),
        cmocka_unit_test_setup_teardown(check_survey, verbs_card_begin, verbs_card_end),
        cmocka_unit_test_setup_teardown(check_trouble, verbs_card_begin, verbs_card_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
