/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run does with mapped memory: it publishes where this rank's buffers are, learns where the
 * others' are, checks on the way that all ranks run the same operation, and passes the fences.
 *
 * Three rules keep the shared records from being overwritten too early:
 *
 *   - a rank publishes only when every rank has arrived at all fences of the mapped run before;
 *   - it arrives at a fence only when it has read everybody's record of this run;
 *   - SLOT alternates with each mapped run, so whoever still reads the last run's is not disturbed.
 */
#include "collectives/execute_program.h"

#include "base/assert.h"

#include <stdio.h>

static void expose(struct kolo__program *program);
static kolo_status resolve_peer(struct kolo__program *program, uint32_t rank,
                                const struct kolo__exposure *exposure, struct kolo__fault *fault);
static kolo_status mismatch(const struct kolo__program *program, uint32_t rank,
                            const struct kolo__signature *other, struct kolo__fault *fault);

kolo_status kolo__program_gather(struct kolo__program *program, bool *moved,
                                 struct kolo__fault *fault)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    const struct kolo__problem *problem = &program->schedule.problem;
    if (!program->exposed) {
        if (!mapping->ops->arrived(mapping))
            return KOLO_OK;
        expose(program);
        *moved = true;
    }
    while (program->gathered < problem->size) {
        uint32_t rank = program->gathered;
        if (rank != problem->rank) {
            const struct kolo__exposure *exposure =
                mapping->ops->peer_exposure(mapping, rank, program->arguments.signature.sequence);
            if (exposure == NULL)
                break;
            kolo_status status = resolve_peer(program, rank, exposure, fault);
            if (status != KOLO_OK)
                return status;
        }
        program->gathered++;
        *moved = true;
    }
    return KOLO_OK;
}

bool kolo__program_gathered(const struct kolo__program *program)
{
    return program->gathered == program->schedule.problem.size;
}

kolo_status kolo__program_check_peers(struct kolo__program *program, struct kolo__fault *fault)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    const struct kolo__problem *problem = &program->schedule.problem;
    const struct kolo__signature *own = &program->arguments.signature;
    for (uint32_t rank = 0; rank < problem->size; rank++) {
        if (rank == problem->rank)
            continue;
        const struct kolo__exposure *exposure =
            mapping->ops->peer_exposure(mapping, rank, own->sequence);
        /* The peer waits for this rank's record: it gets one, and sees the mismatch as well. */
        if (exposure != NULL && mapping->ops->arrived(mapping)) {
            struct kolo__signature other = exposure->signature;
            struct kolo__exposure answer = {
                .signature = *own, .in_period = UINT64_MAX, .out_period = UINT64_MAX};
            mapping->ops->expose(mapping, &answer);
            return mismatch(program, rank, &other, fault);
        }
    }
    return KOLO_OK;
}

void kolo__step_advance_fence(struct kolo__program *program, uint32_t index, bool *moved)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    struct kolo__step_run *run = kolo__step_run(program, index);
    if (!kolo__program_gathered(program))
        return;
    if (program->schedule.steps[index].kind == KOLO__ARRIVE)
        mapping->ops->arrive(mapping);
    else if (!mapping->ops->arrived(mapping))
        return;
    run->finished = true;
    *moved = true;
}

unsigned char *kolo__program_address(const struct kolo__program *program,
                                     const struct kolo__place *place)
{
    size_t offset = place->offset;
    unsigned char *base;
    switch (place->buffer) {
    case KOLO__EXPOSED_IN:
    case KOLO__EXPOSED_OUT: {
        const struct kolo__mapped_peer *peer = &program->peers[place->rank];
        bool in = place->buffer == KOLO__EXPOSED_IN;
        size_t period = in ? peer->in_period : peer->out_period;
        base = in ? peer->in : peer->out;
        if (period != SIZE_MAX)
            offset %= period;
        break;
    }
    case KOLO__SLOT:
        base = program->peers[place->rank].slot;
        break;
    default:
        base = program->bases[place->buffer];
        break;
    }
    return base + offset * program->element_bytes;
}

/* Where the caller's buffer can be used as it is: the position of its first element, or UINT64_MAX.
 */
static uint64_t direct_position(const struct kolo__program *program, const void *buffer,
                                size_t count)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    if (buffer == NULL || count == 0)
        return UINT64_MAX;
    return mapping->ops->position(mapping, buffer, count * program->element_bytes);
}

static void expose(struct kolo__program *program)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    const struct kolo__schedule *s = &program->schedule;
    uint32_t rank = s->problem.rank;
    struct kolo__exposure exposure = {.signature = program->arguments.signature,
                                      .in_position = UINT64_MAX,
                                      .in_period = UINT64_MAX,
                                      .out_period = UINT64_MAX};
    /* Scaled contributions need a place of their own: INPUT is not to be written. */
    if (!s->problem.prescale)
        exposure.in_position = direct_position(program, program->arguments.input, s->input_count);
    exposure.out_position = direct_position(program, program->arguments.output, s->output_count);
    if (exposure.in_position == UINT64_MAX) {
        exposure.in_position = mapping->window_in;
        exposure.in_period = s->problem.window_count;
    }
    if (exposure.out_position == UINT64_MAX) {
        exposure.out_position = mapping->window_out;
        exposure.out_period = s->problem.window_count;
    }

    program->slot_parity = mapping->runs & 1;
    mapping->runs++;
    mapping->ops->expose(mapping, &exposure);
    program->exposed = true;
    struct kolo__fault fault;
    KOLO__ASSERT(resolve_peer(program, rank, &exposure, &fault) == KOLO_OK);
}

static kolo_status resolve_peer(struct kolo__program *program, uint32_t rank,
                                const struct kolo__exposure *exposure, struct kolo__fault *fault)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    struct kolo__mapped_peer *peer = &program->peers[rank];
    if (!kolo__signature_equal(&exposure->signature, &program->arguments.signature))
        return mismatch(program, rank, &exposure->signature, fault);

    uint64_t slot = mapping->slot_position[program->slot_parity][rank];
    peer->in = mapping->ops->address(mapping, exposure->in_position, 1);
    peer->out = mapping->ops->address(mapping, exposure->out_position, 1);
    peer->slot = mapping->ops->address(mapping, slot, mapping->slot_bytes);
    peer->in_period = exposure->in_period;
    peer->out_period = exposure->out_period;
    if (peer->in == NULL || peer->out == NULL || peer->slot == NULL) {
        fault->status = KOLO_ERR_NETWORK;
        fault->peer = (int)rank;
        snprintf(fault->text, sizeof(fault->text),
                 "rank %u exposed memory outside the shared heap (positions %llu and %llu)", rank,
                 (unsigned long long)exposure->in_position,
                 (unsigned long long)exposure->out_position);
        return fault->status;
    }
    return KOLO_OK;
}

static kolo_status mismatch(const struct kolo__program *program, uint32_t rank,
                            const struct kolo__signature *other, struct kolo__fault *fault)
{
    char theirs[160], ours[160];
    kolo__signature_text(other, theirs, sizeof(theirs));
    kolo__signature_text(&program->arguments.signature, ours, sizeof(ours));
    fault->status = KOLO_ERR_MISMATCH;
    fault->peer = (int)rank;
    snprintf(fault->text, sizeof(fault->text), "rank %u: %s; this rank %u: %s", rank, theirs,
             program->schedule.problem.rank, ours);
    return fault->status;
}
