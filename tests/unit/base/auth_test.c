/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends must know the token; nothing recorded or reflected helps. */
#include "base/auth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

struct exchange {
    struct kolo__auth initiator, acceptor;
    unsigned char hello[KOLO__AUTH_HELLO_BYTES], reply[KOLO__AUTH_REPLY_BYTES];
    unsigned char proof[KOLO__AUTH_PROOF_BYTES];
};

static void begin(struct exchange *e, const char *token_a, const char *token_b)
{
    kolo__auth_init(&e->initiator, KOLO__AUTH_DATA, token_a);
    kolo__auth_init(&e->acceptor, KOLO__AUTH_DATA, token_b);
    assert_int_equal(kolo__auth_hello(&e->initiator, e->hello), KOLO_OK);
    assert_int_equal(kolo__auth_reply(&e->acceptor, e->hello, e->reply), KOLO_OK);
}

static void test_same_token(void **state)
{
    (void)state;
    struct exchange e;
    begin(&e, "secret", "secret");
    assert_int_equal(kolo__auth_check_reply(&e.initiator, e.reply, e.proof), KOLO_OK);
    assert_int_equal(kolo__auth_check_proof(&e.acceptor, e.proof), KOLO_OK);
    begin(&e, "", "");
    assert_int_equal(kolo__auth_check_reply(&e.initiator, e.reply, e.proof), KOLO_OK);
}

static void test_another_token(void **state)
{
    (void)state;
    struct exchange e;
    begin(&e, "secret", "Secret");
    assert_int_equal(kolo__auth_check_reply(&e.initiator, e.reply, e.proof), KOLO_ERR_NETWORK);
    assert_non_null(strstr(kolo_error_text(), "token"));
}

static void test_every_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct exchange e;
    for (size_t bit = 0; bit < 8 * KOLO__AUTH_REPLY_BYTES; bit++) {
        begin(&e, "secret", "secret");
        e.reply[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(kolo__auth_check_reply(&e.initiator, e.reply, e.proof), KOLO_ERR_NETWORK);
    }
    begin(&e, "secret", "secret");
    assert_int_equal(kolo__auth_check_reply(&e.initiator, e.reply, e.proof), KOLO_OK);
    for (size_t bit = 0; bit < 8 * KOLO__AUTH_PROOF_BYTES; bit++) {
        e.proof[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(kolo__auth_check_proof(&e.acceptor, e.proof), KOLO_ERR_NETWORK);
        e.proof[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static void test_replay_and_reflection(void **state)
{
    (void)state;
    struct exchange first, second;
    begin(&first, "secret", "secret");
    assert_int_equal(kolo__auth_check_reply(&first.initiator, first.reply, first.proof), KOLO_OK);
    begin(&second, "secret", "secret");
    assert_int_equal(kolo__auth_check_proof(&second.acceptor, first.proof), KOLO_ERR_NETWORK);
    /* the acceptor's own proof is no initiator's proof */
    assert_int_equal(kolo__auth_check_proof(&second.acceptor, second.reply + 40), KOLO_ERR_NETWORK);
}

static void test_other_purpose_version_and_protocol(void **state)
{
    (void)state;
    struct exchange e;
    begin(&e, "secret", "secret");
    struct kolo__auth control;
    kolo__auth_init(&control, KOLO__AUTH_CONTROL, "secret");
    assert_int_equal(kolo__auth_reply(&control, e.hello, e.reply), KOLO_ERR_NETWORK);
    e.hello[4]++;
    assert_int_equal(kolo__auth_reply(&e.acceptor, e.hello, e.reply), KOLO_ERR_NETWORK);
    assert_non_null(strstr(kolo_error_text(), "version"));
    memcpy(e.hello, "GET / HTTP/1.1\r\n", 16);
    assert_int_equal(kolo__auth_reply(&e.acceptor, e.hello, e.reply), KOLO_ERR_NETWORK);
}

static void test_tokens_differ(void **state)
{
    (void)state;
    char a[33], b[33];
    assert_int_equal(kolo__random_token(a, 16), KOLO_OK);
    assert_int_equal(kolo__random_token(b, 16), KOLO_OK);
    assert_int_equal(strlen(a), 32);
    assert_int_equal(strspn(a, "0123456789abcdef"), 32);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_token),
        cmocka_unit_test(test_another_token),
        cmocka_unit_test(test_every_flipped_bit_is_refused),
        cmocka_unit_test(test_replay_and_reflection),
        cmocka_unit_test(test_other_purpose_version_and_protocol),
        cmocka_unit_test(test_tokens_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
