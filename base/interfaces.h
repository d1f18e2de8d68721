/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network interfaces by which this host may be reached, best first. Which of them a given peer
 * reaches only a connection tells: whoever connects tries them.
 *
 * KOLO_NET chooses among them, in NCCL's syntax: names separated by commas, of which each means all
 * interfaces that begin so, or with "=" before it that one alone, or with "^" all but those. As
 * with NCCL, what stands before the first name holds for all: "^docker,lo" leaves out both.
 * "eth0,^eth01" does not come from there: eth0, eth02, ... but not eth01.
 */
#ifndef KOLO_BASE_INTERFACES_H
#define KOLO_BASE_INTERFACES_H

#include "base/socket.h"

#include <stdint.h>

enum { KOLO__INTERFACES_MAX = 16 };

struct kolo__interface {
    char name[16];
    struct kolo__address address; /* port 0 */
    uint32_t prefix_bits;         /* of the network that is reached without a gateway */
    uint32_t speed_mbps;          /* as the driver says; 0: it does not */
    bool loopback;
    bool is_virtual; /* belongs to containers or machines on this host: bridges and the like */
};

struct kolo__interfaces {
    size_t count;
    struct kolo__interface list[KOLO__INTERFACES_MAX];
};

/* KOLO_ERR_CONFIG names what is wrong. "" is a filter that chooses nothing and excludes nothing. */
kolo_status kolo__interface_filter_check(const char *filter);
/* Does the filter leave this one in? *named: because a name says so. */
bool kolo__interface_filter_allows(const char *filter, const char *name, bool *named);

/* Sorts, and drops what the filter leaves out. Loopback, and virtual ones, stay only when the
 * filter names them, or when nothing else is left. Pure. Returns how many stay. */
size_t kolo__interfaces_choose(const char *filter, struct kolo__interface *interfaces,
                               size_t count);

/* Those that are up and have an address, chosen by the filter. IPv6 addresses that are valid on one
 * link only are left out. KOLO_ERR_CONFIG when the filter leaves none; the text lists them. */
kolo_status kolo__interfaces_find(const char *filter, struct kolo__interfaces *found);

/* Whether an interface is up and has an address at all, KOLO_NET or not: loopback, where ranks of
 * one host meet, and any other. */
kolo_status kolo__interfaces_up(bool *loopback, bool *others);

/* The address lies in the network of this interface: no router between them. */
bool kolo__interface_reaches(const struct kolo__interface *interface,
                             const struct kolo__address *address);
/* The addresses of these, best first: one of each interface that is as good as the best, at least
 * half as fast as far as known; then, as alternatives, the rest. */
void kolo__interfaces_endpoint(const struct kolo__interfaces *own, struct kolo__endpoint *endpoint);
/* Puts the addresses that lie in a network of one of these interfaces first, in the order of those;
 * alternatives among themselves. */
void kolo__interfaces_sort(const struct kolo__interfaces *own, struct kolo__endpoint *endpoint);
/* Where the number-th of several connections to one address should come from, so that all
 * interfaces in its network are used in turn. NULL: none is in its network. */
const struct kolo__address *kolo__interfaces_source(const struct kolo__interfaces *own,
                                                    const struct kolo__address *address,
                                                    uint32_t number);

#endif
