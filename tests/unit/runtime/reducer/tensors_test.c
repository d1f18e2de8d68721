/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reducer/tensors.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static kolo_tensor good(void)
{
    return (kolo_tensor){
        .count = 6, .dtype = KOLO_FP32, .name = "h.3.attn.w", .dimensions = 2, .shape = {2, 3}};
}

static void expect_refused(const kolo_tensor *tensor, const char *why)
{
    kolo_tensor list[2] = {good(), *tensor};
    assert_int_equal(kolo__tensors_check("op", list, 2, true, NULL), KOLO_ERR_INVALID);
    assert_non_null(strstr(kolo_error_text(), "op: tensor 1"));
    assert_non_null(strstr(kolo_error_text(), why));
}

static void test_wrong_tensors_are_refused(void **state)
{
    kolo_tensor tensor = good();
    (void)state;
    assert_int_equal(kolo__tensors_check("op", &tensor, 1, true, NULL), KOLO_OK);
    assert_int_equal(kolo__tensors_check("op", NULL, 1, true, NULL), KOLO_ERR_INVALID);
    tensor.count = 7;
    expect_refused(&tensor, "7 elements, but its shape has 6");
    tensor = good();
    tensor.dimensions = 9;
    expect_refused(&tensor, "9 dimensions");
    tensor = good();
    tensor.dtype = (kolo_dtype)77;
    expect_refused(&tensor, "77 is no dtype");
    tensor.dtype = KOLO_INT32;
    expect_refused(&tensor, "int32");
    assert_int_equal(kolo__tensors_check("op", &tensor, 1, false, NULL), KOLO_OK);
    tensor = (kolo_tensor){.count = SIZE_MAX / 2, .dtype = KOLO_FP64};
    expect_refused(&tensor, "more than memory has");
    tensor = good();
    tensor.shape[0] = SIZE_MAX;
    tensor.shape[1] = SIZE_MAX;
    expect_refused(&tensor, "more than");
}

/* Each field of each tensor counts, and so does each setting. */
static void test_digest(void **state)
{
    struct kolo__setting setting = {"clip_norm", 1};
    kolo_tensor tensor = good();
    (void)state;
    uint64_t digest = kolo__tensors_digest(&tensor, 1, &setting, 1);
    assert_true(digest == kolo__tensors_digest(&tensor, 1, &setting, 1));
    setting.value = 2;
    assert_true(digest != kolo__tensors_digest(&tensor, 1, &setting, 1));
    setting.value = 1;
    for (int change = 0; change < 5; change++) {
        tensor = good();
        if (change == 0)
            tensor.count = 7;
        else if (change == 1)
            tensor.dtype = KOLO_BF16;
        else if (change == 2)
            tensor.name = "h.3.attn.v";
        else if (change == 3)
            tensor.dimensions = 1;
        else
            tensor.shape[1] = 4;
        assert_true(digest != kolo__tensors_digest(&tensor, 1, &setting, 1));
    }
    tensor = good();
    tensor.data = &tensor;
    assert_true(digest == kolo__tensors_digest(&tensor, 1, &setting, 1));
}

static void test_differences_are_explained(void **state)
{
    struct kolo__tensor_record a, b;
    char text[KOLO__DIFFERENCE_BYTES];
    kolo_tensor tensor = good();
    (void)state;
    kolo__tensor_record(&tensor, &a);
    assert_false(kolo__tensor_difference(17, &a, &a, 2, text));
    tensor.shape[1] = 5;
    tensor.count = 10;
    kolo__tensor_record(&tensor, &b);
    assert_true(kolo__tensor_difference(17, &a, &b, 2, text));
    assert_string_equal(text, "tensor 17 'h.3.attn.w': 2x3 fp32 on rank 0, 2x5 fp32 on rank 2");
    tensor = good();
    tensor.name = "other";
    kolo__tensor_record(&tensor, &b);
    assert_true(kolo__tensor_difference(17, &a, &b, 2, text));
    assert_string_equal(text, "tensor 17 is 'h.3.attn.w' on rank 0, 'other' on rank 2");
    tensor = good();
    tensor.dimensions = 0;
    kolo__tensor_record(&tensor, &b);
    assert_true(kolo__tensor_difference(1, &a, &b, 3, text));
    assert_string_equal(text,
                        "tensor 1 'h.3.attn.w': 2x3 fp32 on rank 0, 6 elements of fp32 on rank 3");
}

/* A record of another process may hold anything. */
static void test_any_bytes_are_a_record(void **state)
{
    struct kolo__random random = {9};
    kolo_tensor tensor = good();
    struct kolo__tensor_record mine, other;
    (void)state;
    kolo__tensor_record(&tensor, &mine);
    for (int i = 0; i < 20000; i++) {
        char text[KOLO__DIFFERENCE_BYTES];
        unsigned char *bytes = (unsigned char *)&other;
        for (size_t k = 0; k < sizeof other; k++)
            bytes[k] = (unsigned char)kolo__random_below(&random, 256);
        if (i % 2 == 0)
            memcpy(other.name, mine.name, sizeof other.name);
        assert_true(kolo__tensor_difference(0, &other, &mine, 1, text));
        for (size_t k = 0; k < strlen(text); k++)
            assert_true((unsigned char)text[k] >= 32);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_tensors_are_refused),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_differences_are_explained),
        cmocka_unit_test(test_any_bytes_are_a_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
