/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How one epoch of the world follows another (kolo_renew): who has come, who is expelled,
 * newcomers. What is decided when is membership.h's; here it is carried out.
 */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/status.h"
#include "runtime/introduction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MILLISECOND = 1000000;

/* ---- who is gone ---------------------------------------------------------------------------- */

static void note_gone(struct kolo__rendezvous *server, struct kolo__member *member, const char *why)
{
    snprintf(member->gone_why, sizeof member->gone_why, "%.*s", (int)sizeof member->gone_why - 1,
             why);
    if (member->left || member->ended || member->place >= server->place_count)
        return;
    kolo__world_forget_gone(server, member->place);
    server->places[member->place].gone = strdup(member->gone_why);
}

/* "rank 2 (host a, pid 17) was killed by signal 9 (SIGKILL); rank 3 ...", as much as fits. */
static void list_gone(const struct kolo__rendezvous *server, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t r = 0; r < server->size && used < bytes; r++) {
        const struct kolo__member *member = &server->members[r];
        if (member->gone_why[0] != '\0')
            used += (size_t)snprintf(text + used, bytes - used, "%srank %u (host %s, pid %u) %s",
                                     used > 0 ? "; " : "", r, member->host, member->pid,
                                     member->gone_why);
    }
}

static bool is_in(const struct kolo__rendezvous *server, const struct kolo__member *member)
{
    return kolo__membership_find(&server->membership, member->id) < server->membership.count;
}

void kolo__world_gone(struct kolo__rendezvous *server, uint32_t rank, const char *why, bool surely)
{
    struct kolo__member *member = &server->members[rank];
    bool was_in = is_in(server, member);
    kolo__membership_remove(&server->membership, member->id);
    if (was_in || (surely && member->gone_why[0] != '\0'))
        note_gone(server, member, why);
}

bool kolo__world_has_come(const struct kolo__rendezvous *server, uint32_t rank)
{
    return kolo__membership_has(&server->membership, server->members[rank].id, KOLO__MEMBER_COME);
}

void kolo__world_tell_to_renew(struct kolo__connection *to, uint32_t rank)
{
    const struct kolo__member *member = &to->server->members[rank];
    char text[KOLO__FAULT_TEXT_BYTES];
    snprintf(text, sizeof text,
             "rank %u (host %s, pid %u) waits in kolo_renew for the next epoch of the world: all "
             "ranks have to call it",
             rank, member->host, member->pid);
    kolo__world_send_fault(to, 0, KOLO_ERR_ABORTED, (int)rank, text);
}

void kolo__world_forget_gone(struct kolo__rendezvous *server, uint32_t place)
{
    if (place >= server->place_count)
        return;
    free(server->places[place].gone);
    server->places[place].gone = NULL;
}

bool kolo__world_note_place(struct kolo__rendezvous *server, uint32_t place)
{
    if (place >= KOLO__PLACES_MAX)
        return place == KOLO__NO_PLACE;
    if (place >= server->place_count) {
        struct kolo__seat *places = realloc(server->places, (place + 1) * sizeof *places);
        if (places == NULL)
            return false;
        memset(places + server->place_count, 0, (place + 1 - server->place_count) * sizeof *places);
        server->places = places;
        server->place_count = place + 1;
    }
    server->places[place].joined = true;
    kolo__world_forget_gone(server, place);
    return true;
}

void kolo__world_begin_epochs(struct kolo__rendezvous *server)
{
    const struct kolo__member *first = &server->members[0];
    if (!kolo__membership_begin(&server->membership, server->size, server->min_ranks) ||
        (server->introduction = malloc(first->blob_bytes + 1)) == NULL) {
        kolo__world_spread(server, 0, KOLO_ERR_MEMORY, -1,
                           "the rendezvous has no memory for the members of the world");
        return;
    }
    if (first->blob_bytes > 0)
        memcpy(server->introduction, first->blob, first->blob_bytes);
    server->introduction_bytes = first->blob_bytes;
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].connection == NULL)
            kolo__world_gone(server, r, "was lost before the world had formed", false);
}

void kolo__world_end_epochs(struct kolo__rendezvous *server)
{
    kolo__membership_end(&server->membership);
    free(server->introduction);
    for (uint32_t place = 0; place < server->place_count; place++)
        free(server->places[place].gone);
    free(server->places);
}

/* ---- newcomers ------------------------------------------------------------------------------ */

static void tell_newcomers(struct kolo__rendezvous *server, struct kolo__connection *to)
{
    kolo__frame_begin(&to->out, KOLO__FRAME_NEWCOMERS);
    kolo__put_u32(&to->out, kolo__membership_count(&server->membership, KOLO__MEMBER_WAITING));
    kolo__frame_end(&to->out);
    kolo__connection_flush(to);
}

static void tell_all_newcomers(struct kolo__rendezvous *server)
{
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].connection != NULL && !server->members[r].left)
            tell_newcomers(server, server->members[r].connection);
}

static void free_newcomer(struct kolo__connection *connection)
{
    if (connection->newcomer != NULL)
        free(connection->newcomer->blob);
    free(connection->newcomer);
    connection->newcomer = NULL;
}

/* Whoever has other options would fail the next epoch for all. */
static bool is_alike(const struct kolo__rendezvous *server, const struct kolo__member *newcomer,
                     char *text, size_t bytes)
{
    struct kolo__introduction first, other;
    kolo_status status =
        kolo__introduction_decode(server->introduction, server->introduction_bytes, &first);
    if (status == KOLO_OK)
        status = kolo__introduction_decode(newcomer->blob, newcomer->blob_bytes, &other);
    if (status == KOLO_OK) {
        int difference = kolo__introduction_find_difference(&first, &other);
        if (difference < 0)
            return true;
        snprintf(text, bytes, "%s is %.40s in this world, and %.40s at this newcomer: set it alike",
                 kolo__introduction_name(difference), first.text[difference],
                 other.text[difference]);
    } else {
        snprintf(text, bytes, "this newcomer runs another version of kolo than the world");
    }
    return false;
}

void kolo__world_arrive(struct kolo__connection *connection, const struct kolo__member *newcomer)
{
    struct kolo__rendezvous *server = connection->server;
    char text[KOLO__REFUSED_TEXT_BYTES];
    struct kolo__member *member = malloc(sizeof *member);
    if (!is_alike(server, newcomer, text, sizeof text)) {
        kolo__connection_refuse(connection, KOLO_ERR_CONFIG, text);
    } else if (kolo__rendezvous_is_over(server)) {
        kolo__connection_refuse(
            connection, KOLO_ERR_WORLD,
            "the ranks of this world have left it: there is nothing to come to");
    } else if (member == NULL || !kolo__world_note_place(server, newcomer->place) ||
               !kolo__membership_arrive(&server->membership, server->next_id)) {
        kolo__connection_refuse(connection, KOLO_ERR_MEMORY,
                                "the rendezvous has no memory for a newcomer");
    } else {
        *member = *newcomer;
        member->id = server->next_id++;
        member->connection = connection;
        connection->newcomer = member;
        connection->phase = NEWCOMER;
        connection->deadline_ns = UINT64_MAX; /* ranks renew the world when they like */
        kolo__log(KOLO__LOG_INFO, "a newcomer waits for the next epoch (host %s, pid %u)",
                  member->host, member->pid);
        tell_all_newcomers(server);
        return;
    }
    free(newcomer->blob);
    free(member);
}

void kolo__world_newcomer_gone(struct kolo__connection *connection)
{
    struct kolo__rendezvous *server = connection->server;
    kolo__membership_remove(&server->membership, connection->newcomer->id);
    free_newcomer(connection);
    tell_all_newcomers(server);
}

/* ---- coming --------------------------------------------------------------------------------- */

void kolo__world_renew(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__member *member = &server->members[connection->rank];
    char text[KOLO__REFUSED_TEXT_BYTES];
    size_t bytes;
    uint32_t epoch = kolo__get_u32(payload);
    uint32_t patience_ms = kolo__get_u32(payload);
    const unsigned char *blob = kolo__get_blob(payload, &bytes);
    if (!kolo__frame_done(payload) || !server->formed) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK,
                                "a RENEW message is broken or out of turn");
        return;
    }
    if (!kolo__membership_come(&server->membership, member->id, epoch)) {
        bool lost = !is_in(server, member);
        snprintf(text, sizeof text,
                 "it is no rank of the world any more, which goes on without it: it %s",
                 member->gone_why[0] != '\0' ? member->gone_why : "was taken for lost");
        kolo__connection_refuse(connection, KOLO_ERR_WORLD,
                                lost ? text
                                     : "a RENEW message is of another epoch than the world's");
        return;
    }
    kolo__member_keep_blob(member, blob, bytes);
    member->exchanging = false;
    if (server->renew_by_ns == 0)
        kolo__world_listen_again(server);
    if (server->renew_by_ns == 0)
        server->renew_by_ns = kolo__now_ns(&kolo__real_clock) + patience_ms * MILLISECOND;
}

/* ---- the next epoch ------------------------------------------------------------------------- */

/* What was said of the last epoch is not true of this one. */
static void forget_epoch(struct kolo__rendezvous *server)
{
    kolo__world_forget_joins(server);
    server->broken_count = 0;
    server->misfit.text[0] = '\0';
    server->fault.set = server->word.set = false;
    server->renew_by_ns = 0;
    kolo__world_listen_again(server);
}

static struct kolo__connection *find_newcomer(const struct kolo__rendezvous *server, uint32_t id)
{
    for (struct kolo__connection *c = server->connections; c != NULL; c = c->next)
        if (c->phase == NEWCOMER && c->newcomer->id == id)
            return c;
    return NULL;
}

static struct kolo__member *find_member(const struct kolo__rendezvous *server, uint32_t id)
{
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].id == id)
            return &server->members[r];
    return NULL;
}

/* A newcomer may have been stopped while it waited: it is missed from now on, like those who have
 * beaten. */
static void expect_beats(const struct kolo__rendezvous *server, struct kolo__member *newcomer)
{
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].signs.timeout_ns > newcomer->signs.timeout_ns)
            newcomer->signs.timeout_ns = server->members[r].signs.timeout_ns;
    newcomer->signs.heard_ns = kolo__now_ns(&kolo__real_clock);
}

/* Moves survivors and newcomers to their places. previous: by rank, what they were. */
static void move_in(struct kolo__rendezvous *server, struct kolo__member *members,
                    uint32_t *previous, uint32_t *survivors)
{
    const struct kolo__membership *membership = &server->membership;
    *survivors = 0;
    for (uint32_t r = 0; r < membership->count; r++) {
        uint32_t id = membership->entries[r].id;
        struct kolo__member *old = find_member(server, id);
        if (old != NULL) {
            previous[(*survivors)++] = (uint32_t)(old - server->members);
            members[r] = *old;
            old->connection = NULL;
            old->blob = NULL;
            kolo__member_forget_reports(old);
        } else {
            struct kolo__connection *connection = find_newcomer(server, id);
            members[r] = *connection->newcomer;
            expect_beats(server, &members[r]);
            connection->newcomer->blob = NULL;
            free_newcomer(connection);
            connection->phase = MEMBER;
        }
        members[r].reports = NULL;
        members[r].report_count = 0;
        members[r].signs.told = (struct kolo__frame_writer){0};
        members[r].lost_at_ns = 0;
        members[r].exchanging = false;
        members[r].joined = true;
        members[r].connection->rank = r;
    }
}

/* Ends what is left of the table of the last epoch: ranks that are gone. */
static void move_out(struct kolo__rendezvous *server)
{
    for (uint32_t r = 0; r < server->size; r++) {
        struct kolo__member *member = &server->members[r];
        if (member->connection != NULL) {
            member->connection->phase = DISMISSED;
            if (member->left)
                member->connection->closing = true; /* it has nothing to hear any more */
            else if (!member->connection->closing)
                kolo__connection_refuse(member->connection, KOLO_ERR_WORLD,
                                        "the others took it for lost, and go on without it");
        }
        free(member->blob);
        kolo__member_forget_reports(member);
    }
    free(server->members);
}

static void tell_epoch(struct kolo__rendezvous *server, const uint32_t *previous,
                       uint32_t survivors, uint32_t previous_size, const char *gone)
{
    for (uint32_t r = 0; r < server->size; r++) {
        struct kolo__frame_writer *out = &server->members[r].connection->out;
        kolo__frame_begin(out, KOLO__FRAME_EPOCH);
        kolo__put_u32(out, server->membership.epoch);
        kolo__put_u32(out, r);
        kolo__put_u32(out, server->size);
        kolo__put_u32(out, previous_size);
        kolo__put_u32(out, survivors);
        for (uint32_t i = 0; i < survivors; i++)
            kolo__put_u32(out, previous[i]);
        kolo__put_text(out, gone);
        kolo__frame_end(out);
    }
    kolo__world_announce(server);
}

static void form(struct kolo__rendezvous *server)
{
    char gone[KOLO__GONE_TEXT_BYTES];
    uint32_t count = server->membership.count, survivors, previous_size = server->size;
    struct kolo__member *members = calloc(count, sizeof *members);
    uint32_t *previous = calloc(count, sizeof *previous);
    if (members == NULL || previous == NULL) {
        free(members);
        free(previous);
        kolo__world_spread(server, 0, KOLO_ERR_MEMORY, -1,
                           "the rendezvous has no memory for the next epoch of the world");
        return;
    }
    list_gone(server, gone, sizeof gone);
    forget_epoch(server);
    move_in(server, members, previous, &survivors);
    move_out(server);
    server->members = members;
    server->size = server->joined = count;
    kolo__log(KOLO__LOG_WARN, "epoch %u of the world: %u of %u ranks, and %u newcomers%s%s",
              server->membership.epoch, survivors, previous_size, count - survivors,
              gone[0] != '\0' ? "; " : "", gone);
    tell_epoch(server, previous, survivors, previous_size, gone);
    free(previous);
}

static void dismiss(struct kolo__rendezvous *server, struct kolo__connection *connection,
                    const char *text)
{
    if (connection->phase == MEMBER)
        server->members[connection->rank].connection = NULL;
    else
        free_newcomer(connection);
    connection->phase = DISMISSED;
    kolo__connection_refuse(connection, KOLO_ERR_WORLD, text);
}

static void expel(struct kolo__rendezvous *server, uint32_t id)
{
    struct kolo__member *member = find_member(server, id);
    note_gone(server, member,
              "did not come in time for the next epoch (kolo_renew), and was expelled");
    if (member->connection != NULL)
        dismiss(server, member->connection,
                "it did not come in time for the next epoch (kolo_renew): the others go on without "
                "it");
}

static void end(struct kolo__rendezvous *server)
{
    char text[KOLO__REFUSED_TEXT_BYTES], gone[300];
    list_gone(server, gone, sizeof gone);
    if (server->min_ranks > 1)
        snprintf(text, sizeof text, "fewer than %u ranks of the world are left: %s",
                 server->min_ranks, gone);
    else
        snprintf(text, sizeof text, "no ranks of the world are left: %s", gone);
    for (struct kolo__connection *c = server->connections; c != NULL; c = c->next)
        if (c->phase == NEWCOMER || (c->phase == MEMBER && !server->members[c->rank].left))
            dismiss(server, c, text);
    server->renew_by_ns = 0;
}

void kolo__world_judge_epoch(struct kolo__rendezvous *server, uint64_t now_ns)
{
    uint32_t id = 0;
    for (;;) {
        bool time_is_over = server->renew_by_ns != 0 && now_ns >= server->renew_by_ns;
        switch (kolo__membership_decide(&server->membership, time_is_over, &id)) {
        case KOLO__MEMBERSHIP_NOTHING:
            return;
        case KOLO__MEMBERSHIP_EXPEL:
            expel(server, id);
            break;
        case KOLO__MEMBERSHIP_FORM:
            form(server);
            break;
        case KOLO__MEMBERSHIP_END:
            end(server);
            break;
        }
    }
}
