/* SPDX-License-Identifier: Apache-2.0 */
/* The largest worlds of algorithms whose proof takes longest: see algorithms_samples_slow_test.c.
 */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void the_largest(void **state)
{
    (void)state;
    prove_world("two_level", KOLO__ALLREDUCE, 4096, 8, 70);
    prove_world("two_level", KOLO__ALLREDUCE, 3000, 3, 70);
    prove_world("ring", KOLO__ALLREDUCE, 2048, 0, 2050);
    prove_world("shm_direct", KOLO__ALLREDUCE, 500, 0, 450);
    prove_world("shm_direct", KOLO__REDUCE_SCATTER, 300, 0, 1);
    prove_world("shm_direct", KOLO__ALLTOALL, 300, 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_largest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
