/* SPDX-License-Identifier: Apache-2.0 */
/* How the world forms: who is let in as which rank, what all are told then, and set-up steps. */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "base/socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t SECOND = 1000000000;

enum {
    HELD_LONGER_SECONDS = 2, /* than it takes to notice that a host is silent */
    WHY_MAX = 320            /* of KOLO__REFUSED_TEXT_BYTES, beside names and an address */
};

void kolo__member_keep_blob(struct kolo__member *member, const unsigned char *data, size_t bytes)
{
    free(member->blob);
    member->blob = malloc(bytes + 1);
    member->blob_bytes = member->blob != NULL ? bytes : 0;
    if (member->blob != NULL && bytes > 0)
        memcpy(member->blob, data, bytes);
}

static struct kolo__shared_frame *make_world_frame(const struct kolo__rendezvous *server)
{
    struct kolo__shared_frame *frame = calloc(1, sizeof *frame);
    if (frame == NULL)
        return NULL;
    frame->users = 1;
    kolo__frame_begin(&frame->bytes, KOLO__FRAME_WORLD);
    kolo__put_u32(&frame->bytes, server->size);
    for (uint32_t r = 0; r < server->size; r++) {
        kolo__put_text(&frame->bytes, server->members[r].host);
        kolo__put_u32(&frame->bytes, server->members[r].pid);
        kolo__put_blob(&frame->bytes, server->members[r].blob, server->members[r].blob_bytes);
    }
    kolo__frame_end(&frame->bytes);
    if (!frame->bytes.failed)
        return frame;
    kolo__shared_frame_release(frame);
    return NULL;
}

void kolo__world_announce(struct kolo__rendezvous *server)
{
    struct kolo__shared_frame *frame = make_world_frame(server);
    if (frame == NULL) {
        kolo__world_spread(server, 0, KOLO_ERR_MEMORY, -1,
                           "the rendezvous has no memory for the table of ranks");
        return;
    }
    for (uint32_t to = 0; to < server->size; to++)
        if (server->members[to].connection != NULL)
            kolo__connection_share(server->members[to].connection, frame);
    kolo__shared_frame_release(frame);
}

/* The pod of this rank may be one that has vanished without a word, which its connection shows only
 * after a while. */
static bool hold(struct kolo__connection *connection, uint32_t rank, const unsigned char *join,
                 size_t bytes)
{
    struct kolo__rendezvous *server = connection->server;
    if (!server->members_restart || server->formed || connection->held_until_ns != 0 ||
        server->members[rank].connection == NULL)
        return false;
    connection->held = malloc(bytes + 1);
    if (connection->held == NULL)
        return false;
    memcpy(connection->held, join, bytes);
    connection->held_bytes = bytes;
    connection->rank = rank;
    connection->held_until_ns = kolo__now_ns(&kolo__real_clock) +
                                ((uint64_t)server->silence_s + HELD_LONGER_SECONDS) * SECOND;
    connection->deadline_ns = connection->held_until_ns + HELD_LONGER_SECONDS * SECOND;
    return true;
}

/* Somebody has been this rank before. A pod of now may come to a world of before: one that has lost
 * it and is not gone yet, or one that nobody has ended. The next world is elsewhere, or later. */
static void refuse_double(struct kolo__connection *connection, uint32_t rank, const char *host)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__member *member = &server->members[rank];
    bool gone = member->left || member->connection == NULL;
    kolo_status status = KOLO_ERR_WORLD;
    char text[KOLO__REFUSED_TEXT_BYTES], first[80] = "", second[80];
    if (!gone)
        kolo__address_text(&member->connection->address, first, sizeof first);
    kolo__address_text(&connection->address, second, sizeof second);
    if (server->members_restart && (gone || server->formed)) {
        status = KOLO_ERR_PEER_LOST;
        snprintf(text, sizeof text,
                 "its world has formed before, with another pod as rank %u (host %s%s%s), and is "
                 "not gone yet: this pod waits for the next one",
                 rank, member->host, gone ? ", which was lost" : " at ", first);
    } else if (server->members_restart) {
        snprintf(text, sizeof text,
                 "two pods are rank %u at once: host %s at %s, which joined first and is still "
                 "connected, and host %s at %s: is a deleted pod still there, or does the "
                 "manifest give both the same index?",
                 rank, member->host, first, host, second);
    } else {
        snprintf(text, sizeof text,
                 gone ? "rank %u joined this world and left it (host %s, pid %u): a world is "
                        "joined once, so call kolo_init once in the life of a job's process; or "
                        "two processes have the same rank, as when mpirun is started inside kolo "
                        "run"
                      : "rank %u joined already (host %s, pid %u): two processes have the same "
                        "rank (KOLO_RANK, RANK, ...), as when mpirun or torchrun is started inside "
                        "kolo run, which does it alone; or two jobs meet here: give each a "
                        "KOLO_JOB or a port of its own (MASTER_PORT)",
                 rank, member->host, member->pid);
    }
    kolo__connection_refuse(connection, status, text);
}

/* Two worlds meet here. It may be an error of the job, or a pod that is left of an earlier one: the
 * others go on waiting for the right one (kolo__world_absent). Who says a size of 0 knows by itself
 * that it takes no part, and why. */
static void refuse_misfit(struct kolo__connection *connection, uint32_t size, uint32_t rank,
                          const char *host, const unsigned char *why, size_t why_bytes)
{
    struct kolo__rendezvous *server = connection->server;
    char text[KOLO__REFUSED_TEXT_BYTES], address[80];
    kolo__address_text(&connection->address, address, sizeof address);
    *strrchr(address, ':') = '\0'; /* the port says nothing */
    if (size == 0)
        snprintf(text, sizeof text, "rank %u (host %s at %s), which takes no part: %.*s", rank,
                 host, address, why_bytes < WHY_MAX ? (int)why_bytes : WHY_MAX, (const char *)why);
    else
        snprintf(
            text, sizeof text,
            "rank %u of a world of %u (host %s at %s) does not fit the world of %u ranks that was "
            "launched: give all processes of a job one KOLO_WORLD_SIZE (WORLD_SIZE, ...), and a "
            "job or launcher inside another a KOLO_JOB or port of its own",
            rank, size, host, address, server->first_size);
    if (rank < server->size) {
        server->misfit.rank = rank;
        memcpy(server->misfit.text, text, sizeof text);
    }
    kolo__connection_refuse(connection, KOLO_ERR_WORLD, text);
}

/* A process that says so; or, where the world goes on without ranks that are lost, one that was
 * started again as a rank that is gone. */
static bool is_newcomer(const struct kolo__rendezvous *server, uint32_t size, uint32_t rank)
{
    if (!server->formed)
        return false;
    if (size == KOLO__SIZE_UNKNOWN)
        return true;
    if ((server->min_ranks == 0 && server->membership.epoch == 0) || size != server->first_size ||
        rank >= size)
        return false;
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].place == rank && server->members[r].connection != NULL)
            return false;
    return true;
}

static void refuse_late(struct kolo__connection *connection, uint32_t rank)
{
    char text[KOLO__REFUSED_TEXT_BYTES];
    snprintf(
        text, sizeof text,
        "rank %u of the first epoch is in this world, which is in epoch %u, and still connected: "
        "two processes have the same rank",
        rank, connection->server->membership.epoch);
    kolo__connection_refuse(connection, KOLO_ERR_WORLD, text);
}

void kolo__world_enter(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    const unsigned char *join = payload->next;
    size_t join_bytes = (size_t)(payload->end - payload->next);
    struct kolo__rendezvous *server = connection->server;
    char job[128], host[64], text[KOLO__REFUSED_TEXT_BYTES];
    size_t blob_bytes;
    kolo__get_text(payload, job, sizeof job);
    uint32_t size = kolo__get_u32(payload);
    uint32_t rank = kolo__get_u32(payload);
    uint32_t pid = kolo__get_u32(payload);
    kolo__get_text(payload, host, sizeof host);
    const unsigned char *blob = kolo__get_blob(payload, &blob_bytes);
    if (!kolo__frame_done(payload) || connection->held != NULL) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK,
                                "a JOIN message is broken, or not the first");
        return;
    }
    if (strcmp(job, server->job) != 0) {
        snprintf(text, sizeof text, "this rendezvous belongs to job '%s', not to '%s'", server->job,
                 job);
        kolo__connection_refuse(connection, KOLO_ERR_WORLD, text);
        return;
    }
    if (is_newcomer(server, size, rank)) {
        struct kolo__member newcomer = {.place = rank, .pid = pid};
        memcpy(newcomer.host, host, sizeof host);
        kolo__member_keep_blob(&newcomer, blob, blob_bytes);
        kolo__world_arrive(connection, &newcomer);
        return;
    }
    if (size != server->first_size || rank >= server->first_size) {
        refuse_misfit(connection, size, rank, host, blob, blob_bytes);
        return;
    }
    if (server->membership.epoch > 0) {
        refuse_late(connection, rank);
        return;
    }
    struct kolo__member *member = &server->members[rank];
    if (member->joined) {
        if (!hold(connection, rank, join, join_bytes))
            refuse_double(connection, rank, host);
        return;
    }
    member->connection = connection;
    member->joined = true;
    member->pid = pid;
    kolo__world_note_place(server, rank);
    memcpy(member->host, host, sizeof host);
    kolo__member_keep_blob(member, blob, blob_bytes);
    connection->phase = MEMBER;
    connection->rank = rank;
    kolo__world_tell_fault(server, connection);
    if (server->joined == 0)
        kolo__world_begin_wait(server);
    if (++server->joined == server->size) {
        server->formed = true;
        kolo__world_begin_epochs(server);
        kolo__world_announce(server);
    }
}

void kolo__world_judge_held(struct kolo__rendezvous *server, uint64_t now_ns)
{
    for (struct kolo__connection *c = server->connections; c != NULL; c = c->next) {
        if (c->held == NULL || c->closing)
            continue;
        if (server->members[c->rank].connection != NULL && now_ns < c->held_until_ns)
            continue;
        unsigned char *join = c->held;
        struct kolo__frame_reader payload = {.next = join, .end = join + c->held_bytes};
        c->held = NULL;
        kolo__world_enter(c, &payload);
        free(join);
    }
}

void kolo__world_exchange(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__member *member = &server->members[connection->rank];
    size_t bytes;
    uint32_t tag = kolo__get_u32(payload);
    const unsigned char *blob = kolo__get_blob(payload, &bytes);
    if (!kolo__frame_done(payload) || member->exchanging || !server->formed) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK,
                                "an EXCHANGE message is broken or out of turn");
        return;
    }
    kolo__member_keep_blob(member, blob, bytes);
    member->exchanging = true;
    member->exchange_tag = tag;
    for (uint32_t r = 0; r < server->size; r++)
        if (!server->members[r].exchanging)
            return;
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].exchange_tag != tag) {
            kolo__world_spread(server, 0, KOLO_ERR_MISMATCH, (int)r,
                               "ranks are in different set-up steps");
            return;
        }
    server->complete = true;
    for (uint32_t to = 0; to < server->size; to++) {
        struct kolo__connection *other = server->members[to].connection;
        server->members[to].exchanging = false;
        if (other == NULL)
            continue;
        kolo__frame_begin(&other->out, KOLO__FRAME_EXCHANGED);
        kolo__put_u32(&other->out, tag);
        kolo__put_u32(&other->out, server->size);
        for (uint32_t r = 0; r < server->size; r++)
            kolo__put_blob(&other->out, server->members[r].blob, server->members[r].blob_bytes);
        kolo__frame_end(&other->out);
        kolo__connection_flush(other);
    }
}
