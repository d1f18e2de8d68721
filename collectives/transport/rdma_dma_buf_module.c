/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of GPUs, which comes as dma-bufs. The module is linked to libraries that know none as
 * well, so the function is looked for. */
#include "collectives/transport/rdma_verbs.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct ibv_mr *(*register_dma_buf)(struct ibv_pd *pd, uint64_t offset, size_t length,
                                           uint64_t address, int fd, int access);

static const char NO_FUNCTION[] = "libibverbs knows none: rdma-core 34 or later does";

static register_dma_buf find_function(void)
{
    void *found = dlsym(RTLD_DEFAULT, "ibv_reg_dmabuf_mr");
    register_dma_buf function;
    memcpy(&function, &found, sizeof found);
    return function;
}

/* By the driver, or by the system, or by the library's part for the device. */
static bool is_refused_for_ever(int failure)
{
    return failure == EOPNOTSUPP || failure == ENOSYS || failure == EPROTONOSUPPORT ||
           failure == ENOTTY;
}

const char *kolo__verbs_try_dma_buf(struct ibv_context *context)
{
    register_dma_buf open_region = find_function();
    struct ibv_pd *pd = open_region != NULL ? ibv_alloc_pd(context) : NULL;
    if (open_region == NULL)
        return NO_FUNCTION;
    if (pd == NULL)
        return "no protection domain to try it in";
    /* Who takes any looks at the descriptor, which is none. */
    errno = 0;
    struct ibv_mr *none = open_region(pd, 0, 0, 0, -1, 0);
    bool refused = none == NULL && is_refused_for_ever(errno);
    if (none != NULL)
        ibv_dereg_mr(none);
    ibv_dealloc_pd(pd);
    return refused ? "its driver takes none" : "";
}

struct kolo__rdma_region *kolo__verbs_region_open_dma_buf(struct kolo__rdma_device *device, int fd,
                                                          uint64_t offset, size_t memory_bytes,
                                                          uint64_t address, uint32_t *remote_key,
                                                          bool *never, char *why, size_t bytes)
{
    register_dma_buf open_region = find_function();
    struct kolo__rdma_region *region = calloc(1, sizeof *region);
    *never = open_region == NULL;
    errno = ENOMEM;
    if (region != NULL && open_region != NULL)
        region->mr = open_region(device->pd, offset, memory_bytes, address, fd,
                                 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    if (region == NULL || region->mr == NULL) {
        *never |= is_refused_for_ever(errno);
        kolo__verbs_failed(why, bytes, "cannot register a dma-buf of %zu bytes: %s", memory_bytes,
                           open_region == NULL ? NO_FUNCTION : strerror(errno));
        free(region);
        return NULL;
    }
    *remote_key = region->mr->rkey;
    return region;
}
