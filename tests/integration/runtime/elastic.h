/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of worlds that go on (kolo_renew) have in common. In ranks, 0 is success. */
#ifndef KOLO_TESTS_ELASTIC_H
#define KOLO_TESTS_ELASTIC_H

#include "member.h"

#include <pthread.h>

/* float elements of a large allreduce */
enum { ELASTIC_COUNT = 40000 };

int error_has(const char *what);
void die(void);
/* In a thread, which is *killer. */
int die_later(unsigned moment_us, pthread_t *killer);
/* comm, rank and size are those of the world as it is now. */
int look(void);
/* kolo_renew, and look. */
int renew(void);
/* A sum of the ranks of all, in place. */
kolo_status reduce(float *data, size_t count);
int sum_is_right(const float *data, size_t count);
/* Small and large ones, in memory of one's own and in shared memory. */
int reduces_well(void);
/* A barrier. */
int meet(void);
/* Not before all ranks are through those of the last two that this one is through: none of them may
 * miss it there. */
void die_behind_all(void);
kolo_status reduce_until_failure(void);
/* Until somebody waits to be taken in. */
int work_until_wanted(void);
int report_says(int epoch, int survivors, int previous_size, const char *gone);

/* Environments: shared memory, TCP, TCP with encryption. */
enum { ELASTIC_WAYS = 3 };
extern const char *const *const elastic_ways[ELASTIC_WAYS];

/* Runs them; those in killed, up to a -1, are to be killed by SIGKILL, all others to pass. */
void expect_on(const char *const *way, int ranks, int newcomers, const int killed[],
               int (*rank_main)(void));
/* In all ways. */
void expect(int ranks, int newcomers, const int killed[], int (*rank_main)(void));

#endif
