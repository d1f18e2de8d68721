/* SPDX-License-Identifier: Apache-2.0 */
#include "verbs_card.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct verbs_card verbs_card;

static int query_port(struct ibv_context *context, uint8_t number, struct ibv_port_attr *attr,
                      size_t bytes)
{
    (void)context;
    assert_int_equal(number, 1);
    assert_int_equal(bytes, sizeof *attr);
    *attr = verbs_card.port;
    return verbs_card.port_fails;
}

static int query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *in,
                           struct ibv_device_attr_ex *attr, size_t bytes)
{
    (void)context;
    (void)in;
    memset(attr, 0, bytes);
    attr->odp_caps.general_caps = verbs_card.on_demand ? IBV_ODP_SUPPORT : 0;
    attr->odp_caps.per_transport_caps.rc_odp_caps = IBV_ODP_SUPPORT_WRITE;
    return 0;
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *request, struct ibv_send_wr **bad)
{
    (void)qp;
    (void)bad;
    verbs_card.write = *request;
    assert_true(request->num_sge <= KOLO__VERBS_PIECES);
    memcpy(verbs_card.pieces, request->sg_list,
           (size_t)request->num_sge * sizeof *verbs_card.pieces);
    return 0;
}

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *completions)
{
    assert_ptr_equal(cq, &verbs_card.cq);
    assert_true(most > 0);
    completions[0] = verbs_card.completion;
    return 1;
}

int verbs_card_begin(void **state)
{
    (void)state;
    memset(&verbs_card, 0, sizeof verbs_card);
    strcpy(verbs_card.device.name, "card0");
    strcpy(verbs_card.device.dev_name, "no such");
    verbs_card.verbs.sz = sizeof verbs_card.verbs;
    verbs_card.verbs.query_port = query_port;
    verbs_card.verbs.query_device_ex = query_device_ex;
    verbs_card.verbs.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
    verbs_card.verbs.context.device = &verbs_card.device;
    verbs_card.verbs.context.ops.post_send = post_send;
    verbs_card.verbs.context.ops.poll_cq = poll_cq;
    verbs_card.attr = (struct ibv_device_attr){.max_qp = 1000,
                                               .max_mr = 1000,
                                               .max_qp_wr = 1000,
                                               .max_sge = 30,
                                               .max_cqe = 10000,
                                               .phys_port_cnt = 1};
    verbs_card.port = (struct ibv_port_attr){.state = IBV_PORT_ACTIVE,
                                             .link_layer = IBV_LINK_LAYER_ETHERNET,
                                             .active_mtu = IBV_MTU_4096,
                                             .active_speed = 128,
                                             .active_width = 2};
    verbs_card.qp = (struct ibv_qp){.context = &verbs_card.verbs.context, .qp_num = 77};
    verbs_card.mr.rkey = 99;
    verbs_card.mr.lkey = 98;
    verbs_card.inline_most = 60;
    verbs_card.verbs.context.async_fd = eventfd(0, EFD_CLOEXEC);
    verbs_card.channel.fd = eventfd(0, EFD_CLOEXEC);
    return 0;
}

int verbs_card_end(void **state)
{
    (void)state;
    close(verbs_card.verbs.context.async_fd);
    close(verbs_card.channel.fd);
    return verbs_card.cqs;
}

/* ---- the verbs ---------------------------------------------------------------------------- */

#undef ibv_get_device_list
#undef ibv_reg_mr
#undef ibv_query_port

static void *answer(void *success, int failure)
{
    errno = failure;
    return failure == 0 ? success : NULL;
}

int ibv_fork_init(void)
{
    return 0;
}

struct ibv_device **ibv_get_device_list(int *count)
{
    static struct ibv_device *list[] = {&verbs_card.device, NULL};
    assert_null(count);
    return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
    assert_non_null(list);
}

const char *ibv_get_device_name(struct ibv_device *device)
{
    return device->name;
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    assert_ptr_equal(device, &verbs_card.device);
    return answer(&verbs_card.verbs.context, verbs_card.open_fails);
}

int ibv_close_device(struct ibv_context *context)
{
    assert_ptr_equal(context, &verbs_card.verbs.context);
    return 0;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
    (void)context;
    *attr = verbs_card.attr;
    return 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries,
                             size_t most, uint32_t flags, size_t entry_bytes)
{
    (void)context;
    (void)flags;
    assert_true(most >= VERBS_CARD_GIDS);
    assert_int_equal(entry_bytes, sizeof *entries);
    memcpy(entries, verbs_card.gids, sizeof verbs_card.gids);
    return VERBS_CARD_GIDS;
}

/* Looked for by its name. */
__attribute__((visibility("default"))) struct ibv_mr *
ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t address, int fd,
                  int access)
{
    (void)pd, (void)offset, (void)length, (void)address, (void)fd, (void)access;
    return answer(NULL, EBADF);
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    (void)context;
    return &verbs_card.pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
    assert_ptr_equal(pd, &verbs_card.pd);
    return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    (void)context;
    return &verbs_card.channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
    assert_ptr_equal(channel, &verbs_card.channel);
    return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int size, void *own,
                             struct ibv_comp_channel *channel, int vector)
{
    (void)own, (void)vector;
    assert_ptr_equal(channel, &verbs_card.channel);
    verbs_card.cq = (struct ibv_cq){.context = context, .cqe = size};
    verbs_card.cq_size = size;
    verbs_card.cqs += verbs_card.cq_fails == 0;
    return answer(&verbs_card.cq, verbs_card.cq_fails);
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
    assert_ptr_equal(cq, &verbs_card.cq);
    verbs_card.cqs--;
    return 0;
}

/* Leaves errno alone, as the library does where a driver has none. */
int ibv_resize_cq(struct ibv_cq *cq, int size)
{
    if (verbs_card.resize_fails == 0)
        cq->cqe = verbs_card.cq_size = size;
    return verbs_card.resize_fails;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *init)
{
    assert_ptr_equal(pd, &verbs_card.pd);
    verbs_card.asked = *init;
    if (verbs_card.qp_fails == 0 && init->cap.max_inline_data > verbs_card.inline_most)
        return answer(NULL, EINVAL);
    return answer(&verbs_card.qp, verbs_card.qp_fails);
}

int ibv_destroy_qp(struct ibv_qp *qp)
{
    assert_ptr_equal(qp, &verbs_card.qp);
    return 0;
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
    assert_ptr_equal(qp, &verbs_card.qp);
    assert_true((mask & IBV_QP_STATE) != 0);
    *(attr->qp_state == IBV_QPS_INIT  ? &verbs_card.to_init
      : attr->qp_state == IBV_QPS_RTR ? &verbs_card.to_receive
                                      : &verbs_card.to_send) = *attr;
    return 0;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *memory, size_t bytes, int access)
{
    assert_ptr_equal(pd, &verbs_card.pd);
    (void)memory, (void)bytes;
    verbs_card.mr_access = access;
    return answer(&verbs_card.mr, (access & IBV_ACCESS_ON_DEMAND) != 0 ? 0 : verbs_card.mr_fails);
}

/* What the header makes of the other where it cannot tell the flags beforehand. */
struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *memory, size_t bytes, uint64_t address,
                                unsigned int access)
{
    assert_int_equal(address, (uintptr_t)memory);
    return ibv_reg_mr(pd, memory, bytes, (int)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
    assert_ptr_equal(mr, &verbs_card.mr);
    return 0;
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
    (void)context;
    if (verbs_card.events == 0)
        return -1;
    *event = (struct ibv_async_event){.event_type = verbs_card.event,
                                      .element.port_num = verbs_card.event_port};
    return 0;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
    (void)event;
    verbs_card.events--;
}
