/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made of each launcher's environment. Every file in environments/ is one, as found under
 * that launcher, a variable a line; lines that begin with "# expect: " say what is to come out:
 *
 *     # expect: torchrun 5/8 local 1/4 near node7:30500 job torchrun-x.0
 *     # expect: KOLO_ERR_CONFIG RANK=3             several such lines: all of these words
 */
#include "runtime/launch/launch.h"
#include "runtime/launch/pods.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES_MAX = 256 };

struct fixture {
    char text[16384];
    char *variables[LINES_MAX];
    const char *expected[LINES_MAX];
    int variable_count, expected_count;
};

static void read_fixture(const char *path, struct fixture *fixture)
{
    static const char mark[] = "# expect: ";
    memset(fixture, 0, sizeof *fixture);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t bytes = fread(fixture->text, 1, sizeof fixture->text - 1, file);
    assert_true(bytes < sizeof fixture->text - 1);
    fclose(file);
    for (char *line = strtok(fixture->text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        assert_true(fixture->variable_count + fixture->expected_count < LINES_MAX - 1);
        if (strncmp(line, mark, strlen(mark)) == 0)
            fixture->expected[fixture->expected_count++] = line + strlen(mark);
        else if (line[0] != '#')
            fixture->variables[fixture->variable_count++] = line;
    }
    assert_true(fixture->expected_count > 0);
}

static const char *meeting_text(const struct kolo__launch *launch, char *text, size_t bytes)
{
    static const char *const words[] = {
        [KOLO__MEET_NOBODY] = "alone",   [KOLO__MEET_AT] = "at",
        [KOLO__MEET_HELD] = "held at",   [KOLO__MEET_NEAR] = "near",
        [KOLO__MEET_BY_MPI] = "by mpi",  [KOLO__MEET_BY_PMI] = "by pmi",
        [KOLO__MEET_UNKNOWN] = "unknown"};
    const char *word = words[launch->meeting];
    if (launch->meeting == KOLO__MEET_HELD)
        snprintf(text, bytes, "%s %s", word, launch->places);
    else if (launch->meeting == KOLO__MEET_UNKNOWN)
        snprintf(text, bytes, "%s: %s", word, launch->missing);
    else if (launch->port != 0)
        snprintf(text, bytes, "%s %s:%d", word, launch->host, launch->port);
    else
        snprintf(text, bytes, "%s", word);
    return text;
}

static void describe(kolo_status status, const struct kolo__launch *launch, char *text,
                     size_t bytes)
{
    char meeting[1200];
    if (status != KOLO_OK) {
        snprintf(text, bytes, "%s %s", kolo_status_name(status), kolo_error_text());
        return;
    }
    snprintf(text, bytes, "%s %ld/%ld local %ld/%ld %s job %s", launch->source, launch->rank,
             launch->size, launch->local_rank, launch->local_size,
             meeting_text(launch, meeting, sizeof meeting), launch->job);
}

static int check_fixture(const char *path)
{
    static struct fixture fixture;
    struct kolo__launch launch;
    char found[1600];
    int failures = 0;
    read_fixture(path, &fixture);
    kolo_status status = kolo__launch_detect(fixture.variables, &launch);
    describe(status, &launch, found, sizeof found);
    for (int i = 0; i < fixture.expected_count; i++) {
        bool good = status == KOLO_OK ? strcmp(found, fixture.expected[i]) == 0
                                      : strstr(found, fixture.expected[i]) != NULL;
        if (!good)
            print_error("%s:\n  expected %s\n  found    %s\n", path, fixture.expected[i], found);
        failures += !good;
    }
    return failures;
}

static void test_environments(void **state)
{
    (void)state;
    char folder[2048], path[4096];
    int count = 0, failures = 0;
    assert_non_null(getenv("SOURCE_DIR"));
    snprintf(folder, sizeof folder, "%s/tests/unit/runtime/launch/environments",
             getenv("SOURCE_DIR"));
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        failures += check_fixture(path);
        count++;
    }
    closedir(directory);
    assert_true(count > 20);
    assert_int_equal(failures, 0);
}

static void test_no_environment(void **state)
{
    (void)state;
    struct kolo__launch launch;
    char text[200];
    assert_int_equal(kolo__launch_detect(NULL, &launch), KOLO_OK);
    assert_int_equal(launch.size, 1);
    assert_string_equal(kolo__launch_text(&launch, text, sizeof text), "1 rank, by no launcher");
}

/* ---- lists of hosts ------------------------------------------------------------------------ */

static void expect_first(const char *list, const char *expected, bool expected_only)
{
    char first[32];
    bool only;
    assert_int_equal(kolo__hostlist_first(list, first, sizeof first, &only), KOLO_OK);
    assert_string_equal(first, expected);
    assert_int_equal(only, expected_only);
}

static void test_hostlists(void **state)
{
    (void)state;
    expect_first("node7", "node7", true);
    expect_first("node7,node8", "node7", false);
    expect_first("node[01-03,07]", "node01", false);
    expect_first("node[07]", "node07", true);
    expect_first("node[07-07]", "node07", true);
    expect_first("node[07,09]", "node07", false);
    expect_first("rack[1-2]node[3-4],login", "rack1node3", false);
    expect_first("rack[1]node[3]", "rack1node3", true);
    expect_first("gpu-a.site.org,b", "gpu-a.site.org", false);
    expect_first("n[001-128]-ib0", "n001-ib0", false);
}

static void test_broken_hostlists(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "",
        ",node1",
        "node[",
        "node[]",
        "node[1-]",
        "node[a-b]",
        "node]",
        "node 1",
        "[",
        "node[1",
        "node[1;2]",
        "node1\xff",
        "a-name-of-more-than-thirty-one-characters",
    };
    char first[32];
    bool only;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        assert_int_equal(kolo__hostlist_first(broken[i], first, sizeof first, &only),
                         KOLO_ERR_CONFIG);
}

/* ---- names of pods ------------------------------------------------------------------------- */

static void expect_pod(const char *first, long per_job, long index, const char *expected)
{
    char text[80];
    assert_string_equal(kolo__pod_name(first, per_job, index, text, sizeof text), expected);
}

static void test_pod_names(void **state)
{
    (void)state;
    expect_pod("train-0.svc", 0, 7, "train-7.svc");
    expect_pod("train-0", 0, 12, "train-12");
    expect_pod("train-0.svc.ns.svc.corp.example", 0, 1, "train-1.svc.ns.svc.corp.example");
    expect_pod("set-ranks-0-0.set", 4, 7, "set-ranks-1-3.set");
    expect_pod("set-ranks-0-0.set", 0, 7, "set-ranks-0-7.set");
    expect_pod("train-1.svc", 0, 7, ""); /* not pod 0's */
    expect_pod("train.svc", 0, 7, "");
    expect_pod("train-0.svc", 4, 7, "");
    expect_pod("10.0.0.1", 0, 7, "");
    expect_pod("", 0, 7, "");
}

/* What `kolo run --per-pod` makes of an environment. */
static void test_pod_world_sizes(void **state)
{
    (void)state;
    char index[] = "JOB_COMPLETION_INDEX=1", world[] = "KOLO_WORLD_SIZE=8";
    char rank[] = "PET_NODE_RANK=1", nodes[] = "PET_NNODES=2";
    char *by_manifest[] = {index, world, NULL}, *by_nodes[] = {rank, nodes, NULL};
    char *contrary[] = {rank, nodes, world, NULL};
    struct kolo__pod pod;
    long size;
    assert_int_equal(kolo__pod_detect(by_manifest, &pod), KOLO_OK);
    assert_int_equal(kolo__pod_world_size(by_manifest, &pod, 4, &size), KOLO_OK);
    assert_int_equal(size, 8);
    assert_int_equal(kolo__pod_world_size(by_manifest, &pod, 3, &size), KOLO_ERR_WORLD);
    assert_int_equal(kolo__pod_world_size(by_manifest, &pod, 8, &size), KOLO_ERR_WORLD);
    assert_int_equal(kolo__pod_detect(by_nodes, &pod), KOLO_OK);
    assert_int_equal(kolo__pod_world_size(by_nodes, &pod, 3, &size), KOLO_OK);
    assert_int_equal(size, 6);
    assert_int_equal(kolo__pod_world_size(contrary, &pod, 3, &size), KOLO_ERR_WORLD);
    assert_int_equal(kolo__pod_world_size(contrary, &pod, 4, &size), KOLO_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_environments), cmocka_unit_test(test_no_environment),
        cmocka_unit_test(test_hostlists),    cmocka_unit_test(test_broken_hostlists),
        cmocka_unit_test(test_pod_names),    cmocka_unit_test(test_pod_world_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
