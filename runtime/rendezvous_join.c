/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that have joined (kolo_join) need to hear of every collective that the others begin: each
 * is forwarded once to each of them, in order. Nothing is kept of a communicator on which nobody
 * has joined, or all have.
 */
#include "runtime/rendezvous_world.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Communicators at once, and collectives by which ranks of one may be apart. */
enum { COMMS_MAX = 4096, KEPT_MAX = 4096 };

struct kept {
    bool known;
    uint32_t by; /* rank of the world */
    struct kolo__announcement announcement;
};

struct place {
    uint32_t rank; /* of the world */
    bool joined;
    uint64_t known; /* the last collective that it has begun, or was told of */
};

struct kolo__join_comm {
    struct kolo__join_comm *next;
    uint32_t id, guardian; /* the same when it has none */
    uint32_t size, joined, last;
    struct place *places;
    uint64_t newest;     /* collective of all that were heard of */
    uint64_t kept_first; /* sequence of kept[0] */
    uint64_t lost;       /* no collective up to this one can be told any more */
    uint32_t kept_count, kept_capacity;
    struct kept *kept;
};

/* ---- communicators ------------------------------------------------------------------------- */

static struct kolo__join_comm *find(const struct kolo__rendezvous *server, uint32_t id)
{
    struct kolo__join_comm *comm = server->join_comms;
    while (comm != NULL && comm->id != id)
        comm = comm->next;
    return comm;
}

static struct place *find_place(const struct kolo__join_comm *comm, uint32_t rank)
{
    for (uint32_t i = 0; i < comm->size; i++)
        if (comm->places[i].rank == rank)
            return &comm->places[i];
    return NULL;
}

static void free_comm(struct kolo__join_comm *comm)
{
    free(comm->places);
    free(comm->kept);
    free(comm);
}

static void forget(struct kolo__rendezvous *server, struct kolo__join_comm *comm)
{
    struct kolo__join_comm **link = &server->join_comms;
    while (*link != comm) {
        KOLO__ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = comm->next;
    server->join_comm_count--;
    free_comm(comm);
}

void kolo__world_forget_joins(struct kolo__rendezvous *server)
{
    while (server->join_comms != NULL)
        forget(server, server->join_comms);
}

/* Reads the ranks at the end of JOINED; NULL when they are none. */
static struct place *read_places(const struct kolo__rendezvous *server, uint32_t size,
                                 struct kolo__frame_reader *payload)
{
    if (size == 0 || size > server->size || (size_t)(payload->end - payload->next) != size * 4u)
        return NULL;
    struct place *places = calloc(size, sizeof *places);
    bool *seen = calloc(server->size, sizeof *seen);
    bool good = places != NULL && seen != NULL;
    for (uint32_t i = 0; i < size && good; i++) {
        places[i].rank = kolo__get_u32(payload);
        good = places[i].rank < server->size && !seen[places[i].rank];
        if (good)
            seen[places[i].rank] = true;
    }
    free(seen);
    if (good)
        return places;
    free(places);
    return NULL;
}

static bool same_places(const struct kolo__join_comm *comm, const struct place *places,
                        uint32_t size)
{
    bool same = comm->size == size;
    for (uint32_t i = 0; i < size && same; i++)
        same = comm->places[i].rank == places[i].rank;
    return same;
}

/* ---- telling ------------------------------------------------------------------------------- */

static struct kolo__frame_writer *begin_frame(struct kolo__connection *to,
                                              enum kolo__frame_type type)
{
    kolo__frame_begin(&to->out, type);
    return &to->out;
}

static void tell_joined(struct kolo__rendezvous *server, const struct kolo__join_comm *comm,
                        const struct place *who)
{
    for (uint32_t i = 0; i < comm->size; i++) {
        struct kolo__connection *to = server->members[comm->places[i].rank].connection;
        if (to == NULL)
            continue;
        struct kolo__frame_writer *frame = begin_frame(to, KOLO__FRAME_JOINED);
        kolo__put_u32(frame, comm->id);
        kolo__put_u32(frame, comm->guardian);
        kolo__put_u32(frame, who->rank);
        kolo__put_u64(frame, who->known);
        kolo__frame_end(frame);
        kolo__connection_flush(to);
    }
}

static void tell_all_joined(struct kolo__rendezvous *server, const struct kolo__join_comm *comm)
{
    for (uint32_t i = 0; i < comm->size; i++) {
        struct kolo__connection *to = server->members[comm->places[i].rank].connection;
        if (to == NULL)
            continue;
        struct kolo__frame_writer *frame = begin_frame(to, KOLO__FRAME_ALL_JOINED);
        kolo__put_u32(frame, comm->id);
        kolo__put_u32(frame, comm->last);
        kolo__frame_end(frame);
        kolo__connection_flush(to);
    }
}

static const struct kept *get_kept(const struct kolo__join_comm *comm, uint64_t sequence)
{
    if (sequence < comm->kept_first || sequence - comm->kept_first >= comm->kept_count ||
        !comm->kept[sequence - comm->kept_first].known)
        return NULL;
    return &comm->kept[sequence - comm->kept_first];
}

/* Tells a rank that has joined all that it lacks, as far as it is known. */
static void forward(struct kolo__rendezvous *server, const struct kolo__join_comm *comm,
                    struct place *place)
{
    struct kolo__connection *to = server->members[place->rank].connection;
    const struct kept *kept;
    if (to == NULL || get_kept(comm, place->known + 1) == NULL)
        return;
    while ((kept = get_kept(comm, place->known + 1)) != NULL) {
        struct kolo__frame_writer *frame = begin_frame(to, KOLO__FRAME_ANNOUNCE);
        kolo__put_announcement(frame, &kept->announcement);
        kolo__frame_end(frame);
        place->known++;
    }
    kolo__connection_flush(to);
}

static void drop_kept(struct kolo__join_comm *comm, uint32_t count)
{
    comm->kept_count -= count;
    comm->kept_first += count;
    memmove(comm->kept, comm->kept + count, comm->kept_count * sizeof *comm->kept);
}

/* What every rank has begun nobody will ask for. */
static void drop_what_all_know(struct kolo__join_comm *comm)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < comm->size; i++)
        least = comm->places[i].known < least ? comm->places[i].known : least;
    if (comm->kept_count > 0 && least >= comm->kept_first) {
        uint64_t count = least - comm->kept_first + 1;
        drop_kept(comm, count < comm->kept_count ? (uint32_t)count : comm->kept_count);
    }
}

/* ---- the end ------------------------------------------------------------------------------- */

static bool is_settled(const struct kolo__join_comm *comm)
{
    bool settled = comm->joined == comm->size;
    for (uint32_t i = 0; i < comm->size && settled; i++)
        settled = comm->places[i].known == comm->newest;
    return settled;
}

/* When all have joined on a communicator, those that it guards have no more to do either: a rank
 * joins on them first. Where one has not, it has no such communicator any more, and it does not
 * count. */
static void end_if_all_joined(struct kolo__rendezvous *server, uint32_t guardian)
{
    struct kolo__join_comm *first = find(server, guardian), *next;
    if (first == NULL || !is_settled(first))
        return;
    for (struct kolo__join_comm *comm = server->join_comms; comm != NULL; comm = comm->next)
        if (comm->guardian == guardian && comm->joined == comm->size && !is_settled(comm))
            return;
    for (struct kolo__join_comm *comm = server->join_comms; comm != NULL; comm = next) {
        next = comm->next;
        if (comm == first || comm->guardian != guardian)
            continue;
        if (comm->joined == comm->size)
            tell_all_joined(server, comm);
        forget(server, comm);
    }
    tell_all_joined(server, first);
    forget(server, first);
}

/* ---- what goes wrong ------------------------------------------------------------------------ */

static void blame(struct kolo__rendezvous *server, const struct kolo__join_comm *comm,
                  kolo_status status, uint32_t rank, const char *text)
{
    kolo__world_spread(server, comm->id, status, (int)rank, text);
}

/* True when a rank that has joined can no longer hear of all it lacks: what is not kept up to
 * `lost`. */
static bool somebody_is_lost(struct kolo__rendezvous *server, const struct kolo__join_comm *comm,
                             uint64_t lost)
{
    for (uint32_t i = 0; i < comm->size; i++) {
        const struct place *place = &comm->places[i];
        if (!place->joined || place->known >= lost)
            continue;
        char text[240];
        snprintf(
            text, sizeof text,
            "rank %u joined (kolo_join) so many collectives behind others that they are forgotten "
            "(#%llu on communicator %u): call kolo_barrier before kolo_join",
            place->rank, (unsigned long long)place->known + 1, comm->id);
        blame(server, comm, KOLO_ERR_MISMATCH, place->rank, text);
        return true;
    }
    return false;
}

/* Who has left will never join. */
static void look_for_those_who_left(struct kolo__rendezvous *server, struct kolo__join_comm *comm)
{
    for (uint32_t i = 0; i < comm->size && comm->joined > 0; i++) {
        uint32_t rank = comm->places[i].rank;
        char text[240];
        if (comm->places[i].joined || !server->members[rank].left)
            continue;
        snprintf(text, sizeof text,
                 "rank %u (host %s) left (kolo_finalize) and did not join (kolo_join), for which "
                 "others wait",
                 rank, server->members[rank].host);
        blame(server, comm, KOLO_ERR_PEER_LOST, rank, text);
        return;
    }
}

void kolo__world_member_left(struct kolo__rendezvous *server, uint32_t rank)
{
    for (struct kolo__join_comm *comm = server->join_comms; comm != NULL; comm = comm->next)
        if (find_place(comm, rank) != NULL)
            look_for_those_who_left(server, comm);
}

/* ---- messages ------------------------------------------------------------------------------ */

static struct kolo__join_comm *add_comm(struct kolo__rendezvous *server, uint32_t id,
                                        uint32_t guardian, struct place *places, uint32_t size)
{
    struct kolo__join_comm *comm =
        server->join_comm_count < COMMS_MAX ? calloc(1, sizeof *comm) : NULL;
    if (comm == NULL)
        return NULL;
    comm->id = id;
    comm->guardian = guardian;
    comm->size = size;
    comm->places = places;
    comm->next = server->join_comms;
    server->join_comms = comm;
    server->join_comm_count++;
    return comm;
}

void kolo__world_joined(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    uint32_t id = kolo__get_u32(payload);
    uint32_t guardian = kolo__get_u32(payload);
    uint64_t sequence = kolo__get_u64(payload);
    uint32_t size = kolo__get_u32(payload);
    struct place *places = read_places(server, size, payload);
    struct kolo__join_comm *comm = find(server, id);
    bool known = comm != NULL;
    if (places != NULL && !known)
        comm = add_comm(server, id, guardian, places, size);
    bool good = places != NULL && comm != NULL && id != 0 && kolo__frame_done(payload) &&
                same_places(comm, places, size) && comm->guardian == guardian;
    struct place *place = good ? find_place(comm, connection->rank) : NULL;
    if (comm == NULL || known)
        free(places);
    if (place == NULL || place->joined) {
        if (!known && comm != NULL)
            forget(server, comm);
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK,
                                "a JOINED message is broken, or came twice");
        return;
    }
    place->joined = true;
    place->known = sequence;
    comm->joined++;
    comm->last = connection->rank;
    if (sequence > comm->newest)
        comm->newest = sequence;
    tell_joined(server, comm, place);
    if (!somebody_is_lost(server, comm, comm->lost)) {
        forward(server, comm, place);
        look_for_those_who_left(server, comm);
        end_if_all_joined(server, guardian);
    }
}

/* A place for the announcement of this collective; NULL: it is too old, or there is no memory. */
static struct kept *keep(struct kolo__join_comm *comm, uint64_t sequence)
{
    if (comm->kept_count == 0)
        comm->kept_first = sequence;
    uint64_t first = sequence < comm->kept_first ? sequence : comm->kept_first;
    uint64_t end = comm->kept_first + comm->kept_count;
    end = sequence >= end ? sequence + 1 : end;
    if (end - first > KEPT_MAX) { /* older ones make room */
        if (sequence < end - KEPT_MAX) {
            comm->lost = sequence > comm->lost ? sequence : comm->lost;
            return NULL;
        }
        uint64_t lost = end - KEPT_MAX - 1, gone = lost - comm->kept_first + 1;
        comm->lost = lost > comm->lost ? lost : comm->lost;
        drop_kept(comm, gone < comm->kept_count ? (uint32_t)gone : comm->kept_count);
        first = comm->kept_first = end - KEPT_MAX;
    }
    if (end - first > comm->kept_capacity) {
        uint32_t capacity = (uint32_t)(end - first) * 2;
        struct kept *grown = realloc(comm->kept, capacity * sizeof *grown);
        if (grown == NULL)
            return NULL;
        comm->kept = grown;
        comm->kept_capacity = capacity;
    }
    uint32_t before = (uint32_t)(comm->kept_first - first);
    memmove(comm->kept + before, comm->kept, comm->kept_count * sizeof *comm->kept);
    memset(comm->kept, 0, before * sizeof *comm->kept);
    uint32_t count = (uint32_t)(end - first), had = before + comm->kept_count;
    memset(comm->kept + had, 0, (count - had) * sizeof *comm->kept);
    comm->kept_first = first;
    comm->kept_count = count;
    return &comm->kept[sequence - first];
}

static bool contradicts(struct kolo__rendezvous *server, const struct kolo__join_comm *comm,
                        const struct kept *kept, const struct kolo__signature *signature,
                        uint32_t rank)
{
    char text[440], first[160], second[160];
    const struct kolo__signature *other = &kept->announcement.signature;
    if (!kept->known || kolo__signature_equal(other, signature))
        return false;
    snprintf(text, sizeof text,
             "rank %u called %s, rank %u called %s: every rank must call the same operation",
             kept->by, kolo__signature_text(other, first, sizeof first), rank,
             kolo__signature_text(signature, second, sizeof second));
    blame(server, comm, KOLO_ERR_MISMATCH, rank, text);
    return true;
}

void kolo__world_announced(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__announcement announcement;
    kolo__get_announcement(payload, &announcement);
    const struct kolo__signature *signature = &announcement.signature;
    uint64_t sequence = signature->sequence;
    if (!kolo__frame_done(payload) || sequence == 0 || sequence > UINT64_MAX / 2) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "an ANNOUNCE message is broken");
        return;
    }
    struct kolo__join_comm *comm = find(server, signature->comm);
    struct place *place = comm != NULL ? find_place(comm, connection->rank) : NULL;
    if (place == NULL)
        return; /* all have joined meanwhile: somebody else had announced it */
    uint32_t guardian = comm->guardian;
    if (!place->joined && sequence > place->known)
        place->known = sequence;
    struct kept *kept = keep(comm, sequence);
    if (kept != NULL && contradicts(server, comm, kept, signature, connection->rank))
        return;
    if (kept != NULL && !kept->known)
        *kept = (struct kept){true, connection->rank, announcement};
    if (sequence > comm->newest)
        comm->newest = sequence;
    if (somebody_is_lost(server, comm, comm->lost))
        return;
    for (uint32_t i = 0; i < comm->size; i++)
        if (comm->places[i].joined)
            forward(server, comm, &comm->places[i]);
    drop_what_all_know(comm);
    end_if_all_joined(server, guardian);
}

void kolo__world_forgotten(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__join_comm *comm = find(server, kolo__get_u32(payload));
    uint64_t sequence = kolo__get_u64(payload);
    if (!kolo__frame_done(payload)) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "a FORGOTTEN message is broken");
        return;
    }
    if (comm == NULL || find_place(comm, connection->rank) == NULL)
        return;
    somebody_is_lost(server, comm, sequence);
}
