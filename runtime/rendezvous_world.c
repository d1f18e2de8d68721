/* SPDX-License-Identifier: Apache-2.0 */
/* Members of the rendezvous: the world forming, exchanges, losses, faults. */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOSS_GRACE_MS = 300,     /* a closed connection waits this long for a better reason */
    HELD_LONGER_SECONDS = 2, /* than it takes to notice that a host is silent */
};

static const uint64_t MILLISECOND = 1000000;

/* ---- telling everybody ------------------------------------------------------------------ */

static void send_fault(struct kolo__rendezvous *server, struct kolo__connection *to, uint32_t comm,
                       kolo_status status, int rank, const char *text)
{
    (void)server;
    kolo__frame_begin(&to->out, KOLO__FRAME_FAULT);
    kolo__put_u32(&to->out, comm);
    kolo__put_u8(&to->out, (uint8_t)status);
    kolo__put_u32(&to->out, (uint32_t)rank);
    kolo__put_text(&to->out, text);
    kolo__frame_end(&to->out);
    kolo__connection_flush(to);
}

void kolo__world_obstacle(struct kolo__rendezvous *server, kolo_status status, const char *text)
{
    if (server->complete || server->obstacle.status != KOLO_OK)
        return;
    server->obstacle.status = status;
    snprintf(server->obstacle.text, sizeof server->obstacle.text, "%s", text);
}

/* Of a communicator that has broken ranks close their connections, each when it hears of it. Who
 * sees that before it has heard of the cause takes it for a loss of the other rank, which it is
 * not. */
static void note_broken(struct kolo__rendezvous *server, uint32_t comm)
{
    server->broken[server->broken_count++ % KOLO__BROKEN_KEPT] = comm;
    for (uint32_t r = 0; r < server->size; r++) {
        struct kolo__member *member = &server->members[r];
        if (member->blamed_by >= 0 && member->blamed_comm == comm && member->connection != NULL)
            member->lost_at_ns = 0;
    }
}

static bool is_broken(const struct kolo__rendezvous *server, uint32_t comm)
{
    for (uint32_t i = 0; i < server->broken_count && i < KOLO__BROKEN_KEPT; i++)
        if (server->broken[i] == comm)
            return true;
    return false;
}

void kolo__world_spread(struct kolo__rendezvous *server, uint32_t comm, kolo_status status,
                        int rank, const char *text)
{
    if (server->fault.set)
        return;
    server->fault.set = comm == 0;
    if (comm == 0) {
        kolo__world_obstacle(server, status, text);
        server->fault.status = status;
        server->fault.rank = rank;
        snprintf(server->fault.text, sizeof server->fault.text, "%s", text);
    }
    if (comm != 0)
        note_broken(server, comm);
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].connection != NULL)
            send_fault(server, server->members[r].connection, comm, status, rank, text);
}

/* ---- losses -------------------------------------------------------------------------------- */

static bool somebody_needs(const struct kolo__rendezvous *server, uint32_t rank)
{
    for (uint32_t r = 0; r < server->size; r++)
        if (r != rank && server->members[r].connection != NULL && !server->members[r].left)
            return true;
    return false;
}

static void suspect(struct kolo__rendezvous *server, uint32_t rank, int blamed_by, uint32_t comm,
                    const char *why)
{
    struct kolo__member *member = &server->members[rank];
    if (member->lost_at_ns != 0 && member->blamed_comm != comm)
        member->blamed_comm = 0;
    if (member->left || member->lost_at_ns != 0 || server->fault.set)
        return;
    member->lost_at_ns = kolo__now_ns(&kolo__real_clock) + LOSS_GRACE_MS * MILLISECOND;
    member->blamed_by = blamed_by;
    member->blamed_comm = comm;
    snprintf(member->lost_why, sizeof member->lost_why, "%.*s", (int)sizeof member->lost_why - 1,
             why);
}

static void declare_lost(struct kolo__rendezvous *server, uint32_t rank, const char *why)
{
    struct kolo__member *member = &server->members[rank];
    char text[KOLO__FAULT_TEXT_BYTES];
    /* A transport's words begin with the rank too. */
    const char *name = strncmp(why, "rank ", 5) == 0 ? strstr(why, "): ") : NULL;
    if (name != NULL && member->joined)
        snprintf(text, sizeof text, "rank %u (host %s, pid %u): %s", rank, member->host,
                 member->pid, name + 3);
    else if (member->joined && strncmp(why, "rank ", 5) == 0) /* who says what of it */
        snprintf(text, sizeof text, "rank %u (host %s, pid %u) is gone: %s", rank, member->host,
                 member->pid, why);
    else if (member->joined)
        snprintf(text, sizeof text, "rank %u (host %s, pid %u) %s", rank, member->host, member->pid,
                 why);
    else
        snprintf(text, sizeof text, "rank %u %s before it joined (kolo_init)", rank, why);
    kolo__world_spread(server, 0, KOLO_ERR_PEER_LOST, (int)rank, text);
}

void kolo__rendezvous_rank_ended(struct kolo__rendezvous *server, uint32_t rank, bool clean,
                                 const char *why)
{
    struct kolo__member *member = &server->members[rank];
    char text[KOLO__FAULT_TEXT_BYTES];
    member->ended = true;
    /* Its last words, a goodbye or a fault, may still wait to be read. */
    if (member->connection != NULL)
        kolo__connection_drain(member->connection);
    if (member->left)
        return;
    snprintf(text, sizeof text, "%s%s", why,
             clean && member->joined ? " without kolo_finalize" : "");
    if (somebody_needs(server, rank))
        declare_lost(server, rank, text);
    else
        suspect(server, rank, -1, 0, text); /* others may be on their way */
}

const char *kolo__rendezvous_fault(const struct kolo__rendezvous *server, kolo_status *status,
                                   int *rank)
{
    if (!server->fault.set)
        return NULL;
    *status = server->fault.status;
    *rank = server->fault.rank;
    return server->fault.text;
}

kolo_status kolo__rendezvous_obstacle(const struct kolo__rendezvous *server, const char **text)
{
    bool stands = server->obstacle.status != KOLO_OK && !server->complete;
    *text = stands ? server->obstacle.text : NULL;
    return stands ? server->obstacle.status : KOLO_OK;
}

bool kolo__rendezvous_is_over(const struct kolo__rendezvous *server)
{
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].connection != NULL && !server->members[r].left)
            return false;
    return true;
}

bool kolo__rendezvous_joined(const struct kolo__rendezvous *server, uint32_t rank)
{
    return server->members[rank].joined;
}

void kolo__world_disconnected(struct kolo__rendezvous *server, uint32_t rank, bool silent)
{
    struct kolo__member *member = &server->members[rank];
    member->connection = NULL;
    if (server->members_restart && !server->formed && !member->left && !server->fault.set) {
        kolo__log(KOLO__LOG_WARN,
                  "rank %u (host %s, pid %u) has gone before the world formed: it waits for the "
                  "next one",
                  rank, member->host, member->pid);
        member->joined = false;
        server->joined--;
        return;
    }
    suspect(server, rank, -1, 0,
            silent ? "was lost with its host, which " KOLO__SILENCE_TEXT
                   : "closed its connection to the rendezvous without kolo_finalize");
}

void kolo__world_judge_losses(struct kolo__rendezvous *server, uint64_t now_ns)
{
    for (uint32_t r = 0; r < server->size; r++) {
        struct kolo__member *member = &server->members[r];
        if (member->lost_at_ns == 0 || now_ns < member->lost_at_ns || !somebody_needs(server, r))
            continue;
        if (member->blamed_by >= 0 && member->connection != NULL) {
            /* Its process lives: the fault is the network's between the two. */
            kolo__world_spread(server, 0, KOLO_ERR_NETWORK, (int)r, member->lost_why);
        } else {
            declare_lost(server, r, member->lost_why);
        }
    }
}

/* ---- forming the world --------------------------------------------------------------------- */

static void keep_blob(struct kolo__member *member, const unsigned char *data, size_t bytes)
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

static void announce_world(struct kolo__rendezvous *server)
{
    struct kolo__shared_frame *frame = make_world_frame(server);
    server->formed = true;
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
    connection->held_until_ns =
        kolo__now_ns(&kolo__real_clock) +
        ((uint64_t)server->silence_s + HELD_LONGER_SECONDS) * 1000 * MILLISECOND;
    connection->deadline_ns = connection->held_until_ns + HELD_LONGER_SECONDS * 1000 * MILLISECOND;
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
 * others go on waiting for the right one (kolo__world_absent). */
static void refuse_misfit(struct kolo__connection *connection, uint32_t size, uint32_t rank,
                          const char *host)
{
    struct kolo__rendezvous *server = connection->server;
    char text[KOLO__REFUSED_TEXT_BYTES], address[80];
    kolo__address_text(&connection->address, address, sizeof address);
    *strrchr(address, ':') = '\0'; /* the port says nothing */
    snprintf(text, sizeof text,
             "rank %u of a world of %u (host %s at %s) does not fit the world of %u ranks that was "
             "launched: give all processes of a job one KOLO_WORLD_SIZE (WORLD_SIZE, ...), and a "
             "job or launcher inside another a KOLO_JOB or port of its own",
             rank, size, host, address, server->size);
    if (rank < server->size) {
        server->misfit.rank = rank;
        memcpy(server->misfit.text, text, sizeof text);
    }
    kolo__connection_refuse(connection, KOLO_ERR_WORLD, text);
}

static void on_join(struct kolo__connection *connection, struct kolo__frame_reader *payload)
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
    if (size != server->size || rank >= server->size) {
        refuse_misfit(connection, size, rank, host);
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
    memcpy(member->host, host, sizeof host);
    keep_blob(member, blob, blob_bytes);
    connection->phase = MEMBER;
    connection->rank = rank;
    if (server->fault.set)
        send_fault(server, connection, 0, server->fault.status, server->fault.rank,
                   server->fault.text);
    if (server->joined == 0)
        kolo__world_begin_wait(server);
    if (++server->joined == server->size)
        announce_world(server);
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
        on_join(c, &payload);
        free(join);
    }
}

static void on_exchange(struct kolo__connection *connection, struct kolo__frame_reader *payload)
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
    keep_blob(member, blob, bytes);
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

/* ---- faults ---------------------------------------------------------------- */

static void on_fault(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    char text[KOLO__FAULT_TEXT_BYTES];
    uint32_t comm = kolo__get_u32(payload);
    uint8_t status = kolo__get_u8(payload);
    uint32_t peer = kolo__get_u32(payload);
    kolo__get_text(payload, text, sizeof text);
    if (!kolo__frame_done(payload) || status <= KOLO_AGAIN || status > KOLO_ERR_DEVICE) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "a FAULT message is broken");
        return;
    }
    bool about_a_rank = peer < server->size && peer != connection->rank;
    if (about_a_rank && (status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_NETWORK)) {
        if (!is_broken(server, comm))
            suspect(server, peer, (int)connection->rank, comm, text);
    } else {
        kolo__world_spread(server, comm, (kolo_status)status, (int)connection->rank, text);
    }
}

/* ---- dispatch ------------------------------------------------------------------------------ */

void kolo__world_message(struct kolo__connection *connection, enum kolo__frame_type type,
                         struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    if ((type == KOLO__FRAME_JOIN) != (connection->phase == WANT_JOIN)) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "a message came out of turn");
        return;
    }
    switch (type) {
    case KOLO__FRAME_JOIN:
        on_join(connection, payload);
        break;
    case KOLO__FRAME_EXCHANGE:
        on_exchange(connection, payload);
        break;
    case KOLO__FRAME_BYE:
        server->members[connection->rank].left = true;
        kolo__world_member_left(server, connection->rank);
        break;
    case KOLO__FRAME_FAULT:
        on_fault(connection, payload);
        break;
    case KOLO__FRAME_STUCK:
        kolo__world_stuck(connection, payload);
        break;
    case KOLO__FRAME_ABSENT:
        kolo__world_absent(connection);
        break;
    case KOLO__FRAME_JOINED:
        kolo__world_joined(connection, payload);
        break;
    case KOLO__FRAME_ANNOUNCE:
        kolo__world_announced(connection, payload);
        break;
    case KOLO__FRAME_FORGOTTEN:
        kolo__world_forgotten(connection, payload);
        break;
    default:
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "a message of an unknown type came");
    }
}
