/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL's communicators out of NCCL's communicators (runtime/nccl_parts.c), in a world of two
 * processes with stand-ins for NCCL and for the driver: that kolo_comm_split splits NCCL's too, on
 * all ranks or on none, and the same of shrinking.
 */
#include "cases.h"
#include "runtime/nccl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { COUNT = 6 };

static void reduces(kolo_comm *comm, int ranks)
{
    float *data = device_memory(COUNT);
    CHECK(kolo_allreduce(comm, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(data[1] == 2 * (float)ranks);
    release(data);
}

static const char *last(void)
{
    return of_standin("whole", "standin_last");
}

static int splits(void)
{
    return *(int *)of_standin("whole", "standin_count_split");
}

static void set_part_size(int size)
{
    *(int *)of_standin("whole", "standin_part_size") = size;
}

/* All that NCCL's parent knows the part has: its rank, its size, a watch of its own. */
static void is_split(kolo_comm *world)
{
    kolo_comm *part, *all;
    char asked[64];
    int rank = kolo_comm_rank(world);
    reduces(world, RANKS);
    set_part_size(1);
    CHECK(kolo_comm_split(world, rank, 0, &part) == KOLO_OK && kolo_comm_size(part) == 1);
    snprintf(asked, sizeof asked, "Split color=%d key=0 blocking=0", rank);
    CHECK(strcmp(last(), asked) == 0 && splits() == 1);
    reduces(part, 1);
    set_part_size(RANKS);
    CHECK(kolo_comm_split(world, 0, -rank, &all) == KOLO_OK && kolo_comm_rank(all) == 1 - rank);
    snprintf(asked, sizeof asked, "Split color=0 key=%d blocking=0", 1 - rank);
    CHECK(strcmp(last(), asked) == 0 && splits() == 2);
    CHECK(kolo_comm_free(part) == KOLO_OK); /* none needs another */
    reduces(all, RANKS);
    float *from = device_memory(RANKS), *to = device_memory(RANKS);
    CHECK(kolo_alltoall(all, from, to, 1, KOLO_FP32, NULL) == KOLO_OK);
    CHECK(strncmp(last(), "Send count=4 type=0 peer=1 ", 27) == 0);
    reduces(world, RANKS);
    CHECK(kolo_comm_free(all) == KOLO_OK);
    CHECK(counted("standin_count_abort") == 0 && counted("standin_count_destroy") == 2);
    still_works(world);
}

/* Rank 1 is in none, and takes part all the same. */
static void is_left_out(kolo_comm *world)
{
    kolo_comm *part;
    int rank = kolo_comm_rank(world);
    reduces(world, RANKS);
    set_part_size(1);
    CHECK(kolo_comm_split(world, rank == 0 ? 0 : KOLO_NO_COLOR, 0, &part) == KOLO_OK);
    CHECK((part != NULL) == (rank == 0) && splits() == 1);
    CHECK(strcmp(last(), rank == 0 ? "Split color=0 key=0 blocking=0"
                                   : "Split color=-1 key=0 blocking=0") == 0);
    if (part != NULL)
        reduces(part, 1);
    reduces(world, RANKS);
    kolo_comm_free(part);
}

/* Who has used no GPU is not made to. */
static void has_none(kolo_comm *world)
{
    kolo_comm *part;
    float *data = device_memory(COUNT);
    CHECK(kolo_comm_split(world, 0, 0, &part) == KOLO_OK && part->nccl == NULL);
    CHECK(kolo_allreduce(part, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(splits() == 0);
    kolo_comm_free(part);
}

/* On one rank: then on none; each communicator begins its own. */
static void is_refused(kolo_comm *world)
{
    kolo_comm *part;
    reduces(world, RANKS);
    CHECK(kolo_comm_split(world, 0, 0, &part) == KOLO_OK && part->nccl == NULL);
    CHECK(counted("standin_count_abort") == 1);
    reduces(part, RANKS);
    reduces(world, RANKS);
    still_works(part);
    kolo_comm_free(part);
}

/* What no rank may register on the whole, none tries to on a part. */
static void has_no_windows(kolo_comm *world)
{
    struct kolo__nccl_buffer buffer;
    kolo_comm *part;
    reduces(world, RANKS);
    CHECK(kolo__nccl_buffer_open(world, "test", 4096, &buffer) == KOLO_OK && buffer.window == NULL);
    kolo__nccl_buffer_close(world, &buffer);
    CHECK(kolo_comm_split(world, 0, 0, &part) == KOLO_OK && splits() == 1);
    CHECK(counted("standin_count_abort") == 1);
    CHECK(kolo__nccl_buffer_open(part, "test", 4096, &buffer) == KOLO_OK && buffer.window == NULL);
    CHECK(counted("standin_count_abort") == 1);
    kolo__nccl_buffer_close(part, &buffer);
    kolo_comm_free(part);
}

static void peer_dies_meanwhile(kolo_comm *world)
{
    kolo_comm *part;
    reduces(world, RANKS);
    let_rank_1_go_on(world);
    if (kolo_comm_rank(world) == 1)
        _exit(0);
    CHECK(kolo_comm_split(world, 0, 0, &part) == KOLO_ERR_PEER_LOST && part == NULL);
}

/* ---- shrinking ------------------------------------------------------------------------------ */

/* The rank that stays, with a communicator of its own; NULL: this one leaves. */
static kolo_comm *alone(kolo_comm *world)
{
    kolo_comm *smaller;
    int rank = kolo_comm_rank(world);
    CHECK(kolo_comm_split(world, rank == 1 ? 0 : KOLO_NO_COLOR, 0, &smaller) == KOLO_OK);
    return smaller;
}

static void is_shrunk(kolo_comm *world)
{
    const int left[] = {0};
    kolo_comm *smaller = alone(world);
    reduces(world, RANKS);
    if (smaller == NULL)
        return;
    CHECK(kolo__nccl_shrink(world, left, 1, smaller) == KOLO_OK && smaller->nccl != NULL);
    CHECK(strcmp(last(), "Shrink first=0 count=1 blocking=0 flags=0") == 0);
    reduces(smaller, 1);
    CHECK(counted("standin_count_abort") == 0);
    kolo_comm_free(smaller);
    CHECK(counted("standin_count_destroy") == 1);
}

static void cannot_shrink(kolo_comm *world)
{
    const int left[] = {0};
    kolo_comm *smaller = alone(world);
    if (smaller != NULL)
        CHECK(kolo__nccl_shrink(world, left, 1, smaller) == KOLO_OK && smaller->nccl == NULL);
    reduces(world, RANKS);
    if (smaller == NULL)
        return;
    CHECK(kolo__nccl_shrink(world, left, 1, smaller) == KOLO_OK && smaller->nccl == NULL);
    CHECK(counted("standin_count_abort") == 1); /* of the old one, which nobody needs */
    reduces(smaller, 1);
    kolo_comm_free(smaller);
}

WORLD_CASE(is_split, "", "")
WORLD_CASE(is_left_out, "", "")
WORLD_CASE(has_none, "", "")
WORLD_CASE(is_refused, "", "split=1")
WORLD_CASE(peer_dies_meanwhile, "", "")
WORLD_CASE(has_no_windows, "", "window=4")
WORLD_CASE(is_shrunk, "", "")
WORLD_CASE(cannot_shrink, "", "shrink=3")

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_split),
        cmocka_unit_test(test_is_left_out),
        cmocka_unit_test(test_has_none),
        cmocka_unit_test(test_is_refused),
        cmocka_unit_test(test_is_shrunk),
        cmocka_unit_test(test_cannot_shrink),
        cmocka_unit_test(test_peer_dies_meanwhile),
        cmocka_unit_test(test_has_no_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
