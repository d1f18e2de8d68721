/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the packing kernels walk: the tensors of a layout as segments of a row of vectors, and for
 * each tile of that row, which is one block's work, the segments that it lies in. So work is split
 * by bytes, whatever the tensors' sizes; where a tile lies in one segment, as most do, a thread
 * reads nothing but the tile before it reads the tensor, else it searches among those few.
 *
 *     vectors     0   1   2   3   4   5   6   7   8   9
 *     pack      | t0        . 0 | t1  .0| t2          |     from tensor to tensor, padding
 * included: vector v writes the fused vector v unpack    |t0         | t1  | t2              |
 * whole vectors of each tensor, as it is aligned; its ends may be parts of one
 *
 * A row that packs is the same on all ranks; one that unpacks depends on where tensors lie.
 * Plain C for the host; both structs are read by kernels.
 */
#ifndef KOLO_KERNELS_CUDA_TABLES_H
#define KOLO_KERNELS_CUDA_TABLES_H

#include "kernels/device.h"

struct kolo__segment {
    uint64_t tensor;       /* its address */
    uint64_t begin;        /* of its first element in the fused buffer */
    uint64_t count;        /* elements */
    uint64_t first_vector; /* of the row; its last one is before the next segment's first */
};

struct kolo__tile {
    struct kolo__segment segment; /* that it begins in, a copy */
    uint32_t first, last;         /* the segments of its first and of its last vector */
};

struct kolo__row {
    struct kolo__segment *segments;
    struct kolo__tile *tiles;
    uint32_t segment_count;
    uint64_t vector_count;
    size_t tile_count;
};

/* Of a layout that kolo__layout_problem has no complaint about. False: no memory. */
bool kolo__row_create(const struct kolo__device_layout *layout, bool unpacks,
                      struct kolo__row *row);
void kolo__row_free(struct kolo__row *row);

/* What is wrong with a layout, and with which of its tensors; NULL: nothing. */
const char *kolo__layout_problem(const struct kolo__device_layout *layout, size_t *tensor);

#endif
