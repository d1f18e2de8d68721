/* SPDX-License-Identifier: Apache-2.0 */
/* Builds schedules step by step, and knows the names of collectives and algorithms. */
#include "collectives/schedule.h"

#include "base/assert.h"
#include "collectives/algorithm/algorithm.h"
#include "collectives/offload/offload.h"

#include <stdlib.h>
#include <string.h>

static void append(struct kolo__schedule *s, const struct kolo__step *step);
static bool append_places(struct kolo__schedule *s, const struct kolo__place *places,
                          uint32_t count);
static void note_place(struct kolo__schedule *s, const struct kolo__place *place, size_t count);

void kolo__schedule_init(struct kolo__schedule *schedule, const struct kolo__problem *problem,
                         const char *algorithm)
{
    KOLO__ASSERT(problem->size > 0 && problem->rank < problem->size);
    *schedule = (struct kolo__schedule){.problem = *problem, .algorithm = algorithm};
    schedule->problem.host_of = NULL;
    size_t count = problem->count;
    size_t all = problem->size * count;
    switch (problem->collective) {
    case KOLO__ALLREDUCE:
        schedule->input_count = schedule->output_count = count;
        break;
    case KOLO__REDUCE_SCATTER:
        schedule->input_count = all;
        schedule->output_count = count;
        schedule->input_in_output = 0 - problem->rank * count;
        break;
    case KOLO__ALLGATHER:
        schedule->input_count = count;
        schedule->output_count = all;
        schedule->input_in_output = problem->rank * count;
        break;
    case KOLO__BROADCAST:
        schedule->input_count = problem->rank == problem->root ? count : 0;
        schedule->output_count = count;
        break;
    case KOLO__REDUCE_TO_ROOT:
        schedule->input_count = count;
        schedule->output_count = problem->rank == problem->root ? count : 0;
        break;
    case KOLO__ALLTOALL:
        schedule->input_count = schedule->output_count = all;
        break;
    default: /* barrier: no elements */
        break;
    }
}

void kolo__schedule_free(struct kolo__schedule *schedule)
{
    free(schedule->steps);
    free(schedule->sources);
    *schedule = (struct kolo__schedule){0};
}

struct kolo__place kolo__place_of(uint32_t rank, enum kolo__buffer buffer, size_t offset)
{
    return (struct kolo__place){.rank = rank, .buffer = buffer, .offset = offset};
}

void kolo__schedule_copy(struct kolo__schedule *s, struct kolo__place from, struct kolo__place to,
                         size_t count, uint32_t flags)
{
    bool exposes_out = s->exposes_out;
    note_place(s, &from, count);
    note_place(s, &to, count);
    if ((flags & KOLO__MAPPED_ONLY) != 0)
        s->exposes_out = exposes_out;
    append(s, &(struct kolo__step){
                  .kind = KOLO__COPY, .flags = flags, .count = count, .from = from, .to = to});
}

void kolo__schedule_reduce(struct kolo__schedule *s, const struct kolo__place *sources,
                           uint32_t source_count, struct kolo__place to, size_t count,
                           uint32_t flags)
{
    for (uint32_t i = 0; i < source_count; i++)
        note_place(s, &sources[i], count);
    note_place(s, &to, count);
    uint32_t first_source = s->source_count;
    if (append_places(s, sources, source_count))
        append(s, &(struct kolo__step){.kind = KOLO__REDUCE,
                                       .flags = flags,
                                       .count = count,
                                       .first_source = first_source,
                                       .source_count = source_count,
                                       .to = to});
}

void kolo__schedule_push(struct kolo__schedule *s, struct kolo__place target)
{
    if (!append_places(s, &target, 1))
        return;
    struct kolo__step *step = &s->steps[s->step_count - 1];
    KOLO__ASSERT(step->kind == KOLO__REDUCE && target.rank != s->problem.rank);
    note_place(s, &target, step->count);
    step->target_count++;
}

void kolo__schedule_send(struct kolo__schedule *s, uint32_t peer, struct kolo__place from,
                         size_t count)
{
    note_place(s, &from, count);
    append(s, &(struct kolo__step){.kind = KOLO__SEND, .peer = peer, .count = count, .from = from});
}

void kolo__schedule_recv(struct kolo__schedule *s, uint32_t peer, struct kolo__place to,
                         size_t count)
{
    note_place(s, &to, count);
    append(s, &(struct kolo__step){.kind = KOLO__RECV, .peer = peer, .count = count, .to = to});
}

void kolo__schedule_recv_reduce(struct kolo__schedule *s, uint32_t peer, struct kolo__place from,
                                struct kolo__place to, size_t count, uint32_t flags)
{
    note_place(s, &from, count);
    note_place(s, &to, count);
    append(s, &(struct kolo__step){.kind = KOLO__RECV_REDUCE,
                                   .flags = flags,
                                   .peer = peer,
                                   .count = count,
                                   .from = from,
                                   .to = to});
}

void kolo__schedule_arrive(struct kolo__schedule *s, uint32_t flags)
{
    s->mapped = true;
    append(s, &(struct kolo__step){.kind = KOLO__ARRIVE, .flags = flags});
}

void kolo__schedule_await(struct kolo__schedule *s, uint32_t flags)
{
    s->mapped = true;
    append(s, &(struct kolo__step){.kind = KOLO__AWAIT, .flags = flags});
}

/* The first count % parts slices have one element more than the rest. */
size_t kolo__slice_offset(size_t count, uint32_t parts, uint32_t index)
{
    size_t longer = count % parts;
    return index * (count / parts) + (index < longer ? index : longer);
}

size_t kolo__slice_count(size_t count, uint32_t parts, uint32_t index)
{
    return count / parts + (index < count % parts ? 1 : 0);
}

const char *kolo__collective_name(enum kolo__collective collective)
{
    static const char *const names[KOLO__COLLECTIVE_COUNT] = {
        [KOLO__ALLREDUCE] = "allreduce",   [KOLO__REDUCE_SCATTER] = "reduce_scatter",
        [KOLO__ALLGATHER] = "allgather",   [KOLO__BROADCAST] = "broadcast",
        [KOLO__REDUCE_TO_ROOT] = "reduce", [KOLO__ALLTOALL] = "alltoall",
        [KOLO__BARRIER] = "barrier",       [KOLO__POINT_TO_POINT] = "send/recv",
    };
    return (unsigned)collective < KOLO__COLLECTIVE_COUNT ? names[collective] : "unknown collective";
}

bool kolo__collective_reduces(enum kolo__collective collective)
{
    return collective == KOLO__ALLREDUCE || collective == KOLO__REDUCE_SCATTER ||
           collective == KOLO__REDUCE_TO_ROOT;
}

/* Small and latency-bound first, then what large messages want, then mapped memory, of all ranks
 * and of a host's. */
const struct kolo__algorithm *const kolo__algorithms[] = {
    &kolo__recursive_doubling,
    &kolo__tree,
    &kolo__double_binary_tree,
    &kolo__halving_doubling,
    &kolo__ring,
    &kolo__pairwise,
    &kolo__two_level,
    &kolo__shm_one_shot,
    &kolo__shm_direct,
    &kolo__two_level_shm,
    NULL,
};

const struct kolo__algorithm *kolo__algorithm_find(const char *name)
{
    for (uint32_t i = 0; kolo__algorithms[i] != NULL; i++)
        if (strcmp(kolo__algorithms[i]->name, name) == 0)
            return kolo__algorithms[i];
    return strcmp(name, kolo__offload_mpi.name) == 0 ? &kolo__offload_mpi : NULL;
}

static bool has_slices(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__REDUCE_SCATTER || problem->collective == KOLO__ALLTOALL;
}

static size_t pieces_of(const struct kolo__problem *problem)
{
    return problem->window_pieces == 0 ? 2 : problem->window_pieces;
}

size_t kolo__window_piece(const struct kolo__problem *problem)
{
    size_t half =
        has_slices(problem) ? problem->window_count / problem->size : problem->window_count;
    return 2 * half / pieces_of(problem);
}

size_t kolo__window_offset(const struct kolo__problem *problem, size_t offset)
{
    size_t all = pieces_of(problem) * kolo__window_piece(problem);
    if (!has_slices(problem))
        return offset % all;
    return offset / problem->count * all + offset % problem->count % all;
}

bool kolo__window_holds(const struct kolo__problem *problem, size_t offset, size_t count)
{
    size_t piece = kolo__window_piece(problem);
    size_t first = kolo__window_offset(problem, offset);
    size_t last = kolo__window_offset(problem, offset + count - 1);
    return last == first + count - 1 && first / piece == last / piece;
}

static void append(struct kolo__schedule *s, const struct kolo__step *step)
{
    if (s->step_count == s->step_capacity) {
        uint32_t capacity = s->step_capacity == 0 ? 16 : 2 * s->step_capacity;
        struct kolo__step *grown = realloc(s->steps, capacity * sizeof(*grown));
        if (grown == NULL) {
            s->out_of_memory = true;
            return;
        }
        s->steps = grown;
        s->step_capacity = capacity;
    }
    s->steps[s->step_count++] = *step;
}

static bool append_places(struct kolo__schedule *s, const struct kolo__place *places,
                          uint32_t count)
{
    if (count > s->source_capacity - s->source_count) {
        uint32_t capacity = 2 * s->source_capacity + count;
        struct kolo__place *grown = realloc(s->sources, capacity * sizeof(*grown));
        if (grown == NULL)
            s->out_of_memory = true;
        else
            s->source_capacity = capacity;
        s->sources = grown != NULL ? grown : s->sources;
    }
    if (s->out_of_memory)
        return false;
    memcpy(s->sources + s->source_count, places, count * sizeof(*places));
    s->source_count += count;
    return true;
}

/* SCRATCH and SLOT are as large as the steps need them to be. */
static void note_place(struct kolo__schedule *s, const struct kolo__place *place, size_t count)
{
    size_t end = place->offset + count;
    switch (place->buffer) {
    case KOLO__SCRATCH:
        if (s->scratch_count < end)
            s->scratch_count = end;
        break;
    case KOLO__SLOT:
        if (s->slot_count < end)
            s->slot_count = end;
        s->mapped = true;
        break;
    case KOLO__EXPOSED_OUT:
        s->mapped = s->exposes = s->exposes_out = true;
        break;
    case KOLO__EXPOSED_IN:
        s->mapped = s->exposes = true;
        break;
    default:
        break;
    }
}
