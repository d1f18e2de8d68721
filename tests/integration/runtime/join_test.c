/* SPDX-License-Identifier: Apache-2.0 */
/* kolo_join: ranks with different numbers of steps, and what must not be done meanwhile. */
#include "member.h"

#include "runtime/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANKS_MAX = 4, COUNT_MAX = 3000 };

static uint32_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % n;
}

static uint64_t messages_sent(void)
{
    return context->control != NULL ? kolo__control_sent(context->control) : 0;
}

/* ---- a mix of collectives ------------------------------------------------------------------- */

struct step {
    int kind;
    size_t count;
    int active[RANKS_MAX]; /* who has not joined */
    int root;              /* who joins last */
    int number;
};

enum { KINDS = 14 };

/* What rank r contributes at place k: small enough to be exact in every type. */
static int value(const struct step *step, int r, size_t k)
{
    return (r + 1) * 3 + (int)k % 5 + step->number % 4;
}

static int64_t int_in[RANKS_MAX * COUNT_MAX], int_out[RANKS_MAX * COUNT_MAX];
static float float_in[RANKS_MAX * COUNT_MAX], float_out[RANKS_MAX * COUNT_MAX];

static double expected(const struct step *step, kolo_op op, size_t k)
{
    double result = op == KOLO_PRODUCT ? 1 : op == KOLO_MIN ? 1e9 : op == KOLO_MAX ? -1e9 : 0;
    for (int r = 0; r < size; r++) {
        double v = value(step, r, k);
        if (!step->active[r])
            continue;
        result = op == KOLO_PRODUCT ? result * v
                 : op == KOLO_MIN   ? fmin(result, v)
                 : op == KOLO_MAX   ? fmax(result, v)
                                    : result + v;
    }
    return result;
}

static void fill(const struct step *step, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        int_in[k] = value(step, rank, k);
        float_in[k] = (float)int_in[k];
    }
}

static int allreduce_ints(const struct step *step, kolo_op op)
{
    fill(step, step->count);
    CHECK(kolo_allreduce(comm, int_in, int_out, step->count, KOLO_INT64, op, NULL) == KOLO_OK);
    for (size_t k = 0; k < step->count; k++) {
        int64_t all = (int64_t)expected(step, op, k);
        CHECK(int_out[k] == (op == KOLO_AVERAGE ? all / size : all));
    }
    return 0;
}

static int allreduce_floats(const struct step *step, kolo_op op)
{
    kolo_call_options options = {.size = sizeof options, .scale = 2};
    fill(step, step->count);
    CHECK(kolo_allreduce(comm, float_in, float_out, step->count, KOLO_FP32, op,
                         op == KOLO_PREMUL_SUM ? &options : NULL) == KOLO_OK);
    for (size_t k = 0; k < step->count; k++) {
        double all = expected(step, op, k);
        if (op == KOLO_AVERAGE)
            CHECK(fabs(float_out[k] - all / size) < 1e-5 * fabs(all));
        else
            CHECK(float_out[k] == (float)(op == KOLO_PREMUL_SUM ? 2 * all : all));
    }
    return 0;
}

static int allreduce_bits(const struct step *step, kolo_op op)
{
    fill(step, step->count);
    CHECK(kolo_allreduce(comm, int_in, int_out, step->count, KOLO_INT64, op, NULL) == KOLO_OK);
    for (size_t k = 0; k < step->count; k++) {
        int64_t all = op == KOLO_AND ? -1 : 0;
        for (int r = 0; r < size; r++)
            if (step->active[r] && op == KOLO_AND)
                all &= value(step, r, k);
            else if (step->active[r])
                all ^= value(step, r, k);
        CHECK(int_out[k] == all);
    }
    return 0;
}

static int moves(const struct step *step)
{
    size_t count = step->count, all = count * (size_t)size;
    fill(step, all);
    CHECK(kolo_reduce_scatter(comm, int_in, int_out, count, KOLO_INT64, KOLO_SUM, NULL) == KOLO_OK);
    for (size_t k = 0; k < count; k++)
        CHECK(int_out[k] == (int64_t)expected(step, KOLO_SUM, (size_t)rank * count + k));
    CHECK(kolo_allgather(comm, float_in, float_out, count, KOLO_FP32, NULL) == KOLO_OK);
    for (size_t k = 0; k < all; k++) {
        int from = count > 0 ? (int)(k / count) : 0;
        CHECK(float_out[k] == (step->active[from] ? (float)value(step, from, k % count) : 0));
    }
    CHECK(kolo_alltoall(comm, int_in, int_out, count, KOLO_INT64, NULL) == KOLO_OK);
    for (size_t k = 0; k < all; k++) {
        int from = count > 0 ? (int)(k / count) : 0;
        size_t place = (size_t)rank * count + (count > 0 ? k % count : 0);
        CHECK(int_out[k] == (step->active[from] ? value(step, from, place) : 0));
    }
    return 0;
}

static int rooted(const struct step *step)
{
    fill(step, step->count);
    CHECK(kolo_broadcast(comm, int_in, step->count, KOLO_INT64, step->root, NULL) == KOLO_OK);
    for (size_t k = 0; k < step->count; k++)
        CHECK(int_in[k] == value(step, step->root, k));
    CHECK(kolo_reduce(comm, float_in, float_out, step->count, KOLO_FP32, KOLO_MAX, step->root,
                      NULL) == KOLO_OK);
    for (size_t k = 0; k < step->count && rank == step->root; k++)
        CHECK(float_out[k] == (float)expected(step, KOLO_MAX, k));
    return 0;
}

static int started(const struct step *step)
{
    enum { MANY = 24 };
    static int32_t values[MANY][50];
    kolo_request *requests[MANY];
    for (int i = 0; i < MANY; i++) {
        for (int k = 0; k < 50; k++)
            values[i][k] = value(step, rank, (size_t)k + (size_t)i);
        CHECK(kolo_allreduce_start(comm, values[i], values[i], 50, KOLO_INT32, KOLO_SUM, NULL,
                                   &requests[i]) == KOLO_OK);
    }
    for (int i = MANY; i-- > 0;)
        CHECK(kolo_wait(&requests[i], -1) == KOLO_OK);
    for (int i = 0; i < MANY; i++)
        for (int k = 0; k < 50; k++)
            CHECK(values[i][k] == (int32_t)expected(step, KOLO_SUM, (size_t)k + (size_t)i));
    return 0;
}

static int run_step(const struct step *step)
{
    switch (step->kind) {
    case 0:
        return allreduce_ints(step, KOLO_SUM);
    case 1:
        return allreduce_ints(step, KOLO_AVERAGE);
    case 2:
        return allreduce_ints(step, KOLO_PRODUCT);
    case 3:
        return allreduce_ints(step, KOLO_MIN);
    case 4:
        return allreduce_ints(step, KOLO_MAX);
    case 5:
        return allreduce_floats(step, KOLO_AVERAGE);
    case 6:
        return allreduce_floats(step, KOLO_MIN);
    case 7:
        return allreduce_floats(step, KOLO_MAX);
    case 8:
        return allreduce_floats(step, KOLO_PREMUL_SUM);
    case 9:
        return allreduce_bits(step, step->number % 2 == 0 ? KOLO_AND : KOLO_XOR);
    case 10:
        return moves(step);
    case 11:
        return rooted(step);
    case 12:
        return started(step);
    default:
        CHECK(kolo_barrier(comm) == KOLO_OK);
        return 0;
    }
}

static int uneven_steps(void)
{
    CHECK(join() == 0);
    random_state = 12345u + (uint32_t)size;
    for (int round = 0; round < 4; round++) {
        int steps[RANKS_MAX] = {0}, longest = 0, last = -1;
        for (int r = 0; r < size; r++)
            steps[r] = (int)random_below(30) * RANKS_MAX + r; /* all different */
        for (int r = 0; r < size; r++)
            longest = steps[r] > steps[longest] ? r : longest;
        for (int i = 0; i < steps[longest]; i++) {
            struct step step = {.kind = (int)random_below(KINDS),
                                .count = (size_t)random_below(3) == 0 ? random_below(COUNT_MAX)
                                                                      : random_below(20),
                                .root = longest,
                                .number = i};
            for (int r = 0; r < size; r++)
                step.active[r] = steps[r] > i;
            if (i == steps[longest] - 1)
                step.kind = KINDS - 1; /* nobody is still on the way to kolo_join then */
            if (step.active[rank])
                CHECK(run_step(&step) == 0);
        }
        CHECK(kolo_join(comm, &last) == KOLO_OK);
        CHECK(last == longest);
        struct step common = {.count = 100, .active = {1, 1, 1, 1}, .root = last};
        for (common.kind = 0; common.kind < KINDS; common.kind++)
            CHECK(run_step(&common) == 0);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_uneven_steps(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++)
        world_run_over_both(ranks, NULL, uneven_steps);
}

/* ---- it costs nothing before ------------------------------------------------------------------
 */

static int silence_before_and_after(void)
{
    CHECK(join() == 0);
    float x = 1;
    uint64_t before = messages_sent();
    for (int i = 0; i < 50; i++)
        CHECK(kolo_allreduce(comm, &x, &x, 1, KOLO_FP32, KOLO_MAX, NULL) == KOLO_OK);
    CHECK(messages_sent() == before);
    CHECK(kolo_join(comm, NULL) == KOLO_OK);
    before = messages_sent();
    for (int i = 0; i < 50; i++)
        CHECK(kolo_allreduce(comm, &x, &x, 1, KOLO_FP32, KOLO_MAX, NULL) == KOLO_OK);
    CHECK(messages_sent() == before);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_no_message_without_a_join(void **state)
{
    (void)state;
    world_run_over_both(3, "KOLO_PEER_TIMEOUT=0", silence_before_and_after); /* no signs of life */
}

/* ---- other communicators ----------------------------------------------------------------------
 */

/* The others of the world are not concerned. */
static int in_a_part_of_the_world(void)
{
    kolo_comm *half;
    CHECK(join() == 0);
    CHECK(kolo_comm_split(comm, rank % 2, -rank, &half) == KOLO_OK);
    int last = -1, own = kolo_comm_rank(half), others = kolo_comm_size(half);
    for (int i = 0; i < 20 * own; i++) { /* rank 0 of it joins at once */
        int32_t one = 1, sum = 0;
        CHECK(kolo_allreduce(half, &one, &sum, 1, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
        CHECK(sum == others - 1 - i / 20);
    }
    CHECK(kolo_join(half, &last) == KOLO_OK && last == others - 1);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    CHECK(kolo_comm_free(half) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_part_of_the_world(void **state)
{
    (void)state;
    world_run_over_both(4, NULL, in_a_part_of_the_world);
}

/* ---- reducers ---------------------------------------------------------------------------------
 */

enum { TENSORS = 3, TENSOR_COUNT = 5000 };

static float gradients[TENSORS][TENSOR_COUNT];

static int reducer_step(kolo_reducer *reducer, int number, int actives)
{
    for (int t = 0; t < TENSORS; t++)
        for (int k = 0; k < TENSOR_COUNT; k++)
            gradients[t][k] = (float)(size * (number + t));
    for (int t = TENSORS; t-- > 0;)
        CHECK(kolo_reducer_ready(reducer, (size_t)t) == KOLO_OK);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    for (int t = 0; t < TENSORS; t++)
        for (int k = 0; k < TENSOR_COUNT; k++)
            CHECK(gradients[t][k] == (float)(actives * (number + t)));
    return 0;
}

/* Rank r does 1 + 7 (r + 1) steps; then all do some. */
static int reducer_with_uneven_steps(void)
{
    kolo_tensor tensors[TENSORS];
    kolo_reducer *reducer, *other;
    memset(tensors, 0, sizeof tensors);
    for (int t = 0; t < TENSORS; t++)
        tensors[t] = (kolo_tensor){.data = gradients[t], .count = TENSOR_COUNT, .dtype = KOLO_FP32};
    CHECK(join() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &other) == KOLO_OK);
    for (int epoch = 0; epoch < 3; epoch++) {
        int last = -1, own = 1 + 7 * (rank + 1);
        for (int i = 0; i < own; i++) {
            int first_active = i == 0 ? 0 : (i - 1) / 7;
            CHECK(reducer_step(reducer, i, size - first_active) == 0);
            if (epoch > 0 && i % 3 == 0)
                CHECK(reducer_step(other, i, size - first_active) == 0);
        }
        CHECK(kolo_join(comm, &last) == KOLO_OK && last == size - 1);
        for (int i = 0; i < 5; i++)
            CHECK(reducer_step(reducer, i, size) == 0 && reducer_step(other, i, size) == 0);
    }
    kolo_reducer_free(other);
    kolo_reducer_free(reducer);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Rank 1 has no data at all: it has no plan yet when the others have. */
static int joined_before_the_first_step(void)
{
    kolo_tensor tensors[TENSORS];
    kolo_reducer *reducer;
    memset(tensors, 0, sizeof tensors);
    for (int t = 0; t < TENSORS; t++)
        tensors[t] = (kolo_tensor){.data = gradients[t], .count = TENSOR_COUNT, .dtype = KOLO_FP32};
    CHECK(join() == 0);
    kolo_reducer_options options = {.size = sizeof options, .bucket_bytes = 30000};
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    CHECK(kolo_join(comm, NULL) == KOLO_OK); /* nobody has one */
    for (int i = 0; i < 4 && rank != 1; i++)
        CHECK(reducer_step(reducer, i, size - 1) == 0);
    CHECK(kolo_join(comm, NULL) == KOLO_OK);
    for (int i = 0; i < 4; i++)
        CHECK(reducer_step(reducer, i, size) == 0);
    kolo_reducer_free(reducer);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_reducers(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= RANKS_MAX; ranks++)
        world_run_over_both(ranks, NULL, reducer_with_uneven_steps);
    world_run_over_both(3, NULL, joined_before_the_first_step);
}

/* The others have found better segments since, as reducers do. */
static int other_segments(void)
{
    enum { COUNT = RANKS_MAX * COUNT_MAX };
    kolo_call_options ring = {.size = sizeof ring, .algorithm = "ring"};
    CHECK(join() == 0);
    size_t before = comm->plan_context.segment_bytes;
    for (int i = 0; i < 3 && rank != 0; i++) {
        comm->plan_context.segment_bytes = (size_t)1000 << i;
        kolo__plan_cache_clear(&comm->plans);
        for (size_t k = 0; k < COUNT; k++)
            int_in[k] = rank;
        CHECK(kolo_allreduce(comm, int_in, int_out, COUNT, KOLO_INT64, KOLO_SUM, &ring) == KOLO_OK);
        for (size_t k = 0; k < COUNT; k++)
            CHECK(int_out[k] == size * (size - 1) / 2);
    }
    if (rank != 0) {
        comm->plan_context.segment_bytes = before;
        kolo__plan_cache_clear(&comm->plans);
    }
    CHECK(kolo_join(comm, NULL) == KOLO_OK);
    CHECK(comm->plan_context.segment_bytes == before);
    CHECK(kolo_allreduce(comm, int_in, int_out, COUNT, KOLO_INT64, KOLO_SUM, &ring) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_other_segments(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, other_segments);
}

/* ---- what cannot be ---------------------------------------------------------------------------
 */

static void wait_for_news_of_a_join(void)
{
    while (!kolo__control_joins(context->control)) {
        usleep(1000);
        kolo__control_poll(context->control);
    }
}

/* Rank 0 has joined: the others may hear of it before or after they begin. Who hears before goes on
 * to kolo_finalize, which rank 0, that knows of no broadcast, may take for a mismatch. */
static int root_has_joined(void)
{
    int32_t value = rank;
    CHECK(join() == 0);
    kolo_status status;
    if (rank == 0)
        status = kolo_join(comm, NULL);
    else
        while ((status = kolo_broadcast(comm, &value, 1, KOLO_INT32, 0, NULL)) == KOLO_OK) {
        }
    CHECK(status == KOLO_ERR_INVALID ||
          (rank == 0 && (status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_MISMATCH)));
    CHECK(rank == 0 || strstr(kolo_error_text(), "rank 0") != NULL);
    CHECK(rank == 0 || strstr(kolo_error_text(), "has joined (kolo_join)") != NULL);
    kolo_finalize(context);
    return 0;
}

/* Rank 2 is in the broadcast when rank 1, which has refused it, is in a barrier already. */
static int root_has_joined_and_one_is_elsewhere(void)
{
    int32_t value = rank;
    kolo_comm *other;
    kolo_request *request = NULL;
    CHECK(join() == 0);
    CHECK(kolo_comm_split(comm, 0, rank, &other) == KOLO_OK);
    if (rank == 2)
        CHECK(kolo_broadcast_start(comm, &value, 1, KOLO_INT32, 0, NULL, &request) == KOLO_OK);
    CHECK(kolo_barrier(other) == KOLO_OK);
    if (rank == 0) {
        kolo_status status = kolo_join(comm, NULL);
        CHECK(status == KOLO_ERR_INVALID || status == KOLO_ERR_MISMATCH);
    } else if (rank == 1) {
        wait_for_news_of_a_join();
        CHECK(kolo_broadcast(comm, &value, 1, KOLO_INT32, 0, NULL) == KOLO_ERR_INVALID);
        CHECK(kolo_barrier_start(comm, &request) == KOLO_OK);
        CHECK(kolo_send(other, &value, 1, KOLO_INT32, 2) == KOLO_OK);
        kolo_status status = kolo_wait(&request, -1);
        CHECK(status == KOLO_ERR_INVALID || status == KOLO_ERR_MISMATCH);
    } else {
        CHECK(kolo_recv(other, &value, 1, KOLO_INT32, 1) == KOLO_OK);
        CHECK(kolo_wait(&request, -1) == KOLO_ERR_INVALID);
        CHECK(strstr(kolo_error_text(), "rank 0, has joined (kolo_join)") != NULL);
    }
    kolo_finalize(context);
    return 0;
}

/* Nobody has the order of rank 0's gradients then. */
static int joined_before_the_order_was_learned(void)
{
    kolo_tensor tensor = {.data = &float_in, .count = 4, .dtype = KOLO_FP32};
    kolo_reducer_options fixed = {.size = sizeof fixed, .fixed_order = 1};
    kolo_reducer *reducer;
    CHECK(join() == 0);
    CHECK(kolo_reducer_create(comm, &tensor, 1, &fixed, &reducer) == KOLO_OK);
    if (rank != 0) {
        CHECK(kolo_reducer_ready(reducer, 0) == KOLO_OK);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    }
    CHECK(kolo_join(comm, NULL) == KOLO_OK);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_reducer_create(comm, &tensor, 1, NULL, &reducer) == KOLO_OK);
    kolo_status status;
    if (rank == 0) {
        status = kolo_join(comm, NULL);
    } else {
        if (rank == 1) /* before it begins, or in the middle */
            wait_for_news_of_a_join();
        CHECK(kolo_reducer_ready(reducer, 0) == KOLO_OK);
        status = kolo_reducer_wait(reducer, -1);
    }
    CHECK(status == KOLO_ERR_INVALID || (rank == 0 && status == KOLO_ERR_PEER_LOST));
    CHECK(rank == 0 || strstr(kolo_error_text(), "rank 0 has joined (kolo_join) before the first "
                                                 "step") != NULL);
    CHECK(strstr(kolo_error_text(), "broadcast") == NULL);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    kolo_finalize(context);
    return 0;
}

/* The news is there: nothing is begun, and all goes on. */
static int known_root_has_joined(void)
{
    int32_t value = 1, sum = 0;
    int last = -1;
    CHECK(join() == 0);
    if (rank != 0) {
        wait_for_news_of_a_join();
        CHECK(kolo_broadcast(comm, &value, 1, KOLO_INT32, 0, NULL) == KOLO_ERR_INVALID);
        CHECK(strstr(kolo_error_text(), "rank 0, has joined") != NULL);
        CHECK(kolo_reduce(comm, &value, &sum, 1, KOLO_INT32, KOLO_SUM, 0, NULL) ==
              KOLO_ERR_INVALID);
        CHECK(kolo_send(comm, &value, 1, KOLO_INT32, 0) == KOLO_ERR_INVALID);
        kolo_comm *none = NULL;
        CHECK(kolo_comm_split(comm, 0, 0, &none) == KOLO_ERR_INVALID && none == NULL);
        CHECK(strstr(kolo_error_text(), "rank 0 has joined") != NULL);
        kolo_reducer *reducer = NULL;
        kolo_tensor tensor = {.data = &float_in, .count = 4, .dtype = KOLO_FP32};
        CHECK(kolo_reducer_create(comm, &tensor, 1, NULL, &reducer) == KOLO_ERR_INVALID);
        CHECK(strstr(kolo_error_text(), "rank 0 has joined") != NULL);
        CHECK(kolo_broadcast_tensors(comm, &tensor, 1, 1) == KOLO_OK);
        CHECK(kolo_allreduce(comm, &value, &sum, 1, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
        CHECK(sum == size - 1);
    }
    CHECK(kolo_join(comm, &last) == KOLO_OK && last != 0);
    kolo_comm *all = NULL;
    CHECK(kolo_comm_split(comm, 0, 0, &all) == KOLO_OK && kolo_comm_size(all) == size);
    CHECK(kolo_barrier(all) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int killed_while_others_have_joined(void)
{
    CHECK(join() == 0);
    if (rank == size - 1) {
        CHECK(kolo_barrier(comm) == KOLO_OK);
        kill(getpid(), SIGKILL);
    }
    CHECK(kolo_join(comm, NULL) == KOLO_ERR_PEER_LOST);
    CHECK(strstr(kolo_error_text(), "rank 2") != NULL);
    kolo_finalize(context);
    return 0;
}

/* Who leaves does not join any more. */
static int left_while_others_have_joined(void)
{
    CHECK(join() == 0);
    if (rank == 0) {
        CHECK(kolo_finalize(context) == KOLO_OK);
        return 0;
    }
    CHECK(kolo_join(comm, NULL) == KOLO_ERR_PEER_LOST);
    CHECK(strstr(kolo_error_text(), "rank 0") != NULL);
    kolo_finalize(context);
    return 0;
}

static int different_collectives(void)
{
    int32_t value = 1;
    CHECK(join() == 0);
    kolo_status status = rank == 0 ? kolo_join(comm, NULL)
                         : rank == 1
                             ? kolo_barrier(comm)
                             : kolo_allreduce(comm, &value, &value, 1, KOLO_INT32, KOLO_SUM, NULL);
    CHECK(status == KOLO_ERR_MISMATCH);
    kolo_finalize(context);
    return 0;
}

/* Nothing makes the others wait for a rank that reduces to them. */
static int far_behind(void)
{
    enum { AHEAD = 30 };
    int32_t value = 1, sum = 0;
    CHECK(join() == 0);
    kolo_call_options options = {.size = sizeof options, .algorithm = "tree"};
    kolo_comm *other;
    CHECK(kolo_comm_split(comm, 0, rank, &other) == KOLO_OK);
    for (int i = 0; i < AHEAD && rank == 1; i++)
        CHECK(kolo_reduce(comm, &value, &sum, 1, KOLO_INT32, KOLO_SUM, 0, &options) == KOLO_OK);
    CHECK(kolo_barrier(other) == KOLO_OK);
    CHECK(kolo_join(comm, NULL) == KOLO_ERR_MISMATCH);
    CHECK(strstr(kolo_error_text(), "call kolo_barrier before kolo_join") != NULL);
    kolo_finalize(context);
    return 0;
}

static int of_one(void)
{
    int last = -1;
    CHECK(kolo_join(NULL, NULL) == KOLO_ERR_INVALID);
    CHECK(join() == 0);
    CHECK(kolo_join(comm, &last) == KOLO_OK && last == 0);
    CHECK(kolo_join(comm, NULL) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_errors(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, root_has_joined);
    world_run_over_both(3, NULL, root_has_joined_and_one_is_elsewhere);
    world_run_over_both(3, NULL, known_root_has_joined);
    world_run_over_both(3, NULL, joined_before_the_order_was_learned);
    world_run_over_both(3, NULL, left_while_others_have_joined);
    world_run_over_both(3, NULL, different_collectives);
    world_run_over_both(2, NULL, far_behind);
    world_run_over_both(1, NULL, of_one);
}

static void test_lost_rank(void **state)
{
    (void)state;
    const char *transports[] = {"KOLO_TRANSPORT=shm", "KOLO_TRANSPORT=tcp"};
    for (int i = 0; i < 2; i++) {
        const char *environment[] = {transports[i], NULL};
        struct world_result result = world_run(3, environment, killed_while_others_have_joined);
        assert_int_equal(result.status[0], 0);
        assert_int_equal(result.status[1], 0);
        assert_true(WIFSIGNALED(result.status[2]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uneven_steps),      cmocka_unit_test(test_no_message_without_a_join),
        cmocka_unit_test(test_part_of_the_world), cmocka_unit_test(test_reducers),
        cmocka_unit_test(test_other_segments),    cmocka_unit_test(test_errors),
        cmocka_unit_test(test_lost_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
