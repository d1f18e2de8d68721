/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signs of life of members (heartbeat.h), and what follows when there are none: who is stopped,
 * hangs or was cut off is found within the time that it gave itself, and named with what it said
 * last.
 */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "runtime/heartbeat.h"

#include <stdio.h>
#include <string.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

/* Members are looked at once a second, so that the server sees when it did not run itself; being
 * late by less than this is no matter. */
enum { LATE_MS = 500 };

/* ---- hearing --------------------------------------------------------------------------------- */

static void send_beat(struct kolo__connection *to)
{
    kolo__frame_begin(&to->out, KOLO__FRAME_BEAT);
    kolo__frame_end(&to->out);
    kolo__connection_flush(to);
}

void kolo__world_beat(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__signs_of_life *signs = &server->members[connection->rank].signs;
    struct kolo__flight_state state; /* only what is said of it */
    uint32_t timeout_ms;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    const unsigned char *told = payload->next;
    kolo__get_beat(payload, now_ns, &timeout_ms, &state);
    if (!kolo__frame_done(payload) || timeout_ms == 0) {
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "a BEAT message is broken");
        return;
    }
    if (signs->timeout_ns == 0) {
        server->due_ns = now_ns;
        if (server->beats_due_ns == 0 ||
            server->beats_due_ns > now_ns) /* else the server is late */
            server->beats_due_ns = now_ns;
    }
    signs->timeout_ns = timeout_ms * MILLISECOND;
    signs->heard_ns = now_ns;
    signs->asked = false;
    signs->state = 0;
    signs->told.bytes = 0;
    kolo__put_raw(&signs->told, told, (size_t)(payload->end - told));
    kolo__world_hear_of_wait(server, signs, &state);
    send_beat(connection);
}

bool kolo__world_told(const struct kolo__member *member, struct kolo__flight_state *state)
{
    const struct kolo__signs_of_life *signs = &member->signs;
    uint32_t timeout_ms;
    if (signs->told.bytes == 0)
        return false;
    struct kolo__frame_reader told = {.next = signs->told.data,
                                      .end = signs->told.data + signs->told.bytes};
    kolo__get_beat(&told, signs->heard_ns, &timeout_ms, state);
    return kolo__frame_done(&told);
}

/* ---- judging --------------------------------------------------------------------------------- */

static bool beats(const struct kolo__member *member)
{
    return member->signs.timeout_ns != 0 && member->connection != NULL && !member->left &&
           member->gone_why[0] == '\0';
}

bool kolo__world_is_quiet(const struct kolo__member *member, uint64_t now_ns)
{
    return beats(member) &&
           now_ns >= member->signs.heard_ns + kolo__heartbeat_quiet_ns(member->signs.timeout_ns);
}

/* Sooner than it is quiet: that what it was sent is not acknowledged says more than silence. */
bool kolo__world_is_cut_off(const struct kolo__member *member, uint64_t now_ns)
{
    return beats(member) &&
           now_ns >=
               member->signs.heard_ns + kolo__heartbeat_cut_off_ns(member->signs.timeout_ns) &&
           kolo__silence_is_unanswered(member->connection->fd);
}

const char *kolo__world_last_heard(const struct kolo__member *member, uint64_t now_ns, char *text,
                                   size_t bytes)
{
    char what[240];
    struct kolo__flight_state state = {.process = 0};
    uint64_t heard_ns = member->signs.heard_ns;
    double before_s = now_ns > heard_ns ? (double)(now_ns - heard_ns) / 1e9 : 0;
    text[0] = '\0';
    if (!kolo__world_told(member, &state))
        return text;
    int length = snprintf(text, bytes, "; when last heard, %.1f s before, it ", before_s);
    bool waits = state.waits.phase != KOLO__FLIGHT_NONE;
    kolo__flight_operation_text(waits ? &state.waits : &state.last, what, sizeof what);
    if (waits)
        snprintf(text + length, bytes - (size_t)length, "waited since %.1f s in %s",
                 (double)(heard_ns - state.waits.wait_begin_ns) / 1e9, what);
    else if (state.last.phase == KOLO__FLIGHT_NONE)
        snprintf(text + length, bytes - (size_t)length, "had called nothing yet");
    else
        snprintf(text + length, bytes - (size_t)length, "%s %s",
                 state.last.phase == KOLO__FLIGHT_CALLED ? "was in" : "had done", what);
    return text;
}

/* When this server did not run, nobody's beats were read, or all were stopped together. */
static void excuse(struct kolo__rendezvous *server, uint64_t now_ns)
{
    uint64_t late_ns = now_ns - server->beats_due_ns;
    for (uint32_t r = 0; late_ns > LATE_MS * MILLISECOND && r < server->size; r++) {
        uint64_t *heard_ns = &server->members[r].signs.heard_ns;
        if (*heard_ns < now_ns) /* else it was read just now */
            *heard_ns = *heard_ns + late_ns < now_ns ? *heard_ns + late_ns : now_ns;
    }
}

/* What is known of it, and false while there is hope. A process that runs is given twice the time:
 * where the machine has far too much to do, its thread may not get to beat. */
static bool is_lost(const struct kolo__member *member, uint64_t silent_ns, char *why, size_t bytes)
{
    const struct kolo__signs_of_life *signs = &member->signs;
    double seconds = (double)silent_ns / 1e9;
    if (silent_ns < signs->timeout_ns)
        return false;
    if (kolo__silence_is_unanswered(member->connection->fd))
        snprintf(why, bytes,
                 "was lost with its host, which " KOLO__SILENCE_TEXT ", silent for %.1f s",
                 seconds);
    else if (signs->state == 'T' || signs->state == 't')
        snprintf(why, bytes, "is stopped (%s), silent for %.1f s",
                 signs->state == 'T' ? "SIGSTOP" : "by a debugger", seconds);
    else if (signs->state == 0 || signs->state == '?')
        snprintf(why, bytes,
                 "is silent for %.1f s, though its host answers: it is stopped (SIGSTOP, a "
                 "debugger) or hangs",
                 seconds);
    else if (silent_ns < 2 * signs->timeout_ns)
        return false;
    else
        snprintf(why, bytes,
                 "is silent for %.1f s, though its process is there (state %c): it "
                 "does not get to run",
                 seconds, signs->state);
    return true;
}

/* Looks at one; returns when to look again. */
static uint64_t judge(struct kolo__rendezvous *server, uint32_t rank, uint64_t now_ns)
{
    struct kolo__member *member = &server->members[rank];
    struct kolo__signs_of_life *signs = &member->signs;
    char why[240];
    const uint64_t quiet_ns = kolo__heartbeat_quiet_ns(signs->timeout_ns);
    if (now_ns >= signs->heard_ns + quiet_ns)
        kolo__connection_drain(member->connection); /* it may wait to be read */
    if (!beats(member))
        return UINT64_MAX; /* it was its goodbye */
    uint64_t silent_ns = now_ns > signs->heard_ns ? now_ns - signs->heard_ns : 0;
    if (is_lost(member, silent_ns, why, sizeof why)) {
        kolo__world_declare_lost(server, rank, why);
        return UINT64_MAX;
    }
    if (!signs->asked && silent_ns >= quiet_ns) {
        signs->asked = true; /* so that its host has something to answer */
        send_beat(member->connection);
    }
    if (!signs->asked)
        return signs->heard_ns + quiet_ns;
    return signs->heard_ns + signs->timeout_ns * (silent_ns < signs->timeout_ns ? 1 : 2);
}

/* After a fault nobody's silence matters any more, but for the next epoch: to which those that are
 * left may be silent all. */
static bool is_judging(const struct kolo__rendezvous *server)
{
    return !server->fault.set || server->min_ranks > 0 ||
           kolo__membership_is_forming(&server->membership);
}

uint64_t kolo__world_beats_due_ns(const struct kolo__rendezvous *server)
{
    return is_judging(server) ? server->beats_due_ns : 0;
}

/* While nobody judged, all may have been stopped together, which nobody saw: who seems to be silent
 * is asked, and has the time to answer, before it is lost. */
void kolo__world_listen_again(struct kolo__rendezvous *server)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    for (uint32_t r = 0; r < server->size; r++) {
        struct kolo__signs_of_life *signs = &server->members[r].signs;
        uint64_t quiet_ns = kolo__heartbeat_quiet_ns(signs->timeout_ns);
        if (signs->heard_ns + quiet_ns < now_ns)
            signs->heard_ns = now_ns - quiet_ns;
    }
    server->beats_due_ns = server->due_ns = now_ns;
}

void kolo__world_judge_beats(struct kolo__rendezvous *server, uint64_t now_ns)
{
    if (server->beats_due_ns == 0 || now_ns < server->beats_due_ns || !is_judging(server))
        return;
    excuse(server, now_ns);
    bool anybody = false;
    uint64_t due_ns = now_ns + SECOND;
    for (uint32_t r = 0; r < server->size && is_judging(server); r++) {
        if (!beats(&server->members[r]))
            continue;
        uint64_t again_ns = judge(server, r, now_ns);
        due_ns = again_ns < due_ns ? again_ns : due_ns;
        anybody = true;
    }
    server->beats_due_ns = anybody && is_judging(server) ? due_ns : 0;
}

/* ---- what whoever started the ranks has to do with it ------------------------------------------
 */

bool kolo__rendezvous_is_quiet(const struct kolo__rendezvous *server, uint32_t place)
{
    uint32_t rank = kolo__world_find_place(server, place);
    if (rank == server->size)
        return false;
    return !server->fault.set && server->members[rank].signs.asked && beats(&server->members[rank]);
}

bool kolo__rendezvous_any_is_quiet(const struct kolo__rendezvous *server, uint32_t places)
{
    for (uint32_t r = 0; r < server->size && !server->fault.set; r++) {
        const struct kolo__member *member = &server->members[r];
        if (member->signs.asked && member->place < places && !member->ended && beats(member))
            return true;
    }
    return false;
}

void kolo__rendezvous_note_state(struct kolo__rendezvous *server, uint32_t place, char state)
{
    uint32_t rank = kolo__world_find_place(server, place);
    if (rank < server->size)
        server->members[rank].signs.state = state;
}
