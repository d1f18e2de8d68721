/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tensors share a bucket, and where they lie. A pure function of the tensors, the order in
 * which they get ready and the sizes wanted: equal inputs give equal plans on every rank.
 *
 * The arena has a region for each dtype; in it, tensors lie in the order in which they get ready,
 * each at a multiple of 64 bytes. Buckets are cuts of the regions:
 *
 *     fp32 region  | t9 | t8 | t7   | t5      | t4 | t2 |
 *     buckets      | 0       | 1              | 3       |
 *     bf16 region  | t6  | t3 | t1 | t0 |
 *     buckets      | 2        | 4       |              numbered as their last tensor gets ready
 *
 * So where a tensor lies does not depend on the sizes of buckets, and these may change while views
 * stay. With several slices (sharding) it does: each bucket is then as long as that many equal
 * slices of whole cache lines.
 */
#ifndef KOLO_RUNTIME_REDUCER_FUSION_H
#define KOLO_RUNTIME_REDUCER_FUSION_H

#include <kolo/kolo.h>

enum { KOLO__FUSION_ALIGNMENT = 64 };

struct kolo__fusion_tensor {
    size_t count; /* given */
    kolo_dtype dtype;
    size_t offset; /* found: bytes from the beginning of the arena */
    uint32_t bucket;
};

struct kolo__fusion_bucket {
    kolo_dtype dtype;
    size_t offset, bytes; /* in the arena, padding included; bytes is a multiple of the alignment */
    size_t count;         /* elements, padding included */
    uint32_t first, tensor_count; /* its tensors, in the order of offsets: members[first ...) */
};

struct kolo__fusion {
    struct kolo__fusion_tensor *tensors;
    uint32_t *members;
    struct kolo__fusion_bucket *buckets; /* at most one a tensor */
    uint32_t tensor_count, bucket_count;
    size_t arena_bytes;
    uint32_t *scratch; /* of kolo__fusion_plan, one a tensor */
};

/* Room for so many tensors, of which the caller then fills in count and dtype. */
kolo_status kolo__fusion_create(struct kolo__fusion *fusion, uint32_t tensor_count);
void kolo__fusion_free(struct kolo__fusion *fusion);

/* Lays out and cuts. order[k]: the tensor that gets ready k-th. A bucket is full when it has
 * bucket_bytes or more, the one that is full first when it has first_bucket_bytes. What is left of
 * a dtype is a bucket as well, and may be of no bytes. With tail_bytes > 0 buckets get
 * smaller toward the end, by half of what is to come, down to tail_bytes: nothing hides the last
 * one. No allocation. */
void kolo__fusion_plan(struct kolo__fusion *fusion, const uint32_t *order,
                       size_t first_bucket_bytes, size_t bucket_bytes, size_t tail_bytes,
                       uint32_t slices);

#endif
