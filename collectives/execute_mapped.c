/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run does with mapped memory. "All ranks" are those that share it: of the communicator, or
 * of a host. The first fence of a run is also where they meet: ARRIVE
 * publishes who runs what, and where its buffers are; AWAIT waits for everybody's record, and
 * checks that all ranks run the same operation. Later fences count arrivals.
 *
 * Records and SLOT alternate between two places from one mapped run to the next. A rank that has
 * ended run k has seen everybody begin it, so everybody has ended run k - 1, and with it all
 * reading of what run k + 1 overwrites.
 */
#include "collectives/execute_program.h"

#include "base/assert.h"
#include "base/log.h"

#include <stdio.h>

enum { FETCHED_BYTES = 512 };

static kolo_status resolve_peer(struct kolo__program *program, uint32_t rank,
                                const struct kolo__exposure *exposure, struct kolo__fault *fault);
static kolo_status mismatch(const struct kolo__program *program, uint32_t rank,
                            const struct kolo__signature *other, struct kolo__fault *fault);

/* A peer's SLOT was written before its flag, so it is on its way while the next look at the flag
 * is: one wait for both. */
static void fetch_slot(const struct kolo__program *program, uint32_t rank)
{
    const struct kolo__schedule *s = &program->schedule;
    const unsigned char *slot = program->slots[program->parity * s->problem.size + rank];
    size_t bytes = s->slot_count * program->element_bytes;
    for (size_t at = 0; at < bytes && bytes <= FETCHED_BYTES; at += 64)
        __builtin_prefetch(slot + at);
}

/* Another rank that shares memory with this one. */
static bool is_peer(const struct kolo__program *program, uint32_t rank)
{
    return rank != program->schedule.problem.rank && program->arguments.mapping->shares[rank];
}

/* Compares what the other ranks have exposed with this rank's run, as far as it is there. */
static kolo_status gather(struct kolo__program *program, bool *moved, struct kolo__fault *fault)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    const struct kolo__problem *problem = &program->schedule.problem;
    for (; program->gathered < problem->size; program->gathered++) {
        uint32_t rank = program->gathered;
        uint64_t digest;
        if (!is_peer(program, rank))
            continue;
        if (!mapping->ops->peer_exposed(mapping, rank, program->parity,
                                        program->arguments.signature.sequence, &digest)) {
            fetch_slot(program, rank);
            break;
        }
        *moved = true;
        if (digest == program->digest && !program->schedule.exposes)
            continue;
        const struct kolo__exposure *exposure =
            mapping->ops->peer_exposure(mapping, rank, program->parity);
        if (digest != program->digest)
            return mismatch(program, rank, &exposure->signature, fault);
        kolo_status status = resolve_peer(program, rank, exposure, fault);
        if (status != KOLO_OK)
            return status;
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
    unsigned parity = mapping->runs & 1;
    for (uint32_t rank = 0; rank < problem->size; rank++) {
        uint64_t digest;
        if (!is_peer(program, rank) ||
            !mapping->ops->peer_exposed(mapping, rank, parity, own->sequence, &digest))
            continue;
        /* The peer waits for this rank's record: it gets one, and sees the mismatch as well. */
        struct kolo__exposure answer = {.signature = *own};
        mapping->ops->expose(mapping, parity, &answer, kolo__signature_digest(own));
        mapping->ops->announce(mapping);
        return mismatch(program, rank,
                        &mapping->ops->peer_exposure(mapping, rank, parity)->signature, fault);
    }
    return KOLO_OK;
}

static void count_arrived(struct kolo__program *program)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    const struct kolo__problem *problem = &program->schedule.problem;
    while (program->arrived < problem->size &&
           (!is_peer(program, program->arrived) ||
            mapping->ops->peer_arrived(mapping, program->arrived)))
        program->arrived++;
}

static bool is_here(const struct kolo__program *program, uint32_t rank)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    uint64_t digest;
    if (kolo__program_gathered(program))
        return mapping->ops->peer_arrived(mapping, rank);
    return mapping->ops->peer_exposed(mapping, rank, program->parity,
                                      program->arguments.signature.sequence, &digest);
}

/* Peers that are about to come are waited for here: a turn of the caller takes longer than a small
 * operation. But a peer that waits for this rank's processor comes only when the caller yields. */
static bool may_look_again(const struct kolo__program *program, uint32_t looks)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    const struct kolo__problem *problem = &program->schedule.problem;
    uint32_t rank = kolo__program_gathered(program) ? program->arrived : program->gathered;
    if (looks >= mapping->spins)
        return false;
    for (; mapping->crowded && rank < problem->size; rank++)
        if (is_peer(program, rank) && mapping->ops->shares_processor(mapping, rank) &&
            !is_here(program, rank))
            return false;
    return true;
}

/* Looks for the peers at this fence; KOLO_OK when they are all here. */
static kolo_status look(struct kolo__program *program, bool *moved, struct kolo__fault *fault)
{
    if (!kolo__program_gathered(program)) {
        kolo_status status = gather(program, moved, fault);
        return status == KOLO_OK && !kolo__program_gathered(program) ? KOLO_AGAIN : status;
    }
    count_arrived(program);
    return program->arrived < program->schedule.problem.size ? KOLO_AGAIN : KOLO_OK;
}

static void arrive(struct kolo__program *program)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    if (program->exposed)
        mapping->ops->arrive(mapping);
    else
        mapping->ops->expose(mapping, program->parity, &program->exposure, program->digest);
    program->exposed = true;
    program->arrived = 0;
    program->announced = false;
}

kolo_status kolo__step_advance_fence(struct kolo__program *program, uint32_t index, bool *moved,
                                     struct kolo__fault *fault)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    if (program->schedule.steps[index].kind == KOLO__ARRIVE) {
        arrive(program);
    } else {
        kolo_status status = look(program, moved, fault);
        if (!program->announced)
            mapping->ops->announce(mapping);
        program->announced = true;
        for (uint32_t looks = 0; status == KOLO_AGAIN && may_look_again(program, looks); looks++)
            status = look(program, moved, fault);
        if (status != KOLO_OK)
            return status == KOLO_AGAIN ? KOLO_OK : status;
    }
    kolo__step_run(program, index)->finished = true;
    *moved = true;
    return KOLO_OK;
}

bool kolo__program_leaves_out(const struct kolo__program *program, const struct kolo__step *step)
{
    bool mapped = !program->windows && !program->unmapped;
    if (!kolo__step_is_conditional(step) || !kolo__program_gathered(program))
        return false;
    if (kolo__step_is_fence(step))
        return !program->windows;
    return (step->flags & KOLO__MAPPED_ONLY) != 0 ? !mapped : mapped;
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
        base = in ? peer->in : peer->out;
        if (base == NULL)
            return NULL;
        if (in ? peer->in_windows : peer->out_windows)
            offset = kolo__window_offset(&program->schedule.problem, offset);
        break;
    }
    case KOLO__SLOT:
        base = program->slots[program->parity * program->schedule.problem.size + place->rank];
        break;
    default:
        base = program->bases[place->buffer];
        if (base == NULL)
            return NULL;
        break;
    }
    return base + offset * program->element_bytes;
}

bool kolo__place_is_private(const struct kolo__program *program, const struct kolo__place *place)
{
    return place->buffer == KOLO__EXPOSED_IN && program->peers[place->rank].in_private;
}

kolo_status kolo__program_cross_read(struct kolo__program *program, const struct kolo__place *place,
                                     size_t skip, void *to, size_t bytes, struct kolo__fault *fault)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    uint64_t address =
        program->peers[place->rank].in_address + place->offset * program->element_bytes + skip;
    return mapping->ops->cross_read(mapping, place->rank, address, to, bytes, fault);
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

static void find_slots(struct kolo__program *program)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    const struct kolo__schedule *s = &program->schedule;
    size_t bytes = s->slot_count * program->element_bytes;
    bool small = bytes <= mapping->small_bytes;
    uint32_t size = s->problem.size;
    for (uint32_t i = 0; i < 2 * size; i++) {
        if (!mapping->shares[i % size])
            continue;
        const uint64_t *positions =
            small ? mapping->small_position[i / size] : mapping->slot_position[i / size];
        program->slots[i] = mapping->ops->address(mapping, positions[i % size], bytes);
        KOLO__ASSERT(program->slots[i] != NULL);
    }
}

/* The own buffers, where they can be used as they are; what nobody uses needs no windows. */
static void find_exposure(struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    struct kolo__exposure *exposure = &program->exposure;
    struct kolo__fault fault;
    /* Scaled contributions need a place of their own: INPUT is not to be written. */
    uint64_t in = s->problem.prescale
                      ? UINT64_MAX
                      : direct_position(program, program->arguments.input, s->input_count);
    uint64_t out = direct_position(program, program->arguments.output, s->output_count);
    if (in != UINT64_MAX)
        exposure->in_position = in;
    if (out != UINT64_MAX)
        exposure->out_position = out;
    exposure->in_windows = in == UINT64_MAX && s->input_count > 0;
    if (exposure->in_windows && program->arguments.mapping->cross_reads && !s->problem.prescale &&
        program->arguments.piece_count == 0) {
        exposure->in_windows = false;
        exposure->in_private = true;
        exposure->in_position = (uintptr_t)program->arguments.input;
    }
    exposure->out_unmapped = out == UINT64_MAX && s->output_count > 0;
    exposure->out_windows = exposure->out_unmapped && s->exposes_out;
    KOLO__ASSERT(resolve_peer(program, s->problem.rank, exposure, &fault) == KOLO_OK);
}

void kolo__program_map(struct kolo__program *program)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    program->parity = mapping->runs++ & 1;
    program->digest = kolo__signature_digest(&program->arguments.signature);
    program->exposure = (struct kolo__exposure){
        .signature = program->arguments.signature,
        .in_position = mapping->windows,
        .out_position = mapping->windows,
        .wants_cross_reads = mapping->wants_cross_reads,
    };
    program->exposed = false;
    program->gathered = 0;
    program->windows = program->unmapped = false;
    program->all_want_cross_reads = true;
    if (program->slots[program->schedule.problem.rank] == NULL)
        find_slots(program);
    if (program->schedule.exposes)
        find_exposure(program);
}

static kolo_status resolve_peer(struct kolo__program *program, uint32_t rank,
                                const struct kolo__exposure *exposure, struct kolo__fault *fault)
{
    struct kolo__mapping *mapping = program->arguments.mapping;
    struct kolo__mapped_peer *peer = &program->peers[rank];
    bool own = rank == program->schedule.problem.rank;
    peer->in_private = exposure->in_private && !own;
    peer->in_address = exposure->in_position;
    if (!exposure->in_private)
        peer->in = mapping->ops->address(mapping, exposure->in_position, 1);
    else
        peer->in = own ? program->bases[KOLO__INPUT] : NULL;
    peer->out = mapping->ops->address(mapping, exposure->out_position, 1);
    peer->in_windows = exposure->in_windows;
    peer->out_windows = exposure->out_windows;
    program->windows |= peer->in_windows || peer->out_windows;
    program->unmapped |= exposure->out_unmapped;
    program->all_want_cross_reads &= exposure->wants_cross_reads;
    if ((peer->in == NULL && !peer->in_private) || peer->out == NULL) {
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
    /* Whoever shares memory shares the host. */
    snprintf(fault->text, sizeof(fault->text),
             "rank %u (host %s) called %s; rank %u (host %s) called %s", rank, kolo__host_name(),
             theirs, program->schedule.problem.rank, kolo__host_name(), ours);
    return fault->status;
}
