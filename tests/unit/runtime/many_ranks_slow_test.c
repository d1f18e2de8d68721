/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world of 1,024 ranks forms: each a thread with the control client only, over loopback; then all
 * say for some seconds that they live. Prints what it took; asserts what must not grow with the
 * world.
 */
#include "base/clock.h"
#include "base/status.h"
#include "runtime/control.h"
#include "runtime/heartbeat.h"
#include "runtime/rendezvous.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { RANKS = 1024, BLOB_BYTES = 296, STACK_BYTES = 256 << 10, BEATS = 4 };

static const uint64_t PEER_TIMEOUT_NS = 5000000000;

static struct kolo__rendezvous *server;
static atomic_bool stop;
static atomic_uint good, connected;
static struct kolo__control *controls[RANKS];

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * 1000000000ull;
}

static void *serve(void *unused)
{
    while (!atomic_load(&stop)) {
        struct pollfd ready = {.fd = kolo__rendezvous_fd(server), .events = POLLIN};
        int timeout_ms = kolo__rendezvous_timeout_ms(server);
        poll(&ready, 1, timeout_ms >= 0 && timeout_ms < 100 ? timeout_ms : 100);
        kolo__rendezvous_step(server);
    }
    return unused;
}

static uint64_t processor_ns(pthread_t thread)
{
    clockid_t clock;
    struct timespec used = {0};
    if (pthread_getcpuclockid(thread, &clock) == 0)
        clock_gettime(clock, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* What a rank that trains says of itself: it has two communicators, and waits on one. */
static void record(struct kolo__flight *flight)
{
    struct kolo__flight_pen pens[2];
    for (uint32_t c = 0; c < 2; c++) {
        struct kolo__signature signature = {
            .comm = c + 1, .sequence = 812, .dtype = KOLO_FP32, .count = 1 << 20};
        kolo__flight_take_line(flight, &pens[c], c + 1, RANKS);
        struct kolo__flight_entry *entry =
            kolo__flight_add(&pens[c], &signature, KOLO__FLIGHT_COLLECTIVE, 0);
        kolo__flight_waits(entry, &signature, kolo__now_ns(&kolo__real_clock));
    }
    atomic_store(&flight->version, KOLO__FLIGHT_VERSION);
}

/* All at the same moment, as threads of heartbeats do. */
static void beat(pthread_t serving)
{
    static struct kolo__flight flight;
    uint64_t pause_ns = kolo__heartbeat_pause_ns(PEER_TIMEOUT_NS), began_ns = 0, before_ns = 0;
    uint64_t next_ns = kolo__now_ns(&kolo__real_clock);
    for (int i = 0; i < BEATS; i++) {
        memset(&flight, 0, sizeof flight);
        record(&flight);
        for (uint32_t r = 0; r < RANKS; r++)
            assert_int_not_equal(
                kolo__heartbeat_once(controls[r], &flight, PEER_TIMEOUT_NS, next_ns), UINT64_MAX);
        next_ns += pause_ns;
        while (kolo__now_ns(&kolo__real_clock) < next_ns)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (i == 0) { /* buffers are there from now on */
            began_ns = kolo__now_ns(&kolo__real_clock);
            before_ns = processor_ns(serving);
        }
    }
    double seconds = (double)(kolo__now_ns(&kolo__real_clock) - began_ns) * 1e-9;
    double used = (double)(processor_ns(serving) - before_ns) * 1e-9;
    printf("%d ranks beat: %.2f %% of a core at the server, %.1f us a beat\n", RANKS,
           100 * used / seconds, 1e6 * used / (RANKS * (BEATS - 1)));
}

static void count_right(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    uint64_t value;
    if (bytes == sizeof value) {
        memcpy(&value, blob, sizeof value);
        *(uint32_t *)self += value == rank * 3u;
    }
}

static void *join(void *argument)
{
    uint32_t rank = (uint32_t)((struct kolo__control **)argument - controls), right = 0;
    struct kolo__control_options options = {.rendezvous = kolo__rendezvous_address(server),
                                            .job = "job",
                                            .token = "secret",
                                            .rank = rank,
                                            .size = RANKS,
                                            .deadline_ns = in_seconds(120),
                                            .timeout_s = 120};
    unsigned char blob[BLOB_BYTES] = {(unsigned char)rank, (unsigned char)(rank >> 8)};
    uint64_t value = rank * 3u;
    kolo_status status = kolo__control_connect(&options, &controls[rank]);
    if (status != KOLO_OK)
        goto failed;
    atomic_fetch_add(&connected, 1);
    status = kolo__control_join(controls[rank], blob, sizeof blob);
    if (status != KOLO_OK)
        goto failed;
    const struct kolo__control_member *last = kolo__control_member(controls[rank], RANKS - 1);
    right += last->blob_bytes == BLOB_BYTES && last->blob[0] == (unsigned char)(RANKS - 1) &&
             last->blob[1] == (unsigned char)((RANKS - 1) >> 8);
    status = kolo__control_exchange(controls[rank], 1, &value, sizeof value, in_seconds(120),
                                    count_right, &right);
    if (status != KOLO_OK)
        goto failed;
    atomic_fetch_add(&good, right == RANKS + 1);
    return NULL;

failed:
    fprintf(stderr, "rank %u: %s\n", rank, kolo_error_text());
    return NULL;
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void test_world_of_many(void **state)
{
    (void)state;
    static pthread_t threads[RANKS];
    pthread_t serving;
    pthread_attr_t small;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < 2 * RANKS + 64)
        skip(); /* both ends of each connection are here */
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = RANKS};
    assert_int_equal(kolo__rendezvous_create(&options, &server), KOLO_OK);
    unsigned before = count_descriptors();
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_BYTES);
    uint64_t began_ns = kolo__now_ns(&kolo__real_clock);
    assert_int_equal(pthread_create(&serving, NULL, serve, NULL), 0);
    for (uint32_t r = 0; r < RANKS; r++)
        assert_int_equal(pthread_create(&threads[r], &small, join, &controls[r]), 0);
    for (uint32_t r = 0; r < RANKS; r++)
        pthread_join(threads[r], NULL);
    double seconds = (double)(kolo__now_ns(&kolo__real_clock) - began_ns) * 1e-9;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%d ranks formed a world in %.2f s; %.2f s of processors, %ld MiB at most\n", RANKS,
           seconds,
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec),
           usage.ru_maxrss >> 10);
    assert_int_equal(atomic_load(&good), RANKS);
    /* One connection a rank: its two ends, and nothing else. */
    assert_int_equal(count_descriptors() - before, 2 * RANKS);

    beat(serving);
    for (uint32_t r = 0; r < RANKS; r++) {
        kolo__control_bye(controls[r]);
        kolo__control_close(controls[r]);
    }
    atomic_store(&stop, true);
    pthread_join(serving, NULL);
    kolo_status status;
    int rank;
    assert_null(kolo__rendezvous_fault(server, &status, &rank));
    kolo__rendezvous_free(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_world_of_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
