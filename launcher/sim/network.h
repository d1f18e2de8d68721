/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network as `kolo sim` knows it: which links a message goes through, how much they carry, how
 * long it is on its way.
 *
 *      flat        one switch that never is in the way
 *
 *      fat-tree    spine                     leaf: a switch with some hosts, with all their
 *                  /    \                    interfaces; the way up carries 1/over of what the
 *               leaf    leaf                 hosts below could send
 *               / \      / \
 *              h   h    h   h
 *
 *      rails       interface r of each host is on leaf r of its group; between different r, and
 *                  between groups, the way is over the spine
 *
 * Links carry both ways at once. Traffic is spread evenly over the links between a leaf and the
 * spine, which real networks reach at best.
 */
#ifndef KOLO_LAUNCHER_SIM_NETWORK_H
#define KOLO_LAUNCHER_SIM_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kolo__network {
    uint32_t per_host;   /* ranks; they lie on hosts in blocks */
    uint32_t rails;      /* interfaces of a host; local rank i uses interface i modulo rails */
    uint32_t leaf_hosts; /* of a leaf, or of a group of rails; 0: flat */
    bool rail_leaves;
    double oversubscription; /* at least 1 */
    double link_rate;        /* bytes a second of an interface */
    double rank_rate;        /* that one rank sends or receives between hosts; and inside: */
    double local_rate;
    double message_s, local_message_s; /* of a message, besides its bytes; without switches */
    double switch_s;                   /* that each switch on the way adds */
    uint32_t slow_hosts;               /* spread evenly over all; their links carry */
    double slow_factor;                /* so many times less */
};

/* "flat", "fat-tree:leaf=32,over=4", "rails:leaf=16". Sets leaf_hosts, rail_leaves and
 * oversubscription. Returns NULL, or what is wrong. */
const char *kolo__network_parse(struct kolo__network *network, const char *text);

/* Seconds of a message without its bytes. */
double kolo__network_latency(const struct kolo__network *network, uint32_t from, uint32_t to);

/* What flows through the links at one time. */
struct kolo__load;
/* NULL: no memory. */
struct kolo__load *kolo__load_create(const struct kolo__network *network, uint32_t ranks);
void kolo__load_free(struct kolo__load *load);
void kolo__load_add(struct kolo__load *load, uint32_t from, uint32_t to, double bytes);
/* Seconds that the slowest link takes; its name is put into where: "uplinks of leaf 3". */
double kolo__load_seconds(const struct kolo__load *load, char *where, size_t bytes);

#endif
