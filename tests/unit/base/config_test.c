/* SPDX-License-Identifier: Apache-2.0 */
/* The option table: values, limits, and errors that say what to do. */
#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct kolo__config config;

static kolo_status load(const char *entry)
{
    char *environment[] = {"PATH=/bin", (char *)(uintptr_t)entry, NULL};
    return kolo__config_load(&config, environment);
}

static void assert_error_says(const char *what)
{
    if (strstr(kolo_error_text(), what) == NULL)
        fail_msg("'%s' is not in: %s", what, kolo_error_text());
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(kolo__config_load(&config, NULL), KOLO_OK);
    assert_string_equal(config.transport, "auto");
    assert_string_equal(config.rendezvous, "");
    assert_int_equal(config.timeout, 300);
    assert_int_equal(config.rank, -1);
    assert_int_equal(config.world_size, 0);
}

static void test_values(void **state)
{
    (void)state;
    assert_int_equal(load("KOLO_TRANSPORT=tcp"), KOLO_OK);
    assert_string_equal(config.transport, "tcp");
    assert_int_equal(load("KOLO_SEGMENT_BYTES=64K"), KOLO_OK);
    assert_int_equal(config.segment_bytes, 65536);
    assert_int_equal(load("KOLO_SEGMENT_BYTES=1g"), KOLO_OK);
    assert_int_equal(config.segment_bytes, 1 << 30);
    assert_int_equal(load("KOLO_INIT_TIMEOUT=7"), KOLO_OK);
    assert_int_equal(config.init_timeout, 7);
    assert_int_equal(load("KOLO_RENDEZVOUS=10.0.0.1:99"), KOLO_OK);
    assert_string_equal(config.rendezvous, "10.0.0.1:99");
    assert_int_equal(kolo__config_set(&config, "transport", "shm"), KOLO_OK);
    assert_string_equal(config.transport, "shm");
    assert_string_equal(config.rendezvous, "10.0.0.1:99");
}

static void test_errors_say_what_to_do(void **state)
{
    (void)state;
    static const struct {
        const char *entry, *says;
    } cases[] = {
        {"KOLO_TRANSPROT=tcp", "KOLO_TRANSPORT"},
        {"KOLO_TRANSPORT=t", "auto|shm|tcp|rdma|shm+rdma"},
        {"KOLO_TRANSPORT=auto|shm", "auto|shm|tcp|rdma|shm+rdma"},
        {"KOLO_TRANSPORT=", "auto|shm|tcp|rdma|shm+rdma"},
        {"KOLO_TIMEOUT=0", "from 1 to"},
        {"KOLO_TIMEOUT=5x", "from 1 to"},
        {"KOLO_TIMEOUT=", "from 1 to"},
        {"KOLO_TIMEOUT= 5", "from 1 to"},
        {"KOLO_TIMEOUT=99999999999999999999", "from 1 to"},
        {"KOLO_SEGMENT_BYTES=9999999G", "bytes"},
        {"KOLO_SEGMENT_BYTES=1T", "bytes"},
        {"KOLO_", "not an option"},
        {"KOLO_NET=eth0,,", "is no name of an interface"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(load(cases[i].entry), KOLO_ERR_CONFIG);
        assert_error_says(cases[i].says);
    }
    assert_int_equal(kolo__config_set(&config, "nonsense", "1"), KOLO_ERR_CONFIG);
}

static void test_a_value_too_long_for_the_storage(void **state)
{
    (void)state;
    char *entry = malloc(8000);
    memset(entry, 'x', 7999);
    memcpy(entry, "KOLO_TOKEN=", 11);
    entry[7999] = '\0';
    assert_int_equal(load(entry), KOLO_ERR_CONFIG);
    assert_error_says("too long");
    free(entry);
}

static void test_every_option_is_documented(void **state)
{
    (void)state;
    char *text = NULL, variable[64];
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    kolo__config_document(out);
    fclose(out);
    for (size_t i = 0; i < kolo__option_count; i++) {
        kolo__option_variable(&kolo__options[i], variable, sizeof variable);
        assert_non_null(strstr(text, variable));
        assert_true(strlen(kolo__options[i].help) > 10);
    }
    assert_true(kolo__option_count <= 40);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_errors_say_what_to_do),
        cmocka_unit_test(test_a_value_too_long_for_the_storage),
        cmocka_unit_test(test_every_option_is_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
