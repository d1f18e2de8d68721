/* SPDX-License-Identifier: Apache-2.0 */
/* A rank of any world starts with as many connections as one of a small world, and then has those
 * that its schedules need: a world in which each connects to each at the start does not scale. */
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FEW_RANKS = 4, MANY_RANKS = 12, COUNT = 1000 };
enum { AT_START = 1 }; /* to the rendezvous */

static int32_t input[MANY_RANKS * COUNT], output[MANY_RANKS * COUNT];

static bool is_connection(int fd)
{
    int domain, listens;
    socklen_t length = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0)
        return false; /* no socket */
    length = sizeof listens;
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
    return (domain == AF_INET || domain == AF_INET6) && listens == 0;
}

/* Those that are being made count as well. */
static int connections(void)
{
    int count = 0;
    DIR *descriptors = opendir("/proc/self/fd");
    for (struct dirent *entry; descriptors != NULL && (entry = readdir(descriptors)) != NULL;)
        count += entry->d_name[0] != '.' && is_connection(atoi(entry->d_name));
    if (descriptors != NULL)
        closedir(descriptors);
    return count;
}

static int starts(void)
{
    CHECK(join() == 0);
    CHECK(connections() == AT_START);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Two neighbours, whoever else there is. */
static int goes_round(void)
{
    CHECK(join() == 0);
    CHECK(kolo_comm_set_algorithm(comm, "ring") == KOLO_OK);
    for (int i = 0; i < 3; i++)
        CHECK(kolo_allreduce(comm, input, output, COUNT, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(connections() == AT_START + 2);
    /* Nobody goes to kolo_finalize, which connects others, before all have counted. */
    CHECK(kolo_allreduce(comm, input, output, COUNT, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Here everybody is needed: so the connections that others lack would have been seen. */
static int talks_to_all(void)
{
    CHECK(join() == 0);
    CHECK(kolo_alltoall(comm, input, output, COUNT, KOLO_INT32, NULL) == KOLO_OK);
    CHECK(connections() == AT_START + size - 1);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void run(int ranks, int (*rank_main)(void))
{
    /* One connection a peer, whatever a probe would say of this machine. */
    const char *environment[] = {"KOLO_TRANSPORT=tcp", "KOLO_STREAMS=1", NULL};
    struct world_result result = world_run(ranks, environment, rank_main);
    world_assert_all_passed(&result, ranks);
}

static void test_the_start_takes_one_in_any_world(void **state)
{
    (void)state;
    run(FEW_RANKS, starts);
    run(MANY_RANKS, starts);
}

static void test_a_ring_takes_two_in_any_world(void **state)
{
    (void)state;
    run(FEW_RANKS, goes_round);
    run(MANY_RANKS, goes_round);
}

static void test_an_alltoall_takes_all(void **state)
{
    (void)state;
    run(FEW_RANKS, talks_to_all);
    run(MANY_RANKS, talks_to_all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_start_takes_one_in_any_world),
        cmocka_unit_test(test_a_ring_takes_two_in_any_world),
        cmocka_unit_test(test_an_alltoall_takes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
