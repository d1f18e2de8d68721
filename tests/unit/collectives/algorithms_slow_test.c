/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm, every size from 1 to 64, and samples up to 4,096 ranks. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void every_size_to_64(void **state)
{
    (void)state;
    unsigned proved = 0;
    for (uint32_t size = 1; size <= 64; size++)
        proved += prove_size(size, size <= 20);
    assert_true(proved > 80000);
    print_message("%u problems proved\n", proved);
}

/* Ring and pairwise have p steps or more on each of p ranks, which is what bounds them here; the
 * sizes of the others are bounded by nothing but patience. */
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
        {"halving_doubling", KOLO__REDUCE_SCATTER, 1024, 0, 1},
        {"halving_doubling", KOLO__ALLGATHER, 1024, 0, 1},
        {"double_binary_tree", KOLO__ALLREDUCE, 4096, 0, 9},
        {"double_binary_tree", KOLO__ALLREDUCE, 3999, 0, 9},
        {"tree", KOLO__BROADCAST, 4096, 0, 5},
        {"tree", KOLO__REDUCE_TO_ROOT, 4093, 0, 5},
        {"two_level", KOLO__ALLREDUCE, 4096, 64, 300},
        {"two_level", KOLO__ALLREDUCE, 4096, 8, 70},
        {"ring", KOLO__ALLREDUCE, 1024, 0, 1030},
        {"ring", KOLO__BROADCAST, 4096, 0, 3},
        {"ring", KOLO__REDUCE_TO_ROOT, 4096, 0, 3},
        {"pairwise", KOLO__ALLREDUCE, 500, 0, 511},
        {"shm_one_shot", KOLO__ALLREDUCE, 300, 0, 3},
        {"shm_direct", KOLO__ALLREDUCE, 200, 0, 450},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct prove_problem problem = {.algorithm = kolo__algorithm_find(rows[i].algorithm),
                                        .collective = rows[i].collective,
                                        .size = rows[i].size,
                                        .root = rows[i].size / 3,
                                        .count = rows[i].count,
                                        .window_count = 211};
        uint32_t *host_of = calloc(rows[i].size, sizeof(*host_of));
        assert_non_null(host_of);
        for (uint32_t rank = 0; rows[i].local > 0 && rank < rows[i].size; rank++)
            host_of[rank] = rank / rows[i].local;
        problem.host_of = rows[i].local > 0 ? host_of : NULL;
        prove(&problem, NULL);
        free(host_of);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_to_64),
        cmocka_unit_test(samples_to_4096),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
