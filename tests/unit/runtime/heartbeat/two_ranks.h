/* SPDX-License-Identifier: Apache-2.0 */
/* A world of two ranks without their threads, whose server stands still but where a test lets it
 * run: what tests of signs of life share. */
#ifndef KOLO_TEST_TWO_RANKS_H
#define KOLO_TEST_TWO_RANKS_H

#include "base/clock.h"
#include "runtime/control_frames.h"
#include "runtime/heartbeat.h"
#include "runtime/introduction.h"
#include "runtime/rendezvous_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { RANKS = 2 };

static const uint64_t SECOND = 1000000000, TIMEOUT = 5000000000;

extern struct kolo__rendezvous *server;
extern struct kolo__control *controls[RANKS];
extern const char no_words[KOLO__INTRODUCTION_TEXTS]; /* what they say of themselves */

static inline uint64_t now(void)
{
    return kolo__now_ns(&kolo__real_clock);
}

/* Of cmocka: before and after each test. */
int start_ranks(void **state);
int end_ranks(void **state);

/* The server runs until then, or for a while. */
void serve_until(bool (*done)(void));
bool both_beat(void);

/* The first fault of the world; NULL: none. */
const char *fault(kolo_status *status, int *rank);
/* Rank 1 is lost, and why has this part. */
void assert_lost(const char *part);
void assert_sound(void);

#endif
