/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks tell of themselves: there and back, cut short, too much, and not alike. */
#include "runtime/introduction.h"

#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static struct kolo__introduction make(void)
{
    struct kolo__introduction made;
    for (size_t i = 0; i < KOLO__INTRODUCTION_TEXTS; i++)
        made.text[i] = i % 2 == 0 ? "one" : "";
    return made;
}

static void test_there_and_back(void **state)
{
    (void)state;
    struct kolo__introduction own = make(), other;
    unsigned char bytes[KOLO__INTRODUCTION_BYTES_MAX];
    size_t length = kolo__introduction_encode(&own, bytes);
    assert_int_equal(kolo__introduction_decode(bytes, length, &other), KOLO_OK);
    for (size_t i = 0; i < KOLO__INTRODUCTION_TEXTS; i++)
        assert_string_equal(other.text[i], own.text[i]);
    for (size_t cut = 0; cut < length; cut++)
        assert_int_equal(kolo__introduction_decode(bytes, cut, &other), KOLO_ERR_WORLD);
    bytes[length] = '\0';
    assert_int_equal(kolo__introduction_decode(bytes, length + 1, &other), KOLO_ERR_WORLD);
}

static void test_alike(void **state)
{
    (void)state;
    struct kolo__introduction own = make(), other = own;
    other.text[KOLO__INTRODUCTION_MACHINE] = other.text[KOLO__INTRODUCTION_ENDPOINT] = "elsewhere";
    assert_int_equal(kolo__introduction_compare(0, &own, 7, &other), KOLO_OK);
    other.text[KOLO__ALIKE_TIMELINE] = "another";
    assert_int_equal(kolo__introduction_compare(0, &own, 7, &other), KOLO_ERR_CONFIG);
    assert_non_null(
        strstr(kolo_error_text(), "KOLO_TIMELINE is one on rank 0 and another on rank 7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
