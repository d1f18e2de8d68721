/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collectives that can be measured: how to call each, how its buffers look, what its bytes
 * mean.
 *
 * "bytes" is what nccl-tests calls the size of an operation: the length of the buffer for
 * allreduce, broadcast, reduce and sendrecv; the length of the buffer that holds all ranks' slices
 * for allgather (output), reduce_scatter (input) and alltoall (both). So a rank's slice is bytes /
 * ranks.
 */
#ifndef KOLO_BENCH_COLLECTIVE_H
#define KOLO_BENCH_COLLECTIVE_H

#include <kolo/kolo.h>
#include <stdbool.h>

/* Root of broadcast and reduce. */
enum { BENCH_ROOT = 0 };

/* In place of a kolo_op: the collective moves data and computes nothing. */
enum { BENCH_MOVE = -1 };

/* One call, ready to be repeated. All pointers are borrowed. */
struct bench_call {
    kolo_comm *comm;
    int rank, ranks;
    void *send, *recv; /* what is read and what is written; may overlap in place */
    size_t count;      /* as the call wants it: a slice's, where there are slices */
    kolo_dtype dtype;
    int op; /* a kolo_op or BENCH_MOVE */
    bool in_place;
    const kolo_call_options *options;
};

enum bench_in_place { BENCH_NEVER_IN_PLACE, BENCH_EITHER_PLACE, BENCH_ALWAYS_IN_PLACE };

struct bench_collective {
    const char *name;
    bool moves_data; /* false: barrier */
    bool reduces;
    bool send_slices, recv_slices; /* the buffer holds one slice per rank */
    bool to_root;                  /* only the root gets a result */
    enum bench_in_place in_place;
    /* bus bandwidth / algorithm bandwidth, for this many ranks. */
    double (*bus_factor)(int ranks);
    kolo_status (*run)(const struct bench_call *call);
};

/* NULL: no such collective. */
const struct bench_collective *bench_collective_find(const char *name);
/* "allreduce, allgather, ..." for messages. */
const char *bench_collective_names(void);

/* Elements of one slice (of the buffer, without slices) for an operation of about `bytes`; at
 * least 1. */
size_t bench_collective_count(const struct bench_collective *collective, size_t bytes,
                              kolo_dtype dtype, int ranks);
/* The bytes that this count really is. */
size_t bench_collective_bytes(const struct bench_collective *collective, size_t count,
                              kolo_dtype dtype, int ranks);

/* Points call->send and call->recv into two buffers of bench_collective_bytes each; in place only
 * `first` is used. The rest of the call must be filled in. */
void bench_collective_place(const struct bench_collective *collective, void *first, void *second,
                            struct bench_call *call);

#endif
