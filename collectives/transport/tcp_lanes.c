/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several connections between two ranks, as one. Where a link carries more than one connection gets
 * out of it (a limit for each flow, as clouds have, or a long path that loses), more of them get
 * more; and hosts with several network interfaces need at least one through each.
 *
 * Both ranks know before they connect how many lanes there will be: nothing is negotiated. Lane i
 * goes to the i-th of the addresses of the other that are for use, or, when that does not answer,
 * to the next, so that an interface without a cable costs its share and nothing else. The bytes of
 * a direction are cut into stripes of one length, which go through lane 0, 1, 2, ... in turn:
 * where a byte goes depends on its place in the stream alone, and needs no header.
 */
#include "base/log.h"
#include "base/status.h"
#include "collectives/transport/tcp_transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t primaries(const struct kolo__endpoint *endpoint)
{
    return endpoint->count - endpoint->alternatives;
}

uint32_t kolo__tcp_lanes_between(const struct kolo__endpoint *a, const struct kolo__endpoint *b,
                                 uint32_t streams)
{
    uint32_t lanes = primaries(a) < primaries(b) ? primaries(a) : primaries(b);
    lanes = lanes > streams ? lanes : streams;
    lanes = lanes < KOLO__TCP_LANES_MAX ? lanes : KOLO__TCP_LANES_MAX;
    return lanes > 0 ? lanes : 1;
}

kolo_status kolo__tcp_create_lanes(struct kolo__tcp *tcp, uint32_t size, uint32_t streams)
{
    const struct kolo__endpoint *own = &tcp->peers[tcp->own.rank].endpoint;
    uint32_t total = 0;
    for (uint32_t r = 0; r < size; r++)
        if (r != tcp->own.rank)
            total += kolo__tcp_lanes_between(own, &tcp->peers[r].endpoint, streams);
    tcp->lanes = calloc(total + 1, sizeof *tcp->lanes);
    if (tcp->lanes == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u connections", total);
    struct kolo__tcp_lane *next = tcp->lanes;
    for (uint32_t r = 0; r < size; r++) {
        struct kolo__tcp_peer *peer = &tcp->peers[r];
        if (r == tcp->own.rank)
            continue;
        peer->lanes = next;
        peer->lane_count = kolo__tcp_lanes_between(own, &peer->endpoint, streams);
        peer->in.left = peer->out.left = KOLO__TCP_STRIPE_BYTES;
        for (uint32_t i = 0; i < peer->lane_count; i++)
            *next++ = (struct kolo__tcp_lane){.peer = r, .number = i, .fd = -1};
        tcp->lane_count += peer->lane_count;
    }
    return KOLO_OK;
}

const struct kolo__address *kolo__tcp_lane_address(const struct kolo__tcp *tcp,
                                                   const struct kolo__tcp_lane *lane)
{
    const struct kolo__endpoint *endpoint = &tcp->peers[lane->peer].endpoint;
    uint32_t turn = (lane->attempts - 1) % endpoint->count;
    if (turn < primaries(endpoint))
        turn = (turn + lane->number) % primaries(endpoint);
    return &endpoint->addresses[turn];
}

const struct kolo__address *kolo__tcp_lane_source(const struct kolo__tcp *tcp,
                                                  const struct kolo__tcp_lane *lane)
{
    return kolo__interfaces_source(&tcp->own_interfaces, kolo__tcp_lane_address(tcp, lane),
                                   lane->number);
}

void kolo__tcp_log_lanes(const struct kolo__tcp *tcp, uint32_t index)
{
    const struct kolo__tcp_peer *peer = &tcp->peers[index];
    char text[KOLO__TCP_LANES_MAX * 130] = "", from[64], to[64], name[100];
    for (uint32_t i = 0; i < peer->lane_count; i++) {
        struct kolo__address local = {.length = sizeof local.storage}, remote = local;
        getsockname(peer->lanes[i].fd, (struct sockaddr *)&local.storage, &local.length);
        getpeername(peer->lanes[i].fd, (struct sockaddr *)&remote.storage, &remote.length);
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s to %s", i > 0 ? ", " : "",
                 kolo__address_text(&local, from, sizeof from),
                 kolo__address_text(&remote, to, sizeof to));
    }
    kolo__log(KOLO__LOG_INFO, "%s: %u connection%s, %s",
              kolo__stream_peer_name(&tcp->stream, index, name, sizeof name), peer->lane_count,
              peer->lane_count > 1 ? "s" : "", text);
}
