/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which port, and which of its addresses (GIDs), a rank uses. A port's table of GIDs has holes, its
 * order differs from host to host and from pod to pod, and packets of a wrong entry do not arrive:
 * so all entries are looked at, and what is taken follows from what they are, not from where they
 * stand. Pure functions.
 *
 * Options have NCCL's names and meanings, so that what people have set for their fabric holds:
 * NCCL_IB_HCA, NCCL_IB_GID_INDEX, NCCL_IB_TC, NCCL_IB_SL, NCCL_IB_TIMEOUT, NCCL_IB_RETRY_CNT,
 * NCCL_IB_PKEY, NCCL_IB_QPS_PER_CONNECTION, NCCL_IB_DISABLE.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_SELECT_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_SELECT_H

#include "base/interfaces.h"
#include "collectives/transport/rdma_module.h"

struct kolo__rdma_options {
    /* "mlx5": devices whose name begins so; "=mlx5_0:1": exactly this one, and its port; "^mlx5_2":
     * all but those. Several by commas. "": all. Points into the environment. */
    const char *devices;
    long gid_index; /* -1: chosen */
    long traffic_class, service_level;
    long partition;   /* index into the port's table of partition keys */
    long timeout;     /* of a packet without an answer: 4.096 us * 2^timeout */
    long retry_count; /* how often it is sent again */
    long connections; /* of two ports */
    long disabled;    /* 1: never without being asked to */
    /* Set by the caller: nobody has asked for RDMA, so ports that are made of software are taken
     * only if devices names them. */
    bool unasked;
};

/* From NAME=VALUE strings. KOLO_ERR_CONFIG names the variable and what it may be. */
kolo_status kolo__rdma_options_read(char *const *environment, struct kolo__rdma_options *options);

bool kolo__rdma_device_allowed(const char *devices, const char *name, uint32_t port);

struct kolo__rdma_choice {
    const struct kolo__rdma_port *port; /* borrowed of the survey */
    const struct kolo__rdma_gid *gid;   /* the same; NULL: InfiniBand without one */
};

/* Where a rank is. */
struct kolo__rdma_place {
    const struct kolo__interfaces *own; /* those that kolo uses; may be NULL */
    int node;                           /* NUMA node of its processors; -1: several, or not known */
    uint32_t turn, ranks; /* number among the ranks of its host, and how many; 0: not known */
};

/* Best: a port that is up, with a GID that is the address of one of own, RoCE version 2, IPv4
 * before IPv6, the fastest, the nearest to the rank's GPU, at the rank's node; of ports that are
 * alike in all that, ranks take one each in turn, and again, while there are as many as ranks: up
 * to `most`. Link-local GIDs do not leave the link and are never taken, but on InfiniBand.
 * KOLO_ERR_UNSUPPORTED says what was found instead, and the remedy. */
kolo_status kolo__rdma_choose(const struct kolo__rdma_survey *survey,
                              const struct kolo__rdma_options *options,
                              const struct kolo__rdma_place *place, uint32_t most,
                              struct kolo__rdma_choice *choices, uint32_t *choice_count);

/* "rxe0 port 1, GID ::ffff:10.99.0.1 (index 1)", or its LID; returns text. */
enum { KOLO__RDMA_CHOICE_TEXT_BYTES = 160, KOLO__RDMA_GID_TEXT_BYTES = 48 };
const char *kolo__rdma_choice_text(const struct kolo__rdma_choice *choice,
                                   char text[KOLO__RDMA_CHOICE_TEXT_BYTES]);
const char *kolo__rdma_gid_text(const unsigned char gid[KOLO__RDMA_GID_BYTES],
                                char text[KOLO__RDMA_GID_TEXT_BYTES]);

/* Two ports of InfiniBand in one subnet reach each other by LID; everything else needs GIDs. */
bool kolo__rdma_needs_gid(bool infiniband, const unsigned char own[KOLO__RDMA_GID_BYTES],
                          const unsigned char other[KOLO__RDMA_GID_BYTES]);
/* The LID that packets from own to other go to: the other's, or, in another subnet, the one that
 * its prefix names for routers (FLID), if it names one. */
uint32_t kolo__rdma_lid_towards(const unsigned char own[KOLO__RDMA_GID_BYTES],
                                const unsigned char other[KOLO__RDMA_GID_BYTES], uint32_t lid);

#endif
