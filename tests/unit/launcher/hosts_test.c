/* SPDX-License-Identifier: Apache-2.0 */
/* --hosts: what is this machine, what is not, and how many slots it has. */
#include "launcher/hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static long slots_of(const char *text, const char *own_name)
{
    long slots = -1;
    assert_int_equal(kolo__hosts_parse(text, own_name, 8, &slots), KOLO_OK);
    return slots;
}

static void refuse(const char *text, const char *said)
{
    long slots;
    assert_int_equal(kolo__hosts_parse(text, "node7.example.com", 8, &slots), KOLO_ERR_CONFIG);
    if (strstr(kolo_error_text(), said) == NULL)
        fail_msg("'%s' does not say '%s'", kolo_error_text(), said);
}

static void accepts_every_name_of_this_machine(void **state)
{
    (void)state;
    assert_int_equal(slots_of("localhost:3", "node7"), 3);
    assert_int_equal(slots_of("127.0.0.1:4", "node7"), 4);
    assert_int_equal(slots_of("[::1]:5", "node7"), 5);
    assert_int_equal(slots_of("node7:6", "node7"), 6);
    assert_int_equal(slots_of("Node7:6", "node7"), 6);
    assert_int_equal(slots_of("node7:2", "node7.example.com"), 2);
    assert_int_equal(slots_of("node7.example.com:2", "node7"), 2);
}

static void slots_default_and_add_up(void **state)
{
    (void)state;
    assert_int_equal(slots_of("localhost", "node7"), 8);
    assert_int_equal(slots_of("::1", "node7"), 8);
    assert_int_equal(slots_of("[::1]", "node7"), 8);
    assert_int_equal(slots_of("localhost:2,node7:3,127.0.0.1", "node7"), 13);
}

static void refuses_other_machines(void **state)
{
    (void)state;
    refuse("node8:2", "node8 is another machine than this one (node7.example.com)");
    refuse("node8:2", "launching over ssh comes in a later version");
    refuse("localhost:2,10.0.0.1:2", "10.0.0.1 is another machine");
    refuse("node7.example.org:2", "another machine");
    refuse("node70", "another machine");
}

static void refuses_what_is_no_list(void **state)
{
    (void)state;
    refuse("", "empty");
    refuse("localhost:2,", "empty");
    refuse(",localhost:2", "empty");
    refuse("localhost:0", "'0' is no number of slots");
    refuse("localhost:-1", "no number of slots");
    refuse("localhost:2x", "no number of slots");
    refuse("localhost:", "no number of slots");
    refuse("localhost:99999999999999999999", "no number of slots");
    refuse("localhost:1048576,localhost:1", "more than");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_every_name_of_this_machine),
        cmocka_unit_test(slots_default_and_add_up),
        cmocka_unit_test(refuses_other_machines),
        cmocka_unit_test(refuses_what_is_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
