/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVIDIA's own libnccl.so.2 where there is no driver: what needs none works, and its errors come
 * back with their text. Skipped where the library is absent, or a driver is there.
 */
#include "cases.h"
#include "collectives/offload/nccl_module.h"

#include <dlfcn.h>
#include <string.h>

enum { SKIPPED = 77, POLLS = 10000 };

static char why[KOLO__NCCL_WHY_BYTES];

static void tells_what_it_is(const struct kolo__nccl_library *library)
{
    CHECK(library->version >= KOLO__NCCL_VERSION_LEAST && library->version < 30000);
    CHECK(strstr(library->path, "libnccl.so") != NULL);
    CHECK(library->shrinks == (library->version >= KOLO__NCCL_VERSION_WINDOWS));
}

static void makes_ids(const struct kolo__nccl_module *module)
{
    unsigned char one[KOLO__NCCL_ID_BYTES], another[KOLO__NCCL_ID_BYTES];
    CHECK(module->unique_id(one, why) == KOLO_OK);
    CHECK(module->unique_id(another, why) == KOLO_OK);
    CHECK(memcmp(one, another, sizeof one) != 0);
}

/* At once, or when it is asked: NCCL's threads may be the first to notice. */
static void makes_no_communicator(const struct kolo__nccl_module *module)
{
    unsigned char id[KOLO__NCCL_ID_BYTES];
    struct kolo__nccl_comm *comm;
    CHECK(module->unique_id(id, why) == KOLO_OK);
    kolo_status status = module->comm_begin(id, 0, 1, 0, &comm, why);
    bool begun = status == KOLO_OK;
    if (begun)
        status = KOLO_AGAIN;
    for (int i = 0; i < POLLS && status == KOLO_AGAIN; i++) {
        status = module->comm_poll(comm, why);
        usleep(status == KOLO_AGAIN ? 1000 : 0);
    }
    CHECK(status == KOLO_ERR_DEVICE && strstr(why, "unhandled cuda error") != NULL);
    if (begun)
        CHECK(module->comm_abort(comm, 10000, why) != KOLO_ERR_TIMEOUT);
}

static void gives_no_memory(const struct kolo__nccl_module *module)
{
    void *memory;
    CHECK(module->alloc(0, 4096, &memory, why) == KOLO_ERR_DEVICE);
    CHECK(strstr(why, "ncclMemAlloc: unhandled cuda error") != NULL);
}

int main(void)
{
    const struct kolo__nccl_module *module;
    struct kolo__nccl_library library;
    alarm(60);
    if (dlopen("libcuda.so.1", RTLD_NOW) != NULL) {
        printf(
            "skipped: this machine has NVIDIA's driver, and the test is about machines without\n");
        return SKIPPED;
    }
    if (dlopen("libnccl.so.2", RTLD_NOW) == NULL) {
        printf("skipped: no libnccl.so.2 here\n");
        return SKIPPED;
    }
    CHECK(kolo__nccl_load("", &module, &library) == KOLO_OK);
    tells_what_it_is(&library);
    makes_ids(module);
    makes_no_communicator(module);
    gives_no_memory(module);
    printf("NCCL %d: passed\n", library.version);
    return 0;
}
