/* SPDX-License-Identifier: Apache-2.0 */
/* Norms in several calls: cut anywhere, with sums that overflow and elements that are not finite.
 * What one call adds is proved by pack_test. */
#include "kernels/pack.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

enum { MOST = 5000 };

static void test_norms_do_not_depend_on_cuts(void **state)
{
    static float values[MOST];
    static uint16_t halves[MOST];
    struct kolo__random random = {11};
    (void)state;
    for (size_t k = 0; k < MOST; k++) {
        values[k] = (float)kolo__random_below(&random, 1000) * 0.37f;
        halves[k] = kolo__bf16_from_fp32(values[k]);
    }
    struct kolo__norm whole[2] = {{{0}, false}, {{0}, false}};
    kolo__norm_add(&whole[0], KOLO_FP32, values, 0, MOST);
    kolo__norm_add(&whole[1], KOLO_BF16, halves, 0, MOST);
    for (int round = 0; round < 50; round++) {
        struct kolo__norm cut[2] = {{{0}, false}, {{0}, false}};
        for (size_t k = 0, n; k < MOST; k += n) {
            n = 1 + kolo__random_below(&random, 400);
            n = n < MOST - k ? n : MOST - k;
            kolo__norm_add(&cut[0], KOLO_FP32, values + k, k, n);
            kolo__norm_add(&cut[1], KOLO_BF16, halves + k, k, n);
        }
        assert_memory_equal(cut[0].lanes, whole[0].lanes, sizeof whole[0].lanes);
        assert_memory_equal(cut[1].lanes, whole[1].lanes, sizeof whole[1].lanes);
    }
}

/* Sums may overflow where elements do not, and stay so: it is elements that are judged. */
static void test_an_overflow_of_squares_is_no_infinity_of_elements(void **state)
{
    double large[20] = {[3] = 1e200, [19] = 1e200}, infinite[20] = {[7] = -INFINITY};
    float nothing[40] = {0}, nan[40] = {[39] = NAN};
    struct kolo__norm norm = {0};
    (void)state;
    kolo__norm_add(&norm, KOLO_FP64, large, 0, 20);
    assert_true(isinf(kolo__norm_total(&norm)) && !norm.not_finite);
    kolo__norm_add(&norm, KOLO_FP32, nothing, 0, 40);
    assert_false(norm.not_finite);
    struct kolo__norm other = norm;
    kolo__norm_add(&norm, KOLO_FP64, infinite, 0, 20);
    assert_true(norm.not_finite);
    kolo__norm_add(&other, KOLO_FP32, nan, 0, 40);
    assert_true(other.not_finite && isnan(kolo__norm_total(&other)));
    kolo__norm_add(&norm, KOLO_FP32, nothing, 0, 40);
    assert_true(norm.not_finite);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms_do_not_depend_on_cuts),
        cmocka_unit_test(test_an_overflow_of_squares_is_no_infinity_of_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
