/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm, every size from 1 to 42. Up to 64: algorithms_to_54_soak_test.c and
 * algorithms_to_64_soak_test.c; larger worlds:
 * algorithms_samples_slow_test.c. They are apart so that they can run side by side. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void every_size_to_42(void **state)
{
    (void)state;
    unsigned proved = 0;
    for (uint32_t size = 1; size <= 42; size++)
        proved += prove_size(size, size <= 16);
    print_message("%u problems proved\n", proved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_to_42),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
