/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in, to be preloaded, for the one verb that Soft-RoCE lacks: the registration of a
 * dma-buf. The "dma-buf" is a memfd (tests/gpu/standin/libcuda.c); it is mapped, and the mapping
 * registered under the address that is wanted. Everything else is the device's own.
 */
#include <infiniband/verbs.h>

#include <errno.h>
#include <sys/mman.h>

__attribute__((visibility("default"))) struct ibv_mr *
ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd,
                  int access)
{
    if (fd < 0) {
        errno = EBADF;
        return NULL;
    }
    unsigned char *memory = mmap(NULL, offset + length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* The mapping stays, as pages of a GPU do that are registered and freed. */
    return ibv_reg_mr_iova(pd, memory + offset, length, iova, (unsigned)access);
}
