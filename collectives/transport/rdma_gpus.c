/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/transport/rdma_gpus.h"

#include "base/log.h"
#include "base/status.h"
#include "kernels/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Allocations beyond these are not registered. */
enum { ALLOCATIONS_MAX = 256 };

struct allocation {
    struct kolo__device_extent extent;
    bool registered; /* else it was refused, and nobody is asked again */
    struct kolo__rdma_block block;
};

struct kolo__rdma_gpus {
    const struct kolo__rdma_module *module;
    struct kolo__rdma_device *devices[KOLO__RDMA_RAILS_MAX];
    const struct kolo__rdma_port *ports[KOLO__RDMA_RAILS_MAX];
    uint32_t device_count;
    struct allocation allocations[ALLOCATIONS_MAX];
    uint32_t count;
    /* By GPU. */
    bool refused[KOLO__DEVICES_MAX]; /* no memory of it is taken */
    bool told[KOLO__DEVICES_MAX];    /* the log, what it is about */
    bool complained[KOLO__DEVICES_MAX];
};

struct kolo__rdma_gpus *kolo__rdma_gpus_open(const struct kolo__rdma_module *module,
                                             struct kolo__rdma_device *const *devices,
                                             const struct kolo__rdma_port *const *ports,
                                             uint32_t device_count)
{
    struct kolo__rdma_gpus *gpus = calloc(1, sizeof *gpus);
    if (gpus == NULL)
        return NULL;
    gpus->module = module;
    gpus->device_count = device_count;
    for (uint32_t i = 0; i < device_count; i++) {
        gpus->devices[i] = devices[i];
        gpus->ports[i] = ports[i];
    }
    return gpus;
}

static void close_regions(const struct kolo__rdma_gpus *gpus, struct kolo__rdma_block *block)
{
    for (uint32_t i = 0; i < gpus->device_count; i++)
        gpus->module->region_close(block->regions[i]);
    *block = (struct kolo__rdma_block){.regions = {NULL}};
}

void kolo__rdma_gpus_close(struct kolo__rdma_gpus *gpus)
{
    if (gpus == NULL)
        return;
    for (uint32_t i = 0; i < gpus->count; i++)
        close_regions(gpus, &gpus->allocations[i].block);
    free(gpus);
}

static struct allocation *find(struct kolo__rdma_gpus *gpus, uint64_t number)
{
    for (uint32_t i = 0; i < gpus->count; i++)
        if (gpus->allocations[i].extent.number == number)
            return &gpus->allocations[i];
    return NULL;
}

/* What was freed. */
static void forget_stale(struct kolo__rdma_gpus *gpus, const struct kolo__device_module *driver)
{
    struct kolo__device_extent now;
    for (uint32_t i = gpus->count; i-- > 0;) {
        struct allocation *allocation = &gpus->allocations[i];
        if (driver->extent(allocation->extent.memory, &now) &&
            now.number == allocation->extent.number)
            continue;
        close_regions(gpus, &allocation->block);
        *allocation = gpus->allocations[--gpus->count];
    }
}

/* ---- registering --------------------------------------------------------------------------- */

/* False: why; *never: so is all memory of this GPU. */
static bool open_regions(const struct kolo__rdma_gpus *gpus, struct allocation *allocation, int fd,
                         uint64_t offset, bool *never, char *why, size_t bytes)
{
    const struct kolo__device_extent *extent = &allocation->extent;
    for (uint32_t i = 0; i < gpus->device_count; i++) {
        char reason[300];
        allocation->block.regions[i] = gpus->module->region_open_dma_buf(
            gpus->devices[i], fd, offset, extent->bytes, (uint64_t)(uintptr_t)extent->memory,
            &allocation->block.keys[i], never, reason, sizeof reason);
        if (allocation->block.regions[i] != NULL)
            continue;
        snprintf(why, bytes, "%s: %s", gpus->ports[i]->device, reason);
        close_regions(gpus, &allocation->block);
        return false;
    }
    return true;
}

static bool open_allocation(const struct kolo__rdma_gpus *gpus,
                            const struct kolo__device_module *driver, int ordinal,
                            struct allocation *allocation, bool *never, char *why, size_t bytes)
{
    struct kolo__device *device;
    uint64_t offset = 0;
    int fd = -1;
    for (uint32_t i = 0; i < gpus->device_count && !*never; i++) {
        *never = gpus->ports[i]->no_dma_buf[0] != '\0';
        snprintf(why, bytes, "%s: no dma-buf (%s)", gpus->ports[i]->device,
                 gpus->ports[i]->no_dma_buf);
    }
    if (*never)
        return false;
    kolo_status status = driver->open(ordinal, &device);
    if (status == KOLO_OK)
        status = driver->flush_writes(device);
    if (status == KOLO_OK)
        status = driver->dma_buf(device, allocation->extent.memory, allocation->extent.bytes, &fd,
                                 &offset);
    if (status != KOLO_OK) {
        *never = status == KOLO_ERR_UNSUPPORTED;
        snprintf(why, bytes, "%s", kolo_error_text());
        return false;
    }
    bool opened = open_regions(gpus, allocation, fd, offset, never, why, bytes);
    close(fd);
    return opened;
}

/* One line for a GPU, and one more if some of its memory is no good. */
static void tell(struct kolo__rdma_gpus *gpus, int ordinal, bool registered, const char *why)
{
    bool *said = registered ? &gpus->told[ordinal] : &gpus->complained[ordinal];
    if (*said)
        return;
    *said = true;
    if (registered)
        kolo__log(KOLO__LOG_INFO, "RDMA: long messages go straight from and into memory of GPU %d",
                  ordinal);
    else
        kolo__log(KOLO__LOG_INFO, "RDMA: %s of GPU %d go through memory of the host: %s",
                  gpus->refused[ordinal] ? "messages" : "some messages", ordinal, why);
}

static void enter(struct kolo__rdma_gpus *gpus, const struct kolo__device_module *driver,
                  int ordinal, const struct kolo__device_extent *extent)
{
    char why[400] = "";
    bool never = false;
    struct allocation *allocation = &gpus->allocations[gpus->count++];
    *allocation = (struct allocation){.extent = *extent};
    allocation->registered =
        open_allocation(gpus, driver, ordinal, allocation, &never, why, sizeof why);
    gpus->refused[ordinal] = never && !allocation->registered;
    tell(gpus, ordinal, allocation->registered, why);
}

bool kolo__rdma_gpus_find(struct kolo__rdma_gpus *gpus, const void *data, size_t bytes,
                          struct kolo__rdma_block *block)
{
    const struct kolo__device_module *driver;
    struct kolo__memory_place place;
    struct kolo__device_extent extent;
    kolo__memory_find(data, &place);
    if (gpus == NULL || place.kind != KOLO_MEMORY_DEVICE || place.ordinal < 0 ||
        place.ordinal >= KOLO__DEVICES_MAX || gpus->refused[place.ordinal] ||
        kolo__device_load(&driver) != KOLO_OK)
        return false;
    if (!driver->extent(data, &extent)) {
        tell(gpus, place.ordinal, false, "it is of a pool, or mapped piece by piece");
        return false;
    }
    size_t before = (uintptr_t)data - (uintptr_t)extent.memory;
    if (before > extent.bytes || bytes > extent.bytes - before)
        return false;
    const struct allocation *allocation = find(gpus, extent.number);
    if (allocation == NULL) {
        forget_stale(gpus, driver);
        if (gpus->count < ALLOCATIONS_MAX)
            enter(gpus, driver, place.ordinal, &extent);
        allocation = find(gpus, extent.number);
    }
    if (allocation == NULL || !allocation->registered)
        return false;
    *block = allocation->block;
    return true;
}
