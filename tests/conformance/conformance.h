/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One suite for every transport: the contract of collectives/transport/transport.h as checks. The
 * author of a transport writes a fixture and a main
 * (tests/conformance/<transport>_conformance_test.c, linked with the other files of this folder):
 *
 *     static const struct kolo__conformance_fixture shm = { .name = "shm", ... };
 *
 *     int main(void)
 *     {
 *         return kolo__conformance_run(&shm);
 *     }
 */
#ifndef KOLO_TESTS_CONFORMANCE_H
#define KOLO_TESTS_CONFORMANCE_H

#include "collectives/transport/heap.h"
#include "collectives/transport/transport.h"

enum { KOLO__CONFORMANCE_SIZE_MAX = 5 };

struct kolo__conformance_fixture {
    const char *name;
    /* Makes `size` connected transports of one communicator in this process (rank r in
     * transports[r]), using threads inside where creating one blocks on the others. *world is
     * the fixture's own. seed is for those that draw random numbers. Returns KOLO_OK, or a failure
     * that fails the test. */
    kolo_status (*create)(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world);
    /* Called once in each round of the suite's loops, after every rank's progress: a simulation
     * lets its time pass. NULL: nothing has to be done. */
    void (*step)(void *world);
    /* After the suite has closed all transports with their own close. NULL: the same. */
    void (*destroy)(void *world);
    /* Different ranks may be driven by different threads (false: only by one thread in turn; the
     * checks with threads are then skipped, and say so). */
    bool threads;
    struct kolo__heap *heap; /* messages are in its memory; NULL: in malloc's */
    bool mixed;              /* one of three is in malloc's all the same */
};

/* Runs all checks as one cmocka group and returns the number that failed. Every wait in it has a
 * deadline of some seconds. */
int kolo__conformance_run(const struct kolo__conformance_fixture *fixture);

#endif
