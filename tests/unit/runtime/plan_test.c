/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: one for each kind of call, kept until there are too many; then the least recently used
 * goes, never one in use. */
#include "runtime/plan.h"

#include "collectives/execute_program.h"
#include "collectives/transport/tcp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct kolo__plan_cache cache; /* large */

static const struct kolo__plan_context context = {.rank = 1,
                                                  .size = 2,
                                                  .remote = true,
                                                  .preferred = "",
                                                  .segment_bytes = 1 << 30,
                                                  .model = &kolo__default_cost_model};

/* A ring of two with segments that are longer than its messages: staging for four halves of the
 * vector, which nobody writes before the first run, so that a large plan costs no memory. */
static struct kolo__plan_key key_of(size_t count)
{
    return (struct kolo__plan_key){.collective = KOLO__ALLREDUCE,
                                   .dtype = KOLO_FP32,
                                   .op = KOLO_SUM,
                                   .count = count,
                                   .forced = kolo__algorithm_find("ring")};
}

static struct kolo__plan *get_key(const struct kolo__plan_key *key)
{
    struct kolo__plan *plan = NULL;
    assert_int_equal(kolo__plan_get(&cache, &context, key, &plan), KOLO_OK);
    assert_ptr_equal(plan, cache.newest);
    return plan;
}

static struct kolo__plan *get(size_t count)
{
    struct kolo__plan_key key = key_of(count);
    return get_key(&key);
}

/* Looks without using. */
static bool has(size_t count)
{
    for (const struct kolo__plan *plan = cache.newest; plan != NULL; plan = plan->older)
        if (plan->key.count == count)
            return true;
    return false;
}

/* Both orders of age, the buckets and the sums tell of the same plans. */
static void check_books(void)
{
    size_t count = 0, bytes = 0, in_buckets = 0;
    const struct kolo__plan *newer = NULL;
    for (const struct kolo__plan *plan = cache.newest; plan != NULL; plan = plan->older) {
        assert_ptr_equal(plan->newer, newer);
        newer = plan;
        count++;
        bytes += kolo__program_bytes(plan->program);
    }
    assert_ptr_equal(cache.oldest, newer);
    for (size_t i = 0; i < sizeof(cache.buckets) / sizeof(struct kolo__plan *); i++)
        for (const struct kolo__plan *plan = cache.buckets[i]; plan; plan = plan->next_in_bucket)
            in_buckets++;
    assert_int_equal(cache.count, count);
    assert_int_equal(in_buckets, count);
    assert_int_equal(cache.bytes, bytes);
}

static int clear(void **state)
{
    (void)state;
    kolo__plan_cache_clear(&cache);
    return cache.count != 0 || cache.newest != NULL;
}

static void a_repeated_call_finds_its_plan(void **state)
{
    (void)state;
    struct kolo__plan *first = get(100), *second = get(200);
    assert_ptr_not_equal(first, second);
    assert_ptr_equal(get(100), first);
    assert_ptr_equal(get(200), second);
    assert_int_equal(cache.count, 2);
    check_books();
}

static void check_plan(const struct kolo__plan *plan, const struct kolo__plan_key *key)
{
    const struct kolo__problem *problem = &plan->program->schedule.problem;
    assert_int_equal(problem->collective, key->collective);
    assert_int_equal(problem->root, key->root);
    assert_int_equal(problem->count, key->count);
    assert_int_equal(problem->in_place, key->in_place);
    assert_ptr_equal(kolo__algorithms[plan->algorithm_index], plan->algorithm);
    assert_true(key->forced == NULL || plan->algorithm == key->forced);
}

/* Over so many counts that every pair of keys meets in a bucket. */
static void each_argument_makes_another_plan(void **state)
{
    enum { KEYS = 8, COUNTS = 3000 };
    for (size_t count = 1; count <= COUNTS; count++) {
        struct kolo__plan_key keys[KEYS];
        struct kolo__plan *plans[KEYS];
        for (size_t i = 0; i < KEYS; i++)
            keys[i] = (struct kolo__plan_key){.collective = KOLO__REDUCE_TO_ROOT,
                                              .dtype = KOLO_FP32,
                                              .op = KOLO_SUM,
                                              .count = count};
        keys[1].collective = KOLO__ALLREDUCE;
        keys[2].dtype = KOLO_INT32;
        keys[3].op = KOLO_MAX;
        keys[4].root = 1;
        keys[5].count = count + COUNTS;
        keys[6].in_place = true;
        keys[7].forced = kolo__algorithm_find("ring");
        for (size_t i = 0; i < KEYS; i++) {
            plans[i] = get_key(&keys[i]);
            check_plan(plans[i], &keys[i]);
            assert_int_equal(cache.count, i + 1);
        }
        for (size_t i = 0; i < KEYS; i++)
            assert_ptr_equal(get_key(&keys[i]), plans[i]);
        check_books();
        assert_int_equal(clear(state), 0);
    }
}

static void the_least_recently_used_goes(void **state)
{
    (void)state;
    for (size_t i = 1; i <= KOLO__PLANS_MAX; i++)
        get(i);
    assert_int_equal(cache.count, KOLO__PLANS_MAX); /* all of them */
    get(1);
    get(3);
    get(1000);
    assert_true(!has(2) && has(1) && has(3) && has(4) && has(KOLO__PLANS_MAX) && has(1000));
    get(1001);
    assert_true(!has(4) && has(1) && has(3) && has(5) && has(1000) && has(1001));
    for (size_t i = 5; i <= KOLO__PLANS_MAX; i++) { /* then those that were used again */
        assert_true(has(i) && has(1));
        get(1000 + i);
        assert_true(!has(i));
        assert_int_equal(cache.count, KOLO__PLANS_MAX);
    }
    get(2000);
    assert_true(!has(1) && has(3));
    get(2001);
    assert_true(!has(3) && has(1000));
    check_books();
}

static void plans_in_use_stay(void **state)
{
    (void)state;
    struct kolo__plan *first = get(1), *third;
    first->users = 2;
    get(2);
    third = get(3);
    third->users = 1;
    for (size_t i = 4; i <= KOLO__PLANS_MAX + 1; i++)
        get(i);
    assert_true(has(1) && !has(2) && has(3) && has(4));
    get(1000);
    assert_true(has(1) && has(3) && !has(4) && has(5));
    first->users = third->users = 0; /* they are the oldest now */
    get(1001);
    assert_true(!has(1) && has(3) && has(5));
    check_books();
}

static void all_in_use_are_more_than_the_limit(void **state)
{
    (void)state;
    for (size_t i = 1; i <= KOLO__PLANS_MAX + 10; i++)
        get(i)->users = 1;
    assert_int_equal(cache.count, KOLO__PLANS_MAX + 10);
    for (struct kolo__plan *plan = cache.newest; plan != NULL; plan = plan->older)
        plan->users = 0;
    get(1000);
    assert_int_equal(cache.count, KOLO__PLANS_MAX);
    assert_true(!has(11) && has(12) && has(1000));
    check_books();
}

static void memory_is_limited(void **state)
{
    (void)state;
    const size_t quarter = KOLO__PLAN_BYTES_MAX / 4 / (2 * sizeof(float)) - 64;
    struct kolo__plan *first = get(quarter - 1);
    assert_in_range(kolo__program_bytes(first->program), KOLO__PLAN_BYTES_MAX / 4 - 1024,
                    KOLO__PLAN_BYTES_MAX / 4 - 128);
    get(quarter - 2);
    get(quarter - 3);
    get(5);
    get(quarter - 4); /* still below the limit */
    assert_int_equal(cache.count, 5);
    get(quarter - 1);
    get(4000);
    assert_true(has(quarter - 1) && !has(quarter - 2) && has(quarter - 3) && has(5));
    assert_true(cache.bytes <= KOLO__PLAN_BYTES_MAX);
    first->users = 1;
    get(4 * quarter + 1000); /* alone too large, yet it is the one that is wanted */
    assert_int_equal(cache.count, 2);
    assert_true(has(quarter - 1) && has(4 * quarter + 1000));
    first->users = 0;
    get(6); /* and the small one is not thrown out for it */
    assert_true(has(6) && cache.count == 1);
    check_books();
}

/* So that what is sent on was received a moment ago; messages in shared memory are short anyway. */
static void long_vectors_between_hosts_are_cut_into_chunks(void **state)
{
    (void)state;
    struct kolo__plan_context here = context;
    here.remote = false;
    struct kolo__plan_key key = key_of(4 << 20);
    struct kolo__plan *plan = NULL;
    key.forced = kolo__algorithm_find("halving_doubling");
    assert_true(get_key(&key)->program->schedule.step_count >= 4 * 16);
    clear(NULL);
    assert_int_equal(kolo__plan_get(&cache, &here, &key, &plan), KOLO_OK);
    assert_int_equal(plan->program->schedule.step_count, 4);
}

/* A message that is a little longer than whole bursts costs one more. */
static void halves_between_hosts_end_where_bursts_do(void **state)
{
    (void)state;
    const size_t bursts = 8 * KOLO__TCP_BURST_BYTES / sizeof(float);
    struct kolo__plan_context here = context;
    here.remote = false;
    struct kolo__plan_key key = key_of(2 * (bursts + 100));
    struct kolo__plan *plan = NULL;
    key.forced = kolo__algorithm_find("halving_doubling");
    assert_int_equal(get_key(&key)->program->schedule.steps[0].count, bursts);
    clear(NULL);
    assert_int_equal(kolo__plan_get(&cache, &here, &key, &plan), KOLO_OK);
    assert_int_equal(plan->program->schedule.steps[0].count, bursts + 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_repeated_call_finds_its_plan, clear),
        cmocka_unit_test_teardown(each_argument_makes_another_plan, clear),
        cmocka_unit_test_teardown(the_least_recently_used_goes, clear),
        cmocka_unit_test_teardown(plans_in_use_stay, clear),
        cmocka_unit_test_teardown(all_in_use_are_more_than_the_limit, clear),
        cmocka_unit_test_teardown(memory_is_limited, clear),
        cmocka_unit_test_teardown(long_vectors_between_hosts_are_cut_into_chunks, clear),
        cmocka_unit_test_teardown(halves_between_hosts_end_where_bursts_do, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
