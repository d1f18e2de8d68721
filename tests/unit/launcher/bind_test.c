/* SPDX-License-Identifier: Apache-2.0 */
/* Where ranks go, on machines that exist only as a description, and on this one. */
#include "launcher/bind.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char TWO_NODES[] = "pack:2 [numa] core:2 pu:2"; /* PUs 0-3 and 4-7 */

static const char FOUR_NODES[] = "pack:2 group:2 [numa] core:4 pu:2";
enum { FOUR_NODES_CORES = 16 };

static struct kolo__binding *open_machine(const char *synthetic)
{
    struct kolo__binding *binding = NULL;
    assert_int_equal(kolo__binding_open(synthetic, &binding), KOLO_OK);
    return binding;
}

static void expect_place(struct kolo__binding *binding, uint32_t rank, const char *expected)
{
    char text[640];
    assert_string_equal(kolo__binding_text(binding, rank, text, sizeof text), expected);
}

static void counts_what_there_is(void **state)
{
    (void)state;
    struct kolo__binding *binding = open_machine(TWO_NODES);
    const struct kolo__machine *machine = kolo__binding_machine(binding);
    assert_int_equal(machine->packages, 2);
    assert_int_equal(machine->numa_nodes, 2);
    assert_int_equal(machine->cores, 4);
    assert_int_equal(machine->pus, 8);
    assert_int_equal(machine->usable_cores, 4);
    kolo__binding_close(binding);
}

static void a_core_each(void **state)
{
    (void)state;
    struct kolo__binding *binding = open_machine(TWO_NODES);
    assert_int_equal(kolo__binding_plan(binding, "core", 3), KOLO_OK);
    expect_place(binding, 0, "bound to core 0 (PUs 0-1)");
    expect_place(binding, 2, "bound to core 2 (PUs 4-5)");
    assert_false(kolo__binding_shares_cores(binding));
    kolo__binding_close(binding);
}

static void more_ranks_than_cores_begin_anew(void **state)
{
    (void)state;
    struct kolo__binding *binding = open_machine(TWO_NODES);
    assert_int_equal(kolo__binding_plan(binding, "core", 6), KOLO_OK);
    expect_place(binding, 5, "bound to core 1 (PUs 2-3)");
    assert_true(kolo__binding_shares_cores(binding));
    kolo__binding_close(binding);
}

static void neighbours_share_a_node(void **state)
{
    (void)state;
    struct kolo__binding *binding = open_machine(TWO_NODES);
    assert_int_equal(kolo__binding_plan(binding, "numa", 5), KOLO_OK);
    expect_place(binding, 0, "bound to NUMA node 0 (PUs 0-3)");
    expect_place(binding, 2, "bound to NUMA node 0 (PUs 0-3)");
    expect_place(binding, 3, "bound to NUMA node 1 (PUs 4-7)");
    expect_place(binding, 4, "bound to NUMA node 1 (PUs 4-7)");
    kolo__binding_close(binding);
}

static void automatic_is_sensible(void **state)
{
    (void)state;
    struct kolo__binding *binding = open_machine(TWO_NODES);
    assert_int_equal(kolo__binding_plan(binding, "auto", 4), KOLO_OK);
    expect_place(binding, 3, "bound to core 3 (PUs 6-7)");
    assert_int_equal(kolo__binding_plan(binding, "auto", 2), KOLO_OK);
    expect_place(binding, 0, "bound to core 0 (PUs 0-1)");
    expect_place(binding, 1, "bound to core 2 (PUs 4-5)");
    assert_int_equal(kolo__binding_plan(binding, "auto", 5), KOLO_OK);
    expect_place(binding, 3, "not bound (PUs 0-7)");
    assert_int_equal(kolo__binding_plan(binding, "auto", 8), KOLO_OK);
    expect_place(binding, 3, "bound to core 3 (PUs 6-7)");
    expect_place(binding, 4, "bound to core 0 (PUs 0-1)");
    assert_true(kolo__binding_shares_cores(binding));
    assert_int_equal(kolo__binding_plan(binding, "auto", 1), KOLO_OK);
    expect_place(binding, 0, "not bound (PUs 0-7)");
    assert_int_equal(kolo__binding_plan(binding, "none", 2), KOLO_OK);
    expect_place(binding, 1, "not bound (PUs 0-7)");
    assert_int_equal(kolo__binding_plan(binding, "hyper", 2), KOLO_ERR_CONFIG);
    kolo__binding_close(binding);
}

/* Where a quota takes processors away, which cores stay idle is for the kernel to say. */
static void a_quota_leaves_many_ranks_free(void **state)
{
    (void)state;
    struct kolo__machine machine = {.allowed_cores = 4, .usable_cores = 4};
    assert_int_equal(kolo__bind_automatic(&machine, 8), KOLO__BIND_CORE);
    machine.usable_cores = 2;
    assert_int_equal(kolo__bind_automatic(&machine, 2), KOLO__BIND_SPREAD);
    assert_int_equal(kolo__bind_automatic(&machine, 4), KOLO__BIND_NONE);
    assert_int_equal(kolo__bind_automatic(&machine, 8), KOLO__BIND_NONE);
    machine = (struct kolo__machine){.usable_cores = 1};
    assert_int_equal(kolo__bind_automatic(&machine, 4), KOLO__BIND_NONE);
}

/* By the first processor in the text: two a core, four cores a node. */
static uint32_t core_of(struct kolo__binding *binding, uint32_t rank)
{
    char text[640];
    unsigned core, first, last;
    kolo__binding_text(binding, rank, text, sizeof text);
    assert_int_equal(sscanf(text, "bound to core %u (PUs %u-%u)", &core, &first, &last), 3);
    assert_int_equal(first, 2 * core);
    assert_int_equal(last, 2 * core + 1);
    return core;
}

/* Blocks of neighbours on each node, none on the second thread of a core while another is free. */
static void few_ranks_spread_over_all_nodes(void **state)
{
    (void)state;
    struct kolo__binding *binding = open_machine(FOUR_NODES);
    assert_int_equal(kolo__binding_machine(binding)->numa_nodes, 4);
    assert_int_equal(kolo__binding_machine(binding)->allowed_cores, FOUR_NODES_CORES);
    for (uint32_t ranks = 2; ranks <= FOUR_NODES_CORES; ranks++) {
        assert_int_equal(kolo__binding_plan(binding, "auto", ranks), KOLO_OK);
        assert_false(kolo__binding_shares_cores(binding));
        for (uint32_t rank = 0; rank < ranks; rank++) {
            assert_int_equal(core_of(binding, rank) / 4, rank * 4 / ranks);
            assert_true(rank == 0 || core_of(binding, rank) > core_of(binding, rank - 1));
        }
    }
    assert_int_equal(kolo__binding_plan(binding, "core", 5), KOLO_OK);
    for (uint32_t rank = 0; rank < 5; rank++)
        assert_int_equal(core_of(binding, rank), rank);
    kolo__binding_close(binding);
}

/* In a child, so that the test itself stays free. */
static void stays_within_its_own_affinity(void **state)
{
    (void)state;
    cpu_set_t own;
    int last = -1, wait_status;
    assert_int_equal(sched_getaffinity(0, sizeof own, &own), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &own))
            last = cpu;
    pid_t pid = fork();
    if (pid == 0) {
        struct kolo__binding *binding;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(last, &one);
        bool good = sched_setaffinity(0, sizeof one, &one) == 0 &&
                    kolo__binding_open(NULL, &binding) == KOLO_OK &&
                    kolo__binding_machine(binding)->allowed_pus == 1 &&
                    kolo__binding_plan(binding, "core", 2) == KOLO_OK &&
                    kolo__binding_apply(binding, 1) == 0;
        cpu_set_t bound;
        good = good && sched_getaffinity(0, sizeof bound, &bound) == 0 && CPU_EQUAL(&one, &bound);
        _exit(good ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_int_equal(wait_status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_there_is),
        cmocka_unit_test(a_core_each),
        cmocka_unit_test(more_ranks_than_cores_begin_anew),
        cmocka_unit_test(neighbours_share_a_node),
        cmocka_unit_test(automatic_is_sensible),
        cmocka_unit_test(a_quota_leaves_many_ranks_free),
        cmocka_unit_test(few_ranks_spread_over_all_nodes),
        cmocka_unit_test(stays_within_its_own_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
