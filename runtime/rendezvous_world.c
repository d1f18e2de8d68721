/* SPDX-License-Identifier: Apache-2.0 */
/* Members of the rendezvous: losses, faults, and who is asked for what. How the world forms is
 * rendezvous_form.c. */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "base/log.h"
#include "runtime/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOSS_GRACE_MS = 300, /* a closed connection waits this long for a better reason */
    PARTED_S = 60,       /* links of one rank that break so soon one after the other are its own */
};

static const uint64_t MILLISECOND = 1000000;

/* ---- telling everybody ------------------------------------------------------------------ */

void kolo__world_send_fault(struct kolo__connection *to, uint32_t comm, kolo_status status,
                            int rank, const char *text)
{
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

static void keep_fault(struct kolo__world_fault *fault, kolo_status status, int rank,
                       const char *text)
{
    fault->set = true;
    fault->status = status;
    fault->rank = rank;
    fault->at_ns = kolo__now_ns(&kolo__real_clock);
    snprintf(fault->text, sizeof fault->text, "%s", text);
}

void kolo__world_spread(struct kolo__rendezvous *server, uint32_t comm, kolo_status status,
                        int rank, const char *text)
{
    if (server->fault.set)
        return;
    if (comm == 0) {
        kolo__world_obstacle(server, status, text);
        keep_fault(&server->fault, status, rank, text);
    } else {
        note_broken(server, comm);
    }
    bool is_word = status == KOLO_ERR_ABORTED || status == KOLO_ERR_MISMATCH;
    if (comm == KOLO__WORLD_COMM && is_word && !server->word.set)
        keep_fault(&server->word, status, rank, text);
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].connection != NULL)
            kolo__world_send_fault(server->members[r].connection, comm, status, rank, text);
}

void kolo__world_tell_fault(struct kolo__rendezvous *server, struct kolo__connection *to)
{
    if (server->fault.set)
        kolo__world_send_fault(to, 0, server->fault.status, server->fault.rank, server->fault.text);
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
    member->lost_at_ns = kolo__now_ns(&kolo__real_clock);
    if (strstr(why, KOLO__SILENCE_TEXT) == NULL) /* a silence has been long enough already */
        member->lost_at_ns += LOSS_GRACE_MS * MILLISECOND;
    member->blamed_by = blamed_by;
    member->blamed_comm = comm;
    snprintf(member->lost_why, sizeof member->lost_why, "%.*s", (int)sizeof member->lost_why - 1,
             why);
}

/* Who is on the host of a rank that was lost with it, and does not answer either, or is cut off as
 * it is from another host: found one after the other each would cost the time of a silence. */
static void lose_neighbours(struct kolo__rendezvous *server, uint32_t rank, const char *why,
                            bool cut_off)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    for (uint32_t r = 0; r < server->size; r++)
        if (r != rank && strcmp(server->members[r].host, server->members[rank].host) == 0 &&
            (cut_off || kolo__world_is_cut_off(&server->members[r], now_ns)))
            kolo__world_gone(server, r, why, false);
}

void kolo__world_declare_lost(struct kolo__rendezvous *server, uint32_t rank, const char *why)
{
    struct kolo__member *member = &server->members[rank];
    char text[KOLO__FAULT_TEXT_BYTES], heard[300];
    kolo__world_gone(server, rank, why, false);
    if (strstr(why, KOLO__SILENCE_TEXT) != NULL)
        lose_neighbours(server, rank, why, false);
    kolo__world_last_heard(member, kolo__now_ns(&kolo__real_clock), heard, sizeof heard);
    /* A transport's words begin with the rank too. */
    const char *name = strncmp(why, "rank ", 5) == 0 ? strstr(why, "): ") : NULL;
    if (name != NULL && member->joined)
        snprintf(text, sizeof text, "rank %u (host %s, pid %u): %s%s", rank, member->host,
                 member->pid, name + 3, heard);
    else if (member->joined && strncmp(why, "rank ", 5) == 0) /* who says what of it */
        snprintf(text, sizeof text, "rank %u (host %s, pid %u) is gone: %s%s", rank, member->host,
                 member->pid, why, heard);
    else if (member->joined)
        snprintf(text, sizeof text, "rank %u (host %s, pid %u) %s%s", rank, member->host,
                 member->pid, why, heard);
    else
        snprintf(text, sizeof text, "rank %u %s before it joined (kolo_init)", rank, why);
    kolo__world_spread(server, 0, KOLO_ERR_PEER_LOST, (int)rank, text);
    if (kolo__world_is_quiet(member,
                             server->fault.at_ns)) /* which it was before its process ended */
        server->fault.at_ns = member->signs.heard_ns;
}

/* The rank of this epoch whose process runs there; the size: none. Another process that was started
 * there since then is none yet. */
uint32_t kolo__world_find_place(const struct kolo__rendezvous *server, uint32_t place)
{
    uint32_t rank = 0;
    while (rank < server->size &&
           (server->members[rank].place != place || server->members[rank].ended))
        rank++;
    return rank;
}

void kolo__rendezvous_rank_ended(struct kolo__rendezvous *server, uint32_t place, bool clean,
                                 const char *why)
{
    uint32_t rank = kolo__world_find_place(server, place);
    char text[KOLO__FAULT_TEXT_BYTES];
    kolo__world_forget_gone(server, place);
    if (rank == server->size)
        return; /* lost in an earlier epoch, or a newcomer: its connection says so */
    struct kolo__member *member = &server->members[rank];
    member->ended = true;
    server->eventful = true;
    /* Its last words, a goodbye or a fault, may still wait to be read. */
    if (member->connection != NULL)
        kolo__connection_drain(member->connection);
    if (member->left)
        return;
    snprintf(text, sizeof text, "%s%s", why,
             clean && member->joined ? " without kolo_finalize" : "");
    /* Whoever was cut off knows it too, and exits. */
    if (member->joined && kolo__world_is_cut_off(member, kolo__now_ns(&kolo__real_clock)))
        snprintf(text, sizeof text, "was lost with its host, which " KOLO__SILENCE_TEXT "; it %s",
                 why);
    kolo__world_gone(server, rank, text, true);
    if (somebody_needs(server, rank))
        kolo__world_declare_lost(server, rank, text);
    else
        suspect(server, rank, -1, 0, text); /* others may be on their way */
}

static const char *describe(const struct kolo__rendezvous *server,
                            const struct kolo__world_fault *fault, kolo_status *status, int *place)
{
    if (!fault->set)
        return NULL;
    *status = fault->status;
    *place = -1;
    if (fault->rank >= 0 && server->members[fault->rank].place != KOLO__NO_PLACE)
        *place = (int)server->members[fault->rank].place;
    return fault->text;
}

const char *kolo__rendezvous_fault(const struct kolo__rendezvous *server, kolo_status *status,
                                   int *place)
{
    return describe(server, &server->fault, status, place);
}

const char *kolo__rendezvous_word(const struct kolo__rendezvous *server, kolo_status *status,
                                  int *place, uint64_t *at_ns)
{
    *at_ns = server->word.at_ns;
    return describe(server, &server->word, status, place);
}

uint32_t kolo__rendezvous_epoch(const struct kolo__rendezvous *server)
{
    return server->membership.epoch;
}

uint32_t kolo__rendezvous_size(const struct kolo__rendezvous *server)
{
    return server->size;
}

uint64_t kolo__rendezvous_fault_ns(const struct kolo__rendezvous *server)
{
    return server->fault.set ? server->fault.at_ns : 0;
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

bool kolo__rendezvous_has_formed(const struct kolo__rendezvous *server)
{
    return server->formed;
}

bool kolo__rendezvous_is_member(const struct kolo__rendezvous *server, uint32_t place)
{
    return kolo__world_find_place(server, place) < server->size;
}

bool kolo__rendezvous_joined(const struct kolo__rendezvous *server, uint32_t place)
{
    return place < server->place_count && server->places[place].joined;
}

const char *kolo__rendezvous_expelled(const struct kolo__rendezvous *server, uint32_t place)
{
    return place < server->place_count ? server->places[place].gone : NULL;
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
    const char *why = silent ? "was lost with its host, which " KOLO__SILENCE_TEXT
                             : "closed its connection to the rendezvous without kolo_finalize";
    if (!member->left)
        kolo__world_gone(server, rank, why, false);
    suspect(server, rank, -1, 0, why);
}

/* Where the link led to that broke last, in the minute before, if it was the rank's; else NULL. */
static const char *last_link(const struct kolo__rendezvous *server, uint32_t rank, uint64_t now_ns)
{
    const struct kolo__link_end *ends = server->parted.ends;
    uint32_t id = server->members[rank].id;
    if (server->parted.at_ns == 0 || now_ns >= server->parted.at_ns + PARTED_S * 1000 * MILLISECOND)
        return NULL;
    return ends[0].id == id ? ends[1].host : ends[1].id == id ? ends[0].host : NULL;
}

static void note_link_end(const struct kolo__member *member, struct kolo__link_end *end)
{
    end->id = member->id;
    snprintf(end->host, sizeof end->host, "%s", member->host);
}

/* Two between which nothing passes cannot be in the next epoch together: one of them is lost to it,
 * and with it all of its host, if it is hosts between which nothing passes.
 * The one that another *host* did not reach either; else the newer, who has less to lose: the other
 * may be the last that has the state. A connection that merely broke may be made anew, but for one
 * rank not again and again. */
static void part(struct kolo__rendezvous *server, uint32_t a, uint32_t b, const char *how)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    const struct kolo__member *members = server->members;
    const char *from_a = last_link(server, a, now_ns), *from_b = last_link(server, b, now_ns);
    bool a_again = from_a != NULL && strcmp(from_a, members[b].host) != 0;
    bool b_again = from_b != NULL && strcmp(from_b, members[a].host) != 0;
    bool silent =
        strstr(how, KOLO__SILENCE_TEXT) != NULL || strstr(how, KOLO__UNREACHED_TEXT) != NULL;
    uint32_t higher = a > b ? a : b, goes = a_again == b_again ? higher : a_again ? a : b;
    uint32_t stays = goes == a ? b : a;
    char why[200];
    snprintf(why, sizeof why, "is cut off from rank %u (host %s), though not from the rendezvous",
             stays, server->members[stays].host);
    if (silent || from_a != NULL || from_b != NULL)
        kolo__world_gone(server, goes, why, false);
    if (silent && strcmp(members[a].host, members[b].host) != 0)
        lose_neighbours(server, goes, why, true);
    server->parted.at_ns = now_ns;
    note_link_end(&members[a], &server->parted.ends[0]);
    note_link_end(&members[b], &server->parted.ends[1]);
}

/* Both ends, whoever was the first to tell. */
static void spread_broken_link(struct kolo__rendezvous *server, uint32_t rank)
{
    const struct kolo__member *member = &server->members[rank];
    uint32_t teller = (uint32_t)member->blamed_by;
    char text[KOLO__FAULT_TEXT_BYTES];
    const char *name =
        strncmp(member->lost_why, "rank ", 5) == 0 ? strstr(member->lost_why, "): ") : NULL;
    snprintf(text, sizeof text, "between rank %u (host %s) and rank %u (host %s): %s", teller,
             server->members[teller].host, rank, member->host,
             name != NULL ? name + 3 : member->lost_why);
    if (!server->fault.set)
        part(server, teller, rank, member->lost_why);
    kolo__world_spread(server, 0, KOLO_ERR_NETWORK, (int)rank, text);
}

void kolo__world_judge_losses(struct kolo__rendezvous *server, uint64_t now_ns)
{
    for (uint32_t r = 0; r < server->size; r++) {
        struct kolo__member *member = &server->members[r];
        if (member->lost_at_ns == 0 || now_ns < member->lost_at_ns || !somebody_needs(server, r))
            continue;
        if (member->blamed_by >= 0 && member->connection != NULL) {
            /* Its process lives: the fault is the network's between the two. Unless nothing reaches
             * its host any more, from here either. */
            if (kolo__world_is_cut_off(member, now_ns))
                kolo__world_declare_lost(server, r,
                                         "was lost with its host, which " KOLO__SILENCE_TEXT);
            else if (!kolo__world_is_quiet(member, now_ns))
                spread_broken_link(server, r);
        } else {
            kolo__world_declare_lost(server, r, member->lost_why);
        }
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
    if (comm == KOLO__NO_COMM && !server->word.set) {
        keep_fault(&server->word, (kolo_status)status, (int)connection->rank, text);
        server->word.at_ns = 0; /* nobody has ended before: all took part in finding it */
    } else if (comm == KOLO__NO_COMM) {
        /* What was said before counts. */
    } else if (about_a_rank && kolo__world_has_come(server, peer)) {
        kolo__world_tell_to_renew(connection, peer);
    } else if (kolo__world_has_come(server, connection->rank)) {
        /* It was said of the epoch that its rank has left. */
    } else if (about_a_rank && (status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_NETWORK)) {
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
    server->eventful |= type != KOLO__FRAME_BEAT;
    if (connection->phase == NEWCOMER && type == KOLO__FRAME_ABSENT) {
        kolo__connection_refuse(connection, KOLO_ERR_TIMEOUT,
                                "the ranks of the world have not called kolo_renew since this "
                                "newcomer came");
        return;
    }
    if ((type == KOLO__FRAME_JOIN) != (connection->phase == WANT_JOIN) ||
        connection->phase > MEMBER) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "a message came out of turn");
        return;
    }
    switch (type) {
    case KOLO__FRAME_JOIN:
        kolo__world_enter(connection, payload);
        break;
    case KOLO__FRAME_EXCHANGE:
        kolo__world_exchange(connection, payload);
        break;
    case KOLO__FRAME_BYE:
        server->members[connection->rank].left = true;
        kolo__world_gone(server, connection->rank, "left in good order", false);
        kolo__world_member_left(server, connection->rank);
        break;
    case KOLO__FRAME_RENEW:
        kolo__world_renew(connection, payload);
        break;
    case KOLO__FRAME_FAULT:
        on_fault(connection, payload);
        break;
    case KOLO__FRAME_STUCK:
        kolo__world_stuck(connection, payload);
        break;
    case KOLO__FRAME_BEAT:
        kolo__world_beat(connection, payload);
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
