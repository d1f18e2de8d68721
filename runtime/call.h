/* SPDX-License-Identifier: Apache-2.0 */
/* A call of a collective as the public functions describe it, checked and made a request. */
#ifndef KOLO_RUNTIME_CALL_H
#define KOLO_RUNTIME_CALL_H

#include "runtime/comm.h"

struct kolo__call {
    const char *name;
    enum kolo__collective collective;
    const void *send;
    void *recv;
    /* Instead of send and recv, in place: see kolo__run_arguments. Nothing looks at what they point
     * to before the run. */
    const struct kolo__piece *pieces;
    uint32_t piece_count;
    size_t count;
    size_t send_slices, recv_slices; /* of count elements; 0: the buffer is not used on this rank */
    size_t in_place_slice;           /* in place: the smaller buffer is this slice of the larger */
    bool may_be_in_place;
    kolo_dtype dtype;
    kolo_op op;
    int root;
    const kolo_call_options *options;
};

/* Checks the arguments, finds the plan and queues the request; nothing moves yet. */
kolo_status kolo__call_start(kolo_comm *comm, const struct kolo__call *call,
                             kolo_request **request);
/* The same, and waits for the end. */
static inline kolo_status kolo__call_run(kolo_comm *on, const struct kolo__call *call)
{
    kolo_request *request = NULL;
    kolo_status status = kolo__call_start(on, call, &request);
    return status == KOLO_OK ? kolo__request_wait(request, -1) : status;
}

/* What each rank has to say, `bytes` of the host's memory, in the order of ranks. Waits. */
kolo_status kolo__call_gather(kolo_comm *comm, const char *name, const void *mine, void *all,
                              size_t bytes);

/* Collectives as kolo's own parts use them: a broadcast and an allreduce in place, and an allgather
 * of `count` elements a rank, in place where own is this rank's slice of all. */
static inline struct kolo__call kolo__call_broadcast(const char *name, void *data, size_t count,
                                                     kolo_dtype dtype, uint32_t root)
{
    return (struct kolo__call){.name = name,
                               .collective = KOLO__BROADCAST,
                               .send = data,
                               .recv = data,
                               .count = count,
                               .send_slices = 1,
                               .recv_slices = 1,
                               .may_be_in_place = true,
                               .dtype = dtype,
                               .root = (int)root};
}

static inline struct kolo__call kolo__call_allreduce(const char *name, void *data, size_t count,
                                                     kolo_dtype dtype, kolo_op op)
{
    return (struct kolo__call){.name = name,
                               .collective = KOLO__ALLREDUCE,
                               .send = data,
                               .recv = data,
                               .count = count,
                               .send_slices = 1,
                               .recv_slices = 1,
                               .may_be_in_place = true,
                               .dtype = dtype,
                               .op = op};
}

static inline struct kolo__call kolo__call_allgather(const kolo_comm *on, const char *name,
                                                     const void *own, void *all, size_t count,
                                                     kolo_dtype dtype)
{
    return (struct kolo__call){.name = name,
                               .collective = KOLO__ALLGATHER,
                               .send = own,
                               .recv = all,
                               .count = count,
                               .send_slices = 1,
                               .recv_slices = on->size,
                               .in_place_slice = on->rank,
                               .may_be_in_place = true,
                               .dtype = dtype};
}

/* An allreduce in place of `count` elements that lie in pieces, borrowed as their contents are
 * until the request has ended; scale: PREMUL_SUM. KOLO_ERR_UNSUPPORTED unless all ranks share
 * memory (comm->mapping). The others may call it with other pieces, or kolo_allreduce with the
 * algorithm shm_direct. */
kolo_status kolo__allreduce_pieces_start(kolo_comm *comm, const char *name,
                                         const struct kolo__piece *pieces, uint32_t piece_count,
                                         size_t count, kolo_dtype dtype, kolo_op op, double scale,
                                         kolo_request **request);
static inline bool kolo__call_has_root(uint8_t collective)
{
    return collective == KOLO__BROADCAST || collective == KOLO__REDUCE_TO_ROOT;
}
/* True when the root of this collective has joined (kolo_join) before its part in it, and neither
 * gives nor wants anything; then text says so, with the remedy. */
bool kolo__call_root_has_joined(const kolo_comm *comm, const struct kolo__signature *signature,
                                char *text, size_t bytes);
/* That text. */
void kolo__call_root_joined_text(const kolo_comm *comm, const struct kolo__signature *signature,
                                 char *text, size_t bytes);
/* KOLO_ERR_INVALID when there is no communicator. */
kolo_status kolo__call_check_comm(const kolo_comm *comm, const char *name);

#endif
