/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/flight.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

/* Ranks of a world, each with a recorder of its own and a pen for communicator 1. */
enum { RANKS = 4, WORLD = 1 };

struct world {
    struct kolo__flight_recorder recorders[RANKS];
    struct kolo__flight_pen pens[RANKS];
    struct kolo__flight_rank ranks[RANKS];
    char text[1024];
};

static struct world world;

static int open_world(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    for (uint32_t r = 0; r < RANKS; r++) {
        struct kolo__flight_recorder *recorder = &world.recorders[r];
        assert_int_equal(kolo__flight_open(recorder, "", -1, r, RANKS, "job"), KOLO_OK);
        kolo__flight_take_line(recorder->flight, &world.pens[r], WORLD, RANKS);
        world.ranks[r] = (struct kolo__flight_rank){.flight = recorder->flight, .state = 'S'};
    }
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < RANKS; r++)
        kolo__flight_close(&world.recorders[r]);
    return 0;
}

static struct kolo__signature allreduce(uint32_t comm, uint64_t sequence)
{
    return (struct kolo__signature){.comm = comm,
                                    .sequence = sequence,
                                    .collective = KOLO__ALLREDUCE,
                                    .dtype = KOLO_FP32,
                                    .op = KOLO_SUM,
                                    .algorithm = 0xff,
                                    .count = 100};
}

/* Calls it, and waits since then; 0: does not wait. */
static struct kolo__flight_entry *call(struct kolo__flight_pen *pen, uint64_t sequence,
                                       uint64_t wait_ns)
{
    struct kolo__signature signature = allreduce(WORLD, sequence);
    struct kolo__flight_entry *entry =
        kolo__flight_add(pen, &signature, KOLO__FLIGHT_COLLECTIVE, 0);
    kolo__flight_waits(entry, &signature, wait_ns);
    return entry;
}

static void complete(struct kolo__flight_entry *entry)
{
    kolo__flight_set_phase(entry, KOLO__FLIGHT_DONE);
}

static const char *verdict(uint64_t now_ns)
{
    struct kolo__flight_verdict found;
    kolo__flight_judge(world.ranks, RANKS, now_ns, &found);
    snprintf(world.text, sizeof world.text, "%s", found.text);
    char *host = strstr(world.text, " (host "), *end = host != NULL ? strchr(host, ')') : NULL;
    if (end != NULL)
        memmove(host, end + 1, strlen(end + 1) + 1);
    return world.text;
}

static void everybody_completes(uint64_t sequence)
{
    for (uint32_t r = 0; r < RANKS; r++)
        complete(call(&world.pens[r], sequence, 0));
}

/* ---- operations ------------------------------------------------------------------------------ */

static void test_the_last_operations_are_kept_in_order(void **state)
{
    (void)state;
    static struct kolo__flight_operation operations[KOLO__FLIGHT_ENTRIES];
    const struct kolo__flight *flight = world.recorders[0].flight;
    uint64_t last = 3 * KOLO__FLIGHT_ENTRIES + 7;
    for (uint64_t i = 1; i <= last; i++)
        complete(call(&world.pens[0], i, 0));
    uint32_t found = kolo__flight_operations(flight, operations, KOLO__FLIGHT_ENTRIES);
    /* The page that is being written on holds 7 of 32. */
    assert_int_equal(found, KOLO__FLIGHT_ENTRIES - KOLO__FLIGHT_PAGE_ENTRIES + 7);
    for (uint32_t i = 0; i < found; i++)
        assert_int_equal(operations[i].signature.sequence, last - found + 1 + i);
    assert_int_equal(kolo__flight_operations(flight, operations, 3), 3);
    assert_int_equal(operations[2].signature.sequence, last);
    assert_string_equal(kolo__flight_operation_text(&operations[2], world.text, sizeof world.text),
                        "allreduce #3079 (100 x fp32, sum)");
}

static void test_two_communicators_write_on_pages_of_their_own(void **state)
{
    (void)state;
    struct kolo__flight_operation operation;
    struct kolo__flight_pen other;
    struct kolo__flight *flight = world.recorders[0].flight;
    kolo__flight_take_line(flight, &other, 2, RANKS);
    struct kolo__signature idle = allreduce(2, 1);
    struct kolo__flight_entry *entry = kolo__flight_add(&other, &idle, KOLO__FLIGHT_COLLECTIVE, 0);
    for (uint64_t i = 1; i <= 100; i++)
        call(&world.pens[0], i, 0);
    assert_true(kolo__flight_find(flight, 2, 1, &operation));
    assert_true(kolo__flight_find(flight, WORLD, 100, &operation));
    assert_false(kolo__flight_find(flight, WORLD, 101, &operation));
    /* Its page is taken by the other in the end; what it then does goes on another one. */
    for (uint64_t i = 101; i <= 2 * KOLO__FLIGHT_ENTRIES; i++)
        call(&world.pens[0], i, 0);
    assert_false(kolo__flight_find(flight, 2, 1, &operation));
    assert_false(kolo__flight_is_of(entry, &idle));
    kolo__flight_waits(entry, &idle, SECOND);
    assert_int_equal(atomic_load(&entry->wait_begin_ns), 0);
    idle.sequence = 2;
    kolo__flight_add(&other, &idle, KOLO__FLIGHT_COLLECTIVE, 0);
    assert_true(kolo__flight_find(flight, 2, 2, &operation));
    assert_true(kolo__flight_find(flight, WORLD, 2 * KOLO__FLIGHT_ENTRIES, &operation));
}

static void test_more_communicators_than_lines(void **state)
{
    (void)state;
    static struct kolo__flight_pen pens[KOLO__FLIGHT_COMMS + 2];
    struct kolo__flight *flight = world.recorders[0].flight;
    struct kolo__flight_operation operation;
    for (uint32_t i = 0; i < KOLO__FLIGHT_COMMS + 2; i++) {
        kolo__flight_take_line(flight, &pens[i], 10 + i, RANKS);
        struct kolo__signature signature = allreduce(10 + i, 1);
        kolo__flight_add(&pens[i], &signature, KOLO__FLIGHT_COLLECTIVE, 0);
    }
    assert_true(kolo__flight_find(flight, 10 + KOLO__FLIGHT_COMMS + 1, 1, &operation));
    kolo__flight_give_line_back(&pens[0]);
    kolo__flight_take_line(flight, &pens[0], 500, RANKS);
    assert_ptr_not_equal(pens[0].line, &pens[0].spare);
}

static void test_ranks_have_places_in_the_memory_of_their_launcher(void **state)
{
    (void)state;
    struct kolo__flight_memory memory;
    struct kolo__flight_recorder recorders[2];
    uint32_t places;
    kolo__flight_memory_open(2, &memory);
    assert_true(memory.fd >= 0);
    for (uint32_t r = 0; r < 2; r++)
        assert_int_equal(kolo__flight_open(&recorders[r], memory.path, r, 10 + r, 20, "job"),
                         KOLO_OK);
    const struct kolo__flight *flights = kolo__flight_map(memory.fd, &places);
    assert_non_null(flights);
    assert_int_equal(places, 2);
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(recorders[r].own.fd, -1);
        assert_int_equal(flights[r].rank, 10 + r);
        kolo__flight_close(&recorders[r]);
        assert_true(atomic_load(&flights[r].left_ns) > 0);
    }
    /* No place: memory of its own. */
    assert_int_equal(kolo__flight_open(&recorders[0], memory.path, 2, 1, 2, "job"), KOLO_OK);
    assert_true(recorders[0].own.fd >= 0);
    kolo__flight_close(&recorders[0]);
    kolo__flight_unmap(flights, places);
    kolo__flight_memory_close(&memory);
}

/* Whoever could make it smaller would end the one that reads it (SIGBUS). */
static void test_only_sealed_memory_is_mapped(void **state)
{
    (void)state;
    uint32_t places;
    int ends[2], fd = memfd_create("kolo-flight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)sizeof(struct kolo__flight)), 0);
    assert_null(kolo__flight_map(fd, &places));
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    const struct kolo__flight *flights = kolo__flight_map(fd, &places);
    assert_non_null(flights);
    kolo__flight_unmap(flights, places);
    close(fd);
    fd = memfd_create("kolo-flight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)sizeof(struct kolo__flight) - 1), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_null(kolo__flight_map(fd, &places));
    close(fd);
    assert_int_equal(pipe(ends), 0);
    assert_null(kolo__flight_map(ends[0], &places));
    close(ends[0]);
    close(ends[1]);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void test_nobody_waits(void **state)
{
    (void)state;
    assert_string_equal(verdict(SECOND), "");
    everybody_completes(1);
    assert_string_equal(verdict(SECOND), "");
}

static void test_the_rank_that_never_entered(void **state)
{
    (void)state;
    everybody_completes(811);
    for (uint32_t r = 0; r < 3; r++)
        kolo__flight_name(call(&world.pens[r], 812, (10 + r) * SECOND),
                          &(struct kolo__signature){.comm = WORLD, .sequence = 812}, 811, 4);
    assert_string_equal(verdict(16 * SECOND + SECOND / 5),
                        "rank 3 never entered allreduce #812 (100 x fp32, sum), bucket 4 of step "
                        "811; it is outside of kolo, after allreduce #811 (100 x fp32, sum); "
                        "3 ranks wait since 6.2 s");
    world.ranks[3].state = 'T';
    assert_non_null(strstr(verdict(16 * SECOND), "; it is stopped (SIGSTOP, or a debugger); "));
    world.ranks[3].state = 0;
    assert_non_null(strstr(verdict(16 * SECOND), "; its process has ended; "));
}

static void test_who_waits_elsewhere_is_not_the_one_to_look_at(void **state)
{
    (void)state;
    /* Rank 1 is behind because it waits for a message; rank 2 is just late. */
    struct kolo__signature message = {.comm = WORLD,
                                      .sequence = 1,
                                      .collective = KOLO__POINT_TO_POINT,
                                      .dtype = KOLO_FP32,
                                      .algorithm = 0xff,
                                      .count = 5};
    struct kolo__flight_entry *entry =
        kolo__flight_add(&world.pens[1], &message, KOLO__FLIGHT_RECV, 2);
    kolo__flight_waits(entry, &message, 3 * SECOND);
    call(&world.pens[0], 1, SECOND);
    call(&world.pens[3], 1, SECOND);
    assert_non_null(strstr(verdict(5 * SECOND), "rank 2 never entered allreduce #1"));
    assert_non_null(strstr(world.text, " (nor did 1 more)"));
    /* It has come: what remains is the one that waits. */
    call(&world.pens[2], 1, SECOND);
    assert_non_null(strstr(verdict(5 * SECOND),
                           "rank 1 never entered allreduce #1 (100 x fp32, sum); it waits in "
                           "receive from rank 2, "));
}

static void test_ranks_that_called_different_things(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < 3; r++)
        call(&world.pens[r], 1, SECOND);
    struct kolo__signature other = allreduce(WORLD, 1);
    other.count = 101;
    kolo__flight_add(&world.pens[3], &other, KOLO__FLIGHT_COLLECTIVE, 0);
    assert_string_equal(verdict(2 * SECOND),
                        "rank 3 called allreduce #1 (101 x fp32, sum) where rank 0 called "
                        "allreduce #1 (100 x fp32, sum)");
}

/* Buckets of a reducer: the rank waits for the first of those that it has begun. */
static void test_an_earlier_one_is_waited_for(void **state)
{
    (void)state;
    everybody_completes(4);
    for (uint32_t r = 0; r < 3; r++) {
        call(&world.pens[r], 5, SECOND);
        call(&world.pens[r], 6, 0);
        call(&world.pens[r], 7, 0);
    }
    assert_non_null(strstr(verdict(3 * SECOND), "rank 3 never entered allreduce #5 "));
    assert_non_null(strstr(world.text, "; 3 ranks wait since 2.0 s"));
}

/* The root of a reduce waits; who has sent its part computes, far ahead. */
static void test_who_is_ahead_and_computes(void **state)
{
    (void)state;
    everybody_completes(4);
    call(&world.pens[0], 5, SECOND);
    for (uint64_t i = 5; i < 9; i++)
        for (uint32_t r = 1; r < 3; r++)
            complete(call(&world.pens[r], i, 0));
    assert_non_null(strstr(verdict(3 * SECOND), "rank 3 never entered allreduce #5 "));
    assert_non_null(strstr(world.text, "; 1 rank waits since 2.0 s"));
}

static void test_a_message_that_does_not_come(void **state)
{
    (void)state;
    everybody_completes(4);
    struct kolo__signature message = {.comm = WORLD,
                                      .sequence = 1,
                                      .collective = KOLO__POINT_TO_POINT,
                                      .dtype = KOLO_FP32,
                                      .algorithm = 0xff,
                                      .count = 5};
    kolo__flight_waits(kolo__flight_add(&world.pens[1], &message, KOLO__FLIGHT_RECV, 2), &message,
                       3 * SECOND);
    assert_non_null(strstr(verdict(5 * SECOND), "rank 1 waits since 2.0 s in receive from rank 2"));
    assert_non_null(strstr(world.text, "; of rank 2: it is outside of kolo, after allreduce #4"));
}

static void test_who_has_joined_holds_nobody_up(void **state)
{
    (void)state;
    everybody_completes(4);
    atomic_store(&world.pens[3].line->joined, 1);
    call(&world.pens[0], 5, SECOND);
    assert_non_null(strstr(verdict(3 * SECOND), "rank 1 never entered allreduce #5 "));
    assert_non_null(strstr(world.text, " (nor did 1 more)"));
}

static void test_who_stops_inside_is_named(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < RANKS; r++)
        call(&world.pens[r], 1, SECOND);
    world.ranks[1].state = 'T';
    assert_string_equal(verdict(3 * SECOND),
                        "rank 1 is in allreduce #1 (100 x fp32, sum), but it is stopped (SIGSTOP, "
                        "or a debugger); 3 ranks wait since 2.0 s");
    world.ranks[1].state = 0;
    assert_non_null(strstr(verdict(3 * SECOND), ", but its process has ended; 3 ranks wait"));
}

/* Rank 2 is gone because its message did not come; rank 3 is why. */
static void test_a_victim_is_not_blamed(void **state)
{
    (void)state;
    everybody_completes(4);
    call(&world.pens[0], 5, SECOND);
    call(&world.pens[1], 5, SECOND);
    struct kolo__signature message = {
        .comm = WORLD, .sequence = 1, .collective = KOLO__POINT_TO_POINT, .algorithm = 0xff};
    struct kolo__flight_entry *entry =
        kolo__flight_add(&world.pens[2], &message, KOLO__FLIGHT_RECV, 3);
    kolo__flight_waits(entry, &message, SECOND);
    kolo__flight_waited(entry, &message, 2 * SECOND);
    kolo__flight_set_phase(entry, KOLO__FLIGHT_FAILED);
    world.ranks[2].state = 0;
    assert_non_null(strstr(verdict(4 * SECOND), "rank 3 never entered allreduce #5 "));
    assert_non_null(strstr(world.text, "it is outside of kolo, after allreduce #4"));
}

static void test_calls_that_are_no_operations(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < 2; r++)
        atomic_store(&world.pens[r].line->joined, 1);
    assert_string_equal(verdict(SECOND), "2 ranks wait in kolo_join, for the others to come there");
    for (uint32_t r = 0; r < RANKS; r++) {
        kolo__flight_give_line_back(&world.pens[r]);
        atomic_store(&world.recorders[r].flight->pages_taken, 0);
    }
    struct kolo__flight_verdict found;
    kolo__flight_judge(world.ranks, 3, SECOND, &found);
    assert_string_equal(found.text, "3 of 4 ranks are in kolo_init, which all must come to");
    assert_int_equal(found.finding, KOLO__FLIGHT_ELSEWHERE);
}

static void test_a_reducer_waits_for_gradients(void **state)
{
    (void)state;
    everybody_completes(4);
    call(&world.pens[0], 5, SECOND);
    atomic_store(&world.recorders[1].flight->in_reducers, 1);
    assert_non_null(strstr(verdict(3 * SECOND), "rank 1 never entered allreduce #5 "));
    assert_non_null(
        strstr(world.text, "; it is in kolo_reducer_wait, for gradients that are not "));
}

static void test_a_communicator_that_is_gone(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < RANKS; r++) {
        kolo__flight_set_phase(call(&world.pens[r], 1, SECOND), KOLO__FLIGHT_FAILED);
        kolo__flight_give_line_back(&world.pens[r]);
    }
    assert_string_equal(verdict(60 * SECOND), "");
}

static void test_a_failure_that_was_lived_through(void **state)
{
    (void)state;
    struct kolo__flight_entry *entry = call(&world.pens[1], 1, SECOND);
    kolo__flight_set_phase(entry, KOLO__FLIGHT_FAILED);
    assert_string_not_equal(verdict(60 * SECOND), "");
    complete(call(&world.pens[1], 2, 0));
    assert_string_equal(verdict(60 * SECOND), "");
}

static void test_all_are_in(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < RANKS; r++)
        call(&world.pens[r], 1, SECOND);
    assert_string_equal(verdict(2 * SECOND), "all 4 ranks have entered allreduce #1 (100 x fp32, "
                                             "sum), and 4 ranks wait since 1.0 s");
    /* Two are on another host. */
    struct kolo__flight_verdict found;
    kolo__flight_judge(world.ranks, 2, 2 * SECOND, &found);
    assert_int_equal(found.finding, KOLO__FLIGHT_ELSEWHERE);
    assert_non_null(strstr(found.text, "look at the other 2 of its 4 ranks, on their hosts"));
}

static void test_what_failed_is_judged_as_it_was(void **state)
{
    (void)state;
    for (uint32_t r = 1; r < RANKS; r++) {
        struct kolo__flight_entry *entry = call(&world.pens[r], 1, SECOND);
        atomic_store(&entry->wait_end_ns, 4 * SECOND);
        kolo__flight_set_phase(entry, KOLO__FLIGHT_FAILED);
    }
    assert_string_equal(verdict(60 * SECOND),
                        "rank 0 never entered allreduce #1 (100 x fp32, sum); it is outside of "
                        "kolo; 3 ranks wait since 3.0 s");
}

/* Whatever some program has written there. */
static void test_nonsense_is_read_without_harm(void **state)
{
    (void)state;
    static struct kolo__flight_operation operations[KOLO__FLIGHT_ENTRIES];
    srand(1);
    for (int round = 0; round < 20; round++) {
        for (uint32_t r = 0; r < RANKS; r++) {
            struct kolo__flight *flight = world.recorders[r].flight;
            unsigned char *bytes = (unsigned char *)flight;
            for (size_t i = 0; i < sizeof *flight; i++)
                bytes[i] = (unsigned char)(rand() >> 8);
            atomic_store(&flight->version, KOLO__FLIGHT_VERSION);
            for (uint32_t i = 0; i < KOLO__FLIGHT_PAGES; i++)
                atomic_store(&flight->page_number[i],
                             atomic_load(&flight->pages_taken) - KOLO__FLIGHT_PAGES + i);
            kolo__flight_operations(flight, operations, KOLO__FLIGHT_ENTRIES);
        }
        verdict(SECOND);
        assert_true(memchr(world.text, '\0', sizeof world.text) != NULL);
    }
}

/* Words of others, which a terminal would obey. */
static void test_verdicts_have_no_control_characters(void **state)
{
    (void)state;
    struct kolo__flight_verdict found;
    for (uint32_t r = 0; r < RANKS; r++)
        strcpy(world.recorders[r].flight->host, "a\033[2J\nb");
    for (uint32_t r = 1; r < RANKS; r++)
        call(&world.pens[r], 1, SECOND);
    kolo__flight_judge(world.ranks, RANKS, 2 * SECOND, &found);
    assert_non_null(strstr(found.text, "rank 0 (host a?[2J?b) never entered"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_last_operations_are_kept_in_order, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(test_two_communicators_write_on_pages_of_their_own,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(test_more_communicators_than_lines, open_world,
                                        close_world),
        cmocka_unit_test(test_ranks_have_places_in_the_memory_of_their_launcher),
        cmocka_unit_test_setup_teardown(test_nobody_waits, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_the_rank_that_never_entered, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_who_waits_elsewhere_is_not_the_one_to_look_at,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(test_ranks_that_called_different_things, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(test_an_earlier_one_is_waited_for, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_who_is_ahead_and_computes, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_a_message_that_does_not_come, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_who_has_joined_holds_nobody_up, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(test_who_stops_inside_is_named, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_a_victim_is_not_blamed, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_calls_that_are_no_operations, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_a_reducer_waits_for_gradients, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(test_a_communicator_that_is_gone, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_a_failure_that_was_lived_through, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(test_all_are_in, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_what_failed_is_judged_as_it_was, open_world,
                                        close_world),
        cmocka_unit_test(test_only_sealed_memory_is_mapped),
        cmocka_unit_test_setup_teardown(test_verdicts_have_no_control_characters, open_world,
                                        close_world),
        cmocka_unit_test_setup_teardown(test_nonsense_is_read_without_harm, open_world,
                                        close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
