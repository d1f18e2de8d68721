/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums against the reference, bit for bit, in every variant: loops for numbers of sources and
 * destinations, the branch that NaNs take, divisors that become factors, and every 16-bit float.
 */
#include "tests/unit/kernels/reduction_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* check_reduction by each variant that this processor has. */
static void check_variants(const struct kolo__reduction *reduction, const struct shape *shape)
{
    for (size_t i = 0; kolo__cpu_variants[i] != NULL; i++) {
        if (kolo__cpu_variants[i]->supported())
            check_reduction(reduction, shape, kolo__cpu_variants[i]->reduce[reduction->dtype]);
    }
}

/* Up to one beyond what has a loop of its own, numbers alone and with NaNs among them. Counts leave
 * tails of less than four vectors and of less than one. */
static void test_every_number_of_sources_and_destinations(void **state)
{
    (void)state;
    static const size_t counts[] = {517, 256, 131, 67, 300};
    static const uint32_t divisors[] = {1, 2, 3, 4, 1, 1u << 31, 7};
    unsigned turn = 0;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++) {
        for (unsigned sources = 2; sources <= 5; sources++) {
            for (unsigned to = 1; to <= TO_MAX; to++) {
                for (unsigned kind = 0; kind < 8; kind++) {
                    struct shape shape = {sources,
                                          counts[turn % 5],
                                          turn / 5 % 3,
                                          (int)(turn % 4) - 1,
                                          to,
                                          kind / 2 % 2 != 0,
                                          kind % 2 != 0 ? random_number : NULL};
                    struct kolo__reduction sum = {(kolo_dtype)dtype, KOLO_AVERAGE,
                                                  kind < 4 ? 1 : divisors[turn % 7], NULL, false};
                    if (shape.in_place >= (int)sources)
                        shape.in_place = -1;
                    check_variants(&sum, &shape);
                    turn++;
                }
            }
        }
    }
}

/* ---- one NaN among numbers --------------------------------------------------------------------
 */

static unsigned nan_source;
static size_t nan_at;

static uint64_t one_nan(kolo_dtype dtype, unsigned source, size_t k)
{
    /* Quiet or signaling, of either sign, with every bit of the payload that rounding could carry.
     */
    static const uint64_t nans[4][4] = {
        {0x7fff, 0xfc01, 0x7e00, 0xffff},
        {0x7fff, 0xff81, 0x7fc0, 0xffff},
        {0x7fffffff, 0xff800001, 0x7fc00000, 0xffffffff},
        {0x7fffffffffffffff, 0xfff0000000000001, 0x7ff8000000000000, 0xffffffffffffffff}};
    if (source == nan_source && k == nan_at)
        return nans[dtype - KOLO_FP16][k % 4];
    return random_number(dtype, source, k);
}

/* In each place of four vectors of the widest variant, and of the tail behind them. */
static void test_a_nan_is_found_wherever_it_is(void **state)
{
    (void)state;
    for (int dtype = KOLO_FP16; dtype <= KOLO_FP64; dtype++) {
        size_t count = 256 / kolo_dtype_bytes((kolo_dtype)dtype) + 37;
        for (nan_at = 0; nan_at < count; nan_at++) {
            unsigned sources = 2 + nan_at % 3;
            nan_source = (unsigned)(nan_at / 3 % sources);
            struct shape shape = {sources, count, nan_at % 2, -1, sources, true, one_nan};
            struct kolo__reduction sum = {(kolo_dtype)dtype, KOLO_SUM, 1, NULL, false};
            check_variants(&sum, &shape);
        }
    }
}

/* ---- every 16-bit float ----------------------------------------------------------------------
 */

static size_t first_element;
static uint64_t partner;

static uint64_t in_order(kolo_dtype dtype, unsigned source, size_t k)
{
    (void)dtype;
    return source == 0 ? (first_element + k) % 65536 : partner;
}

/* Beside others that make ties, denormals, overflows and infinities of them. */
static void test_every_16_bit_float(void **state)
{
    (void)state;
    static const uint64_t partners[2][7] = {
        {0x0000, 0x8000, 0x0001, 0x3c01, 0x9400, 0x7bff, 0xfc00},
        {0x0000, 0x8000, 0x0001, 0x3f81, 0x8080, 0x7f7f, 0xff80}};
    for (int dtype = KOLO_FP16; dtype <= KOLO_BF16; dtype++) {
        for (unsigned i = 0; i < 7; i++) {
            partner = partners[dtype - KOLO_FP16][i];
            for (first_element = 0; first_element < 65536; first_element += 2048) {
                struct shape shape = {2, 2048, 0, -1, 2, true, in_order};
                struct kolo__reduction sum = {(kolo_dtype)dtype, KOLO_SUM, 1, NULL, false};
                check_variants(&sum, &shape);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_number_of_sources_and_destinations),
        cmocka_unit_test(test_a_nan_is_found_wherever_it_is),
        cmocka_unit_test(test_every_16_bit_float),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
