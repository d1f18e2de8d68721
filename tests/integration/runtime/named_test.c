/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The any-order mode in real processes: whatever each rank submits and when, results are those of
 * plain allreduces; and whoever waits in vain is told for what.
 */
#include "allocations.h"
#include "member.h"

#include "base/random.h"
#include "kernels/kernels.h"
#include "runtime/reducer/named.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TENSORS = 40, LARGEST = 3000 };

/* ---- tensors of any dtype, whose contents follow from rank, step and place --------------------
 */

static unsigned char *data[TENSORS], *alone[TENSORS];
static char names[TENSORS][32];
static kolo_tensor tensors[TENSORS];

static int make_tensors(void)
{
    static const kolo_dtype dtypes[] = {KOLO_FP32, KOLO_BF16, KOLO_FP32, KOLO_FP64, KOLO_FP16};
    struct kolo__random random = {11};
    for (size_t i = 0; i < TENSORS; i++) {
        size_t count = i == 7 ? 0 : i == 10 ? 80000 : 1 + kolo__random_below(&random, LARGEST);
        kolo_dtype dtype = dtypes[i % 5];
        snprintf(names[i], sizeof names[i], "layer.%zu", i);
        data[i] = calloc(count + 1, kolo_dtype_bytes(dtype));
        alone[i] = calloc(count + 1, kolo_dtype_bytes(dtype));
        CHECK(data[i] != NULL && alone[i] != NULL);
        tensors[i] = (kolo_tensor){
            .data = data[i], .count = count, .dtype = dtype, .name = names[i], .dimensions = 1};
        tensors[i].shape[0] = count;
    }
    return 0;
}

static void free_tensors(void)
{
    for (size_t i = 0; i < TENSORS; i++) {
        free(data[i]);
        free(alone[i]);
    }
}

/* Values whose sums have to be rounded. */
static void fill(size_t i, int step)
{
    struct kolo__random random = {(uint64_t)(step * 1000 + rank * 100) + i};
    for (size_t k = 0; k < tensors[i].count; k++) {
        float x = (float)kolo__random_below(&random, 1000003) * 1e-5f - 5;
        if (tensors[i].dtype == KOLO_FP64)
            ((double *)(void *)data[i])[k] = (double)x / 3;
        else if (tensors[i].dtype == KOLO_FP32)
            ((float *)(void *)data[i])[k] = x;
        else if (tensors[i].dtype == KOLO_BF16)
            ((uint16_t *)(void *)data[i])[k] = kolo__bf16_from_fp32(x);
        else
            ((uint16_t *)(void *)data[i])[k] = kolo__fp16_from_fp32(x);
    }
}

static size_t bytes_of(size_t i)
{
    return tensors[i].count * kolo_dtype_bytes(tensors[i].dtype);
}

static void shuffle(size_t *order, struct kolo__random *random)
{
    for (size_t i = 0; i < TENSORS; i++)
        order[i] = i;
    for (size_t i = TENSORS - 1; i > 0; i--) {
        size_t j = kolo__random_below(random, i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

/* ---- any order ---------------------------------------------------------------------------------
 */

static kolo_reducer_options options;

/* What plain allreduces in one order give. */
static int reduce_alone(int step)
{
    kolo_op op = options.sum ? KOLO_SUM : KOLO_AVERAGE;
    kolo_call_options call = {.size = sizeof call};
    if (options.scale != 0) {
        op = KOLO_PREMUL_SUM;
        call.scale = options.scale / (options.sum ? 1 : size);
    }
    for (size_t i = 0; i < TENSORS; i++) {
        fill(i, step);
        CHECK(kolo_allreduce(comm, data[i], alone[i], tensors[i].count, tensors[i].dtype, op,
                             &call) == KOLO_OK);
    }
    return 0;
}

/* In each step every rank has an order of its own; which tensors take part is each step's. */
static int any_order(void)
{
    kolo_named *named;
    CHECK(join() == 0);
    CHECK(make_tensors() == 0);
    options.size = sizeof options;
    CHECK(kolo_named_create(comm, &options, &named) == KOLO_OK);
    for (int step = 0; step < 12; step++) {
        struct kolo__random own = {(uint64_t)(step * 10 + rank)}, common = {(uint64_t)step};
        bool wanted[TENSORS];
        size_t order[TENSORS];
        CHECK(reduce_alone(step) == 0);
        for (size_t i = 0; i < TENSORS; i++)
            wanted[i] = kolo__random_below(&common, 3) > 0;
        shuffle(order, &own);
        for (size_t n = 0; n < TENSORS; n++)
            if (wanted[order[n]])
                CHECK(kolo_named_submit(named, &tensors[order[n]]) == KOLO_OK);
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        for (size_t i = 0; i < TENSORS; i++)
            CHECK(!wanted[i] || memcmp(data[i], alone[i], bytes_of(i)) == 0);
        CHECK(kolo_named_wait(named, -1) == KOLO_OK); /* nothing to do */
    }
    CHECK(kolo_named_free(named) == KOLO_OK);
    free_tensors();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void run_any_order(kolo_reducer_options with, int ranks, const char *environment)
{
    options = with;
    world_run_over_both(ranks, environment, any_order);
}

static void test_any_order(void **state)
{
    (void)state;
    run_any_order((kolo_reducer_options){0}, 1, NULL);
    run_any_order((kolo_reducer_options){.sum = 1}, 2, NULL);
    run_any_order((kolo_reducer_options){.bucket_bytes = 10000, .scale = 0.3}, 2, NULL);
    run_any_order((kolo_reducer_options){.bucket_bytes = 4}, 2, NULL);
    run_any_order((kolo_reducer_options){0}, 3, "KOLO_DETERMINISTIC=1");
    run_any_order((kolo_reducer_options){.bucket_bytes = 20000}, 4, "KOLO_DETERMINISTIC=1");
    run_any_order((kolo_reducer_options){.sum = 1, .scale = 0.7}, 4, "KOLO_DETERMINISTIC=1");
}

/* ---- ranks at different places of their programs ----------------------------------------------
 */

static float value[3][4];
static kolo_tensor part[3] = {
    {.data = value[0], .count = 4, .dtype = KOLO_FP32, .name = "a"},
    {.data = value[1], .count = 4, .dtype = KOLO_FP32, .name = "b"},
    {.data = value[2], .count = 4, .dtype = KOLO_FP32, .name = "c"},
};

static int submit(kolo_named *named, int i, float x)
{
    for (int k = 0; k < 4; k++)
        value[i][k] = x * (float)(rank + 1);
    CHECK(kolo_named_submit(named, &part[i]) == KOLO_OK);
    return 0;
}

static bool has(int i, float x)
{
    float expected = 0;
    for (int r = 0; r < size; r++)
        expected += x * (float)(r + 1);
    return value[i][0] == expected && value[i][3] == expected;
}

/* Rank 0 wants c in every step, the others come to it some steps later. */
static int some_come_later(void)
{
    kolo_named *named;
    kolo_reducer_options sums = {.size = sizeof sums, .sum = 1};
    CHECK(join() == 0);
    CHECK(kolo_named_create(comm, &sums, &named) == KOLO_OK);
    for (int round = 0; round < 5; round++) {
        if (rank == 0) {
            CHECK(submit(named, 0, 1) == 0 && submit(named, 1, 2) == 0 && submit(named, 2, 3) == 0);
            CHECK(kolo_named_wait(named, -1) == KOLO_OK);
            CHECK(has(0, 1) && has(1, 2) && has(2, 3));
            continue;
        }
        for (int i = 0; i < 3; i++) {
            int next = rank == 1 ? i : (i + 2 * (round > 2)) % 3; /* the others: in another order */
            if (rank > 1 && round > 2)
                next = i;
            CHECK(submit(named, next, (float)(next + 1)) == 0);
            CHECK(kolo_named_wait(named, -1) == KOLO_OK);
            CHECK(has(next, (float)(next + 1)));
        }
    }
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Rank 0 looks in now and then, submits more while a batch is under way, and loses nothing. */
static int some_only_look_in(void)
{
    kolo_named *named;
    kolo_reducer_options sums = {.size = sizeof sums, .sum = 1};
    CHECK(join() == 0);
    CHECK(kolo_named_create(comm, &sums, &named) == KOLO_OK);
    for (int round = 0; round < 20; round++) {
        kolo_status status = KOLO_AGAIN;
        if (rank > 0) {
            usleep(rank == 1 ? 3000 : 0);
            CHECK(submit(named, 1, 2) == 0);
            CHECK(kolo_named_wait(named, -1) == KOLO_OK && has(1, 2));
            CHECK(submit(named, 0, 1) == 0 && submit(named, 2, 3) == 0);
            CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        } else {
            CHECK(submit(named, 0, 1) == 0);
            status = kolo_named_wait(named, round % 3);
            CHECK(status == KOLO_AGAIN);
            CHECK(submit(named, 1, 2) == 0);
            for (int i = 0; i < 1 + round % 4; i++) {
                status = kolo_named_wait(named, round % 2);
                CHECK(status == KOLO_AGAIN || (status == KOLO_OK && has(1, 2)));
            }
            CHECK(submit(named, 2, 3) == 0);
            do
                status = kolo_named_wait(named, round % 2 * 5);
            while (status == KOLO_AGAIN);
            CHECK(status == KOLO_OK);
        }
        CHECK(has(0, 1) && has(1, 2) && has(2, 3));
    }
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_ranks_at_different_places(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= 4; ranks++) {
        world_run_over_both(ranks, NULL, some_come_later);
        world_run_over_both(ranks, NULL, some_only_look_in);
    }
}

/* ---- names that come over time ----------------------------------------------------------------
 */

static int names_over_time(void)
{
    enum { NAMES = 700, EACH = 50 };
    static int64_t numbers[NAMES];
    static char labels[NAMES][32];
    kolo_named *named;
    kolo_reducer_options sums = {.size = sizeof sums, .sum = 1, .bucket_bytes = 100};
    CHECK(join() == 0);
    CHECK(kolo_named_create(comm, &sums, &named) == KOLO_OK);
    for (size_t first = 0; first + EACH <= NAMES; first += EACH / 2) {
        struct kolo__random random = {first + (uint64_t)rank};
        size_t shift = kolo__random_below(&random, EACH);
        for (size_t k = 0; k < EACH; k++) {
            size_t i = first + (k * 7 + shift) % EACH;
            snprintf(labels[i], sizeof labels[i], "state %zu", i);
            numbers[i] = (int64_t)i * (rank + 1);
            kolo_tensor tensor = {
                .data = &numbers[i], .count = 1, .dtype = KOLO_INT64, .name = labels[i]};
            CHECK(kolo_named_submit(named, &tensor) == KOLO_OK);
        }
        memset(labels, 0, sizeof labels); /* they were copied */
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        for (size_t i = first; i < first + EACH; i++)
            CHECK(numbers[i] == (int64_t)i * size * (size + 1) / 2);
    }
    CHECK(named->known.count == NAMES);
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_names_over_time(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, names_over_time);
    world_run_over_both(4, NULL, names_over_time);
}

/* ---- what it costs: no allocation, one collective more than buckets
 * ----------------------------------------------------------------------------
 */

static int cost(void)
{
    kolo_named *named;
    CHECK(join() == 0);
    CHECK(make_tensors() == 0);
    CHECK(kolo_named_create(comm, NULL, &named) == KOLO_OK);
    for (int step = 0; step < 5; step++) {
        unsigned long before = allocations_so_far();
        uint64_t batches = named->batches, collectives = named->comm->sequence;
        for (size_t i = 0; i < TENSORS; i++)
            CHECK(kolo_named_submit(named, &tensors[(i + (size_t)rank) % TENSORS]) == KOLO_OK);
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        CHECK(named->batches - batches == (step == 0 ? 2 : 1));
        /* One that agrees, the large tensor, and a bucket for each of four dtypes. */
        CHECK(named->comm->sequence - collectives == (step == 0 ? 9 : 6));
        CHECK(step < 3 || allocations_so_far() == before);
    }
    CHECK(kolo_named_free(named) == KOLO_OK);
    free_tensors();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_cost(void **state)
{
    (void)state;
    world_run_over_both(2, "KOLO_PEER_TIMEOUT=0", cost); /* no signs of life between */
}

/* ---- after kolo_join --------------------------------------------------------------------------
 */

/* Ranks 0 and 1 missed batches of the other, as ranks do that have joined; then all are told. */
static int table_of_the_last(void)
{
    kolo_named *named;
    kolo_reducer_options sums = {.size = sizeof sums, .sum = 1};
    CHECK(join() == 0);
    CHECK(kolo_named_create(comm, &sums, &named) == KOLO_OK);
    CHECK(submit(named, 0, 1) == 0 && submit(named, 1, 2) == 0);
    CHECK(kolo_named_wait(named, -1) == KOLO_OK && has(0, 1) && has(1, 2));
    if (rank == 0) {
        kolo__names_free(&named->known);
        CHECK(submit(named, 2, 3) == 0);
    } else if (rank == 1) {
        struct kolo__name *added;
        kolo__names_free(&named->known);
        CHECK(kolo__names_add(&named->known, &part[1], 1, &added) == KOLO_OK);
        CHECK(submit(named, 1, 2) == 0); /* pending when it joins, at another place */
    }
    CHECK(named->comm->rejoined(named->comm->owner, (uint32_t)size - 1) == KOLO_OK);
    if (rank != 0)
        CHECK(submit(named, 2, 3) == 0);
    if (rank != 1)
        CHECK(submit(named, 1, 2) == 0 && submit(named, 0, 1) == 0);
    CHECK(kolo_named_wait(named, -1) == KOLO_OK);
    CHECK(has(1, 2) && has(2, 3) && named->known.count == 3);
    if (rank == 1)
        CHECK(submit(named, 0, 1) == 0 && kolo_named_wait(named, -1) == KOLO_OK);
    CHECK(has(0, 1));
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_table_of_the_last(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, table_of_the_last);
}

/* Higher ranks have more steps, and names in them that the others have never heard of when all go
 * on together. */
static int uneven_steps(void)
{
    enum { ROUNDS = 3 };
    kolo_named *named;
    kolo_reducer_options sums = {.size = sizeof sums, .sum = 1};
    int last = -1;
    CHECK(join() == 0);
    CHECK(kolo_named_create(comm, &sums, &named) == KOLO_OK);
    for (int round = 0; round < ROUNDS; round++) {
        for (int step = 0; step < 1 + 2 * rank; step++) {
            char label[32];
            double x = rank + 1, sum = 0;
            kolo_tensor tensor = {.data = &x, .count = 1, .dtype = KOLO_FP64, .name = label};
            snprintf(label, sizeof label, "round %d, step %d", round, step);
            CHECK(submit(named, rank % 2, 1) == 0 && submit(named, 1 - rank % 2, 1) == 0);
            CHECK(kolo_named_submit(named, &tensor) == KOLO_OK);
            CHECK(kolo_named_wait(named, -1) == KOLO_OK);
            for (int r = 0; r < size; r++)
                sum += step < 1 + 2 * r ? r + 1 : 0;
            CHECK(x == sum && value[0][3] == (float)sum && value[1][0] == (float)sum);
        }
        CHECK(kolo_join(comm, &last) == KOLO_OK);
        CHECK(last == size - 1);
        CHECK(named->known.count == (size_t)(2 + (round > 0) + (round + 1) * (2 * size - 1)));
        CHECK(submit(named, 2, 3) == 0);
        CHECK(kolo_named_wait(named, -1) == KOLO_OK && has(2, 3));
    }
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_uneven_steps(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= 4; ranks++)
        world_run_over_both(ranks, NULL, uneven_steps);
}

/* ---- memory of any kind -----------------------------------------------------------------------
 */

/* On one rank elements are not aligned: it alone packs them. */
static int not_aligned(void)
{
    enum { COUNT = 20000 };
    static unsigned char memory[2][COUNT * sizeof(float) + 4];
    static const char *const labels[] = {"x", "y"};
    kolo_named *named;
    kolo_reducer_options sums = {.size = sizeof sums, .sum = 1, .scale = 2};
    CHECK(join() == 0);
    CHECK(kolo_named_create(comm, &sums, &named) == KOLO_OK);
    for (int i = 0; i < 2; i++) {
        kolo_tensor tensor = {.data = memory[i] + (rank == 1), .count = COUNT, .dtype = KOLO_FP32};
        tensor.name = labels[(i + rank) % 2];
        for (size_t k = 0; k < COUNT; k++) {
            float x = (float)(k + (size_t)rank) + (float)((i + rank) % 2);
            memcpy((char *)tensor.data + k * sizeof x, &x, sizeof x);
        }
        CHECK(kolo_named_submit(named, &tensor) == KOLO_OK);
    }
    CHECK(kolo_named_wait(named, -1) == KOLO_OK);
    for (int i = 0; i < 2; i++)
        for (size_t k = 0; k < COUNT; k++) {
            float x, sum = 0;
            for (int r = 0; r < size; r++)
                sum += 2 * ((float)(k + (size_t)r) + (float)((i + rank) % 2));
            memcpy(&x, memory[i] + (rank == 1) + k * sizeof x, sizeof x);
            CHECK(x == sum);
        }
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_not_aligned(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, not_aligned);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_order),         cmocka_unit_test(test_ranks_at_different_places),
        cmocka_unit_test(test_names_over_time),   cmocka_unit_test(test_cost),
        cmocka_unit_test(test_table_of_the_last), cmocka_unit_test(test_uneven_steps),
        cmocka_unit_test(test_not_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
