/* SPDX-License-Identifier: Apache-2.0 */
/* --hosts and --hostfile: who is meant, how many slots, and which rank goes where. */
#include "launcher/hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* "host=slots host=slots", as read. */
static const char *shown(struct kolo__hosts *hosts)
{
    static char text[1000];
    text[0] = '\0';
    for (uint32_t i = 0; i < hosts->count; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s=%ld", i > 0 ? " " : "", hosts->list[i].name,
                 hosts->list[i].slots);
    }
    kolo__hosts_free(hosts);
    return text;
}

static const char *of_list(const char *list)
{
    struct kolo__hosts hosts = {0};
    assert_int_equal(kolo__hosts_read_list(&hosts, list), KOLO_OK);
    return shown(&hosts);
}

static kolo_status read_text(struct kolo__hosts *hosts, const char *text)
{
    char path[] = "hostfile.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    kolo_status status = kolo__hosts_read_file(hosts, path);
    unlink(path);
    return status;
}

static void refuse(kolo_status status, const char *said)
{
    assert_int_equal(status, KOLO_ERR_CONFIG);
    if (strstr(kolo_error_text(), said) == NULL)
        fail_msg("'%s' does not say '%s'", kolo_error_text(), said);
}

static void refuse_list(const char *list, const char *said)
{
    struct kolo__hosts hosts = {0};
    refuse(kolo__hosts_read_list(&hosts, list), said);
    kolo__hosts_free(&hosts);
}

static void refuse_file(const char *text, const char *said)
{
    struct kolo__hosts hosts = {0};
    refuse(read_text(&hosts, text), said);
    kolo__hosts_free(&hosts);
}

static void knows_this_machine(void **state)
{
    (void)state;
    static const char *const same[] = {"localhost", "127.0.0.1", "::1",
                                       "node7",     "Node7",     "node7.example.com"};
    static const char *const other[] = {"node8",       "192.0.2.1",         "node70",
                                        "2001:db8::1", "node7.example.org", "me@node7"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_true(kolo__host_is_here(same[i], "node7.example.com"));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_false(kolo__host_is_here(other[i], "node7.example.com"));
    assert_true(kolo__host_is_here("node7.example.com", "node7"));
}

/* With hostNetwork: the launcher of an MPIJob is the pod of a Job. */
static void knows_its_pod(void **state)
{
    (void)state;
    char name[64] = "", pod[64];
    memset(name, 'a', 63);
    assert_true(kolo__host_is_pod("train-launcher.train.lab.svc", "train-launcher-x7k2p"));
    assert_true(kolo__host_is_pod("train-launcher", "train-launcher-24567"));
    assert_true(kolo__host_is_pod("bench-0.bench", "bench-0"));
    assert_false(kolo__host_is_pod("train-launcher.train", "train-launcher-x7k2"));
    assert_false(kolo__host_is_pod("train-launcher.train", "train-launcher-x7k2pp"));
    assert_false(
        kolo__host_is_pod("train-launcher.train", "train-launcher-a1e3o")); /* none of these */
    assert_false(kolo__host_is_pod("train-worker-1.train", "train-worker-10"));
    assert_false(kolo__host_is_pod("train-worker-0.train", "train-launcher-x7k2p"));
    snprintf(pod, sizeof pod, "%.58sx7k2p", name);
    assert_true(kolo__host_is_pod(name, pod));
    setenv("POD_NAME", "train-launcher-x7k2p", 1);
    struct kolo__hosts hosts = {0};
    assert_int_equal(kolo__hosts_read_list(&hosts, "train-launcher.train:2,train-worker-0.train:2"),
                     KOLO_OK);
    assert_true(hosts.list[0].here);
    assert_false(hosts.list[1].here);
    kolo__hosts_free(&hosts);
    unsetenv("POD_NAME");
}

static void reads_lists(void **state)
{
    (void)state;
    assert_string_equal(of_list("a:4,b:2"), "a=4 b=2");
    assert_string_equal(of_list("a,me@b.example:3"), "a=0 me@b.example=3");
    assert_string_equal(of_list("2001:db8::2,[2001:db8::1]:4,[2001:db8::3]"),
                        "2001:db8::2=0 2001:db8::1=4 2001:db8::3=0");
    assert_string_equal(of_list("me@[2001:db8::1]:4,me@2001:db8::2"),
                        "me@2001:db8::1=4 me@2001:db8::2=0");
    assert_string_equal(of_list("a:1,b:1,A:2,b:1"), "a=3 b=2");
    assert_string_equal(of_list("localhost:2,127.0.0.1:1,a:1"), "localhost=3 a=1");
}

static void reads_files(void **state)
{
    (void)state;
    struct kolo__hosts hosts = {0};
    assert_int_equal(read_text(&hosts, "# ours\n"
                                       "a slots=4 max_slots=8\n"
                                       "\n"
                                       "b.example:2   # MPICH\r\n"
                                       "\tc\n"
                                       "[2001:db8::1]:3\n"
                                       "a slots=1"),
                     KOLO_OK);
    assert_string_equal(shown(&hosts), "a=5 b.example=2 c=0 2001:db8::1=3");
}

static void refuses_what_is_no_list(void **state)
{
    (void)state;
    refuse_list("", "empty");
    refuse_list("a:2,", "empty");
    refuse_list(",a:2", "empty");
    refuse_list("a:0", "'0' is no number of slots for a");
    refuse_list("a:-1", "no number of slots");
    refuse_list("a:2x", "no number of slots");
    refuse_list("a:", "no number of slots");
    refuse_list("a:99999999999999999999", "no number of slots");
    refuse_list("[2001:db8::1]4", "give [ADDRESS]:SLOTS");
    refuse_list("[::1:2", "[fd00::1]:4");
    refuse_list("::1]:2", "is no name or address");
    refuse_list("a:b:c", "is no name or address");
    refuse_list("-oProxyCommand=x:1", "is no name or address");
    refuse_list("a b:1", "is no name or address");
    refuse_list("a;b", "is no name or address");
    refuse_list("$(x)", "is no name or address");
    refuse_list("user@:1", "is no name or address");
    refuse_list("user:x@host:1", "is no name or address");
    refuse_list("user@[fd00::1", "is no name or address");
    refuse_list("@host:1", "is no name or address");
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    struct kolo__hosts hosts = {0};
    refuse(kolo__hosts_read_file(&hosts, "/nonexistent/hosts"),
           "/nonexistent/hosts cannot be read");
    refuse_file("# nothing\n", "names no host");
    refuse_file("a slots=2\nb slots=x\n", "line 2: 'x' is no number of slots for b");
    refuse_file("a slots = 2\n", "line 1: 'slots' means nothing here");
    refuse_file("a gpus=2\n", "'gpus=2' means nothing here");
}

static void places_ranks(void **state)
{
    (void)state;
    struct kolo__hosts hosts = {0};
    uint32_t host_of[6];
    long slots;
    assert_int_equal(kolo__hosts_read_list(&hosts, "a:3,b:1,c:2"), KOLO_OK);
    assert_true(kolo__hosts_are_counted(&hosts));
    assert_int_equal(kolo__hosts_total(&hosts, &slots), KOLO_OK);
    assert_int_equal(slots, 6);
    kolo__hosts_place(&hosts, 6, false, host_of);
    assert_memory_equal(host_of, ((uint32_t[]){0, 0, 0, 1, 2, 2}), sizeof host_of);
    kolo__hosts_place(&hosts, 6, true, host_of);
    assert_memory_equal(host_of, ((uint32_t[]){0, 1, 2, 0, 2, 0}), sizeof host_of);
    kolo__hosts_place(&hosts, 4, true, host_of);
    assert_memory_equal(host_of, ((uint32_t[]){0, 1, 2, 0}), 4 * sizeof *host_of);
    kolo__hosts_free(&hosts);
    assert_int_equal(kolo__hosts_read_list(&hosts, "a:1048576,b:1"), KOLO_OK);
    assert_int_equal(kolo__hosts_total(&hosts, &slots), KOLO_ERR_CONFIG);
    kolo__hosts_free(&hosts);
    assert_int_equal(kolo__hosts_read_list(&hosts, "a:2,b"), KOLO_OK);
    assert_false(kolo__hosts_are_counted(&hosts));
    kolo__hosts_free(&hosts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_this_machine),
        cmocka_unit_test(knows_its_pod),
        cmocka_unit_test(reads_lists),
        cmocka_unit_test(reads_files),
        cmocka_unit_test(refuses_what_is_no_list),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(places_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
