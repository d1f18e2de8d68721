/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's buffer in pieces: what the fleet puts there and checks is a contiguous image of it. In
 * memory the pieces lie in reverse, aligned to no more than their elements, with guard bytes around
 * each, so that whoever goes on after the end of one meets none that follows it.
 */
#include "fleet.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { GUARD_BYTE = 0xd5, GAP_MAX = 5 };

/* Mostly shorter than the longest. */
static size_t draw_length(struct kolo__random *random, size_t longest, size_t left)
{
    size_t length = 1 + (size_t)kolo__random_below(random, longest);
    if (kolo__random_below(random, 3) != 0)
        length = 1 + (size_t)kolo__random_below(random, length);
    return length < left ? length : left;
}

void fleet_cut(struct fleet *fleet, uint32_t r)
{
    const struct fleet_options *options = &fleet->options;
    struct fleet_rank *rank = &fleet->ranks[r];
    struct kolo__random random = {.state = options->sim.seed * 100 + r};
    size_t element = kolo_dtype_bytes(options->dtype), count = rank->output_bytes / element;
    if ((options->in_pieces >> r & 1) == 0 || count == 0)
        return;
    rank->pieces = calloc(count, sizeof(*rank->pieces));
    rank->scattered_bytes = (count * (GAP_MAX + 1) + GAP_MAX + 1) * element;
    rank->scattered = malloc(rank->scattered_bytes);
    assert_non_null(rank->pieces);
    assert_non_null(rank->scattered);
    unsigned char *end = rank->scattered + rank->scattered_bytes;
    for (size_t first = 0, length; first < count; first += length) {
        length = draw_length(&random, options->longest_piece, count - first);
        end -= (1 + (size_t)kolo__random_below(&random, GAP_MAX) + length) * element;
        rank->pieces[rank->piece_count++] = (struct kolo__piece){.first = first, .data = end};
    }
}

static size_t bytes_of(const struct fleet_rank *rank, uint32_t k, size_t element)
{
    size_t count = rank->output_bytes / element;
    size_t end = k + 1 < rank->piece_count ? rank->pieces[k + 1].first : count;
    return (end - rank->pieces[k].first) * element;
}

void fleet_scatter(struct fleet_rank *rank, size_t element)
{
    memset(rank->scattered, GUARD_BYTE, rank->scattered_bytes);
    for (uint32_t k = 0; k < rank->piece_count; k++)
        memcpy(rank->pieces[k].data, rank->output + rank->pieces[k].first * element,
               bytes_of(rank, k, element));
    memset(rank->output, GUARD_BYTE, rank->output_bytes);
}

bool fleet_gather(struct fleet_rank *rank, size_t element)
{
    const unsigned char *at = rank->scattered;
    for (uint32_t k = rank->piece_count; k-- > 0;) {
        const unsigned char *data = rank->pieces[k].data;
        while (at < data)
            if (*at++ != GUARD_BYTE)
                return false;
        memcpy(rank->output + rank->pieces[k].first * element, data, bytes_of(rank, k, element));
        at += bytes_of(rank, k, element);
    }
    while (at < rank->scattered + rank->scattered_bytes)
        if (*at++ != GUARD_BYTE)
            return false;
    return true;
}
