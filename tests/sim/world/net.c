/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams between processes, each of which is on a host of its own. What is written gets there
 * later, in order; a link that is cut holds it back, for as long as it is cut, in one direction
 * only. What TCP tells of that (who has not acknowledged what since when) is kept, for the library
 * looks at it.
 *
 *     written   | read | arrived | on the way ...... |
 */
#include "world.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW_BYTES = 1 << 18 };

/* One direction of a connection, kept by the end that reads. */
struct stream {
    struct process *owner, *other;
    struct stream *peer;
    unsigned char *bytes; /* that have not been read */
    size_t capacity, first, count;
    size_t arrived;        /* of these */
    uint64_t last_at_ns;   /* when the last of them gets here */
    uint64_t got_bytes;    /* that have arrived, in all */
    uint64_t acknowledged; /* what the peer's end knows of that */
    uint64_t written;      /* by this end, in all */
    uint64_t sent_ns, unacknowledged_since_ns, heard_ns, received_ns;
    uint64_t first_held_ns;
    bool closed;   /* by its owner */
    bool vanished; /* without a word */
    bool ended;    /* the peer has closed, and all before that is here */
    bool broken;   /* what was written came to who was not there any more */
    bool timed_out;
    bool end_follows; /* the last of what is on the way is the end */
    struct stream *next;
};

struct link {
    uint64_t cut_until_ns, cut_since_ns;
    uint32_t factor;
};

static struct stream *streams;
static struct link links[WORLD_PROCESSES_MAX][WORLD_PROCESSES_MAX];

static void pass(void *self, uint64_t number);

/* ---- links -----------------------------------------------------------------------------------
 */

bool net_is_cut(const struct process *from, const struct process *to)
{
    return links[from->id][to->id].cut_until_ns > world->now_ns;
}

static uint64_t cut_for(const struct process *from, const struct process *to)
{
    return net_is_cut(from, to) ? world->now_ns - links[from->id][to->id].cut_since_ns : 0;
}

uint64_t net_cut_for(const struct process *a, const struct process *b)
{
    uint64_t there_ns = cut_for(a, b), back_ns = cut_for(b, a);
    return there_ns > back_ns ? there_ns : back_ns;
}

uint64_t net_delay(const struct process *from, const struct process *to)
{
    return 1 + world_below(world->plan.delay_ns) * links[from->id][to->id].factor;
}

/* Tries again what was held back on all connections from one to the other. */
static void mend(void *self, uint64_t number)
{
    (void)self;
    (void)number;
    plane_update_links();
    for (struct stream *s = streams; s != NULL; s = s->next)
        if (!net_is_cut(s->other, s->owner))
            pass(s, s->got_bytes + (s->count - s->arrived));
}

void net_cut(struct process *from, struct process *to, uint64_t until_ns)
{
    struct link *link = &links[from->id][to->id];
    if (!net_is_cut(from, to))
        link->cut_since_ns = world->now_ns;
    link->cut_until_ns = until_ns;
    plane_update_links();
    if (until_ns != NEVER)
        world_at(until_ns + NET_RETRANSMIT_NS, mend, NULL, 0);
}

uint32_t net_factor(const struct process *from, const struct process *to)
{
    return links[from->id][to->id].factor;
}

void net_slow(struct process *from, struct process *to, uint32_t factor)
{
    links[from->id][to->id].factor = factor;
    plane_update_links();
}

/* ---- on the way ------------------------------------------------------------------------------
 */

/* It comes to know that all up to there is here. */
static void acknowledge(void *self, uint64_t number)
{
    struct stream *writer = self;
    struct stream *reader = writer->peer;
    if (writer->closed || net_is_cut(reader->owner, writer->owner))
        return;
    writer->heard_ns = world->now_ns;
    if (number > writer->acknowledged)
        writer->acknowledged = number;
    if (writer->acknowledged < writer->written)
        writer->unacknowledged_since_ns = world->now_ns;
    fiber_wake_process(writer->owner);
}

/* number: bytes, of all that were ever written, that have got here. */
static void pass(void *self, uint64_t number)
{
    struct stream *reader = self;
    struct stream *writer = reader->peer;
    if (net_is_cut(reader->other, reader->owner) || reader->closed)
        return;
    uint64_t whole = reader->got_bytes + (reader->count - reader->arrived);
    if (number > whole)
        number = whole;
    if (number > reader->got_bytes) {
        reader->arrived += number - reader->got_bytes;
        reader->got_bytes = number;
        reader->received_ns = reader->heard_ns = world->now_ns;
        reader->acknowledged = reader->written; /* data acknowledges, too */
    }
    if (reader->end_follows && reader->got_bytes == whole)
        reader->ended = true;
    fiber_wake_process(reader->owner);
    world_at(world->now_ns + net_delay(reader->owner, reader->other), acknowledge, writer, number);
}

/* A little of what was written last may be on its way in another packet. */
static void send_on(struct stream *reader, uint64_t upto)
{
    uint64_t at = world->now_ns + net_delay(reader->other, reader->owner);
    reader->last_at_ns = at > reader->last_at_ns ? at : reader->last_at_ns;
    world_at(reader->last_at_ns, pass, reader, upto);
}

/* ---- connections -----------------------------------------------------------------------------
 */

static struct stream *make_end(struct process *owner, struct process *other)
{
    struct process *inside = memory_step_out();
    struct stream *end = calloc(1, sizeof *end);
    memory_step_in(inside);
    KOLO__ASSERT(end != NULL);
    *end = (struct stream){.owner = owner,
                           .other = other,
                           .heard_ns = world->now_ns,
                           .received_ns = world->now_ns,
                           .sent_ns = world->now_ns,
                           .next = streams};
    streams = end;
    return end;
}

void net_connect(struct process *from, struct process *to, struct stream **ends)
{
    ends[0] = make_end(from, to);
    ends[1] = make_end(to, from);
    ends[0]->peer = ends[1];
    ends[1]->peer = ends[0];
}

static void append(struct stream *reader, const unsigned char *data, size_t bytes)
{
    if (reader->count + bytes > reader->capacity) {
        struct process *inside = memory_step_out();
        size_t capacity = 2 * (reader->count + bytes) + 256;
        unsigned char *grown = malloc(capacity);
        KOLO__ASSERT(grown != NULL);
        if (reader->count > 0)
            memcpy(grown, reader->bytes + reader->first, reader->count);
        free(reader->bytes);
        reader->bytes = grown;
        reader->capacity = capacity;
        reader->first = 0;
        memory_step_in(inside);
    }
    if (reader->first + reader->count + bytes > reader->capacity) {
        memmove(reader->bytes, reader->bytes + reader->first, reader->count);
        reader->first = 0;
    }
    memcpy(reader->bytes + reader->first + reader->count, data, bytes);
    reader->count += bytes;
}

static size_t room(const struct stream *end)
{
    const struct stream *reader = end->peer;
    size_t window =
        world->plan.window_bytes < WINDOW_BYTES ? world->plan.window_bytes : WINDOW_BYTES;
    return reader->count < window ? window - reader->count : 0;
}

bool net_is_writable(const struct stream *end)
{
    return end->broken || end->ended || end->timed_out || end->peer->closed || room(end) > 0;
}

long net_write(struct stream *end, const void *data, size_t bytes)
{
    struct stream *reader = end->peer;
    if (end->broken || end->timed_out)
        return -1;
    if (end->ended) { /* the first is answered by a reset */
        end->broken = true;
        return (long)bytes;
    }
    if (!reader->closed && bytes > room(end)) /* who is gone reads nothing, and fills up no more */
        bytes = room(end);
    if (bytes == 0)
        return 0;
    if (end->written == end->acknowledged)
        end->unacknowledged_since_ns = world->now_ns;
    end->written += bytes;
    end->sent_ns = world->now_ns;
    if (reader->closed) /* which is not known here yet, or never will be */
        return (long)bytes;
    append(reader, data, bytes);
    if (bytes > 1 && world_chance(30)) /* in two packets */
        send_on(reader, end->written - 1 - world_below(bytes - 1));
    send_on(reader, end->written);
    return (long)bytes;
}

bool net_is_readable(const struct stream *end)
{
    return end->arrived > 0 || end->ended || end->broken || end->timed_out;
}

size_t net_unread(const struct stream *end)
{
    return end->arrived;
}

long net_read(struct stream *end, void *data, size_t bytes)
{
    if (end->arrived == 0)
        return end->ended || end->broken || end->timed_out ? -1 : 0;
    bytes = bytes < end->arrived ? bytes : end->arrived;
    if (world_chance(25)) /* a record by itself, or a part of it */
        bytes = 1 + world_below(bytes);
    memcpy(data, end->bytes + end->first, bytes);
    end->first += bytes;
    end->count -= bytes;
    end->arrived -= bytes;
    if (end->peer != NULL)
        fiber_wake_process(end->other); /* there is room again */
    return (long)bytes;
}

bool net_timed_out(const struct stream *end)
{
    return end->timed_out;
}

struct process *net_peer(const struct stream *end)
{
    return end->other;
}

void net_close(struct stream *end, bool silent)
{
    struct stream *reader = end->peer;
    if (end->closed)
        return;
    end->closed = true;
    if (silent)
        return;
    reader->end_follows = true;
    send_on(reader, end->written);
}

void net_info(const struct stream *end, bool *unacknowledged, uint32_t *sent_ms, uint32_t *acked_ms,
              uint32_t *received_ms, uint32_t *retransmits)
{
    uint64_t now = world->now_ns;
    *unacknowledged = end->written > end->acknowledged;
    *sent_ms = (uint32_t)((now - end->sent_ns) / MS);
    *acked_ms = (uint32_t)((now - end->heard_ns) / MS);
    *received_ms = (uint32_t)((now - end->received_ns) / MS);
    *retransmits = *unacknowledged && now - end->unacknowledged_since_ns > 300 * MS;
}

void net_begin(void)
{
    for (uint32_t a = 0; a < WORLD_PROCESSES_MAX; a++)
        for (uint32_t b = 0; b < WORLD_PROCESSES_MAX; b++)
            links[a][b] = (struct link){.factor = 1};
}

void net_end(void)
{
    while (streams != NULL) {
        struct stream *end = streams;
        streams = end->next;
        free(end->bytes);
        free(end);
    }
}
