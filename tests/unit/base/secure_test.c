/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends must know the token and want the same; nothing changed on the way is believed; and
 * after leaving, the socket goes on where TLS ended. Two ends in one process take turns, over a
 * socket pair or through somebody in the middle.
 */
#include "base/secure_credentials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INITIATOR, ACCEPTOR };

struct end {
    struct kolo__credentials *credentials;
    struct kolo__secure *secure;
    int fd;
    kolo_status status;
    char text[300];
};

static struct end ends[2];

static void open_sockets(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void create_end(int side, enum kolo__purpose purpose, const char *job, const char *token,
                       int fd)
{
    struct end *end = &ends[side];
    assert_int_equal(kolo__credentials_create(purpose, job, token, &end->credentials), KOLO_OK);
    end->fd = fd;
    end->status = KOLO_AGAIN;
    end->text[0] = '\0';
    assert_int_equal(
        kolo__secure_create(end->credentials,
                            side == INITIATOR ? KOLO__SECURE_INITIATOR : KOLO__SECURE_ACCEPTOR, fd,
                            &end->secure),
        KOLO_OK);
}

static int close_ends(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        kolo__secure_free(ends[i].secure);
        kolo__credentials_free(ends[i].credentials);
        if (ends[i].fd > 0)
            close(ends[i].fd);
        ends[i] = (struct end){0};
    }
    return 0;
}

static void advance(int side)
{
    struct end *end = &ends[side];
    if (end->status != KOLO_AGAIN)
        return;
    end->status = kolo__secure_handshake(end->secure);
    if (end->status > KOLO_AGAIN)
        snprintf(end->text, sizeof end->text, "%s", kolo_error_text());
    /* Whoever refuses hangs up. */
    if (end->status > KOLO_AGAIN)
        shutdown(end->fd, SHUT_RDWR);
}

static void shake_hands(void)
{
    for (int turn = 0; turn < 20; turn++)
        advance(turn % 2);
}

static void create_both(const char *job, const char *token)
{
    int fds[2];
    open_sockets(fds);
    create_end(INITIATOR, KOLO__PURPOSE_DATA, job, token, fds[0]);
    create_end(ACCEPTOR, KOLO__PURPOSE_DATA, "job", "secret", fds[1]);
}

static void connect_ends(void)
{
    create_both("job", "secret");
    shake_hands();
    assert_int_equal(ends[INITIATOR].status, KOLO_OK);
    assert_int_equal(ends[ACCEPTOR].status, KOLO_OK);
}

static void say(int side, const void *data, size_t bytes)
{
    size_t moved;
    assert_int_equal(kolo__secure_write(ends[side].secure, data, bytes, &moved), KOLO_OK);
    assert_int_equal(moved, bytes);
}

static void expect(int side, const void *data, size_t bytes)
{
    unsigned char in[256];
    size_t moved, there = 0;
    assert_true(bytes <= sizeof in);
    while (there < bytes) {
        assert_int_equal(kolo__secure_read(ends[side].secure, in + there, bytes - there, &moved),
                         KOLO_OK);
        there += moved;
    }
    assert_memory_equal(in, data, bytes);
}

/* ---- who is let in --------------------------------------------------------------------------- */

static void test_the_same_token_and_job(void **state)
{
    (void)state;
    size_t moved;
    char byte;
    connect_ends();
    say(INITIATOR, "question", 8);
    expect(ACCEPTOR, "question", 8);
    say(ACCEPTOR, "answer", 6);
    expect(INITIATOR, "answer", 6);
    assert_int_equal(kolo__secure_read(ends[INITIATOR].secure, &byte, 1, &moved), KOLO_AGAIN);
    assert_false(kolo__secure_wants_write(ends[INITIATOR].secure));
}

static void test_no_token_is_a_token(void **state)
{
    (void)state;
    int fds[2];
    open_sockets(fds);
    create_end(INITIATOR, KOLO__PURPOSE_DATA, "", "", fds[0]);
    create_end(ACCEPTOR, KOLO__PURPOSE_DATA, "", "", fds[1]);
    shake_hands();
    assert_int_equal(ends[INITIATOR].status, KOLO_OK);
    assert_int_equal(ends[ACCEPTOR].status, KOLO_OK);
}

static void expect_refusal(kolo_status initiator, const char *initiator_text, kolo_status acceptor,
                           const char *acceptor_text)
{
    shake_hands();
    if (ends[INITIATOR].status != initiator || ends[ACCEPTOR].status != acceptor)
        fail_msg("initiator: %d %s; acceptor: %d %s", ends[INITIATOR].status, ends[INITIATOR].text,
                 ends[ACCEPTOR].status, ends[ACCEPTOR].text);
    if (strstr(ends[INITIATOR].text, initiator_text) == NULL)
        fail_msg("initiator: %s", ends[INITIATOR].text);
    if (strstr(ends[ACCEPTOR].text, acceptor_text) == NULL)
        fail_msg("acceptor: %s", ends[ACCEPTOR].text);
    close_ends(NULL);
}

static void call_itself(int version, const char *rest)
{
    char *identity = ends[INITIATOR].credentials->identity;
    sprintf(identity, "kolo %d %s", version, rest);
}

static void test_others_are_refused_with_the_reason(void **state)
{
    (void)state;
    char older[80];
    int fds[2];
    create_both("job", "Secret");
    expect_refusal(KOLO_ERR_NETWORK, "another token", KOLO_ERR_NETWORK, "another token");
    create_both("job", "");
    expect_refusal(KOLO_ERR_NETWORK, "another token", KOLO_ERR_NETWORK, "another token");
    create_both("jobs", "secret");
    expect_refusal(KOLO_ERR_WORLD, "'jobs'", KOLO_ERR_WORLD, "of job 'jobs', this is job 'job'");
    create_both("", "secret");
    expect_refusal(KOLO_ERR_WORLD, "''", KOLO_ERR_WORLD, "of job '', this is job 'job'");

    open_sockets(fds);
    create_end(INITIATOR, KOLO__PURPOSE_CONTROL, "job", "secret", fds[0]);
    create_end(ACCEPTOR, KOLO__PURPOSE_DATA, "job", "secret", fds[1]);
    expect_refusal(KOLO_ERR_WORLD, "'job'", KOLO_ERR_NETWORK,
                   "for 'control', this one is for 'data'");

    create_both("job", "secret");
    snprintf(older, sizeof older, "it speaks version %d of the protocol, this is version %d",
             KOLO__PROTOCOL_VERSION - 1, KOLO__PROTOCOL_VERSION);
    call_itself(KOLO__PROTOCOL_VERSION - 1, "data job");
    expect_refusal(KOLO_ERR_WORLD, "another version of kolo", KOLO_ERR_NETWORK, older);

    create_both("job", "secret");
    strcpy(ends[INITIATOR].credentials->identity, "Client_\nidentity");
    expect_refusal(KOLO_ERR_WORLD, "'job'", KOLO_ERR_NETWORK, "'Client_?identity'");
}

/* The same identity, another key: what names the purpose does not prove it. */
static void test_a_name_is_no_proof(void **state)
{
    (void)state;
    int fds[2];
    open_sockets(fds);
    create_end(INITIATOR, KOLO__PURPOSE_CONTROL, "job", "secret", fds[0]);
    create_end(ACCEPTOR, KOLO__PURPOSE_DATA, "job", "secret", fds[1]);
    call_itself(KOLO__PROTOCOL_VERSION, "data job");
    expect_refusal(KOLO_ERR_NETWORK, "another token", KOLO_ERR_NETWORK, "another token");
}

static void test_a_long_job_id(void **state)
{
    (void)state;
    char job[KOLO__JOB_BYTES + 1];
    struct kolo__credentials *credentials;
    memset(job, 'j', sizeof job);
    job[KOLO__JOB_BYTES] = '\0';
    assert_int_equal(kolo__credentials_create(KOLO__PURPOSE_DATA, job, "", &credentials),
                     KOLO_ERR_INVALID);
    job[KOLO__JOB_BYTES - 1] = '\0';
    assert_int_equal(kolo__credentials_create(KOLO__PURPOSE_DATA, job, "", &credentials), KOLO_OK);
    kolo__credentials_free(credentials);
}

/* ---- who is no kolo -------------------------------------------------------------------------- */

/* What one end makes of bytes from somebody who then hangs up. */
static void expect_reason(int side, const void *data, size_t bytes, kolo_status status,
                          const char *text)
{
    int fds[2];
    open_sockets(fds);
    create_end(side, KOLO__PURPOSE_DATA, "job", "secret", fds[0]);
    advance(side);
    for (size_t sent = 0; sent < bytes;) {
        ssize_t now = send(fds[1], (const char *)data + sent, bytes - sent, MSG_NOSIGNAL);
        advance(side);
        if (now <= 0)
            break;
        sent += (size_t)now;
    }
    shutdown(fds[1], SHUT_WR);
    for (int i = 0; i < 4; i++)
        advance(side);
    assert_int_equal(ends[side].status, status);
    if (strstr(ends[side].text, text) == NULL)
        fail_msg("%s", ends[side].text);
    close(fds[1]);
    close_ends(NULL);
}

static void test_strangers(void **state)
{
    (void)state;
    static unsigned char nothing[1000000], endless[1000000];
    static const char http[] = "GET / HTTP/1.1\r\nHost: kolo.example.com\r\n\r\n";
    unsigned char old[40] = "kolo\1\2";
    /* Records of a handshake message that is said to be 64 KiB long. */
    for (size_t i = 0; i + 261 <= sizeof endless; i += 261)
        memcpy(endless + i, "\x16\x03\x01\x01\x00\x01\x01\x00\x00\x00", i == 0 ? 9 : 5);
    for (int side = 0; side < 2; side++) {
        expect_reason(side, "", 0, KOLO_ERR_PEER_LOST, "closed");
        expect_reason(side, "\x16\x03\x01", 3, KOLO_ERR_PEER_LOST, "closed");
        expect_reason(side, http, sizeof http, KOLO_ERR_NETWORK, "begins with 'GET./' (0x47)");
        expect_reason(side, nothing, sizeof nothing, KOLO_ERR_NETWORK,
                      "begins with '.....' (0x00)");
        expect_reason(side, old, sizeof old, KOLO_ERR_NETWORK, "an older kolo");
    }
    expect_reason(ACCEPTOR, endless, sizeof endless, KOLO_ERR_NETWORK, "has no end");
    expect_reason(ACCEPTOR, "\x15\x03\x03\x00\x02\x02\x28", 7, KOLO_ERR_NETWORK, "no kolo");
}

/* It says no more, and stays. */
static void test_the_first_byte_is_enough(void **state)
{
    (void)state;
    for (int side = 0; side < 2; side++) {
        int fds[2];
        open_sockets(fds);
        create_end(side, KOLO__PURPOSE_DATA, "job", "secret", fds[0]);
        assert_int_equal(send(fds[1], "G", 1, 0), 1);
        advance(side);
        assert_int_equal(ends[side].status, KOLO_ERR_NETWORK);
        close(fds[1]);
        close_ends(NULL);
    }
}

/* A TLS end that is not ours: certificates, or whatever `configure` makes of it. */
static void meet_plain_tls(int side, const char *text)
{
    int fds[2];
    open_sockets(fds);
    create_end(side, KOLO__PURPOSE_DATA, "job", "secret", fds[0]);
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    X509 *certificate = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    SSL_CTX_use_certificate(context, certificate);
    SSL_CTX_use_PrivateKey(context, key);
    SSL *other = SSL_new(context);
    SSL_set_fd(other, fds[1]);
    if (side == ACCEPTOR)
        SSL_set_connect_state(other);
    else
        SSL_set_accept_state(other);
    for (int i = 0; i < 10; i++) {
        advance(side);
        if (ends[side].status == KOLO_AGAIN)
            SSL_do_handshake(other);
    }
    assert_int_equal(ends[side].status, KOLO_ERR_NETWORK);
    if (strstr(ends[side].text, text) == NULL)
        fail_msg("%s", ends[side].text);
    ERR_clear_error();
    SSL_free(other);
    SSL_CTX_free(context);
    X509_free(certificate);
    EVP_PKEY_free(key);
    close(fds[1]);
    close_ends(NULL);
}

static void test_certificates_prove_nothing(void **state)
{
    (void)state;
    meet_plain_tls(ACCEPTOR, "no kolo of this job");
    meet_plain_tls(INITIATOR, "no kolo of this job");
}

/* ---- somebody in the middle ------------------------------------------------------------------ */

static size_t heads[16], head_count; /* where records begin */

/* Carries what one end said to the other, with one bit of byte `flipped` changed (of all, counted
 * across both directions). Returns how many bytes have passed. */
static size_t carry(int middle[2], size_t *passed, size_t flipped)
{
    unsigned char data[4096];
    size_t moved = 0;
    for (int from = 0; from < 2; from++) {
        ssize_t got = recv(middle[from], data, sizeof data, MSG_DONTWAIT);
        if (got <= 0)
            continue;
        for (size_t at = 0; flipped == SIZE_MAX && at + 5 <= (size_t)got && head_count < 16;
             at += 5 + (size_t)(data[at + 3] << 8 | data[at + 4]))
            heads[head_count++] = *passed + at;
        if (flipped >= *passed && flipped < *passed + (size_t)got)
            data[flipped - *passed] ^= 4;
        *passed += (size_t)got;
        moved += (size_t)got;
        send(middle[!from], data, (size_t)got, MSG_NOSIGNAL);
    }
    return moved;
}

/* Returns bytes of the whole handshake; both ends have their status afterwards. */
static size_t shake_hands_through_the_middle(size_t flipped)
{
    int left[2], right[2];
    size_t passed = 0;
    open_sockets(left);
    open_sockets(right);
    int middle[2] = {left[1], right[0]};
    create_end(INITIATOR, KOLO__PURPOSE_DATA, "job", "secret", left[0]);
    create_end(ACCEPTOR, KOLO__PURPOSE_DATA, "job", "secret", right[1]);
    for (int turn = 0; turn < 10; turn++) {
        advance(INITIATOR);
        advance(ACCEPTOR);
        carry(middle, &passed, flipped);
    }
    close(middle[0]);
    close(middle[1]);
    return passed;
}

static void test_no_changed_bit_is_believed(void **state)
{
    (void)state;
    size_t all = shake_hands_through_the_middle(SIZE_MAX);
    assert_int_equal(ends[INITIATOR].status, KOLO_OK);
    assert_int_equal(ends[ACCEPTOR].status, KOLO_OK);
    close_ends(NULL);
    assert_in_range(all, 300, 1500);
    assert_in_range(head_count, 3, 15);
    for (size_t byte = 0; byte < all; byte++) {
        shake_hands_through_the_middle(byte);
        /* Bytes 1 and 2 of a record are a version that nobody looks at (RFC 8446, 5.1). */
        bool ignored = false;
        for (size_t i = 0; i < head_count; i++)
            ignored = ignored || byte - heads[i] == 1 || byte - heads[i] == 2;
        if (ends[ACCEPTOR].status == KOLO_OK && ends[INITIATOR].status == KOLO_OK)
            assert_true(ignored);
        close_ends(NULL);
    }
}

/* Carries all that was said so far; returns how much, which is in data. */
static size_t pass_on(int from, int to, unsigned char data[2048])
{
    ssize_t bytes = recv(from, data, 2048, 0);
    assert_true(bytes > 0);
    assert_int_equal(send(to, data, (size_t)bytes, 0), bytes);
    return (size_t)bytes;
}

/* All that one end ever said is answered once, and does not prove anything to a new connection. */
static void test_a_recording_is_no_proof(void **state)
{
    (void)state;
    unsigned char hello[2048], answer[2048], proof[2048];
    int left[2], right[2], again[2];
    open_sockets(left);
    open_sockets(right);
    create_end(INITIATOR, KOLO__PURPOSE_DATA, "job", "secret", left[0]);
    create_end(ACCEPTOR, KOLO__PURPOSE_DATA, "job", "secret", right[1]);
    advance(INITIATOR);
    size_t hello_bytes = pass_on(left[1], right[0], hello);
    advance(ACCEPTOR);
    pass_on(right[0], left[1], answer);
    advance(INITIATOR);
    size_t proof_bytes = pass_on(left[1], right[0], proof);
    advance(ACCEPTOR);
    assert_int_equal(ends[INITIATOR].status, KOLO_OK);
    assert_int_equal(ends[ACCEPTOR].status, KOLO_OK);
    close(left[1]);
    close(right[0]);
    close_ends(NULL);

    open_sockets(again);
    create_end(ACCEPTOR, KOLO__PURPOSE_DATA, "job", "secret", again[0]);
    assert_int_equal(send(again[1], hello, hello_bytes, 0), hello_bytes);
    for (int i = 0; i < 3; i++)
        advance(ACCEPTOR);
    assert_true(recv(again[1], answer, sizeof answer, 0) > 0);
    assert_int_equal(ends[ACCEPTOR].status, KOLO_AGAIN);
    assert_int_equal(recv(again[1], answer, sizeof answer, 0), -1);
    assert_int_equal(send(again[1], proof, proof_bytes, 0), proof_bytes);
    advance(ACCEPTOR);
    assert_int_equal(ends[ACCEPTOR].status, KOLO_ERR_NETWORK);
    close(again[1]);
}

static void test_changed_data_is_noticed(void **state)
{
    (void)state;
    unsigned char wire[200], in[32];
    size_t moved;
    connect_ends();
    int fds[2], acceptor = ends[ACCEPTOR].fd;
    open_sockets(fds);
    say(INITIATOR, "ten bytes!", 10);
    ssize_t bytes = recv(acceptor, wire, sizeof wire, 0);
    assert_true(bytes > 10);
    assert_null(memmem(wire, (size_t)bytes, "ten bytes!", 10)); /* encrypted */
    wire[bytes - 20] ^= 1;
    assert_int_equal(send(ends[INITIATOR].fd, wire, (size_t)bytes, 0), bytes);
    assert_int_equal(kolo__secure_read(ends[ACCEPTOR].secure, in, sizeof in, &moved),
                     KOLO_ERR_NETWORK);
    close(fds[0]);
    close(fds[1]);
}

/* ---- afterwards ------------------------------------------------------------------------------ */

/* The acceptor's last word and what it sends plainly behind it lie in the socket together. */
static void test_leaving_loses_no_byte(void **state)
{
    (void)state;
    char in[32] = "";
    connect_ends();
    say(INITIATOR, "join", 4);
    expect(ACCEPTOR, "join", 4);
    say(ACCEPTOR, "answer", 6);
    assert_true(kolo__secure_leave(ends[ACCEPTOR].secure));
    assert_int_equal(send(ends[ACCEPTOR].fd, "plain bytes", 11, 0), 11);
    expect(INITIATOR, "ans", 3);
    assert_false(kolo__secure_leave(ends[INITIATOR].secure));
    expect(INITIATOR, "wer", 3);
    assert_true(kolo__secure_leave(ends[INITIATOR].secure));
    for (int i = 0; i < 2; i++) {
        kolo__secure_free(ends[i].secure);
        ends[i].secure = NULL;
    }
    assert_int_equal(recv(ends[INITIATOR].fd, in, sizeof in, 0), 11);
    assert_memory_equal(in, "plain bytes", 11);
    assert_int_equal(send(ends[INITIATOR].fd, "more", 4, 0), 4);
    assert_int_equal(recv(ends[ACCEPTOR].fd, in, sizeof in, 0), 4);
}

/* More than the socket holds, with keys that change, in pieces that do not fit records. */
static void test_many_bytes(void **state)
{
    (void)state;
    enum { TOTAL = 3000000 };
    static unsigned char out[TOTAL], in[TOTAL];
    size_t sent = 0, received = 0, moved;
    unsigned stopped = 0;
    connect_ends();
    kolo__secure_read_ahead(ends[ACCEPTOR].secure);
    for (size_t i = 0; i < TOTAL; i++)
        out[i] = (unsigned char)(i * 2654435761u >> 13);
    for (unsigned turn = 0; received < TOTAL && turn < 100000; turn++) {
        kolo_status status = KOLO_OK;
        while (status == KOLO_OK && sent < TOTAL) {
            status = kolo__secure_write(ends[INITIATOR].secure, out + sent, TOTAL - sent, &moved);
            sent += moved;
        }
        stopped += status == KOLO_AGAIN && kolo__secure_wants_write(ends[INITIATOR].secure);
        assert_true(status <= KOLO_AGAIN);
        do {
            size_t want = TOTAL - received < 50001 ? TOTAL - received : 50001;
            status = want == 0
                         ? KOLO_AGAIN
                         : kolo__secure_read(ends[ACCEPTOR].secure, in + received, want, &moved);
            received += status == KOLO_OK ? moved : 0;
        } while (status == KOLO_OK);
        assert_int_equal(status, KOLO_AGAIN);
        if (turn % 3 == 0)
            kolo__secure_renew_key(ends[INITIATOR].secure);
    }
    assert_true(stopped > 3);
    assert_memory_equal(in, out, TOTAL);
}

static void test_the_end(void **state)
{
    (void)state;
    char byte;
    size_t moved;
    connect_ends();
    say(ACCEPTOR, "x", 1);
    close(ends[ACCEPTOR].fd);
    ends[ACCEPTOR].fd = -1;
    expect(INITIATOR, "x", 1);
    assert_int_equal(kolo__secure_read(ends[INITIATOR].secure, &byte, 1, &moved),
                     KOLO_ERR_PEER_LOST);
    assert_int_equal(kolo__secure_write(ends[INITIATOR].secure, "y", 1, &moved),
                     KOLO_ERR_PEER_LOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_the_same_token_and_job, close_ends),
        cmocka_unit_test_teardown(test_no_token_is_a_token, close_ends),
        cmocka_unit_test_teardown(test_others_are_refused_with_the_reason, close_ends),
        cmocka_unit_test_teardown(test_a_name_is_no_proof, close_ends),
        cmocka_unit_test_teardown(test_a_long_job_id, close_ends),
        cmocka_unit_test_teardown(test_strangers, close_ends),
        cmocka_unit_test_teardown(test_the_first_byte_is_enough, close_ends),
        cmocka_unit_test_teardown(test_certificates_prove_nothing, close_ends),
        cmocka_unit_test_teardown(test_no_changed_bit_is_believed, close_ends),
        cmocka_unit_test_teardown(test_a_recording_is_no_proof, close_ends),
        cmocka_unit_test_teardown(test_changed_data_is_noticed, close_ends),
        cmocka_unit_test_teardown(test_leaving_loses_no_byte, close_ends),
        cmocka_unit_test_teardown(test_many_bytes, close_ends),
        cmocka_unit_test_teardown(test_the_end, close_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
