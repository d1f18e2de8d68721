/* SPDX-License-Identifier: Apache-2.0 */
/* Findings in words and in JSON: the same calls, two texts. */
#include "launcher/findings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static void tell(bool json, const char *value, char *text, size_t bytes)
{
    struct kolo__findings findings;
    FILE *out = fmemopen(text, bytes, "w");
    assert_non_null(out);
    kolo__findings_open(&findings, out, json);
    kolo__findings_section(&findings, "host", "host");
    kolo__findings_string(&findings, "name", value, "%s", value);
    kolo__findings_number(&findings, "cores", UINT64_MAX, ", many cores");
    kolo__findings_none(&findings, "limit", ", no %s", "limit");
    kolo__findings_list(&findings, "caches", "caches", ", ");
    for (unsigned level = 1; level <= 2; level++) {
        kolo__findings_item(&findings);
        kolo__findings_number(&findings, "level", level, "L%u", level);
        kolo__findings_flag(&findings, "shared", level == 2, "%s", level == 2 ? " shared" : "");
    }
    kolo__findings_list(&findings, "addresses", "addresses", NULL);
    for (unsigned i = 0; i < 2; i++) {
        kolo__findings_item(&findings);
        kolo__findings_number(&findings, "number", i, "%u", i);
    }
    kolo__findings_list(&findings, "options", "options", NULL);
    kolo__findings_remark(&findings, "none set");
    kolo__findings_section(&findings, "end", "end");
    kolo__findings_flag(&findings, "found", false, "not here");
    kolo__findings_close(&findings);
    fclose(out);
}

static void test_words(void **state)
{
    (void)state;
    char text[1000];
    tell(false, "a\"b", text, sizeof text);
    assert_string_equal(text, "host       a\"b, many cores, no limit\n"
                              "caches     L1, L2 shared\n"
                              "addresses  0\n"
                              "           1\n"
                              "options    none set\n"
                              "end        not here\n");
}

static void test_json(void **state)
{
    (void)state;
    char text[1000];
    tell(true, "node", text, sizeof text);
    assert_string_equal(
        text, "{\"schema\":1,"
              "\"host\":{\"name\":\"node\",\"cores\":18446744073709551615,\"limit\":null},"
              "\"caches\":[{\"level\":1,\"shared\":false},{\"level\":2,\"shared\":true}],"
              "\"addresses\":[{\"number\":0},{\"number\":1}],"
              "\"options\":[],\"end\":{\"found\":false}}\n");
}

/* Values come from the environment, which holds any bytes. */
static void test_quoting(void **state)
{
    (void)state;
    static const struct {
        const char *value, *quoted;
    } CASES[] = {
        {"", "\"\""},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
        {"\n\t\x1f\x7f", "\"\\u000a\\u0009\\u001f\x7f\""},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xff-\x80", "\"\\ufffd-\\ufffd\""},
        {"\xc3", "\"\\ufffd\""},                                  /* cut off */
        {"\xe2\x82", "\"\\ufffd\\ufffd\""},                       /* cut off */
        {"\xc0\x80", "\"\\ufffd\\ufffd\""},                       /* longer than need be */
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* a surrogate */
        {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* beyond U+10FFFF */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char text[1000], expected[200];
        tell(true, CASES[i].value, text, sizeof text);
        snprintf(expected, sizeof expected,
                 "{\"schema\":1,\"host\":{\"name\":%s,\"cores\":", CASES[i].quoted);
        text[strlen(expected)] = '\0';
        assert_string_equal(text, expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_quoting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
