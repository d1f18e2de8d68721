/* SPDX-License-Identifier: Apache-2.0 */
/* What is left for Kubernetes to show. */
#include "launcher/termination.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static size_t read_back(char *text, size_t bytes)
{
    FILE *file = fopen("termination-log", "r");
    assert_non_null(file);
    size_t length = fread(text, 1, bytes - 1, file);
    fclose(file);
    text[length] = '\0';
    return length;
}

static void test_termination_log(void **state)
{
    (void)state;
    static char text[10000], found[10000];
    unlink("termination-log");
    assert_int_equal(kolo__termination_write("termination-log", "why"), ENOENT); /* not made */
    fclose(fopen("termination-log", "w"));
    assert_int_equal(kolo__termination_write("termination-log", "a long reason"), 0);
    assert_int_equal(kolo__termination_write("termination-log", "why"), 0);
    assert_int_equal(read_back(found, sizeof found), 3);
    assert_string_equal(found, "why");
    memset(text, 'x', sizeof text - 1);
    assert_int_equal(kolo__termination_write("termination-log", text), 0);
    assert_int_equal(read_back(found, sizeof found), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_termination_log)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
