/* SPDX-License-Identifier: Apache-2.0 */
/* Plans of random tensors, orders and sizes keep what fusion.h promises. */
#include "runtime/reducer/fusion.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 60 };

static void random_order(uint32_t *order, uint32_t count, struct kolo__random *random)
{
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t i = count - 1; i > 0; i--) {
        uint32_t j = (uint32_t)kolo__random_below(random, i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

static void make(struct kolo__fusion *fusion, struct kolo__random *random, uint32_t *order)
{
    static const kolo_dtype dtypes[] = {KOLO_FP32, KOLO_BF16, KOLO_FP64};
    uint32_t count = 1 + (uint32_t)kolo__random_below(random, TENSORS_MAX);
    uint64_t kinds = 1 + kolo__random_below(random, 3);
    assert_int_equal(kolo__fusion_create(fusion, count), KOLO_OK);
    for (uint32_t i = 0; i < count; i++) {
        fusion->tensors[i].count =
            kolo__random_below(random, 10) == 0 ? 0 : (size_t)kolo__random_below(random, 3000);
        fusion->tensors[i].dtype = dtypes[kolo__random_below(random, kinds)];
    }
    random_order(order, count, random);
}

static size_t bytes_of(const struct kolo__fusion_tensor *tensor)
{
    return tensor->count * kolo_dtype_bytes(tensor->dtype);
}

static void check(const struct kolo__fusion *fusion, const uint32_t *order, size_t first_bytes,
                  size_t bucket_bytes, uint32_t slices)
{
    uint32_t place[TENSORS_MAX], members = 0, last_before = 0, below = 0;
    size_t end = 0;
    for (uint32_t k = 0; k < fusion->tensor_count; k++)
        place[order[k]] = k;
    /* Buckets lie beside each other, whatever their order. */
    bool taken[TENSORS_MAX] = {false};
    for (uint32_t n = 0; n < fusion->bucket_count; n++) {
        uint32_t next = UINT32_MAX;
        for (uint32_t b = 0; b < fusion->bucket_count; b++)
            if (!taken[b] &&
                (next == UINT32_MAX || fusion->buckets[b].offset < fusion->buckets[next].offset ||
                 (fusion->buckets[b].offset == fusion->buckets[next].offset &&
                  fusion->buckets[b].bytes < fusion->buckets[next].bytes)))
                next = b;
        taken[next] = true;
        assert_true(fusion->buckets[next].offset >= end);
        end = fusion->buckets[next].offset + fusion->buckets[next].bytes;
    }
    assert_true(end <= fusion->arena_bytes);
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        const struct kolo__fusion_bucket *bucket = &fusion->buckets[b];
        size_t at = bucket->offset, held = 0, before_last = 0;
        uint32_t last = 0;
        assert_true(bucket->tensor_count > 0);
        assert_int_equal(bucket->first, members);
        assert_int_equal(bucket->bytes % (KOLO__FUSION_ALIGNMENT * (size_t)slices), 0);
        assert_int_equal(bucket->count * kolo_dtype_bytes(bucket->dtype), bucket->bytes);
        for (uint32_t i = 0; i < bucket->tensor_count; i++) {
            uint32_t member = fusion->members[bucket->first + i];
            const struct kolo__fusion_tensor *tensor = &fusion->tensors[member];
            assert_int_equal(tensor->bucket, b);
            assert_int_equal(tensor->dtype, bucket->dtype);
            assert_int_equal(tensor->offset % KOLO__FUSION_ALIGNMENT, 0);
            assert_true(tensor->offset >= at); /* in order, no overlap */
            at = tensor->offset + bytes_of(tensor);
            assert_true(at <= bucket->offset + bucket->bytes);
            assert_true(i == 0 || place[member] > last);
            last = place[member];
            before_last = held;
            held += (bytes_of(tensor) + KOLO__FUSION_ALIGNMENT - 1) / KOLO__FUSION_ALIGNMENT *
                    KOLO__FUSION_ALIGNMENT;
        }
        members += bucket->tensor_count;
        assert_true(b == 0 || last > last_before); /* numbered as they get complete */
        last_before = last;
        bool ends_region = true;
        for (uint32_t k = last + 1; k < fusion->tensor_count; k++)
            ends_region &= fusion->tensors[order[k]].dtype != bucket->dtype;
        assert_true(held >= first_bytes || ends_region);
        below += held < bucket_bytes && !ends_region;
        /* Full before its last tensor: then it was not the limit that was in force. */
        assert_true(before_last < bucket_bytes || before_last < first_bytes);
    }
    assert_int_equal(members, fusion->tensor_count);
    assert_true(below <= 1); /* the one that was full first */
}

static void test_plans_keep_their_promises(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct kolo__random random = {seed};
        struct kolo__fusion fusion;
        uint32_t order[TENSORS_MAX];
        make(&fusion, &random, order);
        size_t first = 1 + kolo__random_below(&random, 8000);
        size_t bucket = first + kolo__random_below(&random, 40000);
        uint32_t slices = 1 + (uint32_t)kolo__random_below(&random, 5);
        kolo__fusion_plan(&fusion, order, first, bucket, slices);
        check(&fusion, order, first, bucket, slices);
        kolo__fusion_free(&fusion);
    }
}

static void test_cuts_do_not_move_tensors(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct kolo__random random = {seed};
        struct kolo__fusion fusion;
        uint32_t order[TENSORS_MAX];
        size_t offsets[TENSORS_MAX];
        make(&fusion, &random, order);
        kolo__fusion_plan(&fusion, order, 1, 1, 1);
        for (uint32_t i = 0; i < fusion.tensor_count; i++)
            offsets[i] = fusion.tensors[i].offset;
        size_t arena = fusion.arena_bytes;
        kolo__fusion_plan(&fusion, order, 5000, 20000, 1);
        for (uint32_t i = 0; i < fusion.tensor_count; i++)
            assert_int_equal(fusion.tensors[i].offset, offsets[i]);
        assert_int_equal(fusion.arena_bytes, arena);
        kolo__fusion_free(&fusion);
    }
}

static void test_one_bucket_takes_all(void **state)
{
    struct kolo__fusion fusion;
    const uint32_t order[] = {2, 0, 1};
    (void)state;
    assert_int_equal(kolo__fusion_create(&fusion, 3), KOLO_OK);
    for (int i = 0; i < 3; i++)
        fusion.tensors[i] = (struct kolo__fusion_tensor){.count = 17, .dtype = KOLO_FP32};
    kolo__fusion_plan(&fusion, order, SIZE_MAX, SIZE_MAX, 1);
    assert_int_equal(fusion.bucket_count, 1);
    assert_int_equal(fusion.tensors[2].offset, 0);
    assert_int_equal(fusion.tensors[0].offset, 128);
    assert_int_equal(fusion.tensors[1].offset, 256);
    kolo__fusion_plan(&fusion, order, 1, 1, 1);
    assert_int_equal(fusion.bucket_count, 3);
    assert_int_equal(fusion.tensors[2].bucket, 0);
    assert_int_equal(fusion.tensors[1].bucket, 2);
    kolo__fusion_free(&fusion);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_keep_their_promises),
        cmocka_unit_test(test_cuts_do_not_move_tensors),
        cmocka_unit_test(test_one_bucket_takes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
