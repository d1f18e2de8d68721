/* SPDX-License-Identifier: Apache-2.0 */
/* What control groups leave, read from folders that look like those of the kernel. */
#include "collectives/transport/available_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <sys/stat.h>

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static uint64_t left(const char *membership)
{
    put("membership", membership);
    return kolo__cgroup_memory("membership", ".");
}

static void make_folder(const char *path)
{
    mkdir(path, 0700); /* or it is there from the last run */
}

static void version_2(void **state)
{
    (void)state;
    make_folder("pod");
    make_folder("pod/container");
    put("pod/memory.max", "1000000\n");
    put("pod/memory.current", "700000\n");
    put("pod/memory.stat", "anon 5\ninactive_file 100000\n");
    put("pod/container/memory.max", "max\n");
    assert_int_equal(left("0::/pod/container\n"), 400000); /* the parent's; cache can be dropped */
    put("pod/container/memory.max", "300000\n");
    put("pod/container/memory.current", "250000\n");
    assert_int_equal(left("0::/pod/container\n"), 50000);
    put("pod/container/memory.current", "350000\n");
    assert_int_equal(left("0::/pod/container\n"), 0);
}

static void version_1(void **state)
{
    (void)state;
    make_folder("memory");
    make_folder("memory/job");
    put("memory/job/memory.limit_in_bytes", "600000\n");
    put("memory/job/memory.usage_in_bytes", "100000\n");
    assert_int_equal(left("4:cpu,cpuacct:/job\n9:memory:/job\n"), 500000);
    assert_true(left("4:cpu,cpuacct:/job\n") == UINT64_MAX);
}

static void no_group_is_no_limit(void **state)
{
    (void)state;
    assert_true(kolo__cgroup_memory("nothing", ".") == UINT64_MAX);
    assert_true(left("0::/elsewhere\n") == UINT64_MAX);
    assert_true(kolo__available_memory() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_2),
        cmocka_unit_test(version_1),
        cmocka_unit_test(no_group_is_no_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
