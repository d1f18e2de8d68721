/* SPDX-License-Identifier: Apache-2.0 */
/* Every algorithm, every size to 42, all that prove_pair lists: of this algorithms_slow_test.c
 * proves a sample. */
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_size_to_42)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
