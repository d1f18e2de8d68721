/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fleet: all ranks of one collective on a simulated network, with buffers whose contents are
 * known and fenced by guard bytes, and the result that each must end with.
 */
#ifndef KOLO_TESTS_EXECUTE_FLEET_H
#define KOLO_TESTS_EXECUTE_FLEET_H

#include "collectives/execute.h"
#include "collectives/transport/sim.h"

enum { FLEET_SIZE_MAX = 16 };

struct fleet_options {
    const struct kolo__algorithm *algorithm;
    struct kolo__problem problem; /* rank is set for each */
    kolo_dtype dtype;
    kolo_op op;
    bool rough;           /* contents whose sums are rounded: ranks must still agree bit by bit */
    bool in_heap;         /* mapped algorithms: the callers' buffers lie in mapped memory, */
    uint32_t out_of_heap; /* but for those of these ranks (a bit each) */
    uint32_t in_pieces;   /* these ranks' buffers lie in pieces of private memory */
    size_t longest_piece; /* elements */
    size_t segment_bytes;
    uint32_t depth;
    uint32_t repeat;              /* operations one after the other, nobody waits in between */
    struct kolo__sim_options sim; /* size and memory are set */
    /* For tests of faults: this rank runs something else. */
    uint32_t odd_rank;
    const struct kolo__algorithm *odd_algorithm; /* NULL: no odd rank */
    size_t odd_count;
};

struct fleet_rank {
    struct kolo__program *program;
    unsigned char *memory;         /* owned unless in the heap; guards around input and output */
    unsigned char *input, *output; /* one inside the other when in place */
    unsigned char *originals;      /* owned; what INPUT is in each run */
    /* In pieces, else empty: owned; output and input are an image of them between runs. */
    struct kolo__piece *pieces;
    uint32_t piece_count;
    unsigned char *scattered; /* the memory of the pieces */
    size_t scattered_bytes;
    size_t input_bytes, output_bytes;
    uint32_t runs; /* begun */
};

struct fleet {
    struct fleet_options options;
    struct kolo__sim *sim;
    struct fleet_rank ranks[FLEET_SIZE_MAX];
    kolo_status statuses[FLEET_SIZE_MAX];
    struct kolo__fault faults[FLEET_SIZE_MAX];
    char text[4096];
    uint64_t trace;
};

/* Options drawn from the seed for an algorithm and a collective of `size` ranks; false: the
 * algorithm does not do it. */
bool fleet_draw(const struct kolo__algorithm *algorithm, enum kolo__collective collective,
                uint32_t size, uint64_t seed, struct fleet_options *options);

void fleet_open(struct fleet *fleet, const struct fleet_options *options);
/* Runs all operations; each begins as soon as its rank has ended the one before. */
kolo_status fleet_drive(struct fleet *fleet);
/* Fails the test unless every rank ended well and all agree. (What each holds after each run is
 * checked on the way, unless there is an odd rank.) */
void fleet_check(struct fleet *fleet);
void fleet_close(struct fleet *fleet);

/* Cuts the buffer of a rank that is to have it in pieces. */
void fleet_cut(struct fleet *fleet, uint32_t r);
/* Moves the image to the pieces, and back; false: somebody wrote outside of pieces. */
void fleet_scatter(struct fleet_rank *rank, size_t element);
bool fleet_gather(struct fleet_rank *rank, size_t element);

/* "allreduce ring, 4 ranks, 17 x fp32 sum, ...", for failure messages. */
const char *fleet_describe(const struct fleet_options *options, char *text, size_t bytes);

#endif
