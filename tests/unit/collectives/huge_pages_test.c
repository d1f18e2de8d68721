/* SPDX-License-Identifier: Apache-2.0 */
/* Large blocks of the heap lie in huge pages where there are any, and are memory like any other
 * where there are none. */
#include "collectives/transport/huge_pages.h"

#include "base/clock.h"
#include "collectives/transport/heap.h"
#include "collectives/transport/heap_reserve.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { MIB = 1 << 20, BYTES = 5 * MIB, WHOLE_KIB = 4096 };

static uint64_t credit; /* unused by large blocks */

static struct kolo__heap *open_heap(void)
{
    struct kolo__heap_options options = {
        .members = 1,
        .share_bytes = 16 * MIB,
        .deadline_ns = kolo__now_ns(&kolo__real_clock) + 10000000000u,
    };
    struct kolo__heap *heap;
    assert_int_equal(kolo__heap_open(&options, &heap), KOLO_OK);
    return heap;
}

static bool permitted(void)
{
    char text[256];
    return strncmp(kolo__huge_pages_text(text, sizeof text), "used", 4) == 0;
}

/* A number of the mapping that holds memory, in KiB. */
static unsigned long mapping_kib(const void *memory, const char *name)
{
    char line[512];
    unsigned long first, end, kib, result = 0;
    bool here = false;
    size_t length = strlen(name);
    FILE *file = fopen("/proc/self/smaps", "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
            here = (uintptr_t)memory >= first && (uintptr_t)memory < end;
        else if (here && strncmp(line, name, length) == 0 &&
                 sscanf(line + length, ": %lu", &kib) == 1)
            result = kib;
    }
    fclose(file);
    return result;
}

static bool all_zero(const unsigned char *memory)
{
    for (size_t i = 0; i < BYTES; i++)
        if (memory[i] != 0)
            return false;
    return true;
}

static void large_blocks_begin_at_a_huge_page(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_heap();
    void *small, *large;
    assert_int_equal(kolo__heap_alloc(heap, 4096, 4096, &small), KOLO_OK);
    assert_int_equal(kolo__heap_alloc(heap, BYTES, 4096, &large), KOLO_OK);
    assert_int_equal((uintptr_t)large % KOLO__HUGE_PAGE_BYTES, 0);
    assert_int_equal(kolo__heap_position(heap, large, BYTES) % KOLO__HUGE_PAGE_BYTES, 0);
    kolo__heap_close(heap);
}

static void whole_huge_pages_are_mapped_as_such(void **state)
{
    (void)state;
    if (!permitted())
        skip();
    struct kolo__heap *heap = open_heap();
    void *memory, *again;
    assert_int_equal(kolo__heap_alloc(heap, BYTES, 4096, &memory), KOLO_OK);
    unsigned long mapped = mapping_kib(memory, "ShmemPmdMapped");
    assert_true(mapped >= WHOLE_KIB); /* more where shmem_enabled is always */
    assert_true(all_zero(memory));
    memset(memory, 0xff, BYTES);
    kolo__heap_free(heap, memory);
    assert_true(mapping_kib(memory, "ShmemPmdMapped") <= mapped - WHOLE_KIB);
    assert_int_equal(kolo__heap_alloc(heap, BYTES, 4096, &again), KOLO_OK);
    assert_ptr_equal(again, memory);
    assert_true(all_zero(again));
    kolo__heap_close(heap);
}

/* Another mapping, as a peer has it, gets them by touching them. */
static void peers_map_them_too(void **state)
{
    (void)state;
    if (!permitted())
        skip();
    struct kolo__heap *heap = open_heap();
    void *memory;
    assert_int_equal(kolo__heap_alloc(heap, BYTES, 4096, &memory), KOLO_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* A fork does not copy the page tables of shared memory: these are the child's own. */
        unsigned long before = mapping_kib(memory, "ShmemPmdMapped");
        for (size_t i = 0; i < BYTES; i += KOLO__HUGE_PAGE_BYTES)
            ((volatile unsigned char *)memory)[i] = 1;
        _exit(before == 0 && mapping_kib(memory, "ShmemPmdMapped") >= WHOLE_KIB ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    kolo__heap_close(heap);
}

static int reserve_without(void)
{
    int fd = memfd_create("kolo-heap-alone", MFD_CLOEXEC);
    struct stat stat;
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0 || permitted())
        return 1;
    unsigned char *space =
        mmap(NULL, 2 * BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fd < 0 || ftruncate(fd, BYTES) != 0 || space == MAP_FAILED)
        return 2;
    unsigned char *memory = space + (-(uintptr_t)space & (KOLO__HUGE_PAGE_BYTES - 1));
    if (mmap(memory, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return 3;
    struct kolo__heap_block block = {.fd = fd, .memory = memory, .bytes = BYTES, .credit = &credit};
    if (kolo__heap_reserve(&block, 1000) != KOLO_OK)
        return 4;
    if (fstat(fd, &stat) != 0 || stat.st_blocks * 512 < BYTES)
        return 5;
    return all_zero(block.memory) ? 0 : 6;
}

/* In a process that may have none, all of the block is reserved all the same. */
static void without_them_memory_is_reserved_too(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(reserve_without());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_blocks_begin_at_a_huge_page),
        cmocka_unit_test(whole_huge_pages_are_mapped_as_such),
        cmocka_unit_test(peers_map_them_too),
        cmocka_unit_test(without_them_memory_is_reserved_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
