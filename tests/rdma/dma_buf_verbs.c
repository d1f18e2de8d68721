/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the RDMA module makes of dma-bufs (rdma_dma_buf_module.c), by itself, with stand-ins for the
 * verbs that it calls: as with a library that has the function, or, without HAS_DMA_BUFS, one that
 * is too old.
 */
#include "collectives/transport/rdma_verbs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ibv_pd pd;
static struct ibv_mr mr = {.rkey = 77};
static int failure, pds, mrs;

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    (void)context;
    pds++;
    return &pd;
}

int ibv_dealloc_pd(struct ibv_pd *which)
{
    assert_ptr_equal(which, &pd);
    pds--;
    return 0;
}

int ibv_dereg_mr(struct ibv_mr *which)
{
    assert_ptr_equal(which, &mr);
    mrs--;
    return 0;
}

bool kolo__verbs_failed(char *why, size_t bytes, const char *format, ...)
{
    va_list arguments; /* NOLINTBEGIN(clang-analyzer-valist.Uninitialized): it is set below */
    va_start(arguments, format);
    vsnprintf(why, bytes, format, arguments);
    va_end(arguments); /* NOLINTEND(clang-analyzer-valist.Uninitialized) */
    return false;
}

static struct kolo__rdma_region *open_region(bool *never, char *why, size_t bytes)
{
    struct kolo__rdma_device device = {.pd = &pd};
    uint32_t key = 0;
    struct kolo__rdma_region *region = kolo__verbs_region_open_dma_buf(
        &device, 5, 4096 + 100, 1 << 20, 0x7000100, &key, never, why, bytes);
    assert_int_equal(key, region != NULL ? 77 : 0);
    return region;
}

#ifdef HAS_DMA_BUFS
__attribute__((visibility("default"))) struct ibv_mr *
ibv_reg_dmabuf_mr(struct ibv_pd *which, uint64_t offset, size_t length, uint64_t iova, int fd,
                  int access)
{
    assert_ptr_equal(which, &pd);
    if (fd == 5) {
        assert_int_equal(offset, 4096 + 100);
        assert_int_equal(length, 1 << 20);
        assert_int_equal(iova, 0x7000100);
        assert_int_equal(access, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    } else {
        assert_int_equal(fd, -1);
    }
    errno = failure;
    mrs += failure == 0;
    return failure == 0 ? &mr : NULL;
}

/* Whoever complains of the descriptor knows what it is for. */
static void check_the_trial(void **state)
{
    static const int NEVER[] = {EOPNOTSUPP, ENOSYS, EPROTONOSUPPORT, ENOTTY};
    static const int TAKEN[] = {EBADF, EINVAL, 0};
    (void)state;
    for (size_t i = 0; i < sizeof NEVER / sizeof *NEVER; i++) {
        failure = NEVER[i];
        assert_string_equal(kolo__verbs_try_dma_buf(NULL), "its driver takes none");
    }
    for (size_t i = 0; i < sizeof TAKEN / sizeof *TAKEN; i++) {
        failure = TAKEN[i];
        assert_string_equal(kolo__verbs_try_dma_buf(NULL), "");
    }
    assert_int_equal(pds, 0);
    assert_int_equal(mrs, 0);
}

static void check_registration(void **state)
{
    char why[200];
    bool never = true;
    (void)state;
    failure = 0;
    struct kolo__rdma_region *region = open_region(&never, why, sizeof why);
    assert_non_null(region);
    assert_ptr_equal(region->mr, &mr);
    assert_false(never);
    free(region);
    failure = EINVAL; /* this one */
    assert_null(open_region(&never, why, sizeof why));
    assert_false(never);
    assert_non_null(strstr(why, "cannot register a dma-buf of 1048576 bytes: Invalid argument"));
    failure = EOPNOTSUPP; /* any */
    assert_null(open_region(&never, why, sizeof why));
    assert_true(never);
}
#else
static void check_the_trial(void **state)
{
    (void)state;
    assert_string_equal(kolo__verbs_try_dma_buf(NULL),
                        "libibverbs knows none: rdma-core 34 or later does");
    assert_int_equal(pds, 0);
}

static void check_registration(void **state)
{
    char why[200];
    bool never = false;
    (void)state;
    assert_null(open_region(&never, why, sizeof why));
    assert_true(never);
    assert_non_null(strstr(why, "libibverbs knows none: rdma-core 34 or later does"));
    assert_int_equal(failure, 0);
    assert_int_equal(mrs, 0);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_the_trial),
        cmocka_unit_test(check_registration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
