/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm in worlds of more than 64 ranks, up to 4,096; those that take longest in larger
 * ones: algorithms_samples_soak_test.c. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* Every algorithm and collective. Where each of p ranks has p steps or more, or reads p places, or
 * holds p slices, that is what bounds the size here; the others go to 4,096. */
static void samples_to_4096(void **state)
{
    (void)state;
    const struct {
        const char *algorithm;
        enum kolo__collective collective;
        uint32_t size, local;
        size_t count;
    } rows[] = {
        {"recursive_doubling", KOLO__ALLREDUCE, 4096, 0, 3},
        {"recursive_doubling", KOLO__ALLREDUCE, 4095, 0, 3},
        {"recursive_doubling", KOLO__BARRIER, 3001, 0, 0},
        {"halving_doubling", KOLO__ALLREDUCE, 4096, 0, 300},
        {"halving_doubling", KOLO__ALLREDUCE, 2500, 0, 2049},
        {"recursive_doubling", KOLO__BARRIER, 4096, 0, 0},
        {"halving_doubling", KOLO__REDUCE_SCATTER, 1024, 0, 1},
        {"halving_doubling", KOLO__ALLGATHER, 1024, 0, 1},
        {"double_binary_tree", KOLO__ALLREDUCE, 4096, 0, 9},
        {"double_binary_tree", KOLO__ALLREDUCE, 3999, 0, 9},
        {"tree", KOLO__BROADCAST, 4096, 0, 5},
        {"tree", KOLO__REDUCE_TO_ROOT, 4093, 0, 5},
        {"two_level", KOLO__ALLREDUCE, 4096, 64, 300},
        {"two_level", KOLO__ALLREDUCE, 2048, 8, 70},
        {"two_level", KOLO__ALLREDUCE, 1200, 3, 70},
        {"ring", KOLO__ALLREDUCE, 1000, 0, 1002},
        {"ring", KOLO__REDUCE_SCATTER, 1000, 0, 1},
        {"ring", KOLO__ALLGATHER, 1000, 0, 1},
        {"ring", KOLO__BROADCAST, 4096, 0, 3},
        {"ring", KOLO__REDUCE_TO_ROOT, 4096, 0, 3},
        {"pairwise", KOLO__ALLREDUCE, 1000, 0, 1011},
        {"pairwise", KOLO__REDUCE_SCATTER, 1000, 0, 1},
        {"pairwise", KOLO__ALLGATHER, 1000, 0, 1},
        {"pairwise", KOLO__REDUCE_TO_ROOT, 1000, 0, 1011},
        {"pairwise", KOLO__ALLTOALL, 1000, 0, 1},
        {"shm_one_shot", KOLO__ALLREDUCE, 1000, 0, 3},
        {"shm_one_shot", KOLO__REDUCE_SCATTER, 500, 0, 1},
        {"shm_one_shot", KOLO__ALLGATHER, 500, 0, 1},
        {"shm_one_shot", KOLO__BROADCAST, 4096, 0, 3},
        {"shm_one_shot", KOLO__REDUCE_TO_ROOT, 1000, 0, 3},
        {"shm_one_shot", KOLO__ALLTOALL, 500, 0, 1},
        {"shm_one_shot", KOLO__BARRIER, 4096, 0, 0},
        {"shm_direct", KOLO__ALLREDUCE, 280, 0, 450},
        {"shm_direct", KOLO__REDUCE_SCATTER, 200, 0, 1},
        {"shm_direct", KOLO__ALLGATHER, 500, 0, 1},
        {"shm_direct", KOLO__BROADCAST, 4096, 0, 450},
        {"shm_direct", KOLO__REDUCE_TO_ROOT, 500, 0, 450},
        {"shm_direct", KOLO__ALLTOALL, 200, 0, 1},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        prove_world(rows[i].algorithm, rows[i].collective, rows[i].size, rows[i].local,
                    rows[i].count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(samples_to_4096)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
