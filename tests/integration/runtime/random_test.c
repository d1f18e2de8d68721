/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations one after the other and several at once: all collectives, algorithms forced and
 * chosen, sizes from nothing to several windows, heap and malloc, in place or not, blocking and
 * started, ranks that come late, communicators split off and freed at once. What all ranks must
 * agree on comes from one stream of random numbers, the rest from one of each rank.
 */
#include "base/random.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEPS = 300, FLYING_MAX = 4 };

enum kind { ALLREDUCE, REDUCE_SCATTER, ALLGATHER, BROADCAST, REDUCE, ALLTOALL, KINDS };

struct operation {
    int64_t *memory, *in, *out; /* in and out lie in memory */
    size_t count, in_count, out_count;
    uint64_t salt;
    const char *algorithm;
    kolo_request *request;
    enum kind kind;
    int root, rank, size;
    bool in_place, from_heap, started;
};

static kolo_context *context;
static struct kolo__random shared, own;

static bool chance(struct kolo__random *random, uint32_t of)
{
    return kolo__random_below(random, of) == 0;
}

static int64_t value(const struct operation *o, int rank, size_t i)
{
    return (int64_t)(o->salt % 1000) + (int64_t)rank * rank * 100003 + (int64_t)i * (rank + 3);
}

static size_t random_count(int size)
{
    switch (kolo__random_below(&shared, 8)) {
    case 0:
        return 0;
    case 1:
    case 2:
    case 3:
        return 1 + kolo__random_below(&shared, 12);
    case 4:
    case 5:
        return kolo__random_below(&shared, 3000);
    case 6:
        return kolo__random_below(&shared, 40000);
    default: /* more than a window */
        return 280000 / (size_t)size + kolo__random_below(&shared, 100);
    }
}

/* A name that can do the kind with any size and count; NULL: let it be chosen. */
static const char *random_algorithm(enum kind kind, bool mapped)
{
    static const char *const by_messages[KINDS][3] = {
        [ALLREDUCE] = {"recursive_doubling", "ring", "halving_doubling"},
        [REDUCE_SCATTER] = {"ring", "pairwise", "ring"},
        [ALLGATHER] = {"ring", "pairwise", "ring"},
        [BROADCAST] = {"tree", "ring", "tree"},
        [REDUCE] = {"tree", "ring", "pairwise"},
        [ALLTOALL] = {"pairwise", "pairwise", "pairwise"},
    };
    uint32_t draw = kolo__random_below(&shared, 8);
    if (draw < 3)
        return by_messages[kind][draw];
    return draw == 3 && mapped ? "shm_direct" : NULL;
}

static int choose(struct operation *o, kolo_comm *comm)
{
    *o = (struct operation){.kind = (enum kind)kolo__random_below(&shared, KINDS),
                            .rank = kolo_comm_rank(comm),
                            .size = kolo_comm_size(comm)};
    bool mapped = strcmp(kolo_comm_transport(comm), "shm") == 0;
    size_t size = (size_t)o->size, rank = (size_t)o->rank;
    o->count = random_count(o->size);
    o->root = (int)kolo__random_below(&shared, (uint32_t)o->size);
    o->salt = kolo__random_u64(&shared);
    o->algorithm = random_algorithm(o->kind, mapped);
    o->started = chance(&shared, 2);
    o->from_heap = chance(&own, 2);
    o->in_place = o->kind == BROADCAST || (o->kind != ALLTOALL && chance(&own, 2));
    o->in_count = o->count * (o->kind == REDUCE_SCATTER || o->kind == ALLTOALL ? size : 1);
    o->out_count = o->count * (o->kind == ALLGATHER || o->kind == ALLTOALL ? size : 1);
    size_t bytes = (o->in_count + o->out_count + 1) * sizeof(int64_t);
    if (o->from_heap)
        CHECK(kolo_alloc(context, bytes, (void **)&o->memory) == KOLO_OK);
    else
        CHECK((o->memory = malloc(bytes)) != NULL);
    memset(o->memory, 0x55, bytes);
    o->in = o->memory;
    o->out = o->memory + o->in_count;
    if (o->in_place) {
        o->out = o->memory + (o->kind == REDUCE_SCATTER ? rank * o->count : 0);
        o->in = o->memory + (o->kind == ALLGATHER ? rank * o->count : 0);
    }
    for (size_t i = 0; i < o->in_count && (o->kind != BROADCAST || o->rank == o->root); i++)
        o->in[i] = value(o, o->rank, i);
    return 0;
}

static kolo_status start(struct operation *o, kolo_comm *comm)
{
    kolo_call_options options = {.size = sizeof options, .algorithm = o->algorithm};
    const kolo_dtype type = KOLO_INT64;
    switch (o->kind) {
    case ALLREDUCE:
        return kolo_allreduce_start(comm, o->in, o->out, o->count, type, KOLO_SUM, &options,
                                    &o->request);
    case REDUCE_SCATTER:
        return kolo_reduce_scatter_start(comm, o->in, o->out, o->count, type, KOLO_SUM, &options,
                                         &o->request);
    case ALLGATHER:
        return kolo_allgather_start(comm, o->in, o->out, o->count, type, &options, &o->request);
    case BROADCAST:
        return kolo_broadcast_start(comm, o->in, o->count, type, o->root, &options, &o->request);
    case REDUCE:
        return kolo_reduce_start(comm, o->in, o->out, o->count, type, KOLO_SUM, o->root, &options,
                                 &o->request);
    default:
        return kolo_alltoall_start(comm, o->in, o->out, o->count, type, &options, &o->request);
    }
}

static int64_t expected(const struct operation *o, size_t i)
{
    int64_t sum = 0;
    switch (o->kind) {
    case BROADCAST:
        return value(o, o->root, i);
    case ALLGATHER:
        return value(o, (int)(i / o->count), i % o->count);
    case ALLTOALL:
        return value(o, (int)(i / o->count), (size_t)o->rank * o->count + i % o->count);
    default:
        for (int r = 0; r < o->size; r++)
            sum += value(o, r, o->kind == REDUCE_SCATTER ? (size_t)o->rank * o->count + i : i);
        return sum;
    }
}

static int finish(struct operation *o)
{
    if (o->request != NULL)
        CHECK(kolo_wait(&o->request, -1) == KOLO_OK);
    for (size_t i = 0; i < o->out_count && (o->kind != REDUCE || o->rank == o->root); i++)
        CHECK((o->kind == BROADCAST ? o->in : o->out)[i] == expected(o, i));
    for (size_t i = 0; i < o->in_count && !o->in_place; i++)
        CHECK(o->in[i] == value(o, o->rank, i));
    if (o->from_heap)
        kolo_free(context, o->memory);
    else
        free(o->memory);
    return 0;
}

static void come_late(void)
{
    struct timespec nap = {.tv_nsec = (long)kolo__random_below(&own, 1500000)};
    if (chance(&own, 20))
        nanosleep(&nap, NULL);
}

static int run_some(kolo_comm *comm)
{
    struct operation flying[FLYING_MAX];
    uint32_t count = 1 + kolo__random_below(&shared, FLYING_MAX);
    for (uint32_t i = 0; i < count; i++) {
        come_late();
        CHECK(choose(&flying[i], comm) == 0);
        CHECK(start(&flying[i], comm) == KOLO_OK);
        if (!flying[i].started)
            CHECK(kolo_wait(&flying[i].request, -1) == KOLO_OK);
    }
    for (uint32_t i = 0; i < count; i++)
        CHECK(finish(&flying[i]) == 0);
    return 0;
}

static int do_anything(void)
{
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *world = kolo_world(context);
    shared.state = 20261124 + (uint64_t)kolo_comm_size(world);
    own.state = 77 + (uint64_t)kolo_comm_rank(world);
    for (int step = 0; step < STEPS; step++) {
        if (chance(&shared, 20)) { /* all ranks, in another order */
            kolo_comm *part;
            int turn = (int)kolo__random_below(&shared, 5);
            CHECK(kolo_comm_split(world, 0, (kolo_comm_rank(world) + turn) % 3, &part) == KOLO_OK);
            CHECK(run_some(part) == 0);
            CHECK(kolo_comm_free(part) == KOLO_OK);
        }
        CHECK(run_some(world) == 0);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_every_result_is_right(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= 5; ranks++)
        world_run_over_both(ranks, "KOLO_TIMEOUT=50", do_anything);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_result_is_right)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
