/* SPDX-License-Identifier: Apache-2.0 */
/* See cases.h. */
#include "cases.h"
#include "kernels/device.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <cmocka.h>

void in_process(const char *script, void (*body)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        setenv("STANDIN_NCCL", script, 1);
        body();
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

void *of_standin(const char *kind, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/libnccl.so.2", STANDIN, kind);
    void *handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    CHECK(handle != NULL);
    void *found = dlsym(handle, name);
    CHECK(found != NULL);
    return found;
}

static const char *driver = "whole";

void use_driver(const char *kind)
{
    driver = kind;
}

static void *open_driver(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/libcuda.so.1", STANDIN_CUDA, driver);
    void *handle = dlopen(path, RTLD_NOW);
    CHECK(handle != NULL);
    return handle;
}

void *of_driver(const char *name)
{
    void *found = dlsym(open_driver(), name);
    CHECK(found != NULL);
    return found;
}

/* ---- worlds --------------------------------------------------------------------------------- */

bool said(const char *words)
{
    return strstr(kolo_error_text(), words) != NULL;
}

int counted(const char *what)
{
    return atomic_load((atomic_int *)of_standin("whole", what));
}

/* script: NCCL's / the driver's / KOLO_GPU_EXCHANGE, what comes last may be left out. */
static void set_rank(int rank, int size, int port, const char *script)
{
    static const char *const names[] = {"STANDIN_NCCL", "STANDIN_CUDA", "KOLO_GPU_EXCHANGE"};
    char text[512];
    snprintf(text, sizeof text, "%d", rank);
    setenv("KOLO_RANK", text, 1);
    snprintf(text, sizeof text, "%d", size);
    setenv("KOLO_WORLD_SIZE", text, 1);
    snprintf(text, sizeof text, "127.0.0.1:%d", port);
    setenv("KOLO_RENDEZVOUS", text, 1);
    for (int i = 0; i < 3 && script != NULL; i++) {
        snprintf(text, sizeof text, "%.*s", (int)strcspn(script, "/"), script);
        setenv(names[i], text, 1);
        script = strchr(script, '/');
        script = script != NULL ? script + 1 : NULL;
    }
    if (getenv("KOLO_LOG") == NULL)
        setenv("KOLO_LOG", "error", 1);
    if (getenv("KOLO_NCCL") == NULL) {
        snprintf(text, sizeof text, "%s/whole/libnccl.so.2", STANDIN);
        setenv("KOLO_NCCL", text, 1);
    }
}

/* Below those that the system gives to connections; others who test may have taken it. */
static int free_port(void)
{
    static int port = 0;
    if (port == 0)
        port = 20000 + getpid() % 12000;
    for (bool is_free = false; !is_free;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        const struct sockaddr_in address = {.sin_family = AF_INET,
                                            .sin_port = htons((uint16_t)++port),
                                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        is_free = bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
    }
    return port;
}

void in_ranks(int size, const char *const *scripts, void (*body)(kolo_comm *world))
{
    int port = free_port();
    pid_t children[RANKS_MOST];
    assert_true(size <= RANKS_MOST);
    for (int rank = 0; rank < size; rank++) {
        children[rank] = fork();
        assert_true(children[rank] >= 0);
        if (children[rank] == 0) {
            kolo_context *context;
            alarm(300); /* an emulated machine that others use as well is slow */
            set_rank(rank, size, port, scripts[rank]);
            CHECK(kolo_init(NULL, &context) == KOLO_OK);
            body(kolo_world(context));
            kolo_finalize(context);
            _exit(0);
        }
    }
    for (int rank = 0; rank < size; rank++) {
        int status = -1;
        assert_int_equal(waitpid(children[rank], &status, 0), children[rank]);
        assert_int_equal(status, 0);
    }
}

void in_world(const char *first, const char *second, void (*body)(kolo_comm *world))
{
    in_ranks(RANKS, (const char *const[]){first, second}, body);
}

void still_works(kolo_comm *world)
{
    int one = 1, sum = 0;
    CHECK(kolo_allreduce(world, &one, &sum, 1, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(sum == kolo_comm_size(world));
}

void let_rank_1_go_on(kolo_comm *world)
{
    char byte = 0;
    if (kolo_comm_rank(world) == 0)
        CHECK(kolo_send(world, &byte, 1, KOLO_INT8, 1) == KOLO_OK);
    else
        CHECK(kolo_recv(world, &byte, 1, KOLO_INT8, 0) == KOLO_OK);
}

float *device_memory(size_t count)
{
    const struct kolo__device_module *module;
    struct kolo__device *device;
    void *memory;
    open_driver();
    CHECK(kolo__device_load(&module) == KOLO_OK && module->open(1, &device) == KOLO_OK);
    CHECK(module->alloc(device, count * sizeof(float), &memory) == KOLO_OK);
    for (size_t i = 0; i < count; i++)
        ((float *)memory)[i] = (float)(i + 1);
    return memory;
}

void release(void *memory)
{
    const struct kolo__device_module *module;
    struct kolo__device *device;
    CHECK(kolo__device_load(&module) == KOLO_OK && module->open(1, &device) == KOLO_OK);
    module->free(device, memory);
}
