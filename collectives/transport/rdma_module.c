/* SPDX-License-Identifier: Apache-2.0 */
/* libkolo-rdma.so: the host's verbs behind rdma_module.h. */
#include "collectives/transport/rdma_verbs.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct kolo__rdma_link {
    struct kolo__rdma_device *device;
    struct ibv_qp *qp;
    uint32_t tag;
    int completions; /* of device->cq_wanted */
};

/* A work request's id: whose, and which half of the link it was given to, because a failed
 * completion does not say. */
enum { RECEIVE_BIT = 1 };

static uint64_t id_of(const struct kolo__rdma_link *link, unsigned receive)
{
    return (uint64_t)link->tag << 1 | receive;
}

static int event_fd(struct kolo__rdma_device *device)
{
    return device->channel->fd;
}

static bool request_event(struct kolo__rdma_device *device)
{
    return ibv_req_notify_cq(device->cq, 0) == 0;
}

static void take_events(struct kolo__rdma_device *device)
{
    struct ibv_cq *cq;
    void *context;
    while (ibv_get_cq_event(device->channel, &cq, &context) == 0)
        ibv_ack_cq_events(cq, 1);
}

static int trouble_fd(struct kolo__rdma_device *device)
{
    return device->context->async_fd;
}

static enum ibv_mtu mtu_of_bytes(uint32_t bytes)
{
    enum ibv_mtu mtu = IBV_MTU_256;
    while (mtu < IBV_MTU_4096 && kolo__verbs_mtu_bytes(mtu + 1) <= bytes)
        mtu++;
    return mtu;
}

/* ---- links -------------------------------------------------------------------------------- */

/* The completion queue must never overflow. */
static bool grow_completions(struct kolo__rdma_device *device, int wanted)
{
    device->cq_wanted += wanted;
    int size = device->cq->cqe;
    while (size < device->cq_wanted)
        size *= 2;
    errno = size == device->cq->cqe ? 0 : ibv_resize_cq(device->cq, size);
    return errno == 0;
}

static void close_link(struct kolo__rdma_link *link)
{
    if (link == NULL)
        return;
    if (link->qp != NULL)
        ibv_destroy_qp(link->qp);
    link->device->cq_wanted -= link->completions;
    free(link);
}

/* Devices refuse more inline data than they have room for, and do not say how much that is. */
static struct ibv_qp *create_qp(struct kolo__rdma_device *device,
                                const struct kolo__rdma_depths *depths, uint32_t *inline_bytes)
{
    for (uint32_t wanted = depths->inline_bytes;; wanted /= 2) {
        struct ibv_qp_init_attr init = {
            .send_cq = device->cq,
            .recv_cq = device->cq,
            .qp_type = IBV_QPT_RC,
            .cap = {.max_send_wr = depths->sends,
                    .max_recv_wr = depths->receives,
                    .max_send_sge = KOLO__VERBS_PIECES,
                    .max_recv_sge = 1,
                    .max_inline_data = wanted},
        };
        struct ibv_qp *qp = ibv_create_qp(device->pd, &init);
        if (qp != NULL)
            *inline_bytes = init.cap.max_inline_data;
        if (qp != NULL || wanted == 0)
            return qp;
    }
}

static struct kolo__rdma_link *open_link(struct kolo__rdma_device *device, uint32_t tag,
                                         const struct kolo__rdma_depths *depths,
                                         uint32_t *inline_bytes, char *why, size_t bytes)
{
    const char *what = "grow the completion queue";
    struct kolo__rdma_link *link = calloc(1, sizeof *link);
    if (link == NULL) {
        kolo__verbs_failed(why, bytes, "no memory for a connection");
        return NULL;
    }
    link->device = device;
    link->tag = tag;
    link->completions = (int)(depths->sends + depths->receives);
    if (!grow_completions(device, link->completions))
        goto give_up;
    what = "create a queue pair";
    link->qp = create_qp(device, depths, inline_bytes);
    if (link->qp == NULL)
        goto give_up;
    what = "prepare a queue pair";
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = (uint8_t)device->port,
                               .qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE};
    errno = ibv_modify_qp(link->qp, &attr,
                          IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    if (errno != 0)
        goto give_up;
    return link;

give_up:
    kolo__verbs_failed(why, bytes, "cannot %s: %s%s", what, strerror(errno),
                       kolo__verbs_remedy(errno));
    close_link(link);
    return NULL;
}

static uint32_t link_number(const struct kolo__rdma_link *link)
{
    return link->qp->qp_num;
}

static bool connect_link(struct kolo__rdma_link *link, const struct kolo__rdma_path *path,
                         char *why, size_t bytes)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = mtu_of_bytes(path->mtu_bytes),
                               .dest_qp_num = path->link_number,
                               .pkey_index = (uint16_t)path->partition,
                               .rq_psn = path->first_in,
                               .max_dest_rd_atomic = 1,
                               .min_rnr_timer = 12,
                               .ah_attr = {.is_global = path->global,
                                           .dlid = (uint16_t)path->lid,
                                           .sl = (uint8_t)path->service_level,
                                           .port_num = (uint8_t)link->device->port,
                                           .grh = {.sgid_index = (uint8_t)path->own_gid_index,
                                                   .traffic_class = (uint8_t)path->traffic_class,
                                                   .hop_limit = 255}}};
    memcpy(attr.ah_attr.grh.dgid.raw, path->gid, sizeof path->gid);
    int failure =
        ibv_modify_qp(link->qp, &attr,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER | IBV_QP_PKEY_INDEX);
    if (failure != 0)
        return kolo__verbs_failed(why, bytes, "no way to it: %s; is there a route (ip route get)?",
                                  strerror(failure));
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                .sq_psn = path->first_out,
                                .timeout = (uint8_t)path->timeout,
                                .retry_cnt = (uint8_t)path->retry_count,
                                .rnr_retry = 7,
                                .max_rd_atomic = 1};
    failure = ibv_modify_qp(link->qp, &attr,
                            IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
    return failure == 0 ||
           kolo__verbs_failed(why, bytes, "the queue pair cannot send: %s", strerror(failure));
}

static bool post_receives(struct kolo__rdma_link *link, uint32_t count, char *why, size_t bytes)
{
    struct ibv_recv_wr request = {.wr_id = id_of(link, RECEIVE_BIT)}, *bad;
    for (uint32_t i = 0; i < count; i++) {
        int failure = ibv_post_recv(link->qp, &request, &bad);
        if (failure != 0)
            return kolo__verbs_failed(why, bytes, "cannot post a receive: %s", strerror(failure));
    }
    return true;
}

static bool post_write(struct kolo__rdma_link *link, const struct kolo__rdma_write *write,
                       char *why, size_t bytes)
{
    struct ibv_sge pieces[KOLO__VERBS_PIECES];
    int count = 0;
    for (int i = 0; i < write->part_count; i++)
        if (write->parts[i].iov_len > 0)
            pieces[count++] =
                (struct ibv_sge){.addr = (uintptr_t)write->parts[i].iov_base,
                                 .length = (uint32_t)write->parts[i].iov_len,
                                 .lkey = write->in_line ? 0 : write->region->mr->lkey};
    struct ibv_send_wr request = {
        .wr_id = id_of(link, 0),
        .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
        .send_flags =
            (write->in_line ? IBV_SEND_INLINE : 0u) | (write->signalled ? IBV_SEND_SIGNALED : 0u),
        .imm_data = htobe32(write->immediate),
        .sg_list = pieces,
        .num_sge = count,
        .wr.rdma = {.remote_addr = write->remote_address, .rkey = write->remote_key},
    };
    struct ibv_send_wr *bad;
    int failure = ibv_post_send(link->qp, &request, &bad);
    return failure == 0 ||
           kolo__verbs_failed(why, bytes, "cannot post a write: %s", strerror(failure));
}

static int poll_completions(struct kolo__rdma_device *device,
                            struct kolo__rdma_completion *completions, int most)
{
    struct ibv_wc found[16];
    int count = ibv_poll_cq(device->cq, most < 16 ? most : 16, found);
    for (int i = 0; i < count; i++) {
        const struct ibv_wc *wc = &found[i];
        completions[i] = (struct kolo__rdma_completion){
            .tag = (uint32_t)(wc->wr_id >> 1),
            .kind = (wc->wr_id & RECEIVE_BIT) != 0 ? KOLO__RDMA_IMMEDIATE : KOLO__RDMA_SENT,
            .failed = wc->status != IBV_WC_SUCCESS,
            .immediate = be32toh(wc->imm_data),
            .vendor_error = wc->vendor_err,
            .unreachable =
                wc->status == IBV_WC_RETRY_EXC_ERR || wc->status == IBV_WC_RNR_RETRY_EXC_ERR,
            .text = ibv_wc_status_str(wc->status),
        };
    }
    return count;
}

__attribute__((visibility("default"))) const struct kolo__rdma_module kolo__rdma_module = {
    .version = KOLO__RDMA_MODULE_VERSION,
    .survey = kolo__verbs_survey,
    .open = kolo__verbs_open,
    .close = kolo__verbs_close,
    .event_fd = event_fd,
    .request_event = request_event,
    .take_events = take_events,
    .trouble_fd = trouble_fd,
    .take_trouble = kolo__verbs_take_trouble,
    .region_open = kolo__verbs_region_open,
    .region_open_dma_buf = kolo__verbs_region_open_dma_buf,
    .region_close = kolo__verbs_region_close,
    .link_open = open_link,
    .link_close = close_link,
    .link_number = link_number,
    .link_connect = connect_link,
    .link_receive = post_receives,
    .link_write = post_write,
    .poll = poll_completions,
};
