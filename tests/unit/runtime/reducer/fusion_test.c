/* SPDX-License-Identifier: Apache-2.0 */
/* Plans of fusion: what holds for each, over some thousand random ones, and an example by hand. */
#include "runtime/reducer/fusion.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 60, LINE = KOLO__FUSION_ALIGNMENT, LINES_MAX = 1 << 16 };

static const uint32_t NOBODY = UINT32_MAX;

struct wanted {
    uint32_t order[TENSORS_MAX];
    size_t first_bucket_bytes, bucket_bytes;
    uint32_t slices;
};

static void plan(struct kolo__fusion *fusion, const struct wanted *wanted)
{
    kolo__fusion_plan(fusion, wanted->order, wanted->first_bucket_bytes, wanted->bucket_bytes, 0,
                      wanted->slices);
}

/* What a tensor takes: whole cache lines. */
static size_t bytes_of(const struct kolo__fusion_tensor *tensor)
{
    return (tensor->count * kolo_dtype_bytes(tensor->dtype) + LINE - 1) / LINE * LINE;
}

/* ---- what holds for each plan --------------------------------------------------------------- */

/* Every cache line belongs to one tensor or to one bucket's padding, or to nobody. */
static void check_lines(const struct kolo__fusion *fusion)
{
    static uint32_t owners[LINES_MAX], buckets[LINES_MAX];
    size_t lines = fusion->arena_bytes / LINE;
    assert_true(fusion->arena_bytes % LINE == 0 && lines <= LINES_MAX);
    memset(owners, 0xff, lines * sizeof *owners);
    memset(buckets, 0xff, lines * sizeof *buckets);
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        const struct kolo__fusion_bucket *bucket = &fusion->buckets[b];
        assert_true(bucket->offset % LINE == 0 && bucket->bytes % LINE == 0);
        assert_true(bucket->offset + bucket->bytes <= fusion->arena_bytes);
        for (size_t line = 0; line < bucket->bytes / LINE; line++) {
            assert_int_equal(buckets[bucket->offset / LINE + line], NOBODY);
            buckets[bucket->offset / LINE + line] = b;
        }
    }
    for (uint32_t i = 0; i < fusion->tensor_count; i++) {
        const struct kolo__fusion_tensor *tensor = &fusion->tensors[i];
        assert_true(tensor->offset % LINE == 0);
        assert_true(tensor->offset + bytes_of(tensor) <= fusion->arena_bytes);
        for (size_t line = 0; line < bytes_of(tensor) / LINE; line++) {
            assert_int_equal(owners[tensor->offset / LINE + line], NOBODY);
            owners[tensor->offset / LINE + line] = i;
            assert_int_equal(buckets[tensor->offset / LINE + line], tensor->bucket);
        }
    }
    for (size_t line = 0; line < lines; line++)
        assert_int_not_equal(buckets[line], NOBODY);
}

/* Its tensors, in the order of readiness, without holes, and no more padding than slices need. */
static void check_bucket(const struct kolo__fusion *fusion, uint32_t b, const uint32_t *places,
                         uint32_t slices)
{
    const struct kolo__fusion_bucket *bucket = &fusion->buckets[b];
    const uint32_t *members = fusion->members + bucket->first;
    size_t at = bucket->offset;
    assert_true(bucket->tensor_count > 0);
    for (uint32_t i = 0; i < bucket->tensor_count; i++) {
        const struct kolo__fusion_tensor *tensor = &fusion->tensors[members[i]];
        assert_int_equal(tensor->bucket, b);
        assert_int_equal(tensor->dtype, bucket->dtype);
        assert_true(tensor->offset == at);
        assert_true(i == 0 || places[members[i]] > places[members[i - 1]]);
        at += bytes_of(tensor);
    }
    size_t padded = bucket->offset + bucket->bytes;
    assert_true(padded >= at && padded - at < (size_t)LINE * slices);
    assert_true(bucket->bytes % ((size_t)LINE * slices) == 0);
    assert_true(bucket->count * kolo_dtype_bytes(bucket->dtype) == bucket->bytes);
}

static void check_members(const struct kolo__fusion *fusion)
{
    bool seen[TENSORS_MAX] = {false};
    uint32_t next = 0;
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        assert_int_equal(fusion->buckets[b].first, next);
        next += fusion->buckets[b].tensor_count;
    }
    assert_int_equal(next, fusion->tensor_count);
    for (uint32_t k = 0; k < fusion->tensor_count; k++) {
        assert_true(fusion->members[k] < fusion->tensor_count && !seen[fusion->members[k]]);
        seen[fusion->members[k]] = true;
    }
}

/* A bucket was not full before its last tensor came; it is full, or ends its region. */
static void check_limits(const struct kolo__fusion *fusion, const struct wanted *wanted)
{
    bool ended[KOLO_DTYPE_COUNT] = {false};
    size_t limit = wanted->first_bucket_bytes;
    /* Those that are open when the first one is full may have more than the limit from then on. */
    size_t most = limit > wanted->bucket_bytes ? limit : wanted->bucket_bytes;
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        const struct kolo__fusion_bucket *bucket = &fusion->buckets[b];
        size_t bytes = 0, last = 0;
        for (uint32_t i = 0; i < bucket->tensor_count; i++) {
            last = bytes_of(&fusion->tensors[fusion->members[bucket->first + i]]);
            bytes += last;
        }
        assert_true(bucket->tensor_count == 1 || bytes - last < most);
        assert_true(bucket->tensor_count == 1 || limit == wanted->bucket_bytes ||
                    bytes - last < limit);
        /* After one that is not full there is none of its dtype. */
        assert_false(ended[bucket->dtype]);
        ended[bucket->dtype] = bytes < limit;
        if (bytes >= limit)
            limit = wanted->bucket_bytes;
    }
}

static void check(const struct kolo__fusion *fusion, const struct wanted *wanted)
{
    uint32_t places[TENSORS_MAX], ready = 0;
    for (uint32_t k = 0; k < fusion->tensor_count; k++)
        places[wanted->order[k]] = k;
    check_members(fusion);
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        const struct kolo__fusion_bucket *bucket = &fusion->buckets[b];
        check_bucket(fusion, b, places, wanted->slices);
        uint32_t last = places[fusion->members[bucket->first + bucket->tensor_count - 1]];
        assert_true(b == 0 || last > ready);
        ready = last;
    }
    check_lines(fusion);
    check_limits(fusion, wanted);
}

static void assert_same_places(const struct kolo__fusion *a, const struct kolo__fusion *b)
{
    assert_true(a->arena_bytes == b->arena_bytes);
    for (uint32_t i = 0; i < a->tensor_count; i++)
        assert_true(a->tensors[i].offset == b->tensors[i].offset);
}

static void assert_same(const struct kolo__fusion *a, const struct kolo__fusion *b)
{
    assert_same_places(a, b);
    assert_int_equal(a->bucket_count, b->bucket_count);
    for (uint32_t i = 0; i < a->tensor_count; i++) {
        assert_int_equal(a->tensors[i].bucket, b->tensors[i].bucket);
        assert_int_equal(a->members[i], b->members[i]);
    }
    for (uint32_t i = 0; i < a->bucket_count; i++) {
        assert_int_equal(a->buckets[i].dtype, b->buckets[i].dtype);
        assert_true(a->buckets[i].offset == b->buckets[i].offset);
        assert_true(a->buckets[i].bytes == b->buckets[i].bytes);
        assert_true(a->buckets[i].count == b->buckets[i].count);
        assert_int_equal(a->buckets[i].first, b->buckets[i].first);
        assert_int_equal(a->buckets[i].tensor_count, b->buckets[i].tensor_count);
    }
}

/* ---- random plans --------------------------------------------------------------------------- */

/* Often nothing, a whole line, or just not one. */
static size_t random_count(struct kolo__random *dice)
{
    static const size_t edges[] = {0, 0, 1, 15, 16, 17, 32, 33, 64};
    uint64_t which = kolo__random_below(dice, 20);
    return which < 9 ? edges[which] : kolo__random_below(dice, which < 18 ? 300 : 5000);
}

/* Often what one tensor, or some, just fill. */
static size_t random_limit(struct kolo__random *dice)
{
    static const size_t edges[] = {0, 1, 63, 64, 65, 128, SIZE_MAX};
    uint64_t which = kolo__random_below(dice, 14);
    return which < 7 ? edges[which] : kolo__random_below(dice, 200) * 32;
}

static void roll_order(struct kolo__random *dice, uint32_t count, uint32_t *order)
{
    for (uint32_t k = 0; k < count; k++) {
        uint32_t other = (uint32_t)kolo__random_below(dice, k + 1);
        order[k] = order[other];
        order[other] = k;
    }
}

static void roll(struct kolo__random *dice, struct kolo__fusion *fusion, struct wanted *wanted)
{
    static const uint32_t slices[] = {1, 1, 1, 2, 3, 5, 8};
    static const kolo_dtype dtypes[] = {KOLO_FP32, KOLO_BF16, KOLO_FP16, KOLO_FP64};
    uint32_t count = (uint32_t)kolo__random_below(dice, TENSORS_MAX + 1);
    uint64_t kinds = 1 + kolo__random_below(dice, 4);
    assert_int_equal(kolo__fusion_create(fusion, count), KOLO_OK);
    for (uint32_t i = 0; i < count; i++) {
        fusion->tensors[i].count = random_count(dice);
        fusion->tensors[i].dtype = dtypes[kolo__random_below(dice, kinds)];
    }
    roll_order(dice, count, wanted->order);
    wanted->first_bucket_bytes = random_limit(dice);
    wanted->bucket_bytes = random_limit(dice);
    wanted->slices = slices[kolo__random_below(dice, 7)];
}

static void twin(const struct kolo__fusion *fusion, struct kolo__fusion *other)
{
    assert_int_equal(kolo__fusion_create(other, fusion->tensor_count), KOLO_OK);
    for (uint32_t i = 0; i < fusion->tensor_count; i++) {
        other->tensors[i].count = fusion->tensors[i].count;
        other->tensors[i].dtype = fusion->tensors[i].dtype;
    }
}

static void every_plan_is_sound(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        struct kolo__random dice = {seed};
        struct kolo__fusion fusion;
        struct wanted wanted;
        roll(&dice, &fusion, &wanted);
        plan(&fusion, &wanted);
        check(&fusion, &wanted);
        kolo__fusion_free(&fusion);
    }
}

/* Nothing is left of an earlier plan; so ranks that tried different ones agree afterwards. */
static void equal_inputs_give_equal_plans(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        struct kolo__random dice = {seed};
        struct kolo__fusion fusion, other;
        struct wanted wanted, earlier;
        roll(&dice, &fusion, &wanted);
        twin(&fusion, &other);
        earlier = wanted;
        roll_order(&dice, fusion.tensor_count, earlier.order);
        earlier.bucket_bytes = random_limit(&dice);
        earlier.slices = 4;
        plan(&other, &earlier);
        plan(&other, &wanted);
        plan(&fusion, &wanted);
        assert_same(&fusion, &other);
        kolo__fusion_free(&fusion);
        kolo__fusion_free(&other);
    }
}

/* Views stay where they are while bucket sizes are tried. */
static void without_slices_places_do_not_depend_on_buckets(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        struct kolo__random dice = {seed};
        struct kolo__fusion fusion, other;
        struct wanted wanted;
        roll(&dice, &fusion, &wanted);
        twin(&fusion, &other);
        wanted.slices = 1;
        plan(&fusion, &wanted);
        wanted.first_bucket_bytes = random_limit(&dice);
        wanted.bucket_bytes = random_limit(&dice);
        plan(&other, &wanted);
        assert_same_places(&fusion, &other);
        kolo__fusion_free(&fusion);
        kolo__fusion_free(&other);
    }
}

/* ---- by hand -------------------------------------------------------------------------------- */

/* The drawing in fusion.h, with tensors of one line, but t5 of four and t3 of two. */
static void the_drawing_is_true(void **state)
{
    (void)state;
    static const size_t fp32[] = {9, 8, 7, 5, 4, 2}, bf16[] = {6, 3, 1, 0};
    static const uint32_t order[] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
    struct kolo__fusion fusion;
    assert_int_equal(kolo__fusion_create(&fusion, 10), KOLO_OK);
    for (size_t i = 0; i < 6; i++)
        fusion.tensors[fp32[i]] = (struct kolo__fusion_tensor){.count = 16, .dtype = KOLO_FP32};
    for (size_t i = 0; i < 4; i++)
        fusion.tensors[bf16[i]] = (struct kolo__fusion_tensor){.count = 32, .dtype = KOLO_BF16};
    fusion.tensors[5].count = 64;
    fusion.tensors[3].count = 64;
    fusion.tensors[2].count = 1;
    kolo__fusion_plan(&fusion, order, 2 * LINE, 3 * LINE, 0, 1);
    static const uint32_t buckets[] = {4, 4, 3, 2, 3, 1, 2, 1, 0, 0};
    for (int i = 0; i < 10; i++)
        assert_int_equal(fusion.tensors[i].bucket, buckets[i]);
    assert_int_equal(fusion.bucket_count, 5);
    /* Regions by the number of their dtype: bf16, fp32. */
    assert_int_equal(fusion.tensors[6].offset, 0);
    assert_int_equal(fusion.tensors[0].offset, 4 * LINE);
    assert_int_equal(fusion.tensors[9].offset, 5 * LINE);
    assert_int_equal(fusion.tensors[4].offset, 12 * LINE);
    assert_int_equal(fusion.buckets[1].bytes, 5 * LINE);
    assert_int_equal(fusion.buckets[3].count, 32);
    assert_int_equal(fusion.arena_bytes, 14 * LINE);
    kolo__fusion_free(&fusion);
}

static uint32_t buckets_of(size_t count, size_t bucket_bytes)
{
    static const uint32_t order[] = {0, 1, 2, 3};
    struct kolo__fusion fusion;
    assert_int_equal(kolo__fusion_create(&fusion, 4), KOLO_OK);
    for (int i = 0; i < 4; i++)
        fusion.tensors[i] = (struct kolo__fusion_tensor){.count = count, .dtype = KOLO_FP32};
    kolo__fusion_plan(&fusion, order, bucket_bytes, bucket_bytes, 0, 1);
    uint32_t buckets = fusion.bucket_count;
    kolo__fusion_free(&fusion);
    return buckets;
}

static void a_limit_that_is_just_reached_closes(void **state)
{
    (void)state;
    assert_int_equal(buckets_of(256, 1024), 4);
    assert_int_equal(buckets_of(256, 1025), 2);
    assert_int_equal(buckets_of(256, 2048), 2);
    assert_int_equal(buckets_of(256, 2049), 2); /* three, and one */
    assert_int_equal(buckets_of(256, 3073), 1);
    assert_int_equal(buckets_of(256, 1), 4); /* larger than the limit: one of its own */
    assert_int_equal(buckets_of(256, SIZE_MAX), 1);
}

static void nothing_can_be_planned(void **state)
{
    (void)state;
    struct kolo__fusion fusion;
    struct wanted wanted = {.bucket_bytes = 64, .slices = 2};
    assert_int_equal(kolo__fusion_create(&fusion, 0), KOLO_OK);
    plan(&fusion, &wanted);
    assert_int_equal(fusion.bucket_count, 0);
    assert_int_equal(fusion.arena_bytes, 0);
    kolo__fusion_free(&fusion);
    /* Tensors of no elements: a bucket that moves nothing. */
    assert_int_equal(buckets_of(0, 64), 1);
    kolo__fusion_free(&fusion); /* twice is no harm */
}

/* 100 equal tensors: buckets of up to 40, then ever smaller ones. */
static void test_the_tail_gets_small(void **state)
{
    static const uint32_t expected[] = {10, 40, 25, 13, 6, 4, 2};
    struct kolo__fusion fusion;
    uint32_t order[100];
    (void)state;
    assert_int_equal(kolo__fusion_create(&fusion, 100), KOLO_OK);
    for (uint32_t i = 0; i < 100; i++) {
        order[i] = i;
        fusion.tensors[i] =
            (struct kolo__fusion_tensor){.count = LINE / sizeof(float), .dtype = KOLO_FP32};
    }
    kolo__fusion_plan(&fusion, order, 10 * LINE, 40 * LINE, 4 * LINE, 1);
    assert_int_equal(fusion.bucket_count, 7);
    for (uint32_t b = 0; b < 7; b++)
        assert_int_equal(fusion.buckets[b].tensor_count, expected[b]);
    kolo__fusion_free(&fusion);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_tail_gets_small),
        cmocka_unit_test(every_plan_is_sound),
        cmocka_unit_test(equal_inputs_give_equal_plans),
        cmocka_unit_test(without_slices_places_do_not_depend_on_buckets),
        cmocka_unit_test(the_drawing_is_true),
        cmocka_unit_test(a_limit_that_is_just_reached_closes),
        cmocka_unit_test(nothing_can_be_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
