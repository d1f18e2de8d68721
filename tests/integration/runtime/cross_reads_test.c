/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading peers' memory (process_vm_readv) where the kernel forbids it, and where the memory is not
 * there. That all collectives come out right with it is in collectives_test.c.
 */
#include "collectives/transport/shm.h"
#include "member.h"
#include "runtime/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RANKS = 3, COUNT = 300000, BYTES = COUNT * sizeof(float) };

/* The system call fails in this process from now on, as it does in many a container. */
static int forbid(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    return 0;
}

static int sum_twice(float *values)
{
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < COUNT; i++)
            values[i] = (float)(i % 1000 + rank);
        CHECK(kolo_allreduce(comm, values, values, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
        for (int i = 0; i < COUNT; i++)
            CHECK(values[i] == (float)(RANKS * (i % 1000) + 3));
    }
    return 0;
}

static int lines_about_it(FILE *log)
{
    char line[600];
    int count = 0;
    rewind(log);
    while (fgets(line, sizeof line, log) != NULL)
        count +=
            strstr(line, "info: cannot read rank") != NULL && strstr(line, strerror(EPERM)) != NULL;
    return count;
}

/* Where only ancestors may read (Yama), everybody may from now on. */
static void allow(void)
{
    kolo__shm_cross_reads = KOLO__CROSS_READS_WHERE_PERMITTED;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

/* Only rank 1 may not. It says so once, though there are two communicators; nobody reads. */
static int forbidden_to_one(void)
{
    kolo_comm *other;
    FILE *log = tmpfile();
    CHECK(log != NULL);
    allow();
    if (world_rank() == 1)
        CHECK(forbid() == 0);
    int stderr_kept = dup(2);
    CHECK(dup2(fileno(log), 2) == 2);
    CHECK(join() == 0);
    CHECK(kolo_comm_split(comm, 0, rank, &other) == KOLO_OK);
    CHECK(dup2(stderr_kept, 2) == 2);
    CHECK(lines_about_it(log) == 1 || rank != 1);
    CHECK(comm->mapping != NULL);
    float *values = malloc(BYTES);
    CHECK(values != NULL);
    CHECK(sum_twice(values) == 0);
    free(values);
    CHECK(rank != 1 || !comm->mapping->wants_cross_reads);
    CHECK(!comm->mapping->cross_reads && comm->mapping->cross_read_bytes == 0);
    kolo_comm_free(other);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Root of a broadcast does not touch its buffer while others read it. Of this one the end cannot be
 * read: they say whose it is, nobody takes what came before for a result. */
static int read_what_is_not_there(void)
{
    allow();
    CHECK(join() == 0);
    size_t bytes = (size_t)1 << 20;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    for (int turn = 0; turn < 2; turn++) {
        memset(memory, rank == 1 ? 7 + turn : 0, bytes);
        CHECK(kolo_broadcast(comm, memory, bytes, KOLO_UINT8, 1, NULL) == KOLO_OK);
        CHECK(memory[0] == 7 + turn && memory[bytes - 1] == 7 + turn);
    }
    if (!comm->mapping->cross_reads) {
        fprintf(stderr, "process_vm_readv is not permitted here: nothing was tested\n");
        CHECK(!comm->mapping->wants_cross_reads || comm->mapping->cross_read_bytes == 0);
        CHECK(kolo_finalize(context) == KOLO_OK);
        return 0;
    }
    CHECK((comm->mapping->cross_read_bytes > 0) == (rank != 1));
    if (rank == 1)
        CHECK(mprotect(memory + bytes / 2, bytes / 2, PROT_NONE) == 0);
    kolo_status status = kolo_broadcast(comm, memory, bytes, KOLO_UINT8, 1, NULL);
    CHECK(status == KOLO_ERR_NETWORK);
    CHECK(strstr(kolo_error_text(), "in rank 1 (process") != NULL);
    CHECK(kolo_broadcast(comm, memory, 1, KOLO_UINT8, 1, NULL) == status);
    kolo_finalize(context);
    return 0;
}

static void test_forbidden(void **state)
{
    (void)state;
    const char *const environment[] = {"KOLO_LOG=info", "KOLO_TRANSPORT=shm", NULL};
    struct world_result result = world_run(RANKS, environment, forbidden_to_one);
    world_assert_all_passed(&result, RANKS);
}

static void test_not_there(void **state)
{
    (void)state;
    const char *const environment[] = {"KOLO_ALGORITHM=shm_direct", NULL};
    struct world_result result = world_run(RANKS, environment, read_what_is_not_there);
    world_assert_all_passed(&result, RANKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden),
        cmocka_unit_test(test_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
