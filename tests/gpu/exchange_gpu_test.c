/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allreduces among GPUs (kernels/cuda/exchange.h) on one GPU, which is all ranks: 2 to 8 of
 * them as one cooperative launch, where all blocks are sure to run at once; a step at a time, with
 * the host between; as streams of one process, in small grids; and as processes that map each
 * other's memory, a step at a time, since kernels of different processes need not run at once.
 * Fresh random numbers, poisoned outputs, the host's bits. Exit code 77: no GPU. With --quick
 * neither streams nor processes: the stand-in of the driver has none.
 */
#include "tests/gpu/fixture.h"

#include <math.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANKS = KOLO__EXCHANGE_RANKS, SLOT_BYTES = 1 << 20, BLOCKS = 16, POISON = 0xa5 };

static size_t region_bytes(void)
{
    return kolo__exchange_region_bytes(SLOT_BYTES);
}

static void fill(kolo_dtype dtype, unsigned char *to, size_t count)
{
    const size_t bytes = kolo_dtype_bytes(dtype);
    for (size_t k = 0; k < count; k++) {
        uint64_t any = kolo__random_u64(&fresh);
        float f = ((float)(any >> 44) - 0x1p19f) * 0x1p-16f;
        double d = f;
        uint16_t half = dtype == KOLO_FP16 ? kolo__fp16_from_fp32(f) : kolo__bf16_from_fp32(f);
        const void *from = dtype == KOLO_FP64   ? (void *)&d
                           : dtype == KOLO_FP32 ? (void *)&f
                                                : (void *)&half;
        memcpy(to + k * bytes, any % 61 == 0 ? (void *)&any : from, bytes);
    }
}

/* As the kernels combine: in the order of ranks, or the ring's, rounded at each rank. */
static void reduce_by_host(const struct kolo__device_exchange_run *run,
                           unsigned char *const *inputs, unsigned char *expected)
{
    struct kolo__reduction reduction = *run->reduction;
    const size_t element = kolo_dtype_bytes(reduction.dtype), n = 16 / element;
    const uint32_t ranks = run->rank_count, divisor = reduction.divisor;
    const void *sources[RANKS] = {NULL};
    CHECK(ranks >= 2 && ranks <= RANKS);
    for (uint32_t i = 0; i < ranks; i++)
        sources[i] = inputs[i];
    if (run->kind != KOLO__EXCHANGE_RING) {
        kolo__reduce(&reduction, expected, sources, ranks, run->count);
        return;
    }
    size_t each = ((run->count + n - 1) / n + ranks - 1) / ranks * n;
    for (size_t slice = 0; slice < ranks && slice * each < run->count; slice++) {
        size_t begin = slice * each;
        size_t count = each < run->count - begin ? each : run->count - begin;
        unsigned char *sum = expected + begin * element;
        memcpy(sum, inputs[slice] + begin * element, count * element);
        for (uint32_t hop = 1; hop < ranks; hop++) {
            sources[0] = sum;
            sources[1] = inputs[(slice + hop) % ranks] + begin * element;
            reduction.divisor = hop == ranks - 1 ? divisor : 1;
            kolo__reduce(&reduction, sum, sources, 2, count);
        }
    }
}

static struct kolo__reduction draw_reduction(void)
{
    static const kolo_op ops[] = {KOLO_SUM, KOLO_SUM, KOLO_PRODUCT, KOLO_MIN, KOLO_MAX};
    return (struct kolo__reduction){.dtype =
                                        (kolo_dtype)(KOLO_FP16 + kolo__random_below(&fresh, 4)),
                                    .op = ops[kolo__random_below(&fresh, 5)],
                                    .divisor = 1 + (uint32_t)kolo__random_below(&fresh, 3)};
}

static void draw_run(struct kolo__device_exchange_run *run, struct kolo__reduction *reduction)
{
    const size_t most = (quick ? 40000 : SLOT_BYTES);
    *reduction = draw_reduction();
    run->kind = (enum kolo__device_exchange_kind)kolo__random_below(&fresh, 3);
    run->reduction = reduction;
    run->slot_bytes = SLOT_BYTES;
    run->count = 1 + kolo__random_below(&fresh, kolo__random_below(&fresh, 2) == 0 ? 300 : most) /
                         kolo_dtype_bytes(reduction->dtype);
    run->spins = 20000000;
    /* One to a multiprocessor, so that all are on the GPU at once. */
    const int at_once = processors / (int)run->rank_count;
    run->blocks = 1 + (uint32_t)kolo__random_below(&fresh, at_once > BLOCKS ? BLOCKS
                                                           : at_once < 1    ? 1
                                                                            : (uint64_t)at_once);
    run->step = -1;
    now("kind %d, dtype %d, %zu elements, %u ranks, %u blocks", (int)run->kind,
        (int)reduction->dtype, run->count, run->rank_count, run->blocks);
}

/* ---- one process ------------------------------------------------------------------------------
 */

enum way { TOGETHER, STEPS, STREAMS };

/* All ranks of one process: their buffers, and parts of the run. */
struct world {
    struct kolo__device_exchange parts[RANKS];
    void *regions[RANKS], *buffers[RANKS][2];
    unsigned char *inputs[RANKS], *came, *expected;
    uint32_t *stops[RANKS];
    kolo__device_stream streams[RANKS];
};

static void make(struct world *w, uint32_t rank_count)
{
    *w = (struct world){.came = malloc(SLOT_BYTES + 64), .expected = malloc(SLOT_BYTES + 64)};
    for (uint32_t r = 0; r < rank_count; r++) {
        w->regions[r] = on_gpu(region_bytes());
        CHECK(gpu->zero(device, w->regions[r], region_bytes(), NULL) == KOLO_OK);
        w->buffers[r][0] = on_gpu(SLOT_BYTES + 64);
        w->buffers[r][1] = on_gpu(SLOT_BYTES + 64);
        w->inputs[r] = malloc(SLOT_BYTES);
        CHECK(gpu->host_alloc(device, sizeof *w->stops[r], (void **)&w->stops[r]) == KOLO_OK);
        *w->stops[r] = 0;
        CHECK(gpu->stream_create(device, &w->streams[r]) == KOLO_OK);
    }
    synchronize();
    for (uint32_t r = 0; r < rank_count; r++) {
        w->parts[r] = (struct kolo__device_exchange){.stop = w->stops[r], .rank = r};
        memcpy(w->parts[r].regions, w->regions, sizeof w->regions);
    }
}

static void discard(struct world *w, uint32_t rank_count)
{
    for (uint32_t r = 0; r < rank_count; r++) {
        gpu->free(device, w->regions[r]);
        gpu->free(device, w->buffers[r][0]);
        gpu->free(device, w->buffers[r][1]);
        gpu->host_free(device, w->stops[r]);
        gpu->stream_destroy(device, w->streams[r]);
        free(w->inputs[r]);
    }
    free(w->came);
    free(w->expected);
}

static void start(struct world *w, struct kolo__device_exchange_run *run, enum way way)
{
    const int steps = kolo__exchange_steps(run->kind, run->rank_count);
    if (way == TOGETHER) {
        CHECK(gpu->exchange(device, run, w->parts, run->rank_count, NULL) == KOLO_OK);
        synchronize();
    } else if (way == STREAMS) {
        for (uint32_t r = 0; r < run->rank_count; r++)
            CHECK(gpu->exchange(device, run, &w->parts[r], 1, w->streams[r]) == KOLO_OK);
        for (uint32_t r = 0; r < run->rank_count; r++)
            synchronize_stream(w->streams[r]);
    } else {
        for (run->step = 0; run->step < steps; run->step++) {
            for (uint32_t r = 0; r < run->rank_count; r++)
                CHECK(gpu->exchange(device, run, &w->parts[r], 1, NULL) == KOLO_OK);
            synchronize();
        }
    }
}

static void exchanges(enum way way, uint32_t rank_count, int calls)
{
    struct world w;
    make(&w, rank_count);
    for (int c = 0; c < calls; c++) {
        struct kolo__reduction reduction;
        struct kolo__device_exchange_run run = {.rank_count = rank_count};
        draw_run(&run, &reduction);
        if (way == STREAMS && run.blocks > 4)
            run.blocks = 4;
        const size_t element = kolo_dtype_bytes(reduction.dtype), bytes = run.count * element;
        for (uint32_t r = 0; r < rank_count; r++) {
            unsigned char *from =
                (unsigned char *)w.buffers[r][0] + kolo__random_below(&fresh, 3) * element;
            unsigned char *to =
                (unsigned char *)w.buffers[r][1] + kolo__random_below(&fresh, 3) * element;
            fill(reduction.dtype, w.inputs[r], run.count);
            copy(from, w.inputs[r], bytes);
            memset(w.came, POISON, SLOT_BYTES + 64);
            copy(w.buffers[r][1], w.came, SLOT_BYTES + 64);
            w.parts[r].from = from;
            w.parts[r].to = kolo__random_below(&fresh, 3) == 0 ? from : to;
        }
        start(&w, &run, way);
        reduce_by_host(&run, w.inputs, w.expected);
        for (uint32_t r = 0; r < rank_count; r++) {
            CHECK(*(volatile uint32_t *)w.stops[r] == 0);
            copy(w.came, w.parts[r].to, bytes);
            CHECK(memcmp(w.came, w.expected, bytes) == 0);
        }
    }
    discard(&w, rank_count);
}

/* Rank 1 of 2 does not come. */
static void gives_up(void)
{
    struct world w;
    struct kolo__reduction reduction = {.dtype = KOLO_FP32, .op = KOLO_SUM, .divisor = 1};
    struct kolo__device_exchange_run run = {.rank_count = 2,
                                            .slot_bytes = SLOT_BYTES,
                                            .reduction = &reduction,
                                            .count = 1000,
                                            .spins = 1000,
                                            .blocks = 4,
                                            .step = -1};
    now("a rank is missing");
    make(&w, 2);
    w.parts[0].from = w.parts[0].to = w.buffers[0][0];
    CHECK(gpu->exchange(device, &run, w.parts, 1, NULL) == KOLO_OK);
    synchronize();
    CHECK(*(volatile uint32_t *)w.stops[0] == 2);
    run.blocks = 65;
    CHECK(gpu->exchange(device, &run, w.parts, 1, NULL) == KOLO_ERR_INVALID);
    discard(&w, 2);
}

/* ---- processes --------------------------------------------------------------------------------
 */

static void say(int to, const void *what, size_t bytes)
{
    CHECK(write(to, what, bytes) == (ssize_t)bytes);
}

static void hear(int from, void *what, size_t bytes)
{
    for (size_t got = 0; got < bytes;) {
        ssize_t more = read(from, (char *)what + got, bytes - got);
        CHECK(more > 0);
        got += (size_t)more;
    }
}

/* A rank: tells its handle, hears all, and waits for the parent after each step. All draw the same
 * runs. */
static int be_rank(uint32_t rank, uint32_t rank_count, int parent, uint64_t seed)
{
    struct kolo__device_handle handles[RANKS];
    struct kolo__device_exchange part = {.rank = rank};
    char *arguments[] = {"", "", NULL}, text[32], done = 1;
    unsigned char *inputs[RANKS] = {NULL}, *came = malloc(SLOT_BYTES),
                  *expected = malloc(SLOT_BYTES);
    alarm(60);
    snprintf(text, sizeof text, "0x%llx", (unsigned long long)seed);
    arguments[1] = text;
    begin(2, arguments);
    part.regions[rank] = on_gpu(region_bytes());
    CHECK(gpu->zero(device, part.regions[rank], region_bytes(), NULL) == KOLO_OK);
    synchronize();
    CHECK(gpu->share(device, part.regions[rank], &handles[rank]) == KOLO_OK);
    say(parent, &handles[rank], sizeof *handles);
    hear(parent, handles, rank_count * sizeof *handles);
    for (uint32_t r = 0; r < rank_count; r++) {
        inputs[r] = malloc(SLOT_BYTES);
        if (r != rank)
            CHECK(gpu->map(device, &handles[r], &part.regions[r]) == KOLO_OK);
    }
    void *buffer = on_gpu(SLOT_BYTES);
    CHECK(gpu->host_alloc(device, sizeof *part.stop, (void **)&part.stop) == KOLO_OK);
    *part.stop = 0;
    part.from = part.to = buffer;
    for (int c = 0; c < 8; c++) {
        struct kolo__reduction reduction;
        struct kolo__device_exchange_run run = {.rank_count = rank_count};
        draw_run(&run, &reduction);
        const size_t bytes = run.count * kolo_dtype_bytes(reduction.dtype);
        for (uint32_t r = 0; r < rank_count; r++)
            fill(reduction.dtype, inputs[r], run.count);
        copy(buffer, inputs[rank], bytes);
        for (run.step = 0; run.step < kolo__exchange_steps(run.kind, rank_count); run.step++) {
            CHECK(gpu->exchange(device, &run, &part, 1, NULL) == KOLO_OK);
            synchronize();
            say(parent, &done, 1);
            hear(parent, &done, 1);
        }
        reduce_by_host(&run, inputs, expected);
        copy(came, buffer, bytes);
        CHECK(memcmp(came, expected, bytes) == 0);
    }
    for (uint32_t r = 0; r < rank_count; r++)
        if (r != rank)
            gpu->unmap(device, part.regions[r], &handles[r]);
    say(parent, &done, 1); /* nobody frees what is mapped */
    hear(parent, &done, 1);
    gpu->free(device, part.regions[rank]);
    return 0;
}

/* The parent never begins the driver: it passes handles on, and waits for all after each step. How
 * many steps there are, only the ranks know: they end by closing. */
static void processes(uint32_t rank_count)
{
    struct kolo__device_handle handles[RANKS];
    int ends[RANKS];
    pid_t children[RANKS];
    const uint64_t seed = kolo__random_u64(&fresh);
    now("%u processes, seed 0x%llx", rank_count, (unsigned long long)seed);
    for (uint32_t r = 0; r < rank_count; r++) {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        fflush(NULL);
        children[r] = fork();
        CHECK(children[r] >= 0);
        if (children[r] == 0) {
            for (uint32_t before = 0; before < r; before++)
                close(ends[before]);
            close(pair[0]);
            exit(be_rank(r, rank_count, pair[1], seed));
        }
        ends[r] = pair[0];
        close(pair[1]);
    }
    char one = 1;
    for (uint32_t r = 0; r < rank_count; r++)
        hear(ends[r], &handles[r], sizeof *handles);
    for (uint32_t r = 0; r < rank_count; r++)
        say(ends[r], handles, rank_count * sizeof *handles);
    while (read(ends[0], &one, 1) == 1) {
        for (uint32_t r = 1; r < rank_count; r++)
            hear(ends[r], &one, 1);
        for (uint32_t r = 0; r < rank_count; r++)
            say(ends[r], &one, 1);
    }
    for (uint32_t r = 0; r < rank_count; r++) {
        int status;
        close(ends[r]);
        CHECK(waitpid(children[r], &status, 0) == children[r]);
        CHECK(status == 0);
    }
}

/* Asked by another process, as has_gpu is. Some systems that only look like Linux have no such
 * memory. */
static bool is_shared(void)
{
    struct kolo__device_handle handle;
    char *arguments[] = {"", NULL};
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        begin(1, arguments);
        kolo_status shared = gpu->share(device, on_gpu(region_bytes()), &handle);
        CHECK(shared == KOLO_OK || shared == KOLO_ERR_UNSUPPORTED);
        exit(shared == KOLO_OK ? 0 : 77);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77));
    return WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    bool by_processes = false;
    /* Each stream its own way to the GPU, so that none waits behind another's kernel. */
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);
    draw_seed(argc, argv);
    if (!quick && has_gpu()) /* before this process begins the driver */
        by_processes = is_shared();
    for (uint32_t ranks = 2; by_processes && ranks <= 4; ranks++)
        processes(ranks);
    begin(argc, argv);
    for (uint32_t ranks = 2; ranks <= RANKS; ranks++) {
        exchanges(TOGETHER, ranks, 12);
        exchanges(STEPS, ranks, 12);
        if (!quick)
            exchanges(STREAMS, ranks, 12);
    }
    gives_up();
    end();
    printf("all ranks: the bits of the host%s\n",
           by_processes ? ", as processes, too"
           : quick      ? ""
                        : "; not tried as processes: no memory is shared among them here");
    return 0;
}
