/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm, every size from 55 to 64: see algorithms_slow_test.c. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void every_size_from_55_to_64(void **state)
{
    (void)state;
    unsigned proved = 0;
    for (uint32_t size = 55; size <= 64; size++)
        proved += prove_size(size, false);
    print_message("%u problems proved\n", proved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_size_from_55_to_64)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
