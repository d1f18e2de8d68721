/* SPDX-License-Identifier: Apache-2.0 */
/* See prove.h. */
#include "prove.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct kolo__problem problem_of(const struct prove_problem *problem, uint32_t rank)
{
    bool slices =
        problem->collective == KOLO__REDUCE_SCATTER || problem->collective == KOLO__ALLTOALL;
    return (struct kolo__problem){
        .collective = problem->collective,
        .rank = rank,
        .size = problem->size,
        .root = problem->root,
        .count = problem->count,
        .in_place =
            problem->in_place == IN_PLACE || (problem->in_place == SOME_IN_PLACE && rank % 2 == 1),
        .prescale = problem->prescale,
        .window_count = problem->window_count * (slices ? problem->size : 1) *
                        (problem->algorithm->needs_host_mapping ? 2 : 1),
        .chunk_count = problem->chunk_count,
        .burst_count = problem->burst_count,
        .host_of = problem->host_of,
    };
}

bool prove_accepts(const struct prove_problem *problem)
{
    struct kolo__problem first = problem_of(problem, 0);
    bool accepts = problem->algorithm->accepts(&first);
    if (problem->in_place == SOME_IN_PLACE && problem->collective == KOLO__ALLTOALL)
        return false; /* no in place for any rank */
    for (uint32_t rank = 1; rank < problem->size; rank += 1 + rank / 2) {
        struct kolo__problem other = problem_of(problem, rank);
        if (problem->algorithm->accepts(&other) != accepts)
            fail_msg("%s: rank %u and rank 0 disagree", problem->algorithm->name, rank);
    }
    return accepts;
}

struct kolo__schedule *prove_build(const struct prove_problem *problem)
{
    struct kolo__schedule *schedules = calloc(problem->size, sizeof(*schedules));
    assert_non_null(schedules);
    for (uint32_t rank = 0; rank < problem->size; rank++) {
        struct kolo__problem one = problem_of(problem, rank);
        assert_int_equal(problem->algorithm->build(&one, &schedules[rank]), KOLO_OK);
    }
    return schedules;
}

void prove_free(struct kolo__schedule *schedules, uint32_t size)
{
    for (uint32_t rank = 0; rank < size; rank++)
        kolo__schedule_free(&schedules[rank]);
    free(schedules);
}

kolo_status prove_verify(const struct kolo__schedule *schedules, uint32_t size,
                         const uint32_t *host_of, struct kolo__cost *cost, char *text,
                         size_t text_bytes)
{
    struct kolo__verify_options options = {.window = 64, .repeat = 1, .host_of = host_of};
    for (uint32_t rank = 0; rank < size; rank++)
        options.repeat = schedules[rank].mapped ? 3 : options.repeat;
    return kolo__verify(schedules, size, &options, cost, text, text_bytes);
}

void prove(const struct prove_problem *problem, struct kolo__cost *cost)
{
    struct kolo__schedule *schedules = prove_build(problem);
    char text[256] = "";
    const uint32_t *sharing = problem->algorithm->needs_host_mapping ? problem->host_of : NULL;
    kolo_status status = prove_verify(schedules, problem->size, sharing, cost, text, sizeof(text));
    prove_free(schedules, problem->size);
    if (status != KOLO_OK)
        fail_msg("%s %s, %u ranks, root %u, count %zu, window %zu, chunks of %zu, bursts of %zu, "
                 "in place %d, "
                 "prescale %d: %s",
                 problem->algorithm->name, kolo__collective_name(problem->collective),
                 problem->size, problem->root, problem->count, problem->window_count,
                 problem->chunk_count, problem->burst_count, problem->in_place, problem->prescale,
                 text);
}

static bool has_root(enum kolo__collective collective)
{
    return collective == KOLO__BROADCAST || collective == KOLO__REDUCE_TO_ROOT;
}

/* Counts around everything that could be cut: slices, windows, nothing at all. */
static unsigned counts_of(const struct prove_problem *problem, size_t counts[], unsigned capacity)
{
    size_t size = problem->size, window = problem->window_count;
    bool sliced = problem->collective != KOLO__ALLREDUCE && !has_root(problem->collective);
    const size_t whole[] = {0, 1, size - 1, size, size + 1, 2 * size - 1, 2 * size + 1, 97};
    const size_t slices[] = {0, 1, 3};
    unsigned number = 0;
    for (unsigned i = 0; !sliced && i < sizeof(whole) / sizeof(whole[0]); i++)
        counts[number++] = whole[i];
    for (unsigned i = 0; sliced && i < sizeof(slices) / sizeof(slices[0]); i++)
        counts[number++] = slices[i];
    if (problem->algorithm->needs_mapping || problem->algorithm->needs_host_mapping) {
        /* A slice may fill a window, or all slices together. */
        bool many = sliced && size >= 12 && window >= size; /* else too much for every size */
        if (sliced && size >= 12) {
            counts[number++] = (window - 1) / size;
            counts[number++] = window / size + 1;
        }
        if (!many) {
            counts[number++] = window - 1;
            counts[number++] = window;
            counts[number++] = 2 * window + 1;
        }
        counts[number++] = window + 1;
        /* More rounds than windows have pieces. */
        if (problem->algorithm->needs_host_mapping && size < 12)
            counts[number++] = 6 * window + 1;
    }
    assert_true(number <= capacity);
    return number;
}

static struct {
    struct kolo__random random;
    unsigned one_in; /* 0: as 1 */
    bool some;       /* of this pair something was proved */
} sample;

void prove_sample(uint64_t seed, unsigned one_in)
{
    sample.random.state = seed;
    sample.one_in = one_in;
}

static bool in_sample(void)
{
    bool first = !sample.some;
    sample.some = true;
    return first || sample.one_in <= 1 || kolo__random_below(&sample.random, sample.one_in) == 0;
}

static unsigned prove_counts(struct prove_problem *problem)
{
    size_t counts[16];
    unsigned number = counts_of(problem, counts, 16), proved = 0;
    for (unsigned i = 0; i < number; i++) {
        problem->count = problem->collective == KOLO__BARRIER ? 0 : counts[i];
        if (!in_sample())
            continue;
        prove(problem, NULL);
        proved++;
    }
    return proved;
}

/* Who is on which host multiplies all else: with more ranks fewer of the combinations are proved
 * for each placement, in turn, so that all are for each size. Proofs take longer with the size,
 * too. */
static unsigned sparseness(const struct prove_problem *problem)
{
    if (!problem->algorithm->needs_host_mapping || problem->size < 7)
        return 1;
    return problem->size < 24 ? 5 : 17;
}

/* Some ranks in place and others not, scaled or not, every root: in all combinations at every size.
 * Windows too when thorough, else in turn. turn: of those who share memory with some ranks only. */
static unsigned prove_variants(struct prove_problem *problem, bool thorough, unsigned turn)
{
    uint32_t size = problem->size;
    const uint32_t roots[] = {0, size - 1, size / 2};
    /* Shorter than the ranks are many, too, but not so short that 64 ranks need hundreds of rounds.
     */
    const size_t windows[] = {size < 12 ? 7 : size - 3, size < 12 ? 1 : size / 2, 2 * size + 16};
    unsigned root_count = has_root(problem->collective) ? 3 : 1;
    bool mapped = problem->algorithm->needs_mapping || problem->algorithm->needs_host_mapping;
    unsigned window_count = mapped ? 3 : 1;
    unsigned scalings = kolo__collective_reduces(problem->collective) ? 2 : 1;
    unsigned proved = 0, accepted = 0, sparse = sparseness(problem);
    for (unsigned variant = 0; variant < 3 * scalings; variant++) {
        problem->in_place = variant % 3;
        problem->prescale = variant >= 3;
        if (!prove_accepts(problem))
            continue;
        accepted++;
        for (unsigned root = 0; root < root_count; root++)
            for (unsigned window = 0; window < window_count; window++) {
                bool its_turn = window == (variant + root + size) % window_count;
                if ((variant * root_count + root) % sparse != turn % sparse)
                    continue;
                problem->root = roots[root];
                problem->window_count = windows[window];
                if (thorough || its_turn)
                    proved += prove_counts(problem);
            }
    }
    /* An algorithm may not choose; only alltoall is not defined in place. */
    assert_true(accepted == 0 ||
                accepted == (problem->collective == KOLO__ALLTOALL ? 1 : 3 * scalings));
    return proved;
}

enum layout { IN_BLOCKS, IN_TURN, SHUFFLED, UNEVEN, LAYOUTS };

/* The ranks of `hosts` hosts, of one size but for UNEVEN; host numbers have gaps, and do not grow
 * with ranks. */
static void place_on_hosts(uint32_t host_of[], uint32_t size, uint32_t hosts, enum layout layout)
{
    struct kolo__random random = {.state = size * 64 + hosts};
    for (uint32_t rank = 0; rank < size; rank++) {
        uint32_t host = layout == IN_TURN ? rank % hosts : rank / (size / hosts);
        if (layout == UNEVEN)
            host = rank < hosts ? rank : (uint32_t)kolo__random_below(&random, hosts);
        host_of[rank] = 7 + 1000 * (hosts - host);
    }
    for (uint32_t rank = size - 1; layout == SHUFFLED && rank > 0; rank--) {
        uint32_t other = (uint32_t)kolo__random_below(&random, rank + 1), kept = host_of[rank];
        host_of[rank] = host_of[other];
        host_of[other] = kept;
    }
}

/* Every number of hosts, of one size where there can be such, and of others. */
static unsigned prove_hosts(struct prove_problem *problem, bool thorough)
{
    uint32_t size = problem->size;
    uint32_t *host_of = calloc(size + 1, sizeof(*host_of));
    assert_non_null(host_of);
    problem->host_of = host_of;
    unsigned proved = 0;
    for (uint32_t hosts = 1; hosts <= size; hosts++)
        for (int layout = size % hosts == 0 ? IN_BLOCKS : UNEVEN; layout < LAYOUTS; layout++) {
            if (layout == UNEVEN && hosts > 5 && hosts + 1 != size)
                continue;
            place_on_hosts(host_of, size, hosts, (enum layout)layout);
            proved += prove_variants(problem, thorough, hosts * LAYOUTS + (unsigned)layout);
        }
    problem->host_of = NULL;
    free(host_of);
    return proved;
}

unsigned prove_pair(const struct kolo__algorithm *algorithm, enum kolo__collective collective,
                    uint32_t size, bool thorough)
{
    struct prove_problem problem = {
        .algorithm = algorithm, .collective = collective, .size = size, .window_count = 1};
    sample.some = false;
    if (prove_accepts(&problem))
        return prove_variants(&problem, thorough, 0);
    return prove_hosts(&problem, thorough); /* perhaps it wants to know them */
}

/* What the documents promise of each algorithm, written down here once more on purpose. */
static bool does(const char *algorithm, enum kolo__collective collective, uint32_t size)
{
    const struct {
        const char *algorithm;
        unsigned collectives; /* a bit each */
        bool sizes;
    } rows[] = {
#define BIT(name) 1u << KOLO__##name
        {"recursive_doubling", BIT(ALLREDUCE) | BIT(BARRIER), true},
        {"tree", BIT(BROADCAST) | BIT(REDUCE_TO_ROOT), true},
        {"double_binary_tree", BIT(ALLREDUCE), true},
        {"halving_doubling", BIT(ALLREDUCE), true},
        {"halving_doubling", BIT(REDUCE_SCATTER) | BIT(ALLGATHER), (size & (size - 1)) == 0},
        {"ring",
         BIT(ALLREDUCE) | BIT(REDUCE_SCATTER) | BIT(ALLGATHER) | BIT(BROADCAST) |
             BIT(REDUCE_TO_ROOT),
         true},
        {"pairwise",
         BIT(ALLREDUCE) | BIT(REDUCE_SCATTER) | BIT(ALLGATHER) | BIT(REDUCE_TO_ROOT) |
             BIT(ALLTOALL),
         true},
        {"two_level", BIT(ALLREDUCE), size > 1},
        {"shm_one_shot", (1u << KOLO__POINT_TO_POINT) - 1, true},
        {"shm_direct", (1u << KOLO__BARRIER) - 1, true},
        {"two_level_shm",
         BIT(ALLREDUCE) | BIT(REDUCE_SCATTER) | BIT(BROADCAST) | BIT(REDUCE_TO_ROOT), size > 2},
#undef BIT
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].algorithm, algorithm) == 0 &&
            (rows[i].collectives >> collective & 1) != 0 && rows[i].sizes)
            return true;
    return false;
}

unsigned prove_size(uint32_t size, bool thorough)
{
    unsigned all = 0;
    for (unsigned i = 0; kolo__algorithms[i] != NULL; i++)
        for (int c = 0; c < KOLO__POINT_TO_POINT; c++) {
            enum kolo__collective collective = (enum kolo__collective)c;
            const char *name = kolo__algorithms[i]->name;
            unsigned proved = prove_pair(kolo__algorithms[i], collective, size, thorough);
            if ((proved > 0) != does(name, collective, size))
                fail_msg("%s %s, %u ranks: proved %u problems", name,
                         kolo__collective_name(collective), size, proved);
            all += proved;
        }
    return all;
}

void prove_world(const char *algorithm, enum kolo__collective collective, uint32_t size,
                 uint32_t local, size_t count)
{
    struct prove_problem problem = {.algorithm = kolo__algorithm_find(algorithm),
                                    .collective = collective,
                                    .size = size,
                                    .root = size / 3,
                                    .count = count,
                                    .window_count = 211};
    uint32_t *host_of = calloc(size, sizeof(*host_of));
    assert_non_null(host_of);
    for (uint32_t rank = 0; local > 0 && rank < size; rank++)
        host_of[rank] = rank / local;
    problem.host_of = local > 0 ? host_of : NULL;
    prove(&problem, NULL);
    free(host_of);
}
