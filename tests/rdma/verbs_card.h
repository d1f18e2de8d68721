/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A card that is none: stand-ins for the verbs that the RDMA module calls, which answer as they are
 * told to, and keep what they were told.
 */
#ifndef KOLO_TESTS_RDMA_VERBS_CARD_H
#define KOLO_TESTS_RDMA_VERBS_CARD_H

#include "collectives/transport/rdma_verbs.h"

enum { VERBS_CARD_GIDS = 300 };

struct verbs_card {
    struct ibv_device device;
    struct verbs_context verbs;
    struct ibv_device_attr attr;
    struct ibv_port_attr port;
    struct ibv_pd pd;
    struct ibv_comp_channel channel;
    struct ibv_cq cq;
    struct ibv_qp qp;
    struct ibv_mr mr;
    struct ibv_gid_entry gids[VERBS_CARD_GIDS];
    uint32_t inline_most;
    bool on_demand;
    /* What the verbs answer: 0, or an errno. */
    int open_fails, port_fails, cq_fails, resize_fails, qp_fails, mr_fails;
    /* What they were told. */
    struct ibv_qp_attr to_init, to_receive, to_send;
    struct ibv_qp_init_attr asked;
    struct ibv_send_wr write;
    struct ibv_sge pieces[KOLO__VERBS_PIECES];
    int cqs, cq_size, mr_access;
    struct ibv_wc completion;
    enum ibv_event_type event;
    uint8_t event_port;
    int events;
};

extern struct verbs_card verbs_card;

/* For cmocka's setup and teardown: a card without faults; nothing of it is left open. */
int verbs_card_begin(void **state);
int verbs_card_end(void **state);

#endif
