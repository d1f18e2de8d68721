/* SPDX-License-Identifier: Apache-2.0 */
#include "base/last_words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_each_slot_has_its_last_words(void **state)
{
    (void)state;
    struct kolo__last_words words;
    char text[KOLO__LAST_WORDS_BYTES];
    kolo__last_words_open(&words);
    assert_string_equal(kolo__last_words_read(&words, 0, text), "");
    pid_t child = fork();
    if (child == 0) {
        for (int fd = 3; fd < 256; fd++)
            close(fd); /* as Python does before it executes something */
        kolo__last_words_write(words.path, 1, "a first word, which is longer");
        kolo__last_words_write(words.path, 1, "rank 2 was\nlost");
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_string_equal(kolo__last_words_read(&words, 1, text), "rank 2 was lost");
    assert_string_equal(kolo__last_words_read(&words, 0, text), "");
    assert_string_equal(kolo__last_words_read(&words, 2, text), "");
    kolo__last_words_close(&words);
}

static void test_long_words_are_cut(void **state)
{
    (void)state;
    struct kolo__last_words words;
    char longer[2 * KOLO__LAST_WORDS_BYTES], text[KOLO__LAST_WORDS_BYTES];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    kolo__last_words_open(&words);
    kolo__last_words_write(words.path, 0, longer);
    assert_int_equal(strlen(kolo__last_words_read(&words, 0, text)), KOLO__LAST_WORDS_BYTES - 1);
    assert_string_equal(kolo__last_words_read(&words, 1, text), "");
    kolo__last_words_close(&words);
}

static void test_nobody_wants_to_know(void **state)
{
    (void)state;
    struct kolo__last_words words = {.fd = -1};
    char text[KOLO__LAST_WORDS_BYTES];
    kolo__last_words_write("", 0, "lost");
    kolo__last_words_write("/proc/self/nobody", 0, "lost");
    assert_string_equal(kolo__last_words_read(&words, 0, text), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_slot_has_its_last_words),
        cmocka_unit_test(test_long_words_are_cut),
        cmocka_unit_test(test_nobody_wants_to_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
