/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm, every size from 1 to 64. Larger worlds: algorithms_samples_slow_test.c. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_to_64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
