/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template, included once per variant: instantiates the kernels of every dtype under the target
 * that the including file has set, and defines the variant's table.
 *
 * VARIANT       the name of the table
 * VARIANT_NAME  the same for people
 * supported()   a static function above the inclusion
 *
 * The layers of templates, each a file: this one -> integer_kernels.h and float_kernels.h (what one
 * step does to a block) -> sum.h (sums, in vectors), reduce_blocks.h (walks blocks and sources).
 */
#include "kernels/cpu/float16.h"
#include "kernels/cpu/float8.h"
#include "kernels/cpu/variant.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/stream.h"
#include "base/assert.h"

#include <tgmath.h> /* copysign of the width of its operands */

/* Elements of a block: the accumulator (at most 8 KiB) and a block of a source stay in L1. */
enum { BLOCK = 1024 };

/* Users' memory: any alignment, any effective type. */
#define UNALIGNED __attribute__((aligned(1), may_alias))
typedef uint8_t unaligned_uint8 UNALIGNED;
typedef uint16_t unaligned_uint16 UNALIGNED;
typedef uint32_t unaligned_uint32 UNALIGNED;
typedef uint64_t unaligned_uint64 UNALIGNED;
typedef float unaligned_float UNALIGNED;
typedef double unaligned_double UNALIGNED;
#undef UNALIGNED

enum { SHAPE_MAX = 4 }; /* sources and destinations of a loop of its own */

/* What kernels/cpu/sum.h works on. */
struct sum {
    const void *const *sources;
    uint32_t source_count;
    const double *scales; /* or NULL */
    uint32_t divisor;
    void *const *to;
    uint32_t to_count;
    bool streaming; /* every vector that is written whole is aligned */
};

/* From the result in L1 to one destination. */
static void put(bool streaming, void *to, const void *from, size_t bytes)
{
    if (streaming)
        stream(to, from, bytes);
    else
        memcpy(to, from, bytes);
}

/* ---- integers ---------------------------------------------------------------------------- */

/* Divisions of up to 32 bits go through double, which vectors have: the quotient lies at least
 * 2^-32 away from the next integer unless it is one, so truncating the rounded quotient is exact.
 */

#define NAME(word)       word##_int8
#define VECTOR           lanes_uint8
#define VECTOR_IN_MEMORY unaligned_lanes_uint8
#define VALUE            int8_t
#define WORK             uint8_t
#define ELEMENT          unaligned_uint8
#define QUOTIENT         double
#include "kernels/cpu/integer_kernels.h"

#define NAME(word)       word##_int16
#define VECTOR           lanes_uint16
#define VECTOR_IN_MEMORY unaligned_lanes_uint16
#define VALUE            int16_t
#define WORK             uint16_t
#define ELEMENT          unaligned_uint16
#define QUOTIENT         double
#include "kernels/cpu/integer_kernels.h"

#define NAME(word)       word##_int32
#define VECTOR           lanes_uint32
#define VECTOR_IN_MEMORY unaligned_lanes_uint32
#define VALUE            int32_t
#define WORK             uint32_t
#define ELEMENT          unaligned_uint32
#define QUOTIENT         double
#include "kernels/cpu/integer_kernels.h"

#define NAME(word)       word##_int64
#define VECTOR           lanes_uint64
#define VECTOR_IN_MEMORY unaligned_lanes_uint64
#define VALUE            int64_t
#define WORK             uint64_t
#define ELEMENT          unaligned_uint64
#define QUOTIENT         int64_t
#include "kernels/cpu/integer_kernels.h"

#define NAME(word)       word##_uint8
#define VECTOR           lanes_uint8
#define VECTOR_IN_MEMORY unaligned_lanes_uint8
#define VALUE            uint8_t
#define WORK             uint8_t
#define ELEMENT          unaligned_uint8
#define QUOTIENT         double
#include "kernels/cpu/integer_kernels.h"

#define NAME(word)       word##_uint16
#define VECTOR           lanes_uint16
#define VECTOR_IN_MEMORY unaligned_lanes_uint16
#define VALUE            uint16_t
#define WORK             uint16_t
#define ELEMENT          unaligned_uint16
#define QUOTIENT         double
#include "kernels/cpu/integer_kernels.h"

#define NAME(word)       word##_uint32
#define VECTOR           lanes_uint32
#define VECTOR_IN_MEMORY unaligned_lanes_uint32
#define VALUE            uint32_t
#define WORK             uint32_t
#define ELEMENT          unaligned_uint32
#define QUOTIENT         double
#include "kernels/cpu/integer_kernels.h"

#define NAME(word)       word##_uint64
#define VECTOR           lanes_uint64
#define VECTOR_IN_MEMORY unaligned_lanes_uint64
#define VALUE            uint64_t
#define WORK             uint64_t
#define ELEMENT          unaligned_uint64
#define QUOTIENT         uint64_t
#include "kernels/cpu/integer_kernels.h"

/* ---- floats ------------------------------------------------------------------------------ */

/* Which of two NaNs an addition hands on depends on how a compiler ordered the operands: all become
 * one. For the 16-bit types after the rounding, where it takes integers and no branch. */

static inline uint16_t store_fp16(float value)
{
    uint16_t half = fp16_from_fp32(value);
    return (half & 0x7fffu) > 0x7c00u ? 0x7e00u : half;
}

static inline uint16_t store_bf16(float value)
{
    uint16_t half = bf16_from_fp32(value);
    return (half & 0x7fffu) > 0x7f80u ? 0x7fc0u : half;
}

static inline float store_fp32(float value)
{
    return value != value ? NAN : value;
}

static inline double store_fp64(double value)
{
    return value != value ? (double)NAN : value;
}

#define NAME(word)              word##_fp16
#define VECTOR                  struct lanes_pair
#define READ(from)              load_lanes_fp16(from)
#define ANY_NAN(a, b, c, d)     any_nan_pair(a, b, c, d)
#define ONE_NAN(a)              one_nan_pair(a)
#define ROUND(a)                round_lanes_fp16(a)
#define BYTES_AHEAD             2048
#define ROUNDED                 lanes_fp16
#define WRITE(to, a, streaming) store_lanes_fp16(to, a, streaming)
#define ADD(a, b)               add_lanes_pair(a, b)
#define SCALE(a, factor)        scale_lanes_pair(a, factor)
#define DIVIDE(a, by)           divide_lanes_pair(a, by)
#define WORK                    float
#define ELEMENT                 unaligned_uint16
#define LOAD(bits)              fp16_to_fp32(bits)
#define STORE(work)             store_fp16(work)
#include "kernels/cpu/float_kernels.h"

#define NAME(word)              word##_bf16
#define VECTOR                  struct lanes_pair
#define READ(from)              load_lanes_bf16(from)
#define ANY_NAN(a, b, c, d)     any_nan_pair(a, b, c, d)
#define ONE_NAN(a)              one_nan_pair(a)
#define ROUND(a)                round_lanes_bf16(a)
#define BYTES_AHEAD             2048
#define ROUNDED                 lanes_uint64
#define WRITE(to, a, streaming) store_lanes(to, a, streaming)
#define ADD(a, b)               add_lanes_pair(a, b)
#define SCALE(a, factor)        scale_lanes_pair(a, factor)
#define DIVIDE(a, by)           divide_lanes_pair(a, by)
#define WORK                    float
#define ELEMENT                 unaligned_uint16
#define LOAD(bits)              bf16_to_fp32(bits)
#define STORE(work)             store_bf16(work)
#include "kernels/cpu/float_kernels.h"

#define NAME(word)              word##_fp32
#define VECTOR                  lanes_float
#define READ(from)              load_lanes_fp32(from)
#define ANY_NAN(a, b, c, d)     any_nan_alone_fp32(a, b, c, d)
#define ONE_NAN(a)              one_nan_fp32(a)
#define ROUND(a)                round_lanes_fp32(a)
#define BYTES_AHEAD             0
#define ROUNDED                 lanes_uint64
#define WRITE(to, a, streaming) store_lanes(to, a, streaming)
#define ADD(a, b)               ((a) + (b))
#define SCALE(a, factor)        ((a) * (factor))
#define DIVIDE(a, by)           ((a) / (by))
#define WORK                    float
#define ELEMENT                 unaligned_float
#define LOAD(value)             (value)
#define STORE(work)             store_fp32(work)
#include "kernels/cpu/float_kernels.h"

#define NAME(word)              word##_fp64
#define VECTOR                  lanes_double
#define READ(from)              load_lanes_fp64(from)
#define ANY_NAN(a, b, c, d)     any_nan_fp64(a, b, c, d)
#define ONE_NAN(a)              one_nan_fp64(a)
#define ROUND(a)                round_lanes_fp64(a)
#define BYTES_AHEAD             0
#define ROUNDED                 lanes_uint64
#define WRITE(to, a, streaming) store_lanes(to, a, streaming)
#define ADD(a, b)               ((a) + (b))
#define SCALE(a, factor)        ((a) * (factor))
#define DIVIDE(a, by)           ((a) / (by))
#define WORK                    double
#define ELEMENT                 unaligned_double
#define LOAD(value)             (value)
#define STORE(work)             store_fp64(work)
#include "kernels/cpu/float_kernels.h"

#include "kernels/cpu/casts.h"
#include "kernels/cpu/packs.h"

const struct kolo__cpu_variant VARIANT = {
    .name = VARIANT_NAME,
    .supported = supported,
    .stream = stream,
    .widen = {widen_fp16, widen_bf16, widen_e4m3, widen_e5m2},
    .narrow = {narrow_fp16, narrow_bf16, narrow_e4m3, narrow_e5m2},
    .pack_scaled = pack_scaled,
    .pack_residual = pack_residual,
    .norm_fp32 = norm_fp32,
    .norm_fp64 = norm_fp64,
    .scale_fp32 = scale_fp32,
    .scale_fp64 = scale_fp64,
    .absolute_max = absolute_max,
    .reduce =
        {
            [KOLO_INT8] = reduce_int8,
            [KOLO_INT16] = reduce_int16,
            [KOLO_INT32] = reduce_int32,
            [KOLO_INT64] = reduce_int64,
            [KOLO_UINT8] = reduce_uint8,
            [KOLO_UINT16] = reduce_uint16,
            [KOLO_UINT32] = reduce_uint32,
            [KOLO_UINT64] = reduce_uint64,
            [KOLO_FP16] = reduce_fp16,
            [KOLO_BF16] = reduce_bf16,
            [KOLO_FP32] = reduce_fp32,
            [KOLO_FP64] = reduce_fp64,
        },
};
