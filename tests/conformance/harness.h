/* SPDX-License-Identifier: Apache-2.0 */
/* What the suite's files share: a world of transports, posts with known contents, bounded waiting.
 */
#ifndef KOLO_TESTS_CONFORMANCE_HARNESS_H
#define KOLO_TESTS_CONFORMANCE_HARNESS_H

#include "conformance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

struct world {
    uint32_t size;
    struct kolo__transport *transports[KOLO__CONFORMANCE_SIZE_MAX];
    void *inner; /* the fixture's */
};

/* One message's post on one side, and its memory. */
struct message {
    struct kolo__post post;
    struct kolo__signature signature;
    unsigned char *data; /* owned; NULL when bytes is 0 */
    bool in_heap;        /* the fixture's */
};

extern const struct kolo__conformance_fixture *fixture;

/* Waits end after this long at the latest, and then fail the test. */
uint64_t deadline(void);
bool passed(uint64_t deadline_ns);

struct world open_world(uint32_t size, uint64_t seed);
void close_world(struct world *world);
/* One progress of every rank, and a step of time. */
void turn(struct world *world);
/* Turns until all posts are complete. */
void finish(struct world *world, struct message *messages, size_t count);

struct kolo__signature signature_of(uint64_t sequence, uint64_t count);
/* A message of `bytes`; its contents follow from key, on both sides. */
void make_send(struct message *message, uint64_t key, size_t bytes);
void make_recv(struct message *message, uint64_t key, size_t bytes);
void send_message(struct world *world, uint32_t from, uint32_t to, struct message *message);
void recv_message(struct world *world, uint32_t at, uint32_t from, struct message *message);
/* What byte i of the message with this key is. */
unsigned char content(uint64_t key, size_t i);
bool holds(const struct message *message, uint64_t key);
/* Nothing was written to it. */
bool untouched(const struct message *message);
void free_messages(struct message *messages, size_t count);

/* conformance_faults.c */
void check_fail_completes_once(void **state);
void check_close_completes(void **state);
void check_mismatch(void **state);
void check_mismatch_of_length(void **state);

/* conformance_threads.c */
void check_sleeping_receiver(void **state);
void check_sleeping_exchange(void **state);
void check_threads_random_traffic(void **state);

#endif
