/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkolo-nccl.so with a stand-in for NCCL (standin/libnccl.c): what it says when the library is
 * missing or fails, that nothing waits for ever, and what it asks NCCL for.
 */
#include "cases.h"
#include "collectives/offload/nccl_module.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { POLLS = 10 }; /* more than the stand-in lets anybody ask */

static char why[KOLO__NCCL_WHY_BYTES];
static struct kolo__nccl_library library;

static bool says(const char *words)
{
    return strstr(why, words) != NULL;
}

static kolo_status load(const char *kind, const struct kolo__nccl_module **module)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/libnccl.so.2", STANDIN, kind);
    return kolo__nccl_load(path, module, &library);
}

static const struct kolo__nccl_module *loaded(void)
{
    const struct kolo__nccl_module *module;
    CHECK(load("whole", &module) == KOLO_OK);
    return module;
}

static kolo_status poll_until_done(const struct kolo__nccl_module *module,
                                   struct kolo__nccl_comm *comm)
{
    kolo_status status = KOLO_AGAIN;
    for (int i = 0; i < POLLS && status == KOLO_AGAIN; i++)
        status = module->comm_poll(comm, why);
    return status;
}

static struct kolo__nccl_comm *ready(const struct kolo__nccl_module *module, int rank, int size)
{
    unsigned char id[KOLO__NCCL_ID_BYTES];
    struct kolo__nccl_comm *comm;
    CHECK(module->unique_id(id, why) == KOLO_OK);
    CHECK(module->comm_begin(id, rank, size, 0, &comm, why) == KOLO_OK);
    CHECK(module->comm_poll(comm, why) == KOLO_AGAIN); /* it began, and did not wait */
    CHECK(poll_until_done(module, comm) == KOLO_OK);
    return comm;
}

static const char *last(void)
{
    return of_standin("whole", "standin_last");
}

/* ---- the library ---------------------------------------------------------------------------- */

static void no_library(void)
{
    const struct kolo__nccl_module *module;
    CHECK(load("nowhere", &module) == KOLO_ERR_UNSUPPORTED && module == NULL);
    CHECK(said("no NCCL") && said("nowhere/libnccl.so.2"));
    CHECK(load("whole", &module) == KOLO_ERR_UNSUPPORTED); /* it is tried once */
}

static void no_nccl(void)
{
    const struct kolo__nccl_module *module;
    CHECK(kolo__nccl_load("libc.so.6", &module, &library) == KOLO_ERR_UNSUPPORTED);
    CHECK(said("is no NCCL"));
}

static void lacks_functions(void)
{
    const struct kolo__nccl_module *module;
    CHECK(load("lacking", &module) == KOLO_ERR_UNSUPPORTED);
    CHECK(said("lacking/libnccl.so.2 lacks ncclCommSplit, ncclMemAlloc"));
}

static void is_old(void)
{
    const struct kolo__nccl_module *module;
    CHECK(load("lacking", &module) == KOLO_ERR_UNSUPPORTED); /* and not "lacks" */
    CHECK(said("NCCL 2.18.5 is too old: install 2.19.0 or later"));
}

static void is_another(void)
{
    const struct kolo__nccl_module *module;
    CHECK(load("whole", &module) == KOLO_ERR_UNSUPPORTED);
    CHECK(said("NCCL 3.1.0") && said("install NCCL 2"));
}

static void is_older(void)
{
    const struct kolo__nccl_module *module;
    const int left[] = {1};
    struct kolo__nccl_comm *part;
    struct kolo__nccl_window *window;
    CHECK(load("older", &module) == KOLO_OK);
    CHECK(library.version == 21903 && !library.shrinks && !library.has_windows);
    struct kolo__nccl_comm *comm = ready(module, 0, 2);
    CHECK(module->comm_shrink(comm, left, 1, &part, why) == KOLO_ERR_UNSUPPORTED);
    CHECK(says("ncclCommShrink: 2.27 has") && part == NULL);
    CHECK(module->window_begin(comm, &library, 8, &window, why) == KOLO_ERR_UNSUPPORTED);
    CHECK(says("ncclCommWindowRegister: 2.27 has") && window == NULL);
    CHECK(module->comm_abort(comm, 1000, why) == KOLO_OK);
}

static void is_found(void)
{
    struct kolo__nccl_library again;
    const struct kolo__nccl_module *module = loaded();
    CHECK(library.version == library.header_version && library.version >= 22700);
    CHECK(library.shrinks && library.has_windows);
    CHECK(strstr(library.path, "whole/libnccl.so.2") != NULL);
    CHECK(module->open("elsewhere", &again, why) == KOLO_OK);
    CHECK(strcmp(again.path, library.path) == 0);
}

/* ---- communicators -------------------------------------------------------------------------- */

static void no_id(void)
{
    unsigned char id[KOLO__NCCL_ID_BYTES];
    CHECK(loaded()->unique_id(id, why) == KOLO_ERR_NETWORK);
    CHECK(says("ncclGetUniqueId: standin error 2: scripted in two lines"));
}

static void init_fails(void)
{
    const struct kolo__nccl_module *module = loaded();
    unsigned char id[KOLO__NCCL_ID_BYTES];
    struct kolo__nccl_comm *comm;
    CHECK(module->unique_id(id, why) == KOLO_OK);
    CHECK(module->comm_begin(id, 0, 2, 0, &comm, why) == KOLO_ERR_INVALID && comm == NULL);
    CHECK(says("ncclCommInitRankConfig: standin error 5"));
}

static void init_fails_later(void)
{
    const struct kolo__nccl_module *module = loaded();
    unsigned char id[KOLO__NCCL_ID_BYTES];
    struct kolo__nccl_comm *comm;
    CHECK(module->unique_id(id, why) == KOLO_OK);
    CHECK(module->comm_begin(id, 0, 2, 0, &comm, why) == KOLO_OK);
    CHECK(poll_until_done(module, comm) == KOLO_ERR_DEVICE && says("standin error 1"));
    CHECK(module->comm_abort(comm, 1000, why) == KOLO_OK && counted("standin_count_abort") == 1);
}

static void init_and_abort_hang(void)
{
    const struct kolo__nccl_module *module = loaded();
    unsigned char id[KOLO__NCCL_ID_BYTES];
    struct kolo__nccl_comm *comm;
    CHECK(module->unique_id(id, why) == KOLO_OK);
    CHECK(module->comm_begin(id, 0, 2, 0, &comm, why) == KOLO_OK);
    CHECK(poll_until_done(module, comm) == KOLO_AGAIN);
    CHECK(module->comm_abort(comm, 20, why) == KOLO_ERR_TIMEOUT);
    CHECK(says("ncclCommAbort did not come back within 20 ms"));
    /* The thread that was left behind ends in order when NCCL does come back. */
    atomic_store((atomic_int *)of_standin("whole", "standin_let_go"), 1);
    while (atomic_load((atomic_int *)of_standin("whole", "standin_count_abort")) == 0)
        usleep(1000);
}

static void ends_in_order(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 0, 2);
    CHECK(module->comm_finalize(comm, why) == KOLO_OK);
    CHECK(poll_until_done(module, comm) == KOLO_OK);
    module->comm_destroy(comm);
    module->comm_destroy(NULL);
    CHECK(module->comm_abort(NULL, 0, why) == KOLO_OK);
    CHECK(counted("standin_count_destroy") == 1 && counted("standin_count_abort") == 0);
}

static void splits_and_shrinks(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 3, 4), *part, *none;
    const int left[] = {2};
    CHECK(module->comm_split(comm, -1, 0, 0, &none, why) == KOLO_OK && none == NULL);
    CHECK(module->comm_split(comm, 1, 7, 9, &part, why) == KOLO_OK);
    CHECK(strcmp(last(), "Split color=1 key=7 blocking=0") == 0);
    CHECK(module->comm_poll(part, why) == KOLO_AGAIN);
    CHECK(poll_until_done(module, part) == KOLO_OK);
    CHECK(module->comm_poll(comm, why) == KOLO_OK);
    CHECK(module->comm_abort(part, 1000, why) == KOLO_OK);
    CHECK(module->comm_shrink(comm, left, 1, &part, why) == KOLO_OK);
    CHECK(strcmp(last(), "Shrink first=2 count=1 blocking=0 flags=0") == 0);
    CHECK(poll_until_done(module, part) == KOLO_OK);
    CHECK(module->comm_abort(comm, 1000, why) == KOLO_OK);
    CHECK(module->comm_abort(part, 1000, why) == KOLO_OK);
    CHECK(counted("standin_count_abort") == 3);
}

static void abort_of_a_part_that_never_was(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 0, 2), *part;
    CHECK(module->comm_split(comm, 0, 0, 2, &part, why) == KOLO_OK);
    CHECK(module->comm_abort(part, 1000, why) == KOLO_OK);
    CHECK(counted("standin_count_abort") == 0);
}

/* ---- collectives ---------------------------------------------------------------------------- */

static kolo_status queue(const struct kolo__nccl_module *module, struct kolo__nccl_comm *comm,
                         enum kolo__collective collective, kolo_dtype dtype, kolo_op op)
{
    static char from[64] = {1, 2, 3, 4}, to[64];
    const struct kolo__nccl_call call = {.collective = collective,
                                         .dtype = dtype,
                                         .op = op,
                                         .send = from,
                                         .recv = to,
                                         .count = 2,
                                         .root = 1,
                                         .stream = (void *)0x70};
    return module->queue(comm, &call, why);
}

static void collective_fails(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 0, 2);
    CHECK(queue(module, comm, KOLO__ALLREDUCE, KOLO_FP32, KOLO_SUM) == KOLO_ERR_DEVICE);
    CHECK(says("ncclAllReduce: standin error 3"));
}

static void collective_fails_later(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 0, 2);
    CHECK(queue(module, comm, KOLO__ALLREDUCE, KOLO_FP32, KOLO_SUM) == KOLO_OK);
    CHECK(module->comm_poll(comm, why) == KOLO_AGAIN);
    CHECK(poll_until_done(module, comm) == KOLO_ERR_NETWORK && says("standin error 6"));
}

static void asks_for_what_it_means(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 0, 2);
    /* NCCL's numbers: types 0..9, ops sum 0, product 1, max 2, min 3. */
    static const struct {
        enum kolo__collective collective;
        kolo_dtype dtype;
        kolo_op op;
        const char *asked;
    } rows[] = {
        {KOLO__ALLREDUCE, KOLO_INT8, KOLO_SUM, "AllReduce count=2 type=0 op=0 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_UINT8, KOLO_PRODUCT, "AllReduce count=2 type=1 op=1 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_INT32, KOLO_MAX, "AllReduce count=2 type=2 op=2 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_UINT32, KOLO_MIN, "AllReduce count=2 type=3 op=3 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_INT64, KOLO_SUM, "AllReduce count=2 type=4 op=0 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_UINT64, KOLO_SUM, "AllReduce count=2 type=5 op=0 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_FP16, KOLO_AVERAGE, "AllReduce count=2 type=6 op=0 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_FP32, KOLO_PREMUL_SUM, "AllReduce count=2 type=7 op=0 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_FP64, KOLO_SUM, "AllReduce count=2 type=8 op=0 stream=0x70"},
        {KOLO__ALLREDUCE, KOLO_BF16, KOLO_SUM, "AllReduce count=2 type=9 op=0 stream=0x70"},
        {KOLO__REDUCE_SCATTER, KOLO_FP32, KOLO_MAX,
         "ReduceScatter count=2 type=7 op=2 stream=0x70"},
        {KOLO__REDUCE_TO_ROOT, KOLO_FP32, KOLO_SUM,
         "Reduce count=2 type=7 op=0 root=1 stream=0x70"},
        {KOLO__ALLGATHER, KOLO_INT16, KOLO_SUM, "AllGather count=4 type=0 stream=0x70"},
        {KOLO__BROADCAST, KOLO_FP64, KOLO_SUM, "Broadcast count=16 type=0 root=1 stream=0x70"},
        {KOLO__ALLTOALL, KOLO_INT8, KOLO_SUM,
         "Send count=2 type=0 peer=1 first=3 group=1 stream=0x70"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK(queue(module, comm, rows[i].collective, rows[i].dtype, rows[i].op) == KOLO_OK);
        if (strcmp(last(), rows[i].asked) != 0) {
            fprintf(stderr, "row %zu: '%s', not '%s'\n", i, last(), rows[i].asked);
            _exit(1);
        }
        CHECK(poll_until_done(module, comm) == KOLO_OK);
    }
    CHECK(counted("standin_count_group") == 0);
    CHECK(queue(module, comm, KOLO__ALLREDUCE, KOLO_INT16, KOLO_SUM) == KOLO_ERR_UNSUPPORTED);
    CHECK(says("NCCL has no 16-bit integers"));
    CHECK(queue(module, comm, KOLO__ALLREDUCE, KOLO_INT8, KOLO_XOR) == KOLO_ERR_UNSUPPORTED);
    CHECK(says("NCCL has no bitwise"));
    CHECK(queue(module, comm, KOLO__BARRIER, KOLO_INT8, KOLO_SUM) == KOLO_ERR_UNSUPPORTED);
    CHECK(module->comm_abort(comm, 1000, why) == KOLO_OK);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void no_memory(void)
{
    void *memory = &library;
    CHECK(loaded()->alloc(0, 100, &memory, why) == KOLO_ERR_DEVICE);
    CHECK(says("ncclMemAlloc: standin error 1"));
}

static void registers_memory(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 0, 2);
    struct kolo__nccl_window *window;
    void *memory;
    CHECK(module->alloc(0, 100, &memory, why) == KOLO_OK && counted("standin_count_memory") == 1);
    CHECK(module->window_begin(comm, memory, 100, &window, why) == KOLO_OK);
    CHECK(strcmp(last(), "WindowRegister bytes=100 flags=1") == 0);
    CHECK(module->comm_poll(comm, why) == KOLO_AGAIN);
    CHECK(poll_until_done(module, comm) == KOLO_OK && counted("standin_count_window") == 1);
    CHECK(module->window_close(comm, window, why) == KOLO_OK);
    CHECK(module->comm_poll(comm, why) == KOLO_AGAIN && counted("standin_count_window") == 1);
    CHECK(poll_until_done(module, comm) == KOLO_OK && counted("standin_count_window") == 0);
    CHECK(module->window_close(comm, NULL, why) == KOLO_OK);
    module->free(0, memory);
    module->free(0, NULL);
    CHECK(counted("standin_count_memory") == 0);
    CHECK(module->comm_abort(comm, 1000, why) == KOLO_OK);
}

static void registration_is_refused(void)
{
    const struct kolo__nccl_module *module = loaded();
    struct kolo__nccl_comm *comm = ready(module, 0, 2);
    struct kolo__nccl_window *window;
    CHECK(module->window_begin(comm, &library, 8, &window, why) == KOLO_ERR_INVALID);
    CHECK(window == NULL && says("ncclCommWindowRegister: standin error 4"));
}

CASE(no_library, "")
CASE(no_nccl, "")
CASE(lacks_functions, "")
CASE(is_old, "version=21805")
CASE(is_another, "version=30100")
CASE(is_older, "version=21903")
CASE(is_found, "")
CASE(no_id, "id=2")
CASE(init_fails, "init=5")
CASE(init_fails_later, "init_later=1")
CASE(init_and_abort_hang, "init_hangs abort_hangs")
CASE(ends_in_order, "")
CASE(splits_and_shrinks, "")
CASE(abort_of_a_part_that_never_was, "")
CASE(collective_fails, "queue=3")
CASE(collective_fails_later, "queue_slow async=6")
CASE(asks_for_what_it_means, "")
CASE(no_memory, "memory=1")
CASE(registers_memory, "")
CASE(registration_is_refused, "window=4")

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_library),
        cmocka_unit_test(test_no_nccl),
        cmocka_unit_test(test_lacks_functions),
        cmocka_unit_test(test_is_old),
        cmocka_unit_test(test_is_another),
        cmocka_unit_test(test_is_older),
        cmocka_unit_test(test_is_found),
        cmocka_unit_test(test_no_id),
        cmocka_unit_test(test_init_fails),
        cmocka_unit_test(test_init_fails_later),
        cmocka_unit_test(test_init_and_abort_hang),
        cmocka_unit_test(test_ends_in_order),
        cmocka_unit_test(test_splits_and_shrinks),
        cmocka_unit_test(test_abort_of_a_part_that_never_was),
        cmocka_unit_test(test_collective_fails),
        cmocka_unit_test(test_collective_fails_later),
        cmocka_unit_test(test_asks_for_what_it_means),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_registers_memory),
        cmocka_unit_test(test_registration_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
