/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long messages of GPUs' memory over RDMA (collectives/transport/rdma_gpus.h), with stand-ins for
 * the driver (standin/libcuda.c) and for verbs (fake_verbs.c): a GPU's memory is a memfd, its
 * dma-buf the same file, and the card has a mapping of its own. The processor's mapping is closed
 * to it while messages travel, so whoever touches it there ends.
 */
#include "harness.h"

#include "fake_rdma.h"
#include "fake_verbs.h"

#include "base/log.h"
#include "base/status.h"
#include "collectives/transport/rdma.h"
#include "kernels/device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LONG = 1000000, SHORT = 1000, UNWRITTEN = 0xa5 };

static const struct kolo__device_module *gpus;
static struct kolo__device *gpu;

static struct kolo__conformance_fixture rdma = {.name = "rdma", .create = fake_rdma_create};

/* ---- messages of a GPU's memory -------------------------------------------------------------- */

static void open_to_processor(void *memory, size_t bytes, bool open)
{
    assert_int_equal(mprotect(memory, bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE), 0);
}

static unsigned char *gpu_memory(size_t bytes)
{
    void *memory;
    assert_int_equal(gpus->alloc(gpu, bytes, &memory), KOLO_OK);
    return memory;
}

/* Its data lies at `before` in memory, and is out of the processor's reach from here on. */
static void make_gpu_message(struct message *message, unsigned char *memory, size_t before,
                             uint64_t key, size_t bytes, bool send)
{
    *message = (struct message){.data = memory + before, .signature = signature_of(1, 100)};
    message->post = (struct kolo__post){.data = message->data, .bytes = bytes, .on_gpu = true};
    for (size_t i = 0; i < bytes; i++)
        message->data[i] = send ? content(key, i) : UNWRITTEN;
    if (!send) {
        message->post.instead = malloc(bytes);
        assert_non_null(message->post.instead);
        memset(message->post.instead, UNWRITTEN, bytes);
    }
    open_to_processor(memory, before + bytes, false);
}

static void check_received(struct message *message, unsigned char *memory, size_t before,
                           uint64_t key, bool straight)
{
    size_t bytes = message->post.bytes;
    open_to_processor(memory, before + bytes, true);
    assert_int_equal(message->post.status, KOLO_OK);
    assert_int_equal(message->post.bytes_done, bytes);
    assert_true(message->post.wants_instead == !straight);
    assert_true(straight ? holds(message, key) : untouched(message));
    struct message host = {.data = message->post.instead, .post = {.bytes = bytes}};
    assert_true(straight ? untouched(&host) : holds(&host, key));
    free(message->post.instead);
}

static bool takes(struct world *world, uint32_t rank, const struct message *message)
{
    struct kolo__transport *transport = world->transports[rank];
    return transport->ops->takes_gpu(transport, 1 - rank, &message->post);
}

/* Rank 0's and rank 1's memory. */
static void carry(struct world *world, unsigned char *from, unsigned char *to, size_t before,
                  uint64_t key, size_t bytes)
{
    struct message out, in;
    make_gpu_message(&out, from, before, key, bytes, true);
    make_gpu_message(&in, to, before, key, bytes, false);
    assert_true(takes(world, 0, &out) && takes(world, 1, &in));
    recv_message(world, 1, 0, &in);
    send_message(world, 0, 1, &out);
    finish(world, &in, 1);
    finish(world, &out, 1);
    assert_int_equal(out.post.status, KOLO_OK);
    open_to_processor(from, before + bytes, true);
    check_received(&in, to, before, key, true);
}

/* ---- what works ------------------------------------------------------------------------------ */

static void goes_straight(void **state)
{
    (void)state;
    for (uint32_t ports = 1; ports <= 3; ports++) {
        fake_rdma_how = (struct fake_rdma_options){.ports = ports};
        struct world world = open_world(2, 1);
        unsigned char *from = gpu_memory(4 * LONG), *to = gpu_memory(4 * LONG);
        assert_int_equal(fake_verbs_regions(), 0);
        for (uint64_t i = 0; i < 5; i++)
            carry(&world, from, to, 100 * (size_t)i, i, LONG + 300000 * (size_t)i);
        /* The rings, and each allocation once with each device. */
        assert_int_equal(fake_verbs_regions(), (int)(2 + 2 * ports));
        assert_int_equal(kolo__rdma_count(world.transports[0]).straight_bytes,
                         5 * LONG + 10 * 300000);
        close_world(&world);
        assert_int_equal(fake_verbs_regions(), 0);
        gpus->free(gpu, from);
        gpus->free(gpu, to);
    }
}

/* Only one end is in a GPU's memory; the other in the host's, which cards do not reach. */
static void meets_the_host(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    struct message on_gpu, on_host;
    for (uint64_t i = 0; i < 3; i++) {
        make_gpu_message(&on_gpu, memory, 0, i, LONG, true);
        make_recv(&on_host, i, LONG);
        assert_true(takes(&world, 0, &on_gpu));
        recv_message(&world, 1, 0, &on_host);
        send_message(&world, 0, 1, &on_gpu);
        finish(&world, &on_host, 1);
        finish(&world, &on_gpu, 1);
        assert_true(holds(&on_host, i));
        free_messages(&on_host, 1);
        open_to_processor(memory, LONG, true);

        make_send(&on_host, i, LONG);
        make_gpu_message(&on_gpu, memory, 0, i, LONG, false);
        assert_true(takes(&world, 1, &on_gpu));
        recv_message(&world, 1, 0, &on_gpu);
        send_message(&world, 0, 1, &on_host);
        finish(&world, &on_gpu, 1);
        check_received(&on_gpu, memory, 0, i, false);
        finish(&world, &on_host, 1);
        free_messages(&on_host, 1);
    }
    assert_int_equal(kolo__rdma_count(world.transports[0]).straight_bytes, 0);
    close_world(&world);
    gpus->free(gpu, memory);
}

/* The host's memory is given when it is asked for, and not before. */
static void waits_for_memory_of_the_host(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    struct message on_gpu, on_host;
    make_send(&on_host, 9, LONG);
    make_gpu_message(&on_gpu, memory, 0, 9, LONG, false);
    unsigned char *instead = on_gpu.post.instead;
    on_gpu.post.instead = NULL;
    assert_true(takes(&world, 1, &on_gpu));
    recv_message(&world, 1, 0, &on_gpu);
    assert_false(on_gpu.post.wants_instead);
    send_message(&world, 0, 1, &on_host);
    for (uint64_t until = deadline(); !on_gpu.post.wants_instead && !passed(until);)
        turn(&world);
    for (int i = 0; i < 1000; i++)
        turn(&world);
    assert_true(on_gpu.post.wants_instead && !on_gpu.post.complete);
    assert_int_equal(on_gpu.post.bytes_done, 0);
    on_gpu.post.instead = instead;
    finish(&world, &on_gpu, 1);
    finish(&world, &on_host, 1);
    check_received(&on_gpu, memory, 0, 9, false);
    free_messages(&on_host, 1);
    close_world(&world);
    gpus->free(gpu, memory);
}

/* A GPU's next to a heap's, whose registrations are others. */
static void meets_the_heap(void **state)
{
    (void)state;
    struct kolo__heap *heap;
    const struct kolo__heap_options options = {.name = "", .token = "", .members = 1};
    assert_int_equal(kolo__heap_open(&options, &heap), KOLO_OK);
    fake_rdma_how.heap = heap;
    rdma.heap = heap;
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    struct message on_gpu, on_host;
    make_send(&on_host, 7, LONG);
    make_gpu_message(&on_gpu, memory, 0, 7, LONG, false);
    assert_true(takes(&world, 1, &on_gpu));
    recv_message(&world, 1, 0, &on_gpu);
    send_message(&world, 0, 1, &on_host);
    finish(&world, &on_gpu, 1);
    finish(&world, &on_host, 1);
    check_received(&on_gpu, memory, 0, 7, true);
    free_messages(&on_host, 1);
    close_world(&world);
    kolo__heap_close(heap);
}

/* ---- what does not go stale ------------------------------------------------------------------ */

/* The address is the same, the memory is not. */
static void freed_and_made_again(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *from = gpu_memory(LONG), *to = gpu_memory(LONG), *before = to;
    int rounds = 0;
    for (uint64_t i = 0; i < 8; i++) {
        carry(&world, from, to, 0, i, LONG);
        assert_int_equal(fake_verbs_regions(), 2 + 2);
        gpus->free(gpu, to);
        to = gpu_memory(LONG);
        rounds += to == before;
        before = to;
    }
    assert_true(rounds > 0); /* else this has tried nothing */
    close_world(&world);
}

/* As a program must not; the card never gets what is nobody's. */
static void freed_before_it_is_sent(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    struct message out, in;
    make_gpu_message(&out, memory, 0, 1, LONG, true);
    assert_true(takes(&world, 0, &out));
    gpus->free(gpu, memory);
    send_message(&world, 0, 1, &out);
    make_recv(&in, 1, LONG);
    recv_message(&world, 1, 0, &in);
    finish(&world, &out, 1);
    assert_int_equal(out.post.status, KOLO_ERR_INVALID);
    assert_non_null(strstr(world.transports[0]->fault.text, "was freed before it was sent"));
    close_world(&world);
    assert_true(untouched(&in));
    free_messages(&in, 1);
}

/* ---- what is refused ------------------------------------------------------------------------- */

/* What the log says from here on goes there instead. */
static int log_file, true_log;

static void begin_log(void)
{
    log_file = memfd_create("log", MFD_CLOEXEC);
    true_log = dup(STDERR_FILENO);
    assert_true(log_file >= 0 && true_log >= 0 && dup2(log_file, STDERR_FILENO) >= 0);
    kolo__log_configure("info", -1);
}

/* How often it has said so. */
static int end_log(const char *words)
{
    char text[4000] = "";
    int count = 0;
    kolo__log_configure("warn", -1);
    dup2(true_log, STDERR_FILENO);
    close(true_log);
    ssize_t bytes = pread(log_file, text, sizeof text - 1, 0);
    close(log_file);
    assert_true(bytes >= 0);
    for (const char *at = text; (at = strstr(at, words)) != NULL; at++)
        count++;
    return count;
}

/* Asks several times, as messages would. */
static bool is_taken(struct world *world, unsigned char *memory, size_t bytes)
{
    const struct message message = {.post = {.data = memory, .bytes = bytes, .on_gpu = true}};
    bool taken = takes(world, 0, &message);
    for (int i = 0; i < 5; i++)
        assert_true(takes(world, 0, &message) == taken);
    return taken;
}

static void devices_that_take_none(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *one = gpu_memory(LONG), *other = gpu_memory(LONG);
    fake_verbs_refuse_dma_buf(-1);
    begin_log();
    assert_false(is_taken(&world, one, LONG));
    fake_verbs_refuse_dma_buf(0);
    assert_false(is_taken(&world, other, LONG)); /* it was asked once */
    assert_int_equal(end_log("messages of GPU 1 go through memory of the host: fake0: fake: no"),
                     1);
    assert_int_equal(fake_verbs_regions(), 0);
    close_world(&world);
    gpus->free(gpu, one);
    gpus->free(gpu, other);
}

/* As the survey of ports has found; of several, one is enough, and nobody registers anything. */
static void ports_that_take_none(void **state)
{
    (void)state;
    fake_rdma_how.ports = 2;
    fake_rdma_how.no_dma_buf = "its driver is old";
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    begin_log();
    assert_false(is_taken(&world, memory, LONG));
    assert_int_equal(end_log("of GPU 1 go through memory of the host: fake0: no dma-buf (its dri"),
                     1);
    assert_int_equal(fake_verbs_regions(), 0);
    close_world(&world);
    gpus->free(gpu, memory);
}

/* With several devices nothing is left of those that took it. */
static void one_that_is_refused(void **state)
{
    (void)state;
    fake_rdma_how.ports = 3;
    struct world world = open_world(2, 1);
    unsigned char *one = gpu_memory(LONG), *other = gpu_memory(LONG);
    fake_verbs_refuse_dma_buf(2);
    begin_log();
    assert_false(is_taken(&world, one, LONG));
    assert_int_equal(fake_verbs_regions(), 0);
    assert_true(is_taken(&world, other, LONG));
    assert_int_equal(fake_verbs_regions(), 3);
    assert_int_equal(end_log("some messages of GPU 1 go through"), 1);
    close_world(&world);
    gpus->free(gpu, one);
    gpus->free(gpu, other);
}

static void drivers_that_have_none(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    setenv("STANDIN_CUDA", "ipc dma_buf=801", 1);
    begin_log();
    assert_false(is_taken(&world, memory, LONG));
    assert_int_equal(end_log("giving memory of GPU 1 to network cards (dma-buf)"), 1);
    setenv("STANDIN_CUDA", "ipc", 1);
    close_world(&world);
    gpus->free(gpu, memory);
}

/* What may be mapped anew under its address, is short, is beside the allocation, or is checked. */
static void memory_that_is_no_good(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    setenv("STANDIN_CUDA", "ipc pool", 1);
    begin_log();
    assert_false(is_taken(&world, memory, LONG));
    assert_int_equal(end_log("it is of a pool"), 1);
    setenv("STANDIN_CUDA", "ipc", 1);
    assert_false(is_taken(&world, memory, SHORT));
    assert_false(is_taken(&world, memory, LONG + 1));
    assert_false(is_taken(&world, memory + 1, LONG));
    assert_true(is_taken(&world, memory, LONG));
    static unsigned char host[LONG];
    assert_false(is_taken(&world, host, LONG));
    close_world(&world);
    fake_rdma_how.checksum = true;
    world = open_world(2, 1);
    assert_false(is_taken(&world, memory, LONG));
    close_world(&world);
    gpus->free(gpu, memory);
}

/* 256 are known; what was freed makes room. */
static void many_allocations(void **state)
{
    (void)state;
    enum { MOST = 256, EACH = 140000 };
    static unsigned char *memory[MOST + 1];
    struct world world = open_world(2, 1);
    for (int i = 0; i <= MOST; i++) {
        memory[i] = gpu_memory(EACH);
        assert_true(is_taken(&world, memory[i], EACH) == (i < MOST));
    }
    gpus->free(gpu, memory[3]);
    assert_true(is_taken(&world, memory[MOST], EACH));
    assert_int_equal(fake_verbs_regions(), MOST);
    memory[3] = NULL;
    for (int i = 0; i <= MOST; i++)
        gpus->free(gpu, memory[i]);
    close_world(&world);
    assert_int_equal(fake_verbs_regions(), 0);
}

/* In a process of its own: the GPU is asked when it is opened. */
static void gpus_that_cannot_flush(void **state)
{
    (void)state;
    struct world world = open_world(2, 1);
    unsigned char *memory = gpu_memory(LONG);
    begin_log();
    assert_false(is_taken(&world, memory, LONG));
    assert_int_equal(end_log("cannot tell when it sees"), 1);
    close_world(&world);
    gpus->free(gpu, memory);
}

static int begin(void **state)
{
    (void)state;
    fake_rdma_how = (struct fake_rdma_options){.ports = 1};
    rdma.heap = NULL;
    fake_verbs_refuse_dma_buf(0);
    return 0;
}

/* With any argument: as the environment's STANDIN_CUDA says, of GPUs that cannot flush. */
int main(int argc, char **argv)
{
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(goes_straight, begin),
        cmocka_unit_test_setup(meets_the_host, begin),
        cmocka_unit_test_setup(waits_for_memory_of_the_host, begin),
        cmocka_unit_test_setup(meets_the_heap, begin),
        cmocka_unit_test_setup(freed_and_made_again, begin),
        cmocka_unit_test_setup(freed_before_it_is_sent, begin),
        cmocka_unit_test_setup(devices_that_take_none, begin),
        cmocka_unit_test_setup(ports_that_take_none, begin),
        cmocka_unit_test_setup(one_that_is_refused, begin),
        cmocka_unit_test_setup(drivers_that_have_none, begin),
        cmocka_unit_test_setup(memory_that_is_no_good, begin),
        cmocka_unit_test_setup(many_allocations, begin),
    };
    const struct CMUnitTest without_flush[] = {
        cmocka_unit_test_setup(gpus_that_cannot_flush, begin),
    };
    setenv("STANDIN_CUDA", "ipc", argc > 1 ? 0 : 1);
    if (dlopen(STANDIN "/running/libcuda.so.1", RTLD_NOW) == NULL ||
        kolo__device_load(&gpus) != KOLO_OK || gpus->open(1, &gpu) != KOLO_OK) {
        fprintf(stderr, "no stand-in: %s\n", kolo_error_text());
        return 1;
    }
    fixture = &rdma;
    return argc > 1 ? cmocka_run_group_tests(without_flush, NULL, NULL)
                    : cmocka_run_group_tests(tests, NULL, NULL);
}
