/* SPDX-License-Identifier: Apache-2.0 */
/* libkolo-rdma.so: the host's verbs behind rdma_module.h. */
#include "collectives/transport/rdma_module.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kolo__rdma_device {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    int cq_wanted; /* completions that all links may leave at once */
    uint32_t port;
};

struct kolo__rdma_region {
    struct ibv_mr *mr;
};

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

static bool failed(char *why, size_t bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Keeps errno for nobody: it is in the text. */
static bool failed(char *why, size_t bytes, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, bytes, format, arguments);
    va_end(arguments);
    return false;
}

static const char *memory_remedy(int failure)
{
    return failure == ENOMEM ? "; raise the limit of locked memory (ulimit -l unlimited, or "
                               "LimitMEMLOCK=infinity of the service)"
                             : "";
}

/* ---- what there is ------------------------------------------------------------------------ */

static uint32_t lane_mbps(uint8_t speed)
{
    switch (speed) {
    case 1:
        return 2500;
    case 2:
        return 5000;
    case 4:
    case 8:
        return 10000;
    case 16:
        return 14000;
    case 32:
        return 25000;
    case 64:
        return 50000;
    case 128:
        return 100000;
    default:
        return 0;
    }
}

static uint32_t lanes_of(uint8_t width)
{
    return width == 1 ? 1 : width == 2 ? 4 : width == 4 ? 8 : width == 8 ? 12 : width == 16 ? 2 : 0;
}

static uint32_t bytes_of_mtu(enum ibv_mtu mtu)
{
    return 128u << (unsigned)mtu;
}

static enum ibv_mtu mtu_of_bytes(uint32_t bytes)
{
    enum ibv_mtu mtu = IBV_MTU_256;
    while (mtu < IBV_MTU_4096 && bytes_of_mtu(mtu + 1) <= bytes)
        mtu++;
    return mtu;
}

static bool is_zero(const union ibv_gid *gid)
{
    static const union ibv_gid zero;
    return memcmp(gid, &zero, sizeof zero) == 0;
}

/* Of all entries the one call reads, those of this port that are not empty. */
static void read_gids(struct ibv_context *context, struct kolo__rdma_port *port)
{
    enum { ENTRIES_MAX = 2000 }; /* more than 64 KiB of them the system does not return */
    struct ibv_gid_entry *entries = calloc(ENTRIES_MAX, sizeof *entries);
    ssize_t count = entries != NULL ? ibv_query_gid_table(context, entries, ENTRIES_MAX, 0) : 0;
    for (ssize_t i = 0; i < count && port->gid_count < KOLO__RDMA_GIDS_MAX; i++) {
        if (entries[i].port_num != port->number || is_zero(&entries[i].gid))
            continue;
        struct kolo__rdma_gid *gid = &port->gids[port->gid_count++];
        memcpy(gid->raw, entries[i].gid.raw, sizeof gid->raw);
        gid->index = entries[i].gid_index;
        gid->kind = entries[i].gid_type == IBV_GID_TYPE_ROCE_V2   ? KOLO__RDMA_GID_ROCE_V2
                    : entries[i].gid_type == IBV_GID_TYPE_ROCE_V1 ? KOLO__RDMA_GID_ROCE_V1
                                                                  : KOLO__RDMA_GID_IB;
    }
    free(entries);
}

static void read_port(struct ibv_context *context, uint32_t number, struct kolo__rdma_port *port)
{
    struct ibv_port_attr attr;
    memset(&attr, 0, sizeof attr);
    if (ibv_query_port(context, (uint8_t)number, &attr) != 0)
        return;
    memset(port, 0, sizeof *port);
    snprintf(port->device, sizeof port->device, "%s", ibv_get_device_name(context->device));
    port->number = number;
    port->active = attr.state == IBV_PORT_ACTIVE;
    snprintf(port->state, sizeof port->state, "%s", ibv_port_state_str(attr.state));
    port->infiniband = attr.link_layer != IBV_LINK_LAYER_ETHERNET;
    port->lid = attr.lid;
    port->mtu_bytes = bytes_of_mtu(attr.active_mtu);
    port->speed_mbps = lane_mbps(attr.active_speed) * lanes_of(attr.active_width);
    read_gids(context, port);
}

static bool survey(struct kolo__rdma_survey *survey, char *why, size_t bytes)
{
    survey->port_count = 0;
    struct ibv_device **devices = ibv_get_device_list(NULL);
    if (devices == NULL && errno == ENOSYS) /* the system has no part for them */
        return true;
    if (devices == NULL)
        return failed(why, bytes, "the list of RDMA devices cannot be read: %s", strerror(errno));
    for (int i = 0; devices[i] != NULL; i++) {
        struct ibv_context *context = ibv_open_device(devices[i]);
        struct ibv_device_attr attr;
        if (context == NULL)
            continue;
        if (ibv_query_device(context, &attr) == 0)
            for (uint32_t number = 1; number <= attr.phys_port_cnt; number++)
                if (survey->port_count < KOLO__RDMA_PORTS_MAX)
                    read_port(context, number, &survey->ports[survey->port_count++]);
        ibv_close_device(context);
    }
    ibv_free_device_list(devices);
    return true;
}

/* ---- a device ----------------------------------------------------------------------------- */

static void close_device(struct kolo__rdma_device *device)
{
    if (device == NULL)
        return;
    if (device->cq != NULL)
        ibv_destroy_cq(device->cq);
    if (device->channel != NULL)
        ibv_destroy_comp_channel(device->channel);
    if (device->pd != NULL)
        ibv_dealloc_pd(device->pd);
    if (device->context != NULL)
        ibv_close_device(device->context);
    free(device);
}

static struct ibv_context *open_by_name(const char *name)
{
    struct ibv_context *context = NULL;
    struct ibv_device **devices = ibv_get_device_list(NULL);
    for (int i = 0; devices != NULL && devices[i] != NULL && context == NULL; i++)
        if (strcmp(ibv_get_device_name(devices[i]), name) == 0)
            context = ibv_open_device(devices[i]);
    if (devices != NULL)
        ibv_free_device_list(devices);
    return context;
}

static bool never_blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static struct kolo__rdma_device *open_device(const char *name, uint32_t port, char *why,
                                             size_t bytes)
{
    enum { FIRST_COMPLETIONS = 64 };
    const char *what = "open it";
    struct kolo__rdma_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        goto give_up;
    device->port = port;
    device->context = open_by_name(name);
    if (device->context == NULL)
        goto give_up;
    what = "allocate a protection domain";
    device->pd = ibv_alloc_pd(device->context);
    if (device->pd == NULL)
        goto give_up;
    what = "make a completion channel";
    device->channel = ibv_create_comp_channel(device->context);
    if (device->channel == NULL || !never_blocks(device->channel->fd) ||
        !never_blocks(device->context->async_fd))
        goto give_up;
    what = "make a completion queue";
    device->cq = ibv_create_cq(device->context, FIRST_COMPLETIONS, NULL, device->channel, 0);
    if (device->cq == NULL)
        goto give_up;
    return device;

give_up:
    failed(why, bytes, "cannot %s: %s%s", what, strerror(errno), memory_remedy(errno));
    close_device(device);
    return NULL;
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

static bool take_trouble(struct kolo__rdma_device *device, bool *fatal, bool *port_down,
                         bool *port_up, const char **text)
{
    struct ibv_async_event event;
    if (ibv_get_async_event(device->context, &event) != 0)
        return false;
    bool own_port = event.element.port_num == (int)device->port;
    *text = ibv_event_type_str(event.event_type);
    *fatal = event.event_type == IBV_EVENT_DEVICE_FATAL || event.event_type == IBV_EVENT_CQ_ERR ||
             event.event_type == IBV_EVENT_QP_FATAL;
    *port_down = event.event_type == IBV_EVENT_PORT_ERR && own_port;
    *port_up = event.event_type == IBV_EVENT_PORT_ACTIVE && own_port;
    ibv_ack_async_event(&event);
    return true;
}

static struct kolo__rdma_region *open_region(struct kolo__rdma_device *device, void *memory,
                                             size_t memory_bytes, uint32_t *remote_key, char *why,
                                             size_t bytes)
{
    struct kolo__rdma_region *region = calloc(1, sizeof *region);
    if (region != NULL)
        region->mr = ibv_reg_mr(device->pd, memory, memory_bytes,
                                IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    if (region == NULL || region->mr == NULL) {
        failed(why, bytes, "cannot register %zu bytes: %s%s", memory_bytes, strerror(errno),
               memory_remedy(errno));
        free(region);
        return NULL;
    }
    *remote_key = region->mr->rkey;
    return region;
}

static void close_region(struct kolo__rdma_region *region)
{
    if (region == NULL)
        return;
    ibv_dereg_mr(region->mr);
    free(region);
}

/* ---- links -------------------------------------------------------------------------------- */

/* The completion queue must never overflow. */
static bool grow_completions(struct kolo__rdma_device *device, int wanted)
{
    device->cq_wanted += wanted;
    int size = device->cq->cqe;
    while (size < device->cq_wanted)
        size *= 2;
    return size == device->cq->cqe || ibv_resize_cq(device->cq, size) == 0;
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
                    .max_send_sge = 4,
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
        failed(why, bytes, "no memory for a connection");
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
    failed(why, bytes, "cannot %s: %s%s", what, strerror(errno), memory_remedy(errno));
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
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (failure != 0)
        return failed(why, bytes, "no way to it: %s", strerror(failure));
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                .sq_psn = path->first_out,
                                .timeout = (uint8_t)path->timeout,
                                .retry_cnt = (uint8_t)path->retry_count,
                                .rnr_retry = 7,
                                .max_rd_atomic = 1};
    failure = ibv_modify_qp(link->qp, &attr,
                            IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
    return failure == 0 || failed(why, bytes, "the queue pair cannot send: %s", strerror(failure));
}

static bool post_receives(struct kolo__rdma_link *link, uint32_t count, char *why, size_t bytes)
{
    struct ibv_recv_wr request = {.wr_id = id_of(link, RECEIVE_BIT)}, *bad;
    for (uint32_t i = 0; i < count; i++) {
        int failure = ibv_post_recv(link->qp, &request, &bad);
        if (failure != 0)
            return failed(why, bytes, "cannot post a receive: %s", strerror(failure));
    }
    return true;
}

static bool post_write(struct kolo__rdma_link *link, const struct kolo__rdma_write *write,
                       char *why, size_t bytes)
{
    struct ibv_sge pieces[4];
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
    return failure == 0 || failed(why, bytes, "cannot post a write: %s", strerror(failure));
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
            .flushed = wc->status == IBV_WC_WR_FLUSH_ERR,
            .unreachable =
                wc->status == IBV_WC_RETRY_EXC_ERR || wc->status == IBV_WC_RNR_RETRY_EXC_ERR,
            .text = ibv_wc_status_str(wc->status),
        };
    }
    return count;
}

__attribute__((visibility("default"))) const struct kolo__rdma_module kolo__rdma_module = {
    .version = KOLO__RDMA_MODULE_VERSION,
    .survey = survey,
    .open = open_device,
    .close = close_device,
    .event_fd = event_fd,
    .request_event = request_event,
    .take_events = take_events,
    .trouble_fd = trouble_fd,
    .take_trouble = take_trouble,
    .region_open = open_region,
    .region_close = close_region,
    .link_open = open_link,
    .link_close = close_link,
    .link_number = link_number,
    .link_connect = connect_link,
    .link_receive = post_receives,
    .link_write = post_write,
    .poll = poll_completions,
};
