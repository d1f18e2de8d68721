/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkolo-cuda.so with a stand-in for the driver (standin/libcuda.c): what it says when something
 * is missing or fails, and that what can be done without a GPU is done. A module is loaded once, so
 * each case is a process of its own.
 */
#include "kernels/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition,         \
                    kolo_error_text());                                                            \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static bool says(const char *words)
{
    return strstr(kolo_error_text(), words) != NULL;
}

/* In a process with that driver (NULL: none), which fails as the script says. */
static void in_process(const char *driver, const char *script,
                       void (*body)(const struct kolo__device_module *module))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct kolo__device_module *module = NULL;
        char path[512];
        alarm(60);
        setenv("STANDIN_CUDA", script, 1);
        setenv("KOLO_NCCL", "off", 1); /* a real one here must not meet this driver */
        snprintf(path, sizeof path, "%s/%s/libcuda.so.1", STANDIN, driver);
        if (dlopen(path, RTLD_NOW) == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            _exit(1);
        }
        CHECK(kolo__device_load(&module) == KOLO_OK);
        body(module);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static struct kolo__device *opened(const struct kolo__device_module *module)
{
    struct kolo__device *device, *again;
    CHECK(module->open(1, &device) == KOLO_OK);
    CHECK(module->open(1, &again) == KOLO_OK && again == device);
    return device;
}

/* ---- what goes wrong ------------------------------------------------------------------------ */

static void lacks_a_function(const struct kolo__device_module *module)
{
    struct kolo__device *device;
    struct kolo__device_survey survey;
    CHECK(module->open(0, &device) == KOLO_ERR_UNSUPPORTED && device == NULL);
    CHECK(says("too old") && says("cuEventQuery") && says("11.2"));
    CHECK(module->survey(&survey) == KOLO_ERR_UNSUPPORTED && survey.count == 0);
}

static void no_device(const struct kolo__device_module *module)
{
    struct kolo__device *device;
    CHECK(module->open(0, &device) == KOLO_ERR_UNSUPPORTED && says("sees no GPU"));
}

static void init_fails(const struct kolo__device_module *module)
{
    struct kolo__device *device;
    CHECK(module->open(0, &device) == KOLO_ERR_DEVICE && says("STANDIN_ERROR_999"));
}

static void is_old(const struct kolo__device_module *module)
{
    struct kolo__device *device;
    CHECK(module->open(0, &device) == KOLO_ERR_UNSUPPORTED && says("CUDA 10.1") && says("11.2"));
}

static void kernels_do_not_load(const struct kolo__device_module *module)
{
    struct kolo__device *device;
    CHECK(module->open(0, &device) == KOLO_ERR_UNSUPPORTED);
    CHECK(says("kernels") && says("12.4") && says("install a newer driver"));
}

static void no_such_gpu(const struct kolo__device_module *module)
{
    struct kolo__device *device;
    CHECK(module->open(5, &device) == KOLO_ERR_DEVICE && says("GPU 5"));
    CHECK(module->open(-1, &device) == KOLO_ERR_INVALID);
}

static void out_of_memory(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    void *memory = &device;
    float data[4];
    const struct kolo__device_tensor tensor = {data, 4, 0};
    const struct kolo__device_layout layout = {{KOLO_FP32, false, 0, 1}, &tensor, 1, 4};
    struct kolo__device_plan *plan;
    CHECK(module->alloc(device, 100, &memory) == KOLO_ERR_MEMORY && memory == NULL);
    CHECK(says("100 bytes on GPU 1"));
    CHECK(module->host_alloc(device, 100, &memory) == KOLO_ERR_MEMORY && memory == NULL);
    CHECK(module->plan_create(device, &layout, &plan) == KOLO_ERR_MEMORY && plan == NULL);
}

static void a_kernel_fails_later(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    kolo__device_event event;
    void *memory;
    CHECK(module->alloc(device, 64, &memory) == KOLO_OK);
    const struct kolo__device_tensor tensor = {memory, 4, 0};
    const struct kolo__device_layout layout = {{KOLO_FP32, false, 0, 1}, &tensor, 1, 4};
    struct kolo__device_plan *plan;
    CHECK(module->plan_create(device, &layout, &plan) == KOLO_OK);
    struct kolo__device_run run = {.fused = memory, .scale = 1};
    CHECK(module->event_create(device, &event) == KOLO_OK);
    CHECK(module->event_query(device, event) == KOLO_OK);
    CHECK(module->pack(plan, &run, NULL) == KOLO_OK);
    CHECK(module->event_record(device, event, NULL) == KOLO_OK);
    CHECK(module->event_query(device, event) == KOLO_ERR_DEVICE);
    CHECK(says("an earlier operation") && says("STANDIN_ERROR_700"));
    run.fused = (char *)memory + 4;
    CHECK(module->unpack(plan, &run, NULL) == KOLO_ERR_INVALID && says("aligned to 16 bytes"));
    module->plan_destroy(plan);
    module->event_destroy(device, event);
    module->free(device, memory);
}

/* ---- what works ----------------------------------------------------------------------------- */

static void finds_memory(const struct kolo__device_module *module)
{
    static char host[64];
    struct kolo__memory_place place;
    int ordinal = 7;
    void *memory;
    /* Nobody has begun the driver, and asking does not. */
    CHECK(kolo_memory_find(host, &ordinal) == KOLO_MEMORY_HOST && ordinal == -1);
    struct kolo__device *device = opened(module);
    CHECK(module->alloc(device, 64, &memory) == KOLO_OK);
    CHECK(kolo_memory_find((char *)memory + 8, &ordinal) == KOLO_MEMORY_DEVICE && ordinal == 1);
    CHECK(kolo_memory_find(host, &ordinal) == KOLO_MEMORY_HOST && ordinal == -1);
    module->find(host, &place);
    CHECK(place.kind == KOLO_MEMORY_HOST && place.ordinal == -1);

    /* Calls that cannot take it say so. */
    kolo_context *context;
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *world = kolo_world(context);
    CHECK(kolo_allreduce(world, memory, memory, 4, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(kolo_allreduce(world, host, memory, 4, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(says("the recv buffer"));
    const kolo_call_options options = {.size = sizeof options, .stream = host};
    CHECK(kolo_allreduce(world, host, host, 4, KOLO_FP32, KOLO_SUM, &options) == KOLO_ERR_INVALID);
    CHECK(says("options->stream"));
    CHECK(kolo_allreduce(world, host, host, 4, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    const kolo_tensor tensor = {.data = memory, .count = 4, .dtype = KOLO_FP32, .name = "w"};
    kolo_reducer *reducer;
    CHECK(kolo_reducer_create(world, &tensor, 1, NULL, &reducer) == KOLO_OK);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_broadcast_tensors(world, &tensor, 1, 0) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    module->free(device, memory);
}

static void shares_memory(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    struct kolo__device_handle handle;
    static char host[64];
    void *memory, *mapped;
    CHECK(module->alloc(device, 1000, &memory) == KOLO_OK);
    CHECK(module->share(device, (char *)memory + 100, &handle) == KOLO_OK);
    CHECK(handle.offset == 100 && handle.bytes == 900);
    CHECK(module->map(device, &handle, &mapped) == KOLO_OK && mapped == (char *)memory + 100);
    module->unmap(device, mapped, &handle);
    CHECK(module->share(device, host, &handle) == KOLO_ERR_UNSUPPORTED);
    int fd;
    uint64_t offset;
    CHECK(module->dma_buf(device, memory, 1000, &fd, &offset) == KOLO_ERR_UNSUPPORTED && fd == -1);
    CHECK(says("dma-buf"));
    module->free(device, memory);
}

/* Whole pages around the memory, as the driver and network cards want them. */
static void gives_dma_bufs(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 3 * page + 100;
    static struct kolo__device_survey survey;
    struct stat file;
    void *memory;
    int fd = -1;
    uint64_t offset = 0;
    CHECK(module->survey(&survey) == KOLO_OK && survey.devices[1].dma_buf);
    CHECK(module->alloc(device, bytes, &memory) == KOLO_OK);
    CHECK(module->dma_buf(device, memory, bytes, &fd, &offset) == KOLO_OK);
    CHECK(offset == (uintptr_t)memory % page && fstat(fd, &file) == 0);
    CHECK((uint64_t)file.st_size % page == 0 && (uint64_t)file.st_size >= offset + bytes &&
          (uint64_t)file.st_size < offset + bytes + page);
    CHECK(close(fd) == 0);
    CHECK(module->dma_buf(device, (char *)memory + page - offset, 1, &fd, &offset) == KOLO_OK);
    CHECK(offset == 0 && fstat(fd, &file) == 0 && (size_t)file.st_size == page);
    CHECK(close(fd) == 0);
    module->free(device, memory);
}

/* The driver knows how, the GPU does not. */
static void has_no_dma_bufs(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    static struct kolo__device_survey survey;
    void *memory;
    int fd = -1;
    uint64_t offset;
    CHECK(module->survey(&survey) == KOLO_OK && !survey.devices[1].dma_buf);
    CHECK(module->alloc(device, 100, &memory) == KOLO_OK);
    setenv("STANDIN_CUDA", "dma_buf=801", 1);
    CHECK(module->dma_buf(device, memory, 100, &fd, &offset) == KOLO_ERR_UNSUPPORTED);
    CHECK(fd == -1 && says("giving memory of GPU 1 to network cards (dma-buf)"));
    module->free(device, memory);
}

/* An allocation's number is never another's, whatever its address; what is in it has its. */
static void numbers_allocations(const struct kolo__device_module *module)
{
    enum { BYTES = 1000 };
    struct kolo__device *device = opened(module);
    struct kolo__device_extent extent, again;
    static char host[BYTES];
    char *memory;
    void *made, *before = NULL;
    uint64_t last = 0;
    int same_address = 0;
    for (int i = 0; i < 20; i++) {
        CHECK(module->alloc(device, BYTES, &made) == KOLO_OK);
        memory = made;
        CHECK(module->extent(memory, &extent) && extent.memory == memory && extent.bytes == BYTES);
        CHECK(module->extent(memory + BYTES - 1, &again) && again.memory == memory &&
              again.number == extent.number && extent.number > last);
        last = extent.number;
        same_address += made == before;
        before = made;
        module->free(device, made);
        CHECK(!module->extent(memory, &again));
    }
    CHECK(same_address > 0);
    CHECK(!module->extent(host, &again));
    CHECK(module->alloc(device, BYTES, &made) == KOLO_OK);
    setenv("STANDIN_CUDA", "ipc pool", 1);
    CHECK(!module->extent(made, &again));
}

static void keeps_the_order(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    CHECK(module->flush_writes(device) == KOLO_OK);
}

static void cannot_flush(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    CHECK(module->flush_writes(device) == KOLO_ERR_UNSUPPORTED);
    CHECK(says("GPU 1 cannot tell when it sees"));
}

/* The GPU in use is that of the thread's context, and none before there is one. */
static void finds_the_gpu_in_use(const struct kolo__device_module *module)
{
    char bus_id[KOLO__DEVICE_BUS_ID_BYTES] = "";
    void *library = dlopen(STANDIN "/running/libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    CHECK(!module->current(bus_id));
    opened(module);
    CHECK(!module->current(bus_id));
    void *found = dlsym(library, "cuCtxPushCurrent_v2");
    int (*push)(void *context);
    memcpy(&push, &found, sizeof found);
    CHECK(push != NULL && push((void *)(uintptr_t)2) == 0);
    CHECK(module->current(bus_id) && strcmp(bus_id, "0000:01:00.0") == 0);
}

static void waits_by_asking(const struct kolo__device_module *module)
{
    struct kolo__device *device = opened(module);
    kolo__device_stream stream;
    kolo__device_event event;
    bool capturing = true;
    int ordinal;
    CHECK(module->stream_create(device, &stream) == KOLO_OK && stream != NULL);
    CHECK(module->stream_is_capturing(device, stream, &capturing) == KOLO_OK && !capturing);
    CHECK(module->ordinal_of_stream(stream, &ordinal) == KOLO_OK && ordinal == 1);
    CHECK(module->event_create(device, &event) == KOLO_OK);
    CHECK(module->event_record(device, event, stream) == KOLO_OK);
    CHECK(module->stream_wait(device, stream, event) == KOLO_OK);
    CHECK(module->event_query(device, event) == KOLO_AGAIN);
    module->event_destroy(device, event);
    module->stream_destroy(device, stream);
    module->event_destroy(device, NULL);
    module->stream_destroy(device, NULL);
    module->free(device, NULL);
    module->host_free(device, NULL);
    module->plan_destroy(NULL);
}

static void tells_what_is_there(const struct kolo__device_module *module)
{
    static struct kolo__device_survey survey;
    CHECK(module->survey(&survey) == KOLO_OK && survey.count == 2);
    CHECK(strcmp(survey.devices[1].name, "Stand-in 1") == 0 && survey.devices[1].major == 9);
    CHECK(survey.driver_version >= 11020 && strstr(survey.architectures, "90") != NULL);
}

#define CASE(name, driver, script)                                                                 \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_process(driver, script, name);                                                          \
    }
CASE(lacks_a_function, "lacking", "")
CASE(no_device, "whole", "init=100")
CASE(init_fails, "whole", "init=999")
CASE(is_old, "whole", "version=10010")
CASE(kernels_do_not_load, "whole", "image=209 version=12040")
CASE(no_such_gpu, "whole", "")
CASE(out_of_memory, "whole", "memory")
CASE(a_kernel_fails_later, "whole", "launch=700")
CASE(finds_memory, "whole", "")
CASE(shares_memory, "whole", "")
CASE(gives_dma_bufs, "running", "")
CASE(has_no_dma_bufs, "running", "dma_buf=0")
CASE(numbers_allocations, "running", "ipc")
CASE(keeps_the_order, "whole", "no_flush")
CASE(cannot_flush, "running", "disorder no_flush")
CASE(finds_the_gpu_in_use, "running", "")
CASE(waits_by_asking, "whole", "pending")
CASE(tells_what_is_there, "whole", "")

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lacks_a_function),    cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_init_fails),          cmocka_unit_test(test_is_old),
        cmocka_unit_test(test_kernels_do_not_load), cmocka_unit_test(test_no_such_gpu),
        cmocka_unit_test(test_out_of_memory),       cmocka_unit_test(test_a_kernel_fails_later),
        cmocka_unit_test(test_finds_memory),        cmocka_unit_test(test_shares_memory),
        cmocka_unit_test(test_waits_by_asking),     cmocka_unit_test(test_tells_what_is_there),
        cmocka_unit_test(test_gives_dma_bufs),      cmocka_unit_test(test_has_no_dma_bufs),
        cmocka_unit_test(test_numbers_allocations), cmocka_unit_test(test_keeps_the_order),
        cmocka_unit_test(test_cannot_flush),        cmocka_unit_test(test_finds_the_gpu_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
