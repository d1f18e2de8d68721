/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world for tests: forks ranks that find each other through a real rendezvous server, which the
 * parent runs. A rank is a function; it returns 0, or the line of the check that failed.
 */
#ifndef KOLO_TESTS_WORLD_H
#define KOLO_TESTS_WORLD_H

#include <kolo/kolo.h>
#include <stdint.h>

/* A world of 7 ranks under ThreadSanitizer on 2 cores takes minutes. */
#ifdef __SANITIZE_THREAD__
enum { WORLD_TIMEOUT_S = 240 };
#else
enum { WORLD_TIMEOUT_S = 60 };
#endif
enum { WORLD_RANKS_MAX = 16 };

struct world_result {
    int status[WORLD_RANKS_MAX];     /* as of waitpid */
    double seconds[WORLD_RANKS_MAX]; /* from the start to the end of the rank */
};

/* environment: "NAME=VALUE" strings, NULL-terminated; may be NULL. Every rank is reaped when this
 * returns; one that still runs after WORLD_TIMEOUT_S is killed (and shows it in its status). */
struct world_result world_run(int ranks, const char *const *environment, int (*rank_main)(void));

/* The same for a world that goes on with min_ranks. When it has formed, so many newcomers come:
 * their world_rank counts on from ranks, as the entries of the result do. */
struct world_result world_run_elastic(int ranks, int newcomers, int min_ranks,
                                      const char *const *environment, int (*rank_main)(void));

/* Fails the cmocka test unless every rank returned 0. */
void world_assert_all_passed(const struct world_result *result, int ranks);

/* Runs the ranks over shared memory, then over tcp; all must pass. option: one more "NAME=VALUE",
 * or NULL. */
void world_run_over_both(int ranks, const char *option, int (*rank_main)(void));

/* In a rank: leaves rank_main with the line number when the condition does not hold. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            world_complain(__FILE__, __LINE__, #condition);                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

/* In a rank: its number, also before kolo_init. */
int world_rank(void);

void world_complain(const char *file, int line, const char *condition);

#endif
