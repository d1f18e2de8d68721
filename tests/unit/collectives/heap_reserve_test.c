/* SPDX-License-Identifier: Apache-2.0 */
/* Members that allocate at the same moment take no more than there is, and none waits for ever. */
#include "collectives/transport/heap_reserve.h"

#include "base/clock.h"
#include "base/status.h"
#include "collectives/transport/available_memory.h"
#include "collectives/transport/heap.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { MEMBERS = 5, MIB = 1 << 20, WANTED = 3 * MIB, FIT = 2 };

static uint64_t credit; /* unused by large blocks */

/* Of the memory of this machine the heap may have this much. */
static const uint64_t usual_limit = (uint64_t)FIT * WANTED + MIB;
static uint64_t limit = (uint64_t)FIT * WANTED + MIB;
static int looks;

/* Bytes of pages that the heap has, which any of its descriptors tells. */
static uint64_t heap_used(void)
{
    uint64_t used = 0;
    char target[64];
    struct stat stat;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        if (strstr(target, "kolo-heap") != NULL &&
            fstatat(dirfd(folder), entry->d_name, &stat, 0) == 0)
            used = (uint64_t)stat.st_blocks * 512;
    }
    closedir(folder);
    return used;
}

/* Takes the place of the library's, and takes its time, so that everybody is between looking and
 * taking at once. */
uint64_t kolo__available_memory(void)
{
    uint64_t used = heap_used();
    looks++;
    usleep(30000);
    return used < limit ? limit - used : 0;
}

struct member {
    struct kolo__heap_options options;
    struct kolo__heap *heap;
    kolo_status status;
    uint64_t used; /* after the allocation */
};

static void prepare(struct member *members)
{
    static char name[80];
    static int count;
    snprintf(name, sizeof name, "kolo-reserve-test-%d-%d", (int)getpid(), count++);
    for (uint32_t i = 0; i < MEMBERS; i++)
        members[i] = (struct member){
            .options = {.name = name,
                        .token = "secret",
                        .member = i,
                        .members = MEMBERS,
                        .share_bytes = 16 * MIB,
                        .deadline_ns = kolo__now_ns(&kolo__real_clock) + 20000000000u}};
}

static void *open_and_take(void *argument)
{
    struct member *member = argument;
    void *memory;
    member->status = kolo__heap_open(&member->options, &member->heap);
    if (member->status == KOLO_OK)
        member->status = kolo__heap_alloc(member->heap, WANTED, 4096, &memory);
    member->used = heap_used();
    return NULL;
}

static void processes_take_no_more_than_there_is(void **state)
{
    (void)state;
    struct member members[MEMBERS];
    pid_t children[MEMBERS];
    int taken = 0, refused = 0;
    prepare(members);
    for (int i = 0; i < MEMBERS; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] != 0)
            continue;
        open_and_take(&members[i]);
        _exit(members[i].used > limit                ? 3
              : members[i].status == KOLO_OK         ? 0
              : members[i].status == KOLO_ERR_MEMORY ? 1
                                                     : 2);
    }
    for (int i = 0; i < MEMBERS; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        taken += WEXITSTATUS(status) == 0;
        refused += WEXITSTATUS(status) == 1;
    }
    assert_int_equal(taken, FIT);
    assert_int_equal(refused, MEMBERS - FIT);
}

/* Record locks do not part the members of one process. */
static void threads_take_no_more_than_there_is(void **state)
{
    (void)state;
    struct member members[MEMBERS];
    pthread_t threads[MEMBERS];
    int taken = 0, refused = 0;
    prepare(members);
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_take, &members[i]), 0);
    for (int i = 0; i < MEMBERS; i++) {
        pthread_join(threads[i], NULL);
        taken += members[i].status == KOLO_OK;
        refused += members[i].status == KOLO_ERR_MEMORY;
        assert_true(members[i].used <= limit);
    }
    for (int i = 0; i < MEMBERS; i++)
        kolo__heap_close(members[i].heap);
    assert_int_equal(taken, FIT);
    assert_int_equal(refused, MEMBERS - FIT);
}

static struct kolo__heap_block one_block(void)
{
    int fd = memfd_create("kolo-heap-alone", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, WANTED), 0);
    void *memory = mmap(NULL, WANTED, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    return (struct kolo__heap_block){
        .fd = fd, .memory = memory, .bytes = WANTED, .credit = &credit};
}

/* The child stops while it holds the lock; once it is dead, the lock is free. */
static void a_stopped_holder_is_named_and_a_dead_one_forgotten(void **state)
{
    (void)state;
    struct kolo__heap_block block = one_block();
    int ready[2];
    char byte, expected[32];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 4096};
        if (fcntl(block.fd, F_SETLK, &lock) == 0 && write(ready[1], "r", 1) == 1)
            sleep(60);
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kolo_status status = kolo__heap_reserve(&block, 20);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(status, KOLO_ERR_TIMEOUT);
    snprintf(expected, sizeof expected, "process %d", (int)child);
    assert_non_null(strstr(kolo_error_text(), expected));
    assert_int_equal(kolo__heap_reserve(&block, 20), KOLO_OK);
    assert_int_equal(heap_used(), WANTED);
    close(ready[0]);
    close(ready[1]);
    munmap(block.memory, WANTED);
    close(block.fd);
}

/* One member alone takes blocks until it gets no more. */
static int take_all(size_t bytes, uint64_t *used)
{
    struct member members[MEMBERS];
    void *memory;
    int count = 0;
    prepare(members);
    members[0].options.members = 1;
    assert_int_equal(kolo__heap_open(&members[0].options, &members[0].heap), KOLO_OK);
    looks = 0;
    while ((members[0].status = kolo__heap_alloc(members[0].heap, bytes, 64, &memory)) == KOLO_OK)
        count++;
    assert_int_equal(members[0].status, KOLO_ERR_MEMORY);
    *used = heap_used();
    kolo__heap_close(members[0].heap);
    return count;
}

/* They look for many at once, and leave some for others. */
static void small_blocks_end_before_memory_does(void **state)
{
    (void)state;
    uint64_t used;
    int count = take_all(4096, &used);
    assert_true(used <= limit - MIB);
    assert_true(count >= 500);
    assert_true(looks >= 2 && looks < 10);
}

/* A block that is a little longer than a huge page leaves no hole as long as another. */
static void little_is_lost_to_huge_pages(void **state)
{
    (void)state;
    uint64_t used;
    limit = (uint64_t)1 << 40;
    assert_true(take_all(2 * MIB + 4096, &used) >= 7);
    assert_int_equal(take_all(2 * MIB, &used), 8);
    limit = usual_limit;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_blocks_end_before_memory_does),
        cmocka_unit_test(little_is_lost_to_huge_pages),
        cmocka_unit_test(processes_take_no_more_than_there_is),
        cmocka_unit_test(threads_take_no_more_than_there_is),
        cmocka_unit_test(a_stopped_holder_is_named_and_a_dead_one_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
