/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of control groups, read from folders that look like theirs. */
#include "launcher/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64] = "limits.XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void make_folder(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(mkdir(path, 0777), 0);
}

static int make_root(void **state)
{
    static const char *const FOLDERS[] = {"a", "a/b", "cpu", "cpu/c", "memory", "memory/c"};
    (void)state;
    if (mkdtemp(root) == NULL)
        return -1;
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++)
        make_folder(FOLDERS[i]);
    write_file("groups2", "0::/a/b\n");
    write_file("groups1", "2:memory:/c\n1:cpu,cpuacct:/c\n");
    return 0;
}

static void expect(const char *groups, uint32_t centis, uint64_t memory_bytes)
{
    char membership[128];
    snprintf(membership, sizeof membership, "%s/%s", root, groups);
    assert_int_equal(kolo__limits_quota_centis(membership, root), centis);
    assert_int_equal(kolo__limits_memory_bytes(membership, root), memory_bytes);
}

static void version_2(void **state)
{
    expect("groups2", 0, UINT64_MAX);
    write_file("a/b/cpu.max", "max 100000\n");
    write_file("a/b/memory.max", "max\n");
    expect("groups2", 0, UINT64_MAX);
    write_file("a/b/cpu.max", "50000 100000\n");
    write_file("a/b/memory.max", "1073741824\n");
    expect("groups2", 50, 1073741824);
    /* The least of a group and those around it. */
    write_file("a/cpu.max", "25100 100000\n");
    write_file("a/memory.max", "4096\n");
    expect("groups2", 26, 4096);
    (void)state;
}

static void version_1(void **state)
{
    write_file("cpu/c/cpu.cfs_quota_us", "-1\n");
    write_file("cpu/c/cpu.cfs_period_us", "100000\n");
    write_file("memory/c/memory.limit_in_bytes", "9223372036854771712\n");
    expect("groups1", 0, UINT64_MAX);
    write_file("cpu/c/cpu.cfs_quota_us", "350000\n");
    write_file("memory/c/memory.limit_in_bytes", "65536\n");
    expect("groups1", 350, 65536);
    write_file("cpu/c/cpu.cfs_quota_us", "9223372036854775807\n");
    expect("groups1", 0, 65536);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(version_2), cmocka_unit_test(version_1)};
    return cmocka_run_group_tests(tests, make_root, NULL);
}
