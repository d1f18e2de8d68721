/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the ranks of an epoch and newcomers agree on the next one (runtime/membership.h), for Spin:
 * all orders of what RANKS ranks and one newcomer may do while EPOCHS epochs are formed. Any of
 * them may die at any time, also between the server's decision and the news of it.
 *
 *     process P          server                       what P sends travels in order, and what it
 *       COME(e) ------>    state of P = come          sent may get there after P has died; the
 *       (dies)  ------>    P is gone                  loss is heard of after that
 *               <------    TOLD(e + 1)
 *
 * Checked: the assertions, and that everybody gets to his end, from every state.
 */
#ifndef RANKS
#define RANKS 3
#endif
#define ALL    (RANKS + 1) /* the last is the newcomer */
#ifndef EPOCHS
#define EPOCHS 2
#endif
#define LEAST  1

mtype = { COME, ARRIVE, LOSS };
mtype = { gone, present, come, waiting };

chan to_server[ALL] = [4] of { mtype, byte };
chan to_process[ALL] = [4] of { byte }; /* an epoch; 255: expelled */

mtype state[ALL];   /* as the server sees it */
byte epoch = 0;     /* of the server */
byte told[ALL];     /* as each process was told */
bool expelled[ALL], heard[ALL];
bool over = false;  /* the time of this formation */
bool ended = false;

inline count(what, result)
{
    result = 0;
    k = 0;
    do
    :: k < ALL -> result = result + (state[k] == what -> 1 : 0); k++
    :: else -> break
    od
}

#if RANKS > 3
#define RANK_IS_LEFT (state[0] == present || state[1] == present || state[2] == present || state[3] == present)
#else
#define RANK_IS_LEFT (state[0] == present || state[1] == present || state[2] == present)
#endif

proctype process_of(byte me; bool newcomer)
{
    byte next;
    bool mortal;
    if /* Who may die at any time could never be seen to wait for ever. */
    :: mortal = true
    :: mortal = false
    fi;
    if
    :: newcomer -> to_server[me]!ARRIVE,0
    :: !newcomer -> to_server[me]!COME,0 /* it has seen a fault */
    :: !newcomer && mortal -> to_server[me]!LOSS,0; goto over_with
    :: !newcomer && !mortal -> goto end_stopped
    fi;
    do
    :: to_process[me]?next ->
        if
        :: next == 255 -> break
        :: else ->
            assert(next > told[me] || newcomer); /* never the same epoch twice, never back */
            newcomer = false;
            told[me] = next;
            if
            :: next == EPOCHS -> break
            :: else -> to_server[me]!COME,next
            fi
        fi
    :: mortal -> to_server[me]!LOSS,0; break
    :: ended && empty(to_process[me]) ->
        assert(epoch < EPOCHS || state[me] != present); /* who is in an epoch is told */
        break
    :: newcomer && timeout && RANK_IS_LEFT -> break /* which is stopped: its own deadline ends it */
    od;
    goto over_with;
end_stopped: /* does nothing, and need not get any further */
    to_process[me]?next;
    assert(next == 255);
over_with: skip
}

#define FROM(process)                                                    \
    :: to_server[process]?COME,from -> i = process; goto came            \
    :: to_server[process]?LOSS,from -> i = process; heard[i] = true; state[i] = gone

proctype server()
{
    byte i, k, comes, late, waits, from;
    do
    :: atomic { epoch < EPOCHS && !ended ->
        i = 0;
        /* Something arrives, from anybody; or the time is over. It may wait for ever, if nobody
         * waits for it: only a rank that is stopped is left. */
end_idle:
        if
        FROM(0)
        FROM(1)
        FROM(2)
        FROM(3)
#if RANKS > 3
        FROM(4)
#endif
        :: to_server[RANKS]?ARRIVE,from -> i = RANKS;
            if
            :: !heard[i] -> state[i] = waiting
            :: else -> skip
            fi
        :: comes > 0 && !over -> over = true
        fi;
        goto decide;
came: skip;
        if
        :: state[i] == present && from == epoch -> state[i] = come
        :: else -> skip
        fi;
decide: skip;
        d_step {
            count(come, comes);
            count(present, late);
            count(waiting, waits);
            k = 0
        };
        if
        :: comes + late == 0 && waits > 0 -> ended = true /* nobody knows what newcomers must know */
        :: comes + late + waits == 0 -> ended = true
        :: comes > 0 && late > 0 && over ->
            i = 0;
            do
            :: i < ALL && state[i] == present ->
                state[i] = gone; expelled[i] = true; to_process[i]!255; i++
            :: i < ALL && state[i] != present -> i++
            :: i == ALL -> break
            od;
            goto decide
        :: comes > 0 && late == 0 && comes + waits < LEAST && over -> ended = true
        :: comes > 0 && late == 0 && comes + waits >= LEAST ->
            epoch++;
            over = false;
            i = 0;
            do
            :: i < ALL && (state[i] == come || state[i] == waiting) ->
                assert(!heard[i] && !expelled[i]); /* no member is known to be lost */
                state[i] = present; to_process[i]!epoch; i++
            :: i < ALL && state[i] != come && state[i] != waiting -> i++
            :: i == ALL -> break
            od
        :: else -> skip
        fi }
    :: else -> ended = true; break
    od
}

init
{
    byte i = 0;
    atomic {
        do
        :: i < RANKS -> state[i] = present; run process_of(i, false); i++
        :: else -> break
        od;
        state[RANKS] = gone;
        run process_of(RANKS, true);
        run server()
    }
}
