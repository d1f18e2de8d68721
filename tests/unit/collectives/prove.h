/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the schedules of all ranks of one problem, and proves them: for the tests of algorithms
 * and of the verifier itself. */
#ifndef KOLO_TESTS_UNIT_COLLECTIVES_PROVE_H
#define KOLO_TESTS_UNIT_COLLECTIVES_PROVE_H

#include "collectives/verify.h"

enum in_place { OUT_OF_PLACE, IN_PLACE, SOME_IN_PLACE };

struct prove_problem {
    const struct kolo__algorithm *algorithm;
    enum kolo__collective collective;
    uint32_t size, root;
    size_t count, window_count, chunk_count, burst_count;
    enum in_place in_place;
    bool prescale;
    const uint32_t *host_of;
};

bool prove_accepts(const struct prove_problem *problem);
/* One schedule a rank; fails the test when there is no memory. Freed by prove_free. */
struct kolo__schedule *prove_build(const struct prove_problem *problem);
void prove_free(struct kolo__schedule *schedules, uint32_t size);
/* Builds and verifies; fails the test with the problem and the verifier's sentence. cost may be
 * NULL. */
void prove(const struct prove_problem *problem, struct kolo__cost *cost);
/* Verifies with the executor's window, mapped schedules three times in a row. host_of: who shares
 * memory with whom; NULL: all do. */
kolo_status prove_verify(const struct kolo__schedule *schedules, uint32_t size,
                         const uint32_t *host_of, struct kolo__cost *cost, char *text,
                         size_t text_bytes);

/* Proves an algorithm's collective at this size: counts around every boundary; all ranks out of
 * place, all in place, some; with and without prescaling where it reduces; three roots; all even
 * numbers of hosts, in blocks, in turn and shuffled, and some uneven ones: in all combinations, but
 * for algorithms that share memory within hosts, from 7 ranks on, some of them for each. Windows
 * of three lengths: in all combinations when thorough, else in turn. Returns how many problems were
 * proved; 0: it does not do that. */
unsigned prove_pair(const struct kolo__algorithm *algorithm, enum kolo__collective collective,
                    uint32_t size, bool thorough);

/* The same for every pair. Fails the test if one that `does` says is done was not proved, or the
 * other way round. */
unsigned prove_size(uint32_t size, bool thorough);

/* From now on of these problems one in `one_in` is proved, drawn from the seed, and the first of
 * each pair; 1: all again. */
void prove_sample(uint64_t seed, unsigned one_in);

/* One problem of a large world; local: how many ranks each host has, 0 where it does not matter. */
void prove_world(const char *algorithm, enum kolo__collective collective, uint32_t size,
                 uint32_t local, size_t count);

#endif
