/* SPDX-License-Identifier: Apache-2.0 */
/* What shm has beyond messages: flags and records of mapped algorithms, doorbells, and mailboxes
 * that stay until the last rank has left them. */
#include "collectives/transport/shm.h"

#include "base/clock.h"
#include "base/status.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIZE = 3, SHARE_BYTES = 32 << 20 };

struct rank {
    struct kolo__transport *transport;
    struct kolo__mapping *mapping;
    pthread_t thread;
    bool exposes, naps;
    kolo_status status;
};

static struct kolo__heap *heap;
static struct rank ranks[SIZE];
static uint64_t mailboxes[SIZE];
static char doorbell[64];

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * (uint64_t)1000000000;
}

static kolo_status create_rank(uint32_t rank)
{
    const struct kolo__shm_options options = {
        .rank = rank, .size = SIZE, .heap = heap, .mailboxes = mailboxes, .doorbell = doorbell};
    return kolo__shm_create(&options, &ranks[rank].transport, &ranks[rank].mapping);
}

static int open_ranks(void **state)
{
    static int count;
    (void)state;
    const struct kolo__heap_options options = {
        .members = 1, .share_bytes = SHARE_BYTES, .deadline_ns = in_seconds(10)};
    snprintf(doorbell, sizeof doorbell, "kolo-shm-test-%d-%d", (int)getpid(), count++);
    if (kolo__heap_open(&options, &heap) != KOLO_OK)
        return -1;
    for (uint32_t r = 0; r < SIZE; r++)
        if (kolo__shm_mailbox_create(heap, SIZE, false, &mailboxes[r]) != KOLO_OK)
            return -1;
    for (uint32_t r = 0; r < SIZE; r++)
        if (create_rank(r) != KOLO_OK)
            return -1;
    return 0;
}

static void close_rank(uint32_t r)
{
    if (ranks[r].transport != NULL)
        ranks[r].transport->ops->close(ranks[r].transport);
    ranks[r].transport = NULL;
}

static int close_ranks(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < SIZE; r++)
        close_rank(r);
    kolo__heap_close(heap);
    return 0;
}

static void arrivals_are_counted(void **state)
{
    (void)state;
    const struct kolo__mapping_ops *ops = ranks[0].mapping->ops;
    assert_true(ops->peer_arrived(ranks[0].mapping, 1));
    ops->arrive(ranks[0].mapping);
    ops->arrive(ranks[2].mapping);
    assert_false(ops->peer_arrived(ranks[0].mapping, 1));
    assert_true(ops->peer_arrived(ranks[0].mapping, 2));
    assert_true(ops->peer_arrived(ranks[1].mapping, 0));
    ops->arrive(ranks[1].mapping);
    assert_true(ops->peer_arrived(ranks[0].mapping, 1));
    /* One rank ahead of the others waits for all of them. */
    ops->arrive(ranks[0].mapping);
    assert_false(ops->peer_arrived(ranks[0].mapping, 1));
    assert_false(ops->peer_arrived(ranks[0].mapping, 2));
    assert_true(ops->peer_arrived(ranks[2].mapping, 0));
    ops->arrive(ranks[1].mapping);
    assert_true(ops->peer_arrived(ranks[0].mapping, 1));
    assert_false(ops->peer_arrived(ranks[0].mapping, 2));
}

static bool move_to_processor(int processor)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
}

/* Ranks 0 and 1 in one thread, which moves to another processor in between. */
static void ranks_know_who_shares_their_processor(void **state)
{
    (void)state;
    const struct kolo__mapping_ops *ops = ranks[0].mapping->ops;
    struct kolo__exposure exposure = {.signature = {.sequence = 1}};
    cpu_set_t allowed;
    int first = 0;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    while (!CPU_ISSET(first, &allowed))
        first++;
    int last = CPU_SETSIZE - 1;
    while (!CPU_ISSET(last, &allowed))
        last--;
    assert_true(move_to_processor(first));
    ranks[0].mapping->crowded = true;
    ops->expose(ranks[0].mapping, 1, &exposure, 0);
    assert_true(ops->shares_processor(ranks[1].mapping, 0));
    assert_true(move_to_processor(last));
    if (last != first)
        assert_false(ops->shares_processor(ranks[1].mapping, 0));
    ops->expose(ranks[0].mapping, 0, &exposure, 0);
    assert_true(ops->shares_processor(ranks[1].mapping, 0));
    assert_int_equal(sched_setaffinity(0, sizeof allowed, &allowed), 0);
}

/* Opened anew, where only one processor is allowed: then all ranks share it. */
static void ranks_know_that_they_are_crowded(void **state)
{
    cpu_set_t allowed;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    if (CPU_COUNT(&allowed) >= SIZE)
        assert_false(ranks[0].mapping->crowded);
    close_ranks(state);
    assert_true(move_to_processor(sched_getcpu()));
    open_ranks(state);
    assert_int_equal(sched_setaffinity(0, sizeof allowed, &allowed), 0);
    assert_true(ranks[0].mapping->crowded);
}

static void exposures_are_found_by_sequence(void **state)
{
    (void)state;
    const struct kolo__mapping_ops *ops = ranks[0].mapping->ops;
    struct kolo__exposure exposure = {
        .signature = {.sequence = 5, .count = 99}, .in_position = mailboxes[0], .in_windows = true};
    uint64_t digest = 0;
    assert_false(ops->peer_exposed(ranks[1].mapping, 0, 1, 5, &digest));
    ops->expose(ranks[0].mapping, 1, &exposure, 1234);
    assert_true(ops->peer_exposed(ranks[1].mapping, 0, 1, 5, &digest));
    assert_int_equal(digest, 1234);
    const struct kolo__exposure *seen = ops->peer_exposure(ranks[1].mapping, 0, 1);
    assert_int_equal(seen->signature.count, 99);
    assert_true(seen->in_position == mailboxes[0] && seen->in_windows && !seen->out_windows);
    assert_false(ops->peer_exposed(ranks[1].mapping, 0, 1, 6, &digest));
    assert_false(ops->peer_exposed(ranks[1].mapping, 0, 0, 5, &digest));
    assert_false(ops->peer_exposed(ranks[1].mapping, 2, 1, 5, &digest));
    /* The next run's record leaves this one alone. */
    exposure.signature = (struct kolo__signature){.sequence = 6, .count = 7};
    ops->expose(ranks[0].mapping, 0, &exposure, 5678);
    assert_true(ops->peer_exposed(ranks[1].mapping, 0, 1, 5, &digest));
    assert_int_equal(seen->signature.count, 99);
}

/* All areas of all ranks: filled with different bytes, none disturbs another or the flags. */
static void areas_do_not_overlap(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < SIZE; r++) {
        struct kolo__mapping *m = ranks[r].mapping;
        for (int parity = 0; parity < 2; parity++)
            memset(m->ops->address(m, m->slot_position[parity][r], m->slot_bytes),
                   (int)(16 * r) + parity, m->slot_bytes);
        memset(m->ops->address(m, m->windows, 2 * m->window_bytes), (int)(16 * r) + 2,
               2 * m->window_bytes);
    }
    for (uint32_t r = 0; r < SIZE; r++) {
        struct kolo__mapping *m = ranks[r].mapping;
        uint64_t areas[3] = {m->slot_position[0][r], m->slot_position[1][r], m->windows};
        for (int i = 0; i < 3; i++) {
            size_t bytes = i < 2 ? m->slot_bytes : 2 * m->window_bytes;
            const unsigned char *area = m->ops->address(m, areas[i], bytes);
            assert_int_equal((uintptr_t)area % 4096, 0);
            assert_int_equal(area[0], 16 * r + (unsigned)i);
            assert_int_equal(area[bytes - 1], 16 * r + (unsigned)i);
        }
    }
    unsigned char out[100000], in[100000] = {0};
    memset(out, 7, sizeof out);
    struct kolo__signature signature = {.sequence = 1};
    struct kolo__post sent = {.data = out, .bytes = sizeof out, .signature = &signature};
    struct kolo__post received = {.data = in, .bytes = sizeof in, .signature = &signature};
    ranks[0].transport->ops->post_send(ranks[0].transport, 2, &sent);
    ranks[2].transport->ops->post_recv(ranks[2].transport, 0, &received);
    for (int i = 0; i < 100 && !(sent.complete && received.complete); i++)
        for (int r = 0; r < SIZE; r += 2)
            ranks[r].transport->ops->progress(ranks[r].transport);
    assert_int_equal(received.status, KOLO_OK);
    assert_true(received.complete);
    assert_memory_equal(in, out, sizeof in);
}

/* Sleeps until something wakes; KOLO_ERR_TIMEOUT after ten seconds. */
static kolo_status sleep_once(const struct rank *self, uint64_t deadline)
{
    struct kolo__transport *transport = self->transport;
    if (self->naps) {
        if (!transport->ops->nap(transport, 10 * UINT64_C(1000000000)))
            return KOLO_ERR_UNSUPPORTED;
    } else if (transport->ops->arm(transport)) {
        struct pollfd ready = {.fd = transport->ops->wait_fd(transport), .events = POLLIN};
        poll(&ready, 1, 10000);
    }
    transport->ops->disarm(transport);
    return kolo__now_ns(&kolo__real_clock) < deadline ? KOLO_OK : KOLO_ERR_TIMEOUT;
}

/* Fences and records by ranks that sleep whenever they wait: each wake-up that got lost would take
 * ten seconds, and a few of them the deadline. */
static void *pass_fences(void *argument)
{
    struct rank *self = argument;
    struct kolo__mapping *mapping = self->mapping;
    uint64_t deadline = in_seconds(30);
    for (uint64_t sequence = 1; sequence <= 300; sequence++) {
        struct kolo__exposure exposure = {.signature = {.sequence = sequence}};
        uint64_t digest;
        if (self->exposes)
            mapping->ops->expose(mapping, sequence & 1, &exposure, sequence);
        if (self->exposes)
            mapping->ops->announce(mapping);
        for (uint32_t peer = 0; self->exposes && peer < SIZE; peer++)
            while (!mapping->ops->peer_exposed(mapping, peer, sequence & 1, sequence, &digest))
                if ((self->status = sleep_once(self, deadline)) != KOLO_OK)
                    return NULL;
        mapping->ops->arrive(mapping);
        mapping->ops->announce(mapping);
        for (uint32_t peer = 0; peer < SIZE; peer++)
            while (!mapping->ops->peer_arrived(mapping, peer))
                if ((self->status = sleep_once(self, deadline)) != KOLO_OK)
                    return NULL;
    }
    return NULL;
}

static void run_fences(bool exposes, bool naps)
{
    for (uint32_t r = 0; r < SIZE; r++) {
        ranks[r].exposes = exposes;
        ranks[r].naps = naps || r == 1; /* sleepers of both kinds wake each other */
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, pass_fences, &ranks[r]), 0);
    }
    for (uint32_t r = 0; r < SIZE; r++) {
        pthread_join(ranks[r].thread, NULL);
        assert_int_equal(ranks[r].status, KOLO_OK);
    }
}

static void sleepers_pass_fences(void **state)
{
    (void)state;
    run_fences(true, false);
    run_fences(true, true);
}

/* Without records, whose wake-ups could stand in for missing ones of arrivals. */
static void sleepers_pass_bare_fences(void **state)
{
    (void)state;
    run_fences(false, false);
    run_fences(false, true);
}

static void nothing_new_lets_sleep(void **state)
{
    (void)state;
    struct kolo__transport *transport = ranks[1].transport;
    assert_true(transport->ops->arm(transport));
    struct pollfd ready = {.fd = transport->ops->wait_fd(transport), .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 0), 0);
    struct kolo__exposure exposure = {.signature = {.sequence = 1}};
    ranks[0].mapping->ops->expose(ranks[0].mapping, 0, &exposure, 0);
    ranks[0].mapping->ops->announce(ranks[0].mapping);
    assert_int_equal(poll(&ready, 1, 10000), 1);
    transport->ops->disarm(transport);
    assert_int_equal(poll(&ready, 1, 0), 0);
    /* News that nobody has looked at: once a reason to stay awake, not for ever. */
    assert_false(transport->ops->arm(transport));
    assert_true(transport->ops->arm(transport));
    transport->ops->disarm(transport);
}

/* A closed rank's mailbox is not given to others while a peer may still write into it. */
static void mailboxes_wait_for_the_last_rank(void **state)
{
    (void)state;
    uint64_t first = mailboxes[0];
    struct kolo__signature signature = {.sequence = 1};
    struct kolo__post late = {.data = NULL, .bytes = 0, .signature = &signature};
    close_rank(0);
    uint64_t position;
    assert_int_equal(kolo__shm_mailbox_create(heap, SIZE, false, &position), KOLO_OK);
    assert_true(position != first);
    kolo__shm_mailbox_free(heap, position);
    ranks[1].transport->ops->post_send(ranks[1].transport, 0, &late);
    assert_true(late.complete);
    close_rank(1);
    close_rank(2);
    assert_int_equal(kolo__shm_mailbox_create(heap, SIZE, false, &position), KOLO_OK);
    assert_true(position == first);
    kolo__shm_mailbox_free(heap, position);
}

static void the_mapping_leaves_other_hosts_out(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < SIZE; r++)
        close_rank(r);
    for (uint32_t r = 0; r < 2; r++)
        assert_int_equal(kolo__shm_mailbox_create(heap, SIZE, false, &mailboxes[r]), KOLO_OK);
    mailboxes[2] = UINT64_MAX;
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(create_rank(r), KOLO_OK);
        const struct kolo__mapping *mapping = ranks[r].mapping;
        assert_true(mapping->shares[0] && mapping->shares[1] && !mapping->shares[2]);
    }
    /* Rank 2 is not waited for, and nobody tries to wake it. */
    ranks[0].mapping->ops->arrive(ranks[0].mapping);
    ranks[1].mapping->ops->arrive(ranks[1].mapping);
    for (uint32_t r = 0; r < 2; r++)
        ranks[r].mapping->ops->announce(ranks[r].mapping);
    assert_true(ranks[0].mapping->ops->peer_arrived(ranks[0].mapping, 1));
    assert_true(ranks[1].mapping->ops->peer_arrived(ranks[1].mapping, 0));
}

static void wrong_mailboxes_are_refused(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < SIZE; r++)
        close_rank(r);
    assert_int_equal(kolo__shm_mailbox_create(heap, SIZE, false, &mailboxes[0]), KOLO_OK);
    mailboxes[1] = mailboxes[0] + 4096;
    mailboxes[2] = mailboxes[0];
    assert_int_equal(create_rank(0), KOLO_ERR_INVALID);
    assert_non_null(strstr(kolo_error_text(), "rank 1"));
}

static int lines_with(const char *path, const char *name)
{
    FILE *file = fopen(path, "re");
    char line[512];
    int found = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        found += strstr(line, name) != NULL;
    if (file != NULL)
        fclose(file);
    return found;
}

/* A rank that is killed in the middle of everything leaves no doorbell and no file. */
static void a_killed_rank_leaves_nothing(void **state)
{
    (void)state;
    char name[80];
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    snprintf(name, sizeof name, "%s-child", doorbell);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint64_t position;
        const struct kolo__shm_options options = {
            .rank = 0, .size = 1, .heap = heap, .mailboxes = &position, .doorbell = name};
        struct kolo__transport *transport;
        if (kolo__shm_mailbox_create(heap, 1, false, &position) != KOLO_OK ||
            kolo__shm_create(&options, &transport, NULL) != KOLO_OK || write(ready[1], "r", 1) != 1)
            _exit(1);
        pause();
    }
    char byte;
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    assert_int_not_equal(lines_with("/proc/net/unix", name), 0);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(lines_with("/proc/net/unix", name), 0);
    assert_int_equal(system("test -z \"$(ls /dev/shm | grep -i kolo)\""), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(arrivals_are_counted, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(ranks_know_who_shares_their_processor, open_ranks,
                                        close_ranks),
        cmocka_unit_test_setup_teardown(ranks_know_that_they_are_crowded, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(exposures_are_found_by_sequence, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(areas_do_not_overlap, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(sleepers_pass_fences, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(sleepers_pass_bare_fences, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(nothing_new_lets_sleep, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(mailboxes_wait_for_the_last_rank, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(the_mapping_leaves_other_hosts_out, open_ranks,
                                        close_ranks),
        cmocka_unit_test_setup_teardown(wrong_mailboxes_are_refused, open_ranks, close_ranks),
        cmocka_unit_test_setup_teardown(a_killed_rank_leaves_nothing, open_ranks, close_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
