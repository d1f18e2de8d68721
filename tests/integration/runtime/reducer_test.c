/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reducers in real processes: what comes out is what plain allreduces give, in every mode, and a
 * step in the steady state sends nothing but gradients.
 */
#include "world.h"

#include "base/random.h"
#include "runtime/comm.h"
#include "runtime/reducer/reducer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TENSORS = 23, STEPS = 6 };

struct setting {
    kolo_reducer_options options;
    bool views, shuffled, sleeps;
    kolo_dtype dtype; /* of all; KOLO_DTYPE_COUNT: mixed */
    size_t largest;   /* elements */
};

static struct setting setting;

static kolo_context *context;
static kolo_comm *comm;
static int rank, size;

static int begin(void)
{
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    comm = kolo_world(context);
    rank = kolo_comm_rank(comm);
    size = kolo_comm_size(comm);
    return 0;
}

/* Small whole numbers, different for each rank, step and element: exact in every dtype and on every
 * wire, and so are their sums. */
static double value(int of_rank, int step, size_t tensor, size_t k)
{
    return (double)((k * 7 + tensor * 3 + (size_t)step * 5 + (size_t)of_rank * 2) % 4);
}

static double expected(int step, size_t tensor, size_t k)
{
    double sum = 0;
    for (int r = 0; r < size; r++)
        sum += value(r, step, tensor, k);
    sum *= setting.options.scale != 0 ? setting.options.scale : 1;
    return setting.options.sum ? sum : sum / size;
}

static double load(kolo_dtype dtype, const void *data, size_t k)
{
    switch (dtype) {
    case KOLO_FP64:
        return ((const double *)data)[k];
    case KOLO_FP32:
        return ((const float *)data)[k];
    case KOLO_FP16:
        return kolo__fp16_to_fp32(((const uint16_t *)data)[k]);
    default:
        return kolo__bf16_to_fp32(((const uint16_t *)data)[k]);
    }
}

static void store(kolo_dtype dtype, void *data, size_t k, double x)
{
    switch (dtype) {
    case KOLO_FP64:
        ((double *)data)[k] = x;
        break;
    case KOLO_FP32:
        ((float *)data)[k] = (float)x;
        break;
    case KOLO_FP16:
        ((uint16_t *)data)[k] = kolo__fp16_from_fp32((float)x);
        break;
    default:
        ((uint16_t *)data)[k] = kolo__bf16_from_fp32((float)x);
        break;
    }
}

static kolo_tensor tensors[TENSORS];

static void make_tensors(void)
{
    static const kolo_dtype mixed[] = {KOLO_FP32, KOLO_BF16, KOLO_FP32, KOLO_FP64, KOLO_FP16};
    struct kolo__random random = {7};
    for (size_t i = 0; i < TENSORS; i++) {
        size_t count = i == 4 ? 0 : 1 + kolo__random_below(&random, setting.largest);
        if (i == 9)
            count = 4 * setting.largest;
        kolo_dtype dtype = setting.dtype == KOLO_DTYPE_COUNT ? mixed[i % 5] : setting.dtype;
        tensors[i] = (kolo_tensor){.count = count, .dtype = dtype, .name = i % 2 ? "odd" : NULL};
        if (!setting.views)
            tensors[i].data = malloc(count * kolo_dtype_bytes(dtype) + 8);
    }
}

static void free_tensors(void)
{
    for (size_t i = 0; i < TENSORS; i++)
        free(tensors[i].data);
}

static void *gradient(const kolo_reducer *reducer, size_t i)
{
    return setting.views ? kolo_reducer_view(reducer, i) : tensors[i].data;
}

/* The order in which gradients get ready: of each rank and step, its own. */
static void shuffle(size_t *order, int step)
{
    struct kolo__random random = {(uint64_t)(step * 100 + rank)};
    for (size_t i = 0; i < TENSORS; i++)
        order[i] = TENSORS - 1 - i;
    for (size_t i = TENSORS - 1; setting.shuffled && i > 0; i--) {
        size_t j = kolo__random_below(&random, i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

static int backward(kolo_reducer *reducer, int step)
{
    size_t order[TENSORS];
    shuffle(order, step);
    for (size_t n = 0; n < TENSORS; n++) {
        size_t i = order[n];
        for (size_t k = 0; k < tensors[i].count; k++)
            store(tensors[i].dtype, gradient(reducer, i), k, value(rank, step, i, k));
        if (setting.sleeps)
            usleep(300);
        CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
    }
    return 0;
}

/* Half a unit in the last place of whatever rounded the result. */
static double tolerance(size_t i)
{
    bool fp32 = tensors[i].dtype == KOLO_FP32;
    if (fp32 && setting.options.wire == KOLO_WIRE_FP8_E5M2)
        return 0x1p-3;
    if (fp32 && setting.options.wire == KOLO_WIRE_FP8_E4M3)
        return 0x1p-4;
    return 0x1p-8;
}

static int check_all(const kolo_reducer *reducer, int step)
{
    for (size_t i = 0; i < TENSORS; i++)
        for (size_t k = 0; k < tensors[i].count; k++) {
            double got = load(tensors[i].dtype, gradient(reducer, i), k);
            double want = expected(step, i, k), error = fabs(got - want);
            if (error > fabs(want) * tolerance(i) || isnan(got)) {
                fprintf(stderr, "step %d tensor %zu element %zu: %g, not %g\n", step, i, k, got,
                        want);
                return 1;
            }
        }
    return 0;
}

static int train(void)
{
    kolo_reducer *reducer;
    CHECK(begin() == 0);
    setting.options.size = sizeof setting.options;
    make_tensors();
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &setting.options, &reducer) == KOLO_OK);
    for (int step = 0; step < STEPS; step++) {
        CHECK(backward(reducer, step) == 0);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
        CHECK(check_all(reducer, step) == 0);
        /* The communicator of the caller is free for other things. */
        int32_t one = 1;
        CHECK(kolo_allreduce(comm, &one, &one, 1, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
        CHECK(one == size);
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    free_tensors();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void run(struct setting with)
{
    setting = with;
    for (int ranks = 1; ranks <= 4; ranks++)
        world_run_over_both(ranks, NULL, train);
}

static void test_views(void **state)
{
    (void)state;
    run((struct setting){.views = true, .dtype = KOLO_FP32, .largest = 5000});
    run((struct setting){.views = true,
                         .shuffled = true,
                         .dtype = KOLO_DTYPE_COUNT,
                         .largest = 3000,
                         .options = {.bucket_bytes = 20000, .first_bucket_bytes = 3000, .sum = 1}});
}

static void test_packed(void **state)
{
    (void)state;
    run((struct setting){.dtype = KOLO_FP32, .largest = 5000});
    run((struct setting){.shuffled = true,
                         .dtype = KOLO_DTYPE_COUNT,
                         .largest = 3000,
                         .options = {.bucket_bytes = 20000, .scale = 0.5}});
}

static void test_wire(void **state)
{
    (void)state;
    for (kolo_wire wire = KOLO_WIRE_BF16; wire < KOLO_WIRE_COUNT; wire++)
        run((struct setting){
            .views = wire % 2 == 0,
            .dtype = KOLO_DTYPE_COUNT,
            .largest = 3000,
            .shuffled = true,
            .options = {.wire = wire, .bucket_bytes = 30000, .sum = 1, .error_feedback = 1}});
}

static void test_overlap(void **state)
{
    (void)state;
    run((struct setting){.views = true,
                         .dtype = KOLO_FP32,
                         .largest = 5000,
                         .sleeps = true,
                         .options = {.bucket_bytes = 20000}});
    run((struct setting){.dtype = KOLO_FP32,
                         .largest = 5000,
                         .sleeps = true,
                         .shuffled = true,
                         .options = {.bucket_bytes = 20000}});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_wire),
        cmocka_unit_test(test_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
