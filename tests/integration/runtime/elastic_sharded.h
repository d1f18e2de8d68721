/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop of sharded training, for tests: parameters and gradients are the reducer's, each rank has
 * the momentum of its pieces alone. All numbers are whole, so the state at the end is the same to
 * the bit, whatever happened.
 */
#ifndef KOLO_TESTS_ELASTIC_SHARDED_H
#define KOLO_TESTS_ELASTIC_SHARDED_H

#include "elastic.h"

enum { SHARDED_STEPS = 30, SHARDED_TENSORS = 2, SHARDED_LARGE = 300001, SHARDED_SMALL = 5 };

extern struct sharded {
    kolo_reducer *reducer;
    kolo_elastic *loop;
    float *momentum; /* of this rank's pieces */
    kolo_reducer_shard shards[SHARDED_TENSORS];
    size_t shard_count;
    int64_t place; /* in the data */
    int retyped;   /* 1: the place is a tensor of another type */
    int overlaps;  /* 1: rank 0 claims elements that are rank 1's, and leaves out others */
} sharded;

/* Joins the world and makes the loop, of SHARDED_STEPS unless the options say otherwise. */
int sharded_create(const kolo_elastic_options *options);
kolo_status sharded_reduce(uint64_t step);
kolo_status sharded_step(uint64_t step);
/* Parameters and place, and the momentum of this rank's pieces, are those after so many steps. */
int sharded_state_is_right(uint64_t steps);
/* After the loop: it is over, with the state that it should have. Frees all and leaves. */
int sharded_ends_well(void);
int sharded_free(void);

#endif
