/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members that live, and do not come where others wait for them. Each member says with every beat
 * what it waits for and how far it is on each communicator; when somebody has waited for almost as
 * long as it takes to be lost in silence, all of that is compared (flight_judge.c), and whoever
 * waits is told who holds it up: again with every beat, as long as it lasts. Nobody is ended for
 * it: a rank may compute for minutes.
 */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "runtime/heartbeat.h"

#include <stdio.h>
#include <stdlib.h>

/* All beat at the same moments: time for the others' beats to come. */
enum { ROUND_MS = 200 };

static const uint64_t MILLISECOND = 1000000;

static uint64_t waited_ns(const struct kolo__flight_state *state, uint64_t now_ns)
{
    bool waits = state->waits.phase == KOLO__FLIGHT_CALLED;
    return waits && now_ns > state->waits.wait_begin_ns ? now_ns - state->waits.wait_begin_ns : 0;
}

void kolo__world_hear_of_wait(struct kolo__rendezvous *server,
                              const struct kolo__signs_of_life *signs,
                              const struct kolo__flight_state *state)
{
    if (server->waits_due_ns != 0 ||
        waited_ns(state, signs->heard_ns) < kolo__heartbeat_long_ns(signs->timeout_ns))
        return;
    server->waits_due_ns = signs->heard_ns + ROUND_MS * MILLISECOND;
    server->eventful = true; /* let it be seen when that is due */
}

/* False: it may be lost, or come, and is not to be judged before that is known. */
static bool take_member(const struct kolo__member *member, uint32_t rank, uint32_t world_size,
                        uint64_t now_ns, struct kolo__flight_state *state)
{
    state->rank = rank;
    state->world_size = world_size;
    snprintf(state->host, sizeof state->host, "%s", member->host);
    state->process = 'S'; /* it is heard, so it is not stopped */
    state->open = state->has_called = kolo__world_told(member, state);
    state->left = member->left;
    return state->open && !kolo__world_is_quiet(member, now_ns);
}

static void tell(struct kolo__connection *to, uint64_t waited_ns, const char *text)
{
    kolo__frame_begin(&to->out, KOLO__FRAME_NOTE);
    kolo__put_u32(&to->out, (uint32_t)(waited_ns / MILLISECOND));
    kolo__put_text(&to->out, text);
    kolo__frame_end(&to->out);
    kolo__connection_flush(to);
}

static void judge(struct kolo__rendezvous *server, struct kolo__flight_state *states,
                  uint64_t now_ns)
{
    struct kolo__flight_verdict *verdict = &server->held_up.verdict;
    uint64_t timeout_ns = 0;
    bool known = true;
    for (uint32_t r = 0; r < server->size; r++) {
        const struct kolo__member *member = &server->members[r];
        known &= take_member(member, r, server->size, now_ns, &states[r]);
        if (member->signs.timeout_ns > timeout_ns)
            timeout_ns = member->signs.timeout_ns;
    }
    if (!known)
        return;
    kolo__flight_judge_states(states, server->size, now_ns, verdict);
    server->held_up.until_ns = now_ns + timeout_ns;
    /* Where all have come, they are at work. */
    for (uint32_t r = 0; r < server->size && verdict->finding > KOLO__FLIGHT_ALL_ENTERED; r++)
        if (waited_ns(&states[r], now_ns) > 0 && server->members[r].connection != NULL)
            tell(server->members[r].connection, waited_ns(&states[r], now_ns), verdict->text);
}

void kolo__world_judge_waits(struct kolo__rendezvous *server, uint64_t now_ns)
{
    if (server->waits_due_ns == 0 || now_ns < server->waits_due_ns)
        return;
    server->waits_due_ns = 0;
    if (server->fault.set || !server->formed || kolo__membership_is_forming(&server->membership))
        return;
    struct kolo__flight_state *states = calloc(server->size, sizeof *states);
    if (states != NULL) /* else their timeouts will tell */
        judge(server, states, now_ns);
    free(states);
}

const char *kolo__rendezvous_held_up(const struct kolo__rendezvous *server, uint64_t now_ns,
                                     uint64_t *longest_ns)
{
    const struct kolo__flight_verdict *verdict = &server->held_up.verdict;
    if (server->fault.set || now_ns >= server->held_up.until_ns ||
        verdict->finding <= KOLO__FLIGHT_ELSEWHERE)
        return NULL;
    *longest_ns = verdict->longest_ns;
    return verdict->text;
}
