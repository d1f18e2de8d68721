/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that have not joined: who they are, and a word about them now and then. */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

static const uint64_t SECOND = 1000000000;

enum { FIRST_WORD_SECONDS = 10 }; /* then after twice as long each time */

/* "3, 5-7", with where they were to be if that is known: "3 (host2), 5-6 (host4)". A run of ranks
 * is one of the same place. As many as fit; returns how many are missing. */
static uint32_t list_absent(const struct kolo__rendezvous *server, char *text, size_t bytes)
{
    uint32_t missing = 0, told = 0;
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t r = 0, next; r < server->size; r = next) {
        char place[160] = "", other[160] = "", run[240];
        next = r + 1;
        if (server->members[r].joined)
            continue;
        if (server->where != NULL)
            server->where(server->where_self, r, place, sizeof place);
        for (; next < server->size && !server->members[next].joined; next++) {
            if (server->where != NULL)
                server->where(server->where_self, next, other, sizeof other);
            if (strcmp(place, other) != 0)
                break;
        }
        missing += next - r;
        int length = snprintf(run, sizeof run, "%s%u", missing > next - r ? ", " : "", r);
        if (next - r > 1)
            length += snprintf(run + length, sizeof run - (size_t)length, "-%u", next - 1);
        if (place[0] != '\0')
            length += snprintf(run + length, sizeof run - (size_t)length, " (%s)", place);
        if (used + (size_t)length + 24 < bytes) {
            memcpy(text + used, run, (size_t)length + 1);
            used += (size_t)length;
            told += next - r;
        }
    }
    if (told < missing)
        snprintf(text + used, bytes - used, " and %u more", missing - told);
    return missing;
}

/* Who came and was not let in is perhaps who is missing. */
static void list_refused(const struct kolo__rendezvous *server, char *text, size_t bytes)
{
    bool known = server->obstacle.status != KOLO_OK;
    const char *reason = known ? server->obstacle.text : server->refused;
    int room = (int)bytes - 20;
    text[0] = '\0';
    if (reason[0] != '\0')
        snprintf(text, bytes, "; refused was: %.*s%s", room, reason,
                 strlen(reason) > (size_t)room ? "..." : "");
}

/* Somebody came as this rank with another size of the world, and the right one has not by now. */
static bool misfit_is_missing(const struct kolo__rendezvous *server)
{
    return server->misfit.text[0] != '\0' && !server->members[server->misfit.rank].joined &&
           !server->fault.set;
}

/* Another try would end in the same way: no timeout, then. */
static void give_up_for_misfit(struct kolo__rendezvous *server)
{
    char absent[KOLO__ABSENT_TEXT_BYTES - KOLO__REFUSED_TEXT_BYTES], text[KOLO__FAULT_TEXT_BYTES];
    uint32_t missing = list_absent(server, absent, sizeof absent);
    snprintf(text, sizeof text, "%u of %u ranks did not join in time; missing: %s; refused was: %s",
             missing, server->size, absent, server->misfit.text);
    kolo__world_spread(server, 0, KOLO_ERR_WORLD, (int)server->misfit.rank, text);
}

void kolo__world_absent(struct kolo__connection *connection)
{
    struct kolo__rendezvous *server = connection->server;
    char text[KOLO__ABSENT_TEXT_BYTES], refused[KOLO__REFUSED_TEXT_BYTES + 20];
    if (misfit_is_missing(server)) {
        give_up_for_misfit(server);
        return;
    }
    list_refused(server, refused, sizeof refused);
    uint32_t missing = list_absent(server, text, sizeof text - strlen(refused));
    strcat(text, refused);
    kolo__frame_begin(&connection->out, KOLO__FRAME_ABSENT);
    kolo__put_u32(&connection->out, missing);
    kolo__put_text(&connection->out, text);
    kolo__frame_end(&connection->out);
    kolo__connection_flush(connection);
}

/* A program that never joins is nobody's business: the first rank that does starts the clock. */
void kolo__world_begin_wait(struct kolo__rendezvous *server)
{
    server->word_pause_ns = FIRST_WORD_SECONDS * SECOND;
    server->word_due_ns = kolo__now_ns(&kolo__real_clock) + server->word_pause_ns;
}

void kolo__world_tell_absent(struct kolo__rendezvous *server, uint64_t now_ns)
{
    char text[400];
    if (server->word_due_ns == 0 || server->formed || server->fault.set)
        return;
    if (now_ns < server->word_due_ns)
        return;
    uint32_t missing = list_absent(server, text, sizeof text);
    char refused[KOLO__FAULT_TEXT_BYTES + 20];
    list_refused(server, refused, sizeof refused);
    kolo__log(KOLO__LOG_WARN, "the world waits for %u of %u ranks: %s%s", missing, server->size,
              text, refused);
    server->word_pause_ns *= 2;
    server->word_due_ns = now_ns + server->word_pause_ns;
}
