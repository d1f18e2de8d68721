/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rdma transport needs of a verbs stack, tried without kolo, so that a failure of the
 * transport is not taken for one of the stack: RDMA WRITE WITH IMMEDIATE between two devices, over
 * several queue pairs, with data inline, from registered memory, and with none at all, polled and
 * through a completion channel; immediates come in order; a write behind a write is not seen before
 * it; several posted by one call; a completion queue that grows.
 */
#include <infiniband/verbs.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIRS = 3, DEPTH = 64, BYTES = 1 << 20, WRITES = 40 };

struct side {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_qp *qp[PAIRS];
    struct ibv_mr *mr;
    unsigned char *memory;
    union ibv_gid gid;
    int gid_index;
    uint32_t inline_bytes;
};

static void need(bool right, const char *what)
{
    if (right)
        return;
    perror(what);
    exit(1);
}

static void find_gid(struct side *side)
{
    struct ibv_gid_entry entries[16];
    ssize_t count = ibv_query_gid_table(side->context, entries, 16, 0);
    for (ssize_t i = 0; i < count; i++)
        if (entries[i].gid_type == IBV_GID_TYPE_ROCE_V2 && entries[i].gid.raw[0] == 0) {
            side->gid = entries[i].gid;
            side->gid_index = (int)entries[i].gid_index;
            return;
        }
    need(false, "no RoCE v2 GID of an IPv4 address");
}

static void open_side(struct side *side, const char *name)
{
    struct ibv_device **devices = ibv_get_device_list(NULL);
    for (int i = 0; devices != NULL && devices[i] != NULL; i++)
        if (strcmp(ibv_get_device_name(devices[i]), name) == 0)
            side->context = ibv_open_device(devices[i]);
    need(side->context != NULL, name);
    ibv_free_device_list(devices);
    find_gid(side);
    side->pd = ibv_alloc_pd(side->context);
    side->channel = ibv_create_comp_channel(side->context);
    side->cq = ibv_create_cq(side->context, DEPTH, NULL, side->channel, 0);
    side->memory = calloc(1, BYTES);
    need(side->pd != NULL && side->cq != NULL && side->memory != NULL, "cannot begin");
    side->mr =
        ibv_reg_mr(side->pd, side->memory, BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    need(side->mr != NULL, "ibv_reg_mr");
    need(ibv_resize_cq(side->cq, 2 * PAIRS * DEPTH) == 0, "ibv_resize_cq");
    for (int i = 0; i < PAIRS; i++) {
        struct ibv_qp_init_attr init = {
            .send_cq = side->cq,
            .recv_cq = side->cq,
            .qp_type = IBV_QPT_RC,
            .cap = {.max_send_wr = DEPTH,
                    .max_recv_wr = DEPTH,
                    .max_send_sge = 3,
                    .max_recv_sge = 1,
                    .max_inline_data = 256},
        };
        side->qp[i] = ibv_create_qp(side->pd, &init);
        need(side->qp[i] != NULL, "ibv_create_qp");
        side->inline_bytes = init.cap.max_inline_data;
    }
}

static void connect_pair(struct side *side, const struct side *other, int i)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE};
    need(ibv_modify_qp(side->qp[i], &attr,
                       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = other->qp[i]->qp_num,
        .max_dest_rd_atomic = 1,
        .min_rnr_timer = 12,
        .ah_attr = {
            .is_global = 1,
            .port_num = 1,
            .grh = {.dgid = other->gid, .sgid_index = (uint8_t)side->gid_index, .hop_limit = 64}}};
    need(ibv_modify_qp(side->qp[i], &attr,
                       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                           IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) == 0,
         "to RTR");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};
    need(ibv_modify_qp(side->qp[i], &attr,
                       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                           IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC) == 0,
         "to RTS");
    for (int k = 0; k < DEPTH; k++) {
        struct ibv_recv_wr wr = {.wr_id = (uint64_t)i}, *bad;
        need(ibv_post_recv(side->qp[i], &wr, &bad) == 0, "ibv_post_recv");
    }
}

/* The next completion, through the channel or polled; within 10 s. */
static struct ibv_wc next(struct side *side, bool sleep)
{
    struct ibv_wc wc;
    int count = 0;
    if (sleep) {
        need(ibv_req_notify_cq(side->cq, 0) == 0, "ibv_req_notify_cq");
        count = ibv_poll_cq(side->cq, 1, &wc);
        struct pollfd fd = {.fd = side->channel->fd, .events = POLLIN};
        if (count == 0) {
            struct ibv_cq *cq;
            void *context;
            need(poll(&fd, 1, 10000) == 1, "no event");
            need(ibv_get_cq_event(side->channel, &cq, &context) == 0, "ibv_get_cq_event");
            ibv_ack_cq_events(cq, 1);
        }
    }
    for (long i = 0; count == 0 && i < 100000000; i++)
        count = ibv_poll_cq(side->cq, 1, &wc);
    need(count == 1, "no completion");
    if (wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "%s, vendor error %u\n", ibv_wc_status_str(wc.status), wc.vendor_err);
        exit(1);
    }
    return wc;
}

/* A write, and behind it one with an immediate, in one call. */
static void write_both(struct side *from, const struct side *to, int pair, size_t bytes,
                       uint32_t immediate, bool in_line)
{
    struct ibv_sge sge = {
        .addr = (uintptr_t)from->memory, .length = (uint32_t)bytes, .lkey = from->mr->lkey};
    struct ibv_send_wr last = {.wr_id = 1000,
                               .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
                               .send_flags = IBV_SEND_SIGNALED | (in_line ? IBV_SEND_INLINE : 0),
                               .imm_data = htobe32(immediate),
                               .sg_list = &sge,
                               .num_sge = bytes > 0,
                               .wr.rdma = {.remote_addr = (uintptr_t)to->memory,
                                           .rkey = to->mr->rkey}},
                       first = last, *bad;
    first.opcode = IBV_WR_RDMA_WRITE;
    first.send_flags = in_line ? IBV_SEND_INLINE : 0; /* not signalled */
    first.wr.rdma.remote_addr += BYTES / 2;
    first.next = &last;
    need(ibv_post_send(from->qp[pair], &first, &bad) == 0, "ibv_post_send");
}

static void check_writes(struct side *from, struct side *to, size_t bytes, bool in_line, bool sleep)
{
    for (int k = 0; k < WRITES; k++) {
        memset(from->memory, k + 1, bytes);
        memset(to->memory, 0, BYTES);
        write_both(from, to, k % PAIRS, bytes, 0x80000000u + (uint32_t)k, in_line);
        if (in_line) /* the memory is ours again */
            memset(from->memory, 0xff, bytes);
        struct ibv_wc wc = next(to, sleep);
        need(wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM && (wc.wc_flags & IBV_WC_WITH_IMM) != 0 &&
                 be32toh(wc.imm_data) == 0x80000000u + (uint32_t)k &&
                 wc.wr_id == (uint64_t)(k % PAIRS),
             "not the immediate that was sent");
        for (size_t i = 0; i < bytes; i++)
            need(to->memory[i] == k + 1 && to->memory[BYTES / 2 + i] == k + 1, "wrong data");
        struct ibv_recv_wr wr = {.wr_id = wc.wr_id}, *bad;
        need(ibv_post_recv(to->qp[k % PAIRS], &wr, &bad) == 0, "ibv_post_recv");
        need(next(from, sleep).wr_id == 1000, "not the send's completion");
    }
    printf("ok: %d writes of %zu bytes%s%s\n", WRITES, bytes, in_line ? ", inline" : "",
           sleep ? ", through the channel" : "");
}

int main(int argc, char **argv)
{
    struct side a = {NULL}, b = {NULL};
    open_side(&a, argc > 2 ? argv[1] : "rxe0");
    open_side(&b, argc > 2 ? argv[2] : "rxe1");
    printf("inline: %u bytes\n", a.inline_bytes);
    for (int i = 0; i < PAIRS; i++) {
        connect_pair(&a, &b, i);
        connect_pair(&b, &a, i);
    }
    for (int sleep = 0; sleep < 2; sleep++) {
        check_writes(&a, &b, 0, false, sleep == 1);
        check_writes(&a, &b, 200, true, sleep == 1);
        check_writes(&b, &a, 200, false, sleep == 1);
        check_writes(&a, &b, 100000, false, sleep == 1);
    }
    return 0;
}
