/* SPDX-License-Identifier: Apache-2.0 */
/* The quota of processor time, read from folders that look like those of the kernel. */
#include "runtime/cpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int quota(const char *membership)
{
    put("membership", membership);
    return kolo__cgroup_cpus("membership", ".");
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
    put("pod/container/cpu.max", "max 100000\n");
    put("pod/cpu.max", "250000 100000\n");
    assert_int_equal(quota("0::/pod/container\n"), 3); /* the parent's, rounded up */
    put("pod/container/cpu.max", "50000 100000\n");
    assert_int_equal(quota("0::/pod/container\n"), 1);
    assert_int_equal(quota("0::/elsewhere\n"), 0);
    put("cpu.max", "700000 100000\n"); /* a container's own root */
    assert_int_equal(quota("0::/\n"), 7);
    assert_int_equal(unlink("cpu.max"), 0);
}

static void version_1(void **state)
{
    (void)state;
    make_folder("cpu");
    make_folder("cpu/job");
    put("cpu/cpu.cfs_quota_us", "-1\n");
    put("cpu/cpu.cfs_period_us", "100000\n");
    put("cpu/job/cpu.cfs_quota_us", "150000\n");
    put("cpu/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota("9:memory:/job\n4:cpu,cpuacct:/job\n0::/\n"), 2);
    assert_int_equal(quota("4:cpuacct,cpu:/job\n"), 2);
    assert_int_equal(quota("4:cpuset:/job\n"), 0);
    assert_int_equal(quota("4:cpu:/\n"), 0);
}

static void what_is_not_there_is_no_limit(void **state)
{
    (void)state;
    assert_int_equal(kolo__cgroup_cpus("nothing", "."), 0);
    assert_int_equal(quota(""), 0);
    assert_int_equal(quota("nonsense\n:\n::\n0::\n"), 0);
    assert_true(kolo__usable_cpus() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_2),
        cmocka_unit_test(version_1),
        cmocka_unit_test(what_is_not_there_is_no_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
