/* SPDX-License-Identifier: Apache-2.0 */
/* Neutral elements change nothing, in every type and reduction. */
#include "kernels/kernels.h"
#include "runtime/neutral.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

enum { COUNT = 256, BYTES_MAX = COUNT * 8 };

/* Every value of its highest byte, so that signs, infinities and large numbers are among them. No
 * NaN: its bits may change. */
static void fill(unsigned char *data, kolo_dtype dtype)
{
    size_t bytes = kolo_dtype_bytes(dtype);
    for (size_t i = 0; i < COUNT; i++) {
        memset(data + i * bytes, 0, bytes);
        data[i * bytes + bytes - 1] = (unsigned char)i;
    }
}

static int is_nan_or_negative_zero(kolo_dtype dtype, const unsigned char *element)
{
    uint64_t bits = 0;
    memcpy(&bits, element, kolo_dtype_bytes(dtype));
    switch (dtype) {
    case KOLO_FP16:
        return (bits & 0x7fff) > 0x7c00 || bits == 0x8000;
    case KOLO_BF16:
        return (bits & 0x7fff) > 0x7f80 || bits == 0x8000;
    case KOLO_FP32:
        return (bits & 0x7fffffff) > 0x7f800000 || bits == 0x80000000;
    case KOLO_FP64:
        return (bits & INT64_MAX) > 0x7ff0000000000000 || bits == 0x8000000000000000;
    default:
        return 0;
    }
}

static void check(kolo_dtype dtype, kolo_op op)
{
    unsigned char data[BYTES_MAX], neutral[BYTES_MAX], result[BYTES_MAX];
    const double scales[2] = {1, 1};
    struct kolo__reduction reduction = {
        .dtype = dtype, .op = op, .divisor = 1, .scales = op == KOLO_PREMUL_SUM ? scales : NULL};
    size_t bytes = kolo_dtype_bytes(dtype);
    fill(data, dtype);
    for (int first = 0; first < 2; first++) {
        const void *sources[2] = {first ? neutral : data, first ? data : neutral};
        memset(neutral, 0x55, sizeof neutral);
        kolo__fill_neutral(neutral, COUNT, dtype, op);
        kolo__reduce(&reduction, result, sources, 2, COUNT);
        for (size_t i = 0; i < COUNT; i++)
            if (!is_nan_or_negative_zero(dtype, data + i * bytes))
                assert_memory_equal(result + i * bytes, data + i * bytes, bytes);
    }
}

static void test_nothing_changes(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++)
        for (int op = 0; op < KOLO_OP_COUNT; op++)
            if (kolo__reduction_defined((kolo_dtype)dtype, (kolo_op)op))
                check((kolo_dtype)dtype, (kolo_op)op);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_changes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
