/* SPDX-License-Identifier: Apache-2.0 */
/* The shared heap: members see each other's memory, refuse strangers, and leave nothing behind. */
#include "collectives/transport/heap.h"

#include "base/clock.h"
#include "base/status.h"
#include "collectives/transport/heap_pass.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { MEMBERS = 3, MIB = 1 << 20 };

struct member {
    struct kolo__heap_options options;
    struct kolo__heap *heap;
    kolo_status status;
    char text[512];
    pthread_t thread;
};

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * (uint64_t)1000000000;
}

static const char *unique_name(void)
{
    static char name[80];
    static int count;
    snprintf(name, sizeof name, "kolo-heap-test-%d-%d", (int)getpid(), count++);
    return name;
}

static void *open_one(void *argument)
{
    struct member *member = argument;
    member->status = kolo__heap_open(&member->options, &member->heap);
    snprintf(member->text, sizeof member->text, "%s", kolo_error_text());
    return NULL;
}

static void prepare(struct member *members, uint32_t count, unsigned seconds)
{
    const char *name = unique_name();
    memset(members, 0, count * sizeof *members);
    for (uint32_t i = 0; i < count; i++)
        members[i].options = (struct kolo__heap_options){.name = name,
                                                         .token = "secret",
                                                         .member = i,
                                                         .members = count,
                                                         .share_bytes = 8 * MIB,
                                                         .deadline_ns = in_seconds(seconds)};
}

static void open_all(struct member *members, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(pthread_create(&members[i].thread, NULL, open_one, &members[i]), 0);
    for (uint32_t i = 0; i < count; i++)
        pthread_join(members[i].thread, NULL);
}

static struct kolo__heap *open_alone(size_t share_bytes)
{
    struct kolo__heap_options options = {
        .member = 0, .members = 1, .share_bytes = share_bytes, .deadline_ns = in_seconds(10)};
    struct kolo__heap *heap;
    assert_int_equal(kolo__heap_open(&options, &heap), KOLO_OK);
    return heap;
}

static void members_share_memory(void **state)
{
    (void)state;
    struct member members[MEMBERS];
    prepare(members, MEMBERS, 20);
    open_all(members, MEMBERS);
    void *memory[MEMBERS];
    for (int i = 0; i < MEMBERS; i++) {
        assert_int_equal(members[i].status, KOLO_OK);
        assert_int_equal(kolo__heap_alloc(members[i].heap, 100000, 64, &memory[i]), KOLO_OK);
        memset(memory[i], 'a' + i, 100000);
    }
    for (int i = 0; i < MEMBERS; i++) {
        uint64_t position = kolo__heap_position(members[i].heap, memory[i], 100000);
        assert_true(position != UINT64_MAX);
        for (int j = 0; j < MEMBERS; j++) {
            unsigned char *seen = kolo__heap_address(members[j].heap, position, 100000);
            assert_non_null(seen);
            assert_int_equal(seen[0], 'a' + i);
            assert_int_equal(seen[99999], 'a' + i);
        }
    }
    for (int i = 0; i < MEMBERS; i++) {
        kolo__heap_free(members[i].heap, memory[i]);
        kolo__heap_close(members[i].heap);
    }
}

static void positions_outside_are_refused(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_alone(8 * MIB);
    void *memory;
    assert_int_equal(kolo__heap_alloc(heap, 4096, 4096, &memory), KOLO_OK);
    uint64_t end = kolo__heap_position(heap, memory, 0) + 8 * MIB;
    assert_non_null(kolo__heap_address(heap, end - 1, 1));
    assert_null(kolo__heap_address(heap, end - 1, 2));
    assert_null(kolo__heap_address(heap, UINT64_MAX, 1));
    assert_null(kolo__heap_address(heap, 1, SIZE_MAX));
    assert_true(kolo__heap_position(heap, &heap, 1) == UINT64_MAX);
    assert_true(kolo__heap_position(heap, memory, SIZE_MAX) == UINT64_MAX);
    kolo__heap_free(heap, memory);
    kolo__heap_free(heap, NULL);
    kolo__heap_close(heap);
    kolo__heap_close(NULL);
}

static void memory_is_aligned_zero_and_used_again(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_alone(8 * MIB);
    void *small, *aligned, *again;
    assert_int_equal(kolo__heap_alloc(heap, 1, 1, &small), KOLO_OK);
    assert_int_equal(kolo__heap_alloc(heap, 3 * MIB, 2 * MIB, &aligned), KOLO_OK);
    assert_true((uintptr_t)aligned % (2 * MIB) == 0);
    memset(aligned, 0xff, 3 * MIB);
    kolo__heap_free(heap, aligned);
    assert_int_equal(kolo__heap_alloc(heap, 3 * MIB, 2 * MIB, &again), KOLO_OK);
    assert_ptr_equal(again, aligned);
    for (int i = 0; i < 3 * MIB; i += 512)
        assert_int_equal(((unsigned char *)again)[i], 0);
    kolo__heap_free(heap, again);
    kolo__heap_free(heap, small);
    /* All pieces have become one again. */
    assert_int_equal(kolo__heap_alloc(heap, 8 * MIB, 4096, &again), KOLO_OK);
    kolo__heap_free(heap, again);
    kolo__heap_close(heap);
}

struct listener {
    struct kolo__heap_watcher watcher;
    struct kolo__heap_extent last;
    int count;
};

static void note_freed(struct kolo__heap_watcher *watcher, const struct kolo__heap_extent *extent)
{
    struct listener *listener = (struct listener *)(void *)watcher;
    listener->last = *extent;
    listener->count++;
    assert_int_equal(extent->memory[0], 7); /* its pages are still there */
}

static void blocks_are_found_and_missed(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_alone(8 * MIB);
    struct kolo__heap_extent extent;
    struct listener listener = {.watcher = {.freed = note_freed}};
    void *memory, *next;
    assert_int_equal(kolo__heap_alloc(heap, 10000, 64, &memory), KOLO_OK);
    assert_int_equal(kolo__heap_alloc(heap, 10000, 64, &next), KOLO_OK);
    unsigned char *block = memory;
    block[0] = 7;
    assert_true(kolo__heap_find(heap, block + 5000, 5000, &extent));
    assert_ptr_equal(extent.memory, block);
    assert_int_equal(extent.bytes, 12288); /* whole pages */
    assert_true(kolo__heap_find(heap, block, 12288, &extent));
    assert_false(kolo__heap_find(heap, block, 12289, &extent)); /* another one begins */
    assert_false(kolo__heap_find(heap, &extent, 1, &extent));
    kolo__heap_watch(heap, &listener.watcher);
    kolo__heap_free(heap, memory);
    assert_int_equal(listener.count, 1);
    assert_ptr_equal(listener.last.memory, block);
    assert_int_equal(listener.last.bytes, 12288);
    assert_false(kolo__heap_find(heap, block, 1, &extent));
    kolo__heap_unwatch(heap, &listener.watcher);
    kolo__heap_free(heap, next);
    assert_int_equal(listener.count, 1);
    kolo__heap_close(heap);
}

static void a_full_share_is_an_error(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_alone(8 * MIB);
    void *memory, *more;
    assert_int_equal(kolo__heap_alloc(heap, 6 * MIB, 4096, &memory), KOLO_OK);
    assert_int_equal(kolo__heap_alloc(heap, 3 * MIB, 4096, &more), KOLO_ERR_MEMORY);
    assert_non_null(strstr(kolo_error_text(), "3145728"));
    assert_int_equal(kolo__heap_alloc(heap, SIZE_MAX, 4096, &more), KOLO_ERR_MEMORY);
    kolo__heap_free(heap, memory);
    assert_int_equal(kolo__heap_alloc(heap, 3 * MIB, 4096, &more), KOLO_OK);
    kolo__heap_free(heap, more);
    kolo__heap_close(heap);
}

/* By default a share is as large as the machine's memory, so all of it is more than there is. */
static void more_than_the_machine_has_is_an_error(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_alone(0);
    void *memory;
    size_t all = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    assert_int_equal(kolo__heap_alloc(heap, all, 4096, &memory), KOLO_ERR_MEMORY);
    assert_non_null(strstr(kolo_error_text(), "left"));
    assert_int_equal(kolo__heap_alloc(heap, 4096, 4096, &memory), KOLO_OK);
    kolo__heap_close(heap);
}

static bool freed_later_is_unused;

static bool unused(const void *memory)
{
    (void)memory;
    return freed_later_is_unused;
}

static void memory_freed_later_waits_until_unused(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_alone(8 * MIB);
    void *first, *second, *third;
    freed_later_is_unused = false;
    assert_int_equal(kolo__heap_alloc(heap, 5 * MIB, 4096, &first), KOLO_OK);
    assert_int_equal(kolo__heap_alloc(heap, 2 * MIB, 4096, &second), KOLO_OK);
    memset(first, 1, 5 * MIB);
    kolo__heap_free_later(heap, second, unused);
    kolo__heap_free_later(heap, first, unused);
    assert_int_equal(kolo__heap_alloc(heap, 5 * MIB, 4096, &third), KOLO_ERR_MEMORY);
    assert_int_equal(*(unsigned char *)first, 1);
    freed_later_is_unused = true;
    assert_int_equal(kolo__heap_alloc(heap, 8 * MIB, 4096, &third), KOLO_OK);
    assert_int_equal(*(unsigned char *)first, 0);
    kolo__heap_close(heap);
}

/* What a member takes with it stays where it is, and others change nothing of it any more. */
static void detached_memory_is_private(void **state)
{
    (void)state;
    struct member members[2];
    void *memory[4], *later;
    prepare(members, 2, 10);
    open_all(members, 2);
    struct kolo__heap *heap = members[1].heap, *peer = members[0].heap;
    static const size_t bytes[] = {10, 3 * MIB, 5000, 4096};
    assert_true(kolo__heap_is_empty(heap));
    for (int i = 0; i < 4; i++)
        assert_int_equal(kolo__heap_alloc(heap, bytes[i], 4096, &memory[i]), KOLO_OK);
    assert_int_equal(kolo__heap_alloc(heap, 100, 4096, &later), KOLO_OK);
    kolo__heap_free(heap, memory[2]);
    freed_later_is_unused = false;
    kolo__heap_free_later(heap, later, unused);
    unsigned char *theirs[4];
    for (int i = 0; i < 4; i++)
        if (i != 2) {
            memset(memory[i], 'a' + i, bytes[i]);
            theirs[i] =
                kolo__heap_address(peer, kolo__heap_position(heap, memory[i], bytes[i]), bytes[i]);
            assert_int_equal(theirs[i][bytes[i] - 1], 'a' + i);
        }
    assert_int_equal(kolo__heap_detach(heap), KOLO_OK);
    assert_false(kolo__heap_is_empty(heap));
    for (int i = 0; i < 4; i++)
        if (i != 2) {
            memset(theirs[i], 'x', bytes[i]);
            const unsigned char *mine = memory[i];
            for (size_t b = 0; b < bytes[i]; b++)
                assert_int_equal(mine[b], 'a' + i);
            memset(memory[i], 'm', bytes[i]);
            assert_int_equal(theirs[i][0], 'x');
        }
    kolo__heap_free(heap, memory[1]);
    assert_int_equal(*(unsigned char *)memory[3], 'm');
    kolo__heap_free(heap, memory[0]);
    kolo__heap_free(heap, memory[3]);
    assert_true(kolo__heap_is_empty(heap));
    kolo__heap_close(heap);
    kolo__heap_close(peer);
}

/* As when a rank that should come is lost on the way. */
static bool nobody_comes(void *asked)
{
    return ++*(int *)asked > 2;
}

static void waiting_in_vain_ends(void **state)
{
    (void)state;
    for (uint32_t alone = 0; alone < 2; alone++) {
        struct member members[2];
        int asked = 0;
        prepare(members, 2, 3600);
        members[alone].options.is_vain = nobody_comes;
        members[alone].options.self = &asked;
        open_one(&members[alone]);
        assert_int_equal(members[alone].status, KOLO_ERR_TIMEOUT);
        assert_int_equal(asked, 3);
    }
}

static bool is_told(void *told)
{
    return atomic_load((atomic_bool *)told);
}

/* As when a rank is stopped that has the heap, and has not said so. */
static void waiting_in_vain_ends_when_all_have_come(void **state)
{
    (void)state;
    struct member members[3];
    struct kolo__heap_geometry geometry;
    atomic_bool told = false;
    int heap_fd, connection_fd;
    prepare(members, 3, 60);
    for (uint32_t i = 0; i < 2; i++) {
        members[i].options.is_vain = is_told;
        members[i].options.self = &told;
        assert_int_equal(pthread_create(&members[i].thread, NULL, open_one, &members[i]), 0);
    }
    assert_int_equal(kolo__heap_fetch(&members[2].options, &heap_fd, &geometry, &connection_fd),
                     KOLO_OK);
    atomic_store(&told, true);
    for (uint32_t i = 0; i < 2; i++) {
        pthread_join(members[i].thread, NULL);
        assert_int_not_equal(members[i].status, KOLO_OK);
    }
    assert_true(kolo__now_ns(&kolo__real_clock) + 30000000000u < members[0].options.deadline_ns);
    close(connection_fd);
    close(heap_fd);
}

static void a_missing_member_fails_all_by_the_deadline(void **state)
{
    (void)state;
    struct member members[MEMBERS];
    prepare(members, MEMBERS, 1);
    open_all(members, MEMBERS - 1);
    assert_int_equal(members[0].status, KOLO_ERR_TIMEOUT);
    assert_non_null(strstr(members[0].text, "missing: 2"));
    assert_int_not_equal(members[1].status, KOLO_OK);
    prepare(members, MEMBERS, 1);
    open_one(&members[2]);
    assert_int_equal(members[2].status, KOLO_ERR_TIMEOUT);
}

static void other_tokens_and_sizes_are_refused(void **state)
{
    (void)state;
    struct member members[4];
    prepare(members, 3, 20);
    members[3] = members[2];
    members[2].options.members = 3;
    members[3].options.token = "another";
    struct member odd = members[2];
    odd.options.members = 7;
    assert_int_equal(pthread_create(&members[0].thread, NULL, open_one, &members[0]), 0);
    assert_int_equal(pthread_create(&members[1].thread, NULL, open_one, &members[1]), 0);
    open_one(&members[3]);
    open_one(&odd);
    open_one(&members[2]);
    pthread_join(members[0].thread, NULL);
    pthread_join(members[1].thread, NULL);
    assert_int_equal(members[3].status, KOLO_ERR_NETWORK);
    assert_non_null(strstr(members[3].text, "token"));
    assert_int_equal(odd.status, KOLO_ERR_WORLD);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(members[i].status, KOLO_OK);
        kolo__heap_close(members[i].heap);
    }
}

static int names_in_proc_net_unix(const char *name)
{
    FILE *file = fopen("/proc/net/unix", "re");
    char line[512];
    int found = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        found += strstr(line, name) != NULL;
    if (file != NULL)
        fclose(file);
    return found;
}

/* A member 0 that is killed while it waits leaves neither name nor memory: the heap can be opened
 * again under the same name. */
static void a_killed_member_leaves_nothing(void **state)
{
    (void)state;
    struct member members[2];
    prepare(members, 2, 30);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        open_one(&members[0]);
        _exit(0);
    }
    uint64_t deadline = in_seconds(10);
    while (names_in_proc_net_unix(members[0].options.name) == 0 &&
           kolo__now_ns(&kolo__real_clock) < deadline)
        usleep(1000);
    assert_int_not_equal(names_in_proc_net_unix(members[0].options.name), 0);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(names_in_proc_net_unix(members[0].options.name), 0);
    open_all(members, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(members[i].status, KOLO_OK);
        kolo__heap_close(members[i].heap);
    }
    assert_int_equal(system("test -z \"$(ls /dev/shm | grep -i kolo)\""), 0);
}

static size_t address_space_used(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* In a process of its own, because limits cannot be raised again. */
static void limits_make_the_heap_smaller(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        rlim_t limit = (rlim_t)address_space_used() + ((rlim_t)1 << 30);
        struct rlimit addresses = {limit, limit};
        struct rlimit file = {(rlim_t)256 << 20, (rlim_t)256 << 20};
        setrlimit(RLIMIT_AS, &addresses);
        setrlimit(RLIMIT_FSIZE, &file);
        struct kolo__heap_options options = {.members = 1, .deadline_ns = in_seconds(10)};
        struct kolo__heap *heap;
        void *memory;
        if (kolo__heap_open(&options, &heap) != KOLO_OK)
            _exit(1);
        if (kolo__heap_alloc(heap, 64 * MIB, 4096, &memory) != KOLO_OK)
            _exit(2);
        memset(memory, 1, 64 * MIB);
        _exit(kolo__heap_alloc(heap, (size_t)512 * MIB, 4096, &memory) == KOLO_ERR_MEMORY ? 0 : 3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

struct churn {
    struct kolo__heap *heap;
    unsigned seed;
};

static void *take_and_give(void *argument)
{
    struct churn *churn = argument;
    void *held[8] = {NULL};
    for (unsigned i = 0; i < 200; i++) {
        unsigned slot = (churn->seed + i * 7) % 8;
        kolo__heap_free(churn->heap, held[slot]);
        size_t bytes = 1 + (churn->seed + i * 977) % 40000;
        if (kolo__heap_alloc(churn->heap, bytes, 4096, &held[slot]) != KOLO_OK)
            abort();
        memset(held[slot], (int)slot, bytes);
    }
    for (int i = 0; i < 8; i++)
        kolo__heap_free(churn->heap, held[i]);
    return NULL;
}

static void threads_may_allocate(void **state)
{
    (void)state;
    struct kolo__heap *heap = open_alone(8 * MIB);
    struct churn churns[3];
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++) {
        churns[i] = (struct churn){heap, i * 31};
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &churns[i]), 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    void *all;
    assert_int_equal(kolo__heap_alloc(heap, 8 * MIB, 4096, &all), KOLO_OK);
    kolo__heap_close(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_share_memory),
        cmocka_unit_test(positions_outside_are_refused),
        cmocka_unit_test(memory_is_aligned_zero_and_used_again),
        cmocka_unit_test(blocks_are_found_and_missed),
        cmocka_unit_test(a_full_share_is_an_error),
        cmocka_unit_test(more_than_the_machine_has_is_an_error),
        cmocka_unit_test(memory_freed_later_waits_until_unused),
        cmocka_unit_test(detached_memory_is_private),
        cmocka_unit_test(waiting_in_vain_ends),
        cmocka_unit_test(waiting_in_vain_ends_when_all_have_come),
        cmocka_unit_test(a_missing_member_fails_all_by_the_deadline),
        cmocka_unit_test(other_tokens_and_sizes_are_refused),
        cmocka_unit_test(a_killed_member_leaves_nothing),
        cmocka_unit_test(limits_make_the_heap_smaller),
        cmocka_unit_test(threads_may_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
