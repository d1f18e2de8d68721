/* SPDX-License-Identifier: Apache-2.0 */
/* See elastic.h. */
#include "elastic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

int error_has(const char *what)
{
    return strstr(kolo_error_text(), what) != NULL;
}

void die(void)
{
    kill(getpid(), SIGKILL);
}

static void *wait_and_die(void *moment_us)
{
    usleep((unsigned)(uintptr_t)moment_us);
    die();
    return NULL;
}

int die_later(unsigned moment_us, pthread_t *killer)
{
    return pthread_create(killer, NULL, wait_and_die, (void *)(uintptr_t)moment_us);
}

int look(void)
{
    comm = kolo_world(context);
    rank = kolo_comm_rank(comm);
    size = kolo_comm_size(comm);
    return 0;
}

int renew(void)
{
    CHECK(kolo_renew(context, NULL) == KOLO_OK);
    return look();
}

kolo_status reduce(float *data, size_t count)
{
    for (size_t i = 0; i < count; i++)
        data[i] = (float)(rank + 1);
    return kolo_allreduce(comm, data, data, count, KOLO_FP32, KOLO_SUM, NULL);
}

int sum_is_right(const float *data, size_t count)
{
    const int sum = size * (size + 1) / 2;
    for (size_t i = 0; i < count; i++)
        if (data[i] != (float)sum)
            return 0;
    return 1;
}

/* How often any rank of the test has come through what is counted, and how often that is once all
 * ranks are through the same as this one. */
static _Atomic unsigned *came_through;
static unsigned have_to_come;

static int count_through(void)
{
    if (came_through != NULL)
        atomic_fetch_add(came_through, 1);
    have_to_come += (unsigned)size;
    return 0;
}

int meet(void)
{
    CHECK(kolo_barrier(comm) == KOLO_OK);
    return count_through();
}

void die_behind_all(void)
{
    while (atomic_load(came_through) < have_to_come)
        usleep(100);
    die();
}

int reduces_well(void)
{
    static float own[ELASTIC_COUNT];
    void *shared;
    CHECK(kolo_alloc(context, ELASTIC_COUNT * sizeof(float), &shared) == KOLO_OK);
    for (int i = 0; i < 3; i++) {
        CHECK(reduce(own, 10) == KOLO_OK && sum_is_right(own, 10));
        CHECK(reduce(own, ELASTIC_COUNT) == KOLO_OK && sum_is_right(own, ELASTIC_COUNT));
        CHECK(reduce(shared, ELASTIC_COUNT) == KOLO_OK && sum_is_right(shared, ELASTIC_COUNT));
    }
    kolo_free(context, shared);
    return count_through();
}

kolo_status reduce_until_failure(void)
{
    static float data[ELASTIC_COUNT];
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK)
        status = reduce(data, ELASTIC_COUNT);
    return status;
}

int work_until_wanted(void)
{
    int wanted = 0;
    while (wanted == 0) {
        CHECK(reduces_well() == 0);
        CHECK(kolo_renewal_wanted(context, 0, &wanted) == KOLO_OK);
    }
    return 0;
}

int report_says(int epoch, int survivors, int previous_size, const char *gone)
{
    kolo_epoch_report report = {.size = sizeof report};
    CHECK(kolo_get_epoch_report(context, &report) == KOLO_OK);
    CHECK(report.epoch == epoch && report.survivors == survivors);
    CHECK(report.previous_size == previous_size);
    CHECK(strstr(report.gone, gone) != NULL);
    return 0;
}

const char *const *const elastic_ways[ELASTIC_WAYS] = {
    (const char *const[]){"KOLO_TRANSPORT=shm", NULL},
    (const char *const[]){"KOLO_TRANSPORT=tcp", NULL},
    (const char *const[]){"KOLO_TRANSPORT=tcp", "KOLO_ENCRYPT=1", NULL},
};

static int (*expected_main)(void);

/* Ranks end by _exit, which looks for no leaks. */
static int main_without_leaks(void)
{
    int failed = expected_main();
#ifdef __SANITIZE_ADDRESS__
    failed = failed != 0 ? failed : __lsan_do_recoverable_leak_check();
#endif
    return failed;
}

void expect_on(const char *const *way, int ranks, int newcomers, const int killed[],
               int (*rank_main)(void))
{
    expected_main = rank_main;
    came_through =
        mmap(NULL, sizeof *came_through, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(came_through != MAP_FAILED);
    struct world_result result = world_run_elastic(ranks, newcomers, 1, way, main_without_leaks);
    munmap(came_through, sizeof *came_through);
    came_through = NULL;
    for (; *killed >= 0; killed++) {
        assert_true(WIFSIGNALED(result.status[*killed]));
        assert_int_equal(WTERMSIG(result.status[*killed]), SIGKILL);
        result.status[*killed] = 0;
    }
    world_assert_all_passed(&result, ranks + newcomers);
}

void expect(int ranks, int newcomers, const int killed[], int (*rank_main)(void))
{
    for (int w = 0; w < ELASTIC_WAYS; w++)
        expect_on(elastic_ways[w], ranks, newcomers, killed, rank_main);
}
