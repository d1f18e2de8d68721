/* SPDX-License-Identifier: Apache-2.0 */
/* Where tokens come from, and what may be done without one. */
#include "base/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char token[KOLO__TOKEN_BYTES];

static void write_file(const char *path, const char *text, size_t bytes)
{
    unlink(path); /* an earlier run's, with its mode */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, bytes), bytes);
    close(fd);
}

static kolo_status read_from(const char *value, const char *file)
{
    struct kolo__config config = {.token = value, .token_file = file};
    return kolo__token_read(&config, token);
}

static void test_sources(void **state)
{
    (void)state;
    assert_int_equal(read_from("", ""), KOLO_OK);
    assert_string_equal(token, "");
    assert_int_equal(read_from(" a secret of some length\n", ""), KOLO_OK);
    assert_string_equal(token, "a secret of some length");
    write_file("token", "\r\n\t this one is from a file \n\n", 30);
    assert_int_equal(read_from("", "token"), KOLO_OK);
    assert_string_equal(token, "this one is from a file");
    assert_int_equal(read_from("the variable's own", "token"), KOLO_OK);
    assert_string_equal(token, "the variable's own");
}

/* With white space around it, which does not count. */
static void test_short_tokens(void **state)
{
    (void)state;
    write_file("short", "  fifteen letters\n\n", 19);
    write_file("long enough", "sixteen letters!\n", 17);
    assert_int_equal(read_from("", "short"), KOLO_ERR_CONFIG);
    assert_non_null(strstr(kolo_error_text(), "the token in short has 15 characters"));
    assert_non_null(strstr(kolo_error_text(), "head -c 32 /dev/urandom | base64"));
    assert_null(strstr(kolo_error_text(), "fifteen"));
    assert_string_equal(token, "");
    assert_int_equal(read_from("", "long enough"), KOLO_OK);
    assert_int_equal(read_from("1", ""), KOLO_ERR_CONFIG);
    assert_non_null(strstr(kolo_error_text(), "the token in KOLO_TOKEN has 1 "));
}

static void test_files_that_are_no_tokens(void **state)
{
    (void)state;
    char text[KOLO__TOKEN_BYTES];
    memset(text, 't', sizeof text);
    assert_int_equal(read_from("", "nowhere"), KOLO_ERR_CONFIG);
    assert_non_null(strstr(kolo_error_text(), "KOLO_TOKEN_FILE=nowhere"));
    write_file("empty", " \n", 2);
    assert_int_equal(read_from("", "empty"), KOLO_ERR_CONFIG);
    write_file("zero", "ab\0c", 4);
    assert_int_equal(read_from("", "zero"), KOLO_ERR_CONFIG);
    write_file("long", text, sizeof text);
    assert_int_equal(read_from("", "long"), KOLO_ERR_CONFIG);
    assert_string_equal(token, "");
    write_file("long", text, sizeof text - 1);
    assert_int_equal(read_from("", "long"), KOLO_OK);
    assert_int_equal(strlen(token), KOLO__TOKEN_BYTES - 1);
}

/* A pod's, from the key that all pods of its job have. */
static void test_derived_from_a_key(void **state)
{
    (void)state;
    static const char expected[] =
        "6b76203293338c67ce38dcb32d869cf905820190b6817e9cf8c92dec7ac71f88";
    mkdir("home", 0700);
    mkdir("home/.ssh", 0700);
    write_file("home/.ssh/id_rsa", "not really a key\n", 17);
    setenv("HOME", "home", 1);
    assert_int_equal(read_from("", ""), KOLO_OK);
    assert_string_equal(token, ""); /* a user's own key, on a user's own machine */
    setenv("K_MPI_JOB_ROLE", "worker", 1);
    assert_int_equal(read_from("", ""), KOLO_OK);
    assert_string_equal(token, expected);
    write_file("token", "given by a Secret", 17);
    assert_int_equal(read_from("", "token"), KOLO_OK);
    assert_string_equal(token, "given by a Secret");
    char with_key[KOLO__TOKEN_WITH_KEY_BYTES];
    struct kolo__config config = {.token = "", .token_file = "token"};
    assert_int_equal(kolo__token_read_with_key(&config, with_key), KOLO_OK);
    assert_int_equal(strncmp(with_key, token, strlen(token)), 0);
    assert_string_equal(with_key + strlen(token), expected);
    config.token_file = ""; /* nothing twice */
    assert_int_equal(kolo__token_read_with_key(&config, with_key), KOLO_OK);
    assert_string_equal(with_key, expected);
    setenv("OMPI_COMM_WORLD_RANK", "0", 1);
    assert_int_equal(read_from("", ""), KOLO_OK);
    assert_string_equal(token, "");
    unsetenv("OMPI_COMM_WORLD_RANK");
    write_file("home/.ssh/id_rsa", "another key......", 17);
    assert_int_equal(read_from("", ""), KOLO_OK);
    assert_int_equal(strlen(token), strlen(expected));
    assert_string_not_equal(token, expected);
    write_file("home/.ssh/id_rsa", "", 0);
    assert_int_equal(read_from("", ""), KOLO_ERR_CONFIG);
    assert_non_null(strstr(kolo_error_text(), "home/.ssh/id_rsa is empty"));
    unsetenv("K_MPI_JOB_ROLE");
}

/* What it says on stderr, in a file. */
static size_t warnings_of(const char *file, mode_t mode)
{
    char said[512] = "";
    size_t bytes;
    assert_int_equal(chmod(file, mode), 0);
    int saved = dup(STDERR_FILENO);
    FILE *log = fopen("said", "w+e");
    assert_non_null(log);
    dup2(fileno(log), STDERR_FILENO);
    kolo_status status = read_from("", file);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(log);
    bytes = fread(said, 1, sizeof said - 1, log);
    fclose(log);
    assert_int_equal(status, KOLO_OK);
    assert_true(bytes == 0 || strstr(said, "chmod 600") != NULL);
    return bytes;
}

static void test_a_file_that_everybody_reads(void **state)
{
    (void)state;
    write_file("token", "everybody's secret", 18);
    assert_int_equal(warnings_of("token", 0600), 0);
    assert_int_equal(warnings_of("token", 0640), 0);
    assert_true(warnings_of("token", 0644) > 0);
    assert_int_equal(warnings_of("token", 0644), 0); /* once */
}

static void test_listening_without_a_token(void **state)
{
    (void)state;
    static const char *const inside[] = {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1"};
    static const char *const outside[] = {"10.0.0.1:1", "0.0.0.0:1", "[::]:1", "[fd00::1]:1"};
    struct kolo__address address;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(kolo__address_parse(inside[i], &address), KOLO_OK);
        assert_int_equal(kolo__token_permits("", false, &address), KOLO_OK);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(kolo__address_parse(outside[i], &address), KOLO_OK);
        assert_int_equal(kolo__token_permits("", false, &address), KOLO_ERR_CONFIG);
        assert_non_null(strstr(kolo_error_text(), "KOLO_INSECURE=1"));
        assert_int_equal(kolo__token_permits("", true, &address), KOLO_OK);
        assert_int_equal(kolo__token_permits("secret", false, &address), KOLO_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derived_from_a_key),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_short_tokens),
        cmocka_unit_test(test_files_that_are_no_tokens),
        cmocka_unit_test(test_a_file_that_everybody_reads),
        cmocka_unit_test(test_listening_without_a_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
