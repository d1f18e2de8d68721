/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the core asks of a GPU: the contract of the device module, libkolo-cuda.so. Everything that
 * has to do with memory of GPUs (the path through host memory, NCCL, the reducer on device tensors)
 * stands on this table, and sees nothing of CUDA.
 *
 *     tensors   | t0 |  | t1    |   | t2  |          each somewhere in the GPU's memory
 *                 |       |             |
 *                pack: scale, test, cast             one kernel, on the caller's stream
 *                 v       v             v
 *     fused     |t0 |0|t1     |0|t2    |0000|        one buffer of what travels: allreduce this
 *                 |       |             |
 *               unpack: cast, scale, clip            one kernel, on the caller's stream
 *                 v       v             v
 *     tensors   | t0 |  | t1    |   | t2  |
 *
 * Rules, for every function of the table:
 *
 * - It returns KOLO_OK, or has written its error once. KOLO_ERR_UNSUPPORTED: not on this machine,
 *   or by this driver. KOLO_ERR_MEMORY: the GPU, or the host, has no such room. KOLO_ERR_DEVICE:
 *   anything else the driver says. A kernel that fails does so later: the error then comes from
 *   whatever asks next (event_query mostly), names "an earlier operation", and the GPU's context is
 *   lost for this process.
 * - "Queues": returns at once, and what it asked for happens on the stream, in its order. Arguments
 *   in host memory are copied before it returns; memory that they point to is borrowed until the
 *   stream is past it. Only these may be called on the way of data: they allocate nothing, and can
 *   be captured into a CUDA graph. All others may block, and are for the time of setting up.
 * - Any thread may call, and finds its own current context unchanged afterwards. One plan is used
 *   by one thread at a time.
 * - NULL is allowed wherever something is destroyed, freed or closed; those return nothing.
 */
#ifndef KOLO_KERNELS_DEVICE_H
#define KOLO_KERNELS_DEVICE_H

#include "kernels/pack.h"

enum { KOLO__DEVICE_MODULE_VERSION = 4 };

/* The module's. A device is one GPU in its primary context, which it shares with PyTorch, NCCL and
 * everybody else who uses the runtime API. */
struct kolo__device;
struct kolo__device_plan;
typedef struct kolo__device_mark *kolo__device_event; /* C++ wants another name for the struct */
typedef void *kolo__device_stream;                    /* a cudaStream_t; NULL: the default stream */

struct kolo__memory_place {
    kolo_memory_kind kind;
    int ordinal; /* of the GPU; -1: none */
};

/* For `kolo info`. */
enum { KOLO__DEVICE_NAME_BYTES = 128, KOLO__DEVICE_BUS_ID_BYTES = 32, KOLO__DEVICES_MAX = 64 };
struct kolo__device_description {
    char name[KOLO__DEVICE_NAME_BYTES];     /* "NVIDIA H200" */
    char bus_id[KOLO__DEVICE_BUS_ID_BYTES]; /* "0000:19:00.0" */
    size_t bytes;
    int major, minor; /* compute capability */
    int processors;   /* streaming multiprocessors */
    bool dma_buf;     /* its memory can be registered with network cards that way */
    bool integrated;
};
struct kolo__device_survey {
    int driver_version;                          /* 13000: CUDA 13.0; 0: there is no driver */
    int toolkit_version;                         /* of the kernels, in the same form */
    char architectures[KOLO__DEVICE_NAME_BYTES]; /* that they are compiled for: "75 80 ..." */
    int count; /* of GPUs that this process sees; the first of them are described */
    struct kolo__device_description devices[KOLO__DEVICES_MAX];
};

/* ---- packing ------------------------------------------------------------------------------- */

struct kolo__device_tensor {
    void *data;   /* in the GPU's memory (or the host's, pinned), aligned to its element */
    size_t count; /* elements */
    size_t begin; /* its first element in the fused buffer; the bytes before it are a multiple of
                     KOLO__DEVICE_ALIGNMENT */
};
enum { KOLO__DEVICE_ALIGNMENT = 16 };

/* What a plan makes of them: dtype, narrows and wire; scale belongs to each run. */
struct kolo__device_layout {
    struct kolo__packing packing;
    const struct kolo__device_tensor *tensors; /* in ascending order of begin, disjoint there */
    size_t tensor_count;
    size_t count; /* elements of the fused buffer; what belongs to no tensor is padding */
};

/* Statistics, in device memory. Sums are taken in fp64 in an order that the layout alone fixes:
 * a partial for each KOLO__DEVICE_TILE_VECTORS vectors of the fused buffer. So they are the same on
 * every GPU and in every run, and where ranks have the same fused buffer, on all ranks. (They are
 * not in the order of struct kolo__norm.) */
struct kolo__device_partial {
    double squares;        /* the sum of them */
    uint32_t absolute_max; /* the bits of it, as fp32; NaN is the greatest */
    uint32_t not_finite;   /* 1: some element was NaN or infinite */
};
struct kolo__device_total {
    double squares, norm;
    double factor; /* clip_norm / norm where that clips, else 1 */
    uint32_t absolute_max, not_finite;
};

enum { KOLO__DEVICE_TILE_VECTORS = 1024 };

/* The scale of an 8-bit unit (runtime/reducer/fp8.c), in device memory; zeroed before the first
 * choice. */
struct kolo__device_scale {
    double wire;         /* a power of two */
    double pack, unpack; /* factors of runs: scale * wire, and sum / wire * clip */
    double error;        /* what errors kept under the scale before are multiplied by */
};
struct kolo__device_scaling {
    const uint32_t *absolute_max; /* of all ranks, the bits as fp32; NULL: the choice stays */
    const double *clip;           /* or NULL: 1 */
    double largest;               /* that the wire holds */
    double scale, sum;
    struct kolo__device_scale *result;
};

static inline size_t kolo__device_wire_bytes(const struct kolo__packing *packing)
{
    if (!packing->narrows)
        return kolo_dtype_bytes(packing->dtype);
    return packing->wire == KOLO__NARROW_E4M3 || packing->wire == KOLO__NARROW_E5M2 ? 1 : 2;
}

/* Elements of a vector: 16 bytes of the wider of both types. */
static inline size_t kolo__device_vector(const struct kolo__packing *packing)
{
    return KOLO__DEVICE_ALIGNMENT / kolo_dtype_bytes(packing->dtype);
}

/* Partials that a pack of this layout, or a measure of so many elements, writes. */
static inline size_t kolo__device_partials(const struct kolo__packing *packing, size_t count)
{
    size_t tile = KOLO__DEVICE_TILE_VECTORS * kolo__device_vector(packing);
    return (count + tile - 1) / tile;
}

/* One run of a plan. Everything but scale is device memory. */
struct kolo__device_run {
    void *fused;          /* the plan's count elements of the wire, aligned to 16 bytes */
    double scale;         /* multiplies first, as struct kolo__packing has it; 1: leave */
    const double *factor; /* or NULL; multiplies second, rounded in between: for a scale that
                             only the GPU knows. 1: leave */
    /* pack only: */
    float *error; /* or NULL; as in kolo__pack, laid out like fused; where it narrows */
    struct kolo__device_partial *partials; /* or NULL; of scaled values, before they are narrowed */
};

/* ---- exchange among GPUs that map each other's memory ---------------------------------------- */

/* Allreduces by kernels alone, among up to 8 ranks of one host, whose regions (alloc'd by each, and
 * zeroed once; shared by the table's share and map) all of them map. ONE_SHOT: every rank reads
 * everything of all; TWO_SHOT: everything twice in halves of the work; RING: the least traffic. An
 * experiment: nothing in kolo uses it before there are figures of several GPUs. */
enum kolo__device_exchange_kind {
    KOLO__EXCHANGE_ONE_SHOT,
    KOLO__EXCHANGE_TWO_SHOT,
    KOLO__EXCHANGE_RING
};
enum { KOLO__EXCHANGE_RANKS = 8, KOLO__EXCHANGE_HEADER_BYTES = 6144 };

struct kolo__device_exchange {           /* one rank's part */
    void *regions[KOLO__EXCHANGE_RANKS]; /* of all ranks, as this GPU maps them */
    const void *from;                    /* count elements, aligned to them; */
    void *to;                            /* to may be from */
    uint32_t *stop; /* a word that the GPU and its owner can write (host_alloc): anything but 0
                       ends the kernel; it is set to 1 + the rank that was waited for too long */
    uint32_t rank;
};

struct kolo__device_exchange_run {
    enum kolo__device_exchange_kind kind;
    uint32_t rank_count;
    size_t slot_bytes; /* of each region: a multiple of 16, at least as many as are reduced */
    const struct kolo__reduction *reduction; /* floats; no scales */
    size_t count;
    uint32_t spins; /* looks at a flag before a block gives up */
    /* Of a rank; all ranks alike. At most 64, and so few that all are on the GPU at once. */
    uint32_t blocks;
    /* -1: all steps. Else this step alone, without waiting: for ranks whose kernels are not on GPUs
     * at the same time; somebody else waits for all ranks after each (kolo__exchange_steps). */
    int step;
};

static inline size_t kolo__exchange_region_bytes(size_t slot_bytes)
{
    return KOLO__EXCHANGE_HEADER_BYTES + 2 * slot_bytes;
}

static inline int kolo__exchange_steps(enum kolo__device_exchange_kind kind, uint32_t rank_count)
{
    return kind == KOLO__EXCHANGE_ONE_SHOT   ? 2
           : kind == KOLO__EXCHANGE_TWO_SHOT ? 3
                                             : 2 * (int)rank_count - 1;
}

/* ---- memory that others map ----------------------------------------------------------------- */

/* Of an allocation (alloc, cudaMalloc), for another process on this machine: plain bytes, to be
 * sent. */
struct kolo__device_handle {
    unsigned char opaque[64];
    uint64_t offset; /* of the memory in its allocation */
    uint64_t bytes;  /* from there on */
};

/* ---- memory that network cards reach --------------------------------------------------------- */

/* An allocation. */
struct kolo__device_extent {
    void *memory; /* where it begins */
    size_t bytes;
    uint64_t number; /* of no other allocation in this process, ever */
};

/* ---- the table ------------------------------------------------------------------------------ */

struct kolo__device_services { /* what the module needs of the core */
    kolo_status (*error)(kolo_status status, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
};

struct kolo__device_module {
    unsigned version;

    /* First of all, once. */
    void (*attach)(const struct kolo__device_services *services);
    /* Never fails, and never begins the driver: what a driver that nobody began does not know is
     * the host's. 100 ns or so: may be asked in every call. */
    void (*find)(const void *memory, struct kolo__memory_place *place);
    /* The GPU that the calling thread uses, by its address on the PCI bus: "0000:19:00.0". False:
     * it uses none so far. Never begins the driver. */
    bool (*current)(char bus_id[KOLO__DEVICE_BUS_ID_BYTES]);
    /* Begins the driver (not in a process that will fork without exec). An error still fills in
     * what was found. */
    kolo_status (*survey)(struct kolo__device_survey *survey);

    /* Begins the driver, retains the GPU's primary context and loads the kernels: once a GPU; later
     * calls give the same. Not to be closed: it lives as long as the process. */
    kolo_status (*open)(int ordinal, struct kolo__device **device);
    /* The GPU that the stream belongs to; NULL: of the calling thread's current context. */
    kolo_status (*ordinal_of_stream)(kolo__device_stream stream, int *ordinal);

    /* Streams and events: what orders work without the host. */
    kolo_status (*stream_create)(struct kolo__device *device, kolo__device_stream *stream);
    void (*stream_destroy)(struct kolo__device *device, kolo__device_stream stream);
    /* *capturing: the stream is being captured into a graph, and nothing of it may be waited for.
     */
    kolo_status (*stream_is_capturing)(struct kolo__device *device, kolo__device_stream stream,
                                       bool *capturing);
    kolo_status (*event_create)(struct kolo__device *device, kolo__device_event *event);
    void (*event_destroy)(struct kolo__device *device, kolo__device_event event);
    /* Queues: the event is what the stream has by now. */
    kolo_status (*event_record)(struct kolo__device *device, kolo__device_event event,
                                kolo__device_stream stream);
    /* Queues: what comes on the stream waits for the event as it was recorded last. */
    kolo_status (*stream_wait)(struct kolo__device *device, kolo__device_stream stream,
                               kolo__device_event event);
    /* KOLO_AGAIN: not reached yet. Never blocks; whoever waits asks again, with a deadline of his
     * own. An event that was never recorded is reached. */
    kolo_status (*event_query)(struct kolo__device *device, kolo__device_event event);

    /* Memory. */
    kolo_status (*alloc)(struct kolo__device *device, size_t bytes, void **memory);
    void (*free)(struct kolo__device *device, void *memory);
    /* Of the host, pinned, and reached by every GPU under the same address. */
    kolo_status (*host_alloc)(struct kolo__device *device, size_t bytes, void **memory);
    void (*host_free)(struct kolo__device *device, void *memory);
    /* Pins memory that is there already, in whole pages; until unregister. */
    kolo_status (*host_register)(struct kolo__device *device, void *memory, size_t bytes);
    void (*host_unregister)(struct kolo__device *device, void *memory);
    /* Queue. Any two places; from or to pageable host memory it blocks instead. */
    kolo_status (*copy)(struct kolo__device *device, void *to, const void *from, size_t bytes,
                        kolo__device_stream stream);
    kolo_status (*zero)(struct kolo__device *device, void *memory, size_t bytes,
                        kolo__device_stream stream);

    /* Packing. The bits are those of kolo__pack and kolo__unpack. A plan owns tables in device
     * memory, and borrows nothing of the layout. */
    kolo_status (*plan_create)(struct kolo__device *device,
                               const struct kolo__device_layout *layout,
                               struct kolo__device_plan **plan);
    void (*plan_destroy)(struct kolo__device_plan *plan);
    /* Queue. Padding is written as zeros. fused NULL: only partials. A tensor may lie in the fused
     * buffer itself, at its own place, where nothing narrows. */
    kolo_status (*pack)(struct kolo__device_plan *plan, const struct kolo__device_run *run,
                        kolo__device_stream stream);
    kolo_status (*unpack)(struct kolo__device_plan *plan, const struct kolo__device_run *run,
                          kolo__device_stream stream);
    /* Queues: partials of `count` elements of a fused buffer, as widening, packing->scale and
     * factor (or NULL) make them. */
    kolo_status (*measure)(struct kolo__device *device, const struct kolo__packing *packing,
                           const void *fused, size_t count, const double *factor,
                           struct kolo__device_partial *partials, kolo__device_stream stream);
    /* Queues: the total of so many partials, of one or several buffers. clip_norm 0: factor is 1,
     * as it is when something is not finite. */
    kolo_status (*total)(struct kolo__device *device, const struct kolo__device_partial *partials,
                         size_t partial_count, double clip_norm, struct kolo__device_total *total,
                         kolo__device_stream stream);
    /* Queues: result, from what the GPU alone knows so far. */
    kolo_status (*choose_scale)(struct kolo__device *device,
                                const struct kolo__device_scaling *scaling,
                                kolo__device_stream stream);

    /* Queue. As kolo__reduce and kolo__sum_narrow, the same bits,
     * over at most KOLO__DEVICE_SOURCES_MAX sources in memory that this GPU reaches, aligned to the
     * element. */
    kolo_status (*reduce)(struct kolo__device *device, const struct kolo__reduction *reduction,
                          void *to, const void *const *sources, uint32_t source_count, size_t count,
                          kolo__device_stream stream);
    kolo_status (*sum_narrow)(struct kolo__device *device, enum kolo__narrow_float wire, void *to,
                              const void *const *sources, uint32_t source_count, uint32_t divisor,
                              size_t count, kolo__device_stream stream);

    /* Queues: the parts of `part_count` ranks that this GPU has, mostly 1; more in one cooperative
     * launch. All ranks call alike and in the same order. After an error, or a stop, the regions
     * are zeroed by all before they are of use again. */
    kolo_status (*exchange)(struct kolo__device *device,
                            const struct kolo__device_exchange_run *run,
                            const struct kolo__device_exchange *parts, uint32_t part_count,
                            kolo__device_stream stream);

    /* Memory of other processes on this machine. What is mapped is unmapped before its owner frees
     * it. KOLO_ERR_UNSUPPORTED: memory that has no such handle (pools, managed). */
    kolo_status (*share)(struct kolo__device *device, const void *memory,
                         struct kolo__device_handle *handle);
    kolo_status (*map)(struct kolo__device *device, const struct kolo__device_handle *handle,
                       void **memory);
    void (*unmap)(struct kolo__device *device, void *memory,
                  const struct kolo__device_handle *handle);
    /* For ibv_reg_dmabuf_mr: a descriptor, the caller's, of whole pages around the memory, which
     * begins at offset. */
    kolo_status (*dma_buf)(struct kolo__device *device, const void *memory, size_t bytes, int *fd,
                           uint64_t *offset);
    /* The allocation that the memory lies in, if it stays what it is until it is freed
     * (cudaMalloc). False: it does not (pools, cuMemMap), or there is none. As fast as find. */
    bool (*extent)(const void *memory, struct kolo__device_extent *extent);
    /* What network cards have written into the GPU's memory is seen by whatever is queued from here
     * on. KOLO_ERR_UNSUPPORTED: nobody can tell on this GPU, so they must not write. Takes
     * microseconds, or nothing where the GPU keeps the order by itself. */
    kolo_status (*flush_writes)(struct kolo__device *device);
};
enum { KOLO__DEVICE_SOURCES_MAX = 64 };

/* The module's one exported name. */
__attribute__((visibility("default"))) extern const struct kolo__device_module kolo__cuda_module;

/* ---- on the core's side --------------------------------------------------------------------- */

/* Loads the module, once; KOLO_ERR_UNSUPPORTED with the reason where there is none. */
kolo_status kolo__device_load(const struct kolo__device_module **module);
/* Until the event is reached. KOLO_AGAIN: it is not within the limit. Blocks. */
kolo_status kolo__device_await(const struct kolo__device_module *module,
                               struct kolo__device *device, kolo__device_event event,
                               uint64_t limit_ms);

/* It was; costs a load. */
bool kolo__device_is_loaded(void);

/* Where the memory is, for any call. The module is loaded the first time that the process has a
 * CUDA driver in it; before, and without the module, all memory is the host's. */
void kolo__memory_find(const void *memory, struct kolo__memory_place *place);

#endif
