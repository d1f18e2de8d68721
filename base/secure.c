/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection and its handshake. What is ours here: a socket under OpenSSL that raises no signal
 * and counts what a stranger sends, and texts that say what is wrong.
 */
#include "base/secure.h"

#include "base/assert.h"
#include "base/secure_credentials.h"
#include "base/status.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    HANDSHAKE_BYTES_MAX = 4096, /* that the other side may send before it has proved itself; ours
                                   are below 700 */
    RECORD_HANDSHAKE = 22,      /* RFC 8446, 5.1: what a TLS connection begins with */
    RECORD_ALERT = 21,
    /* RFC 8446, 5.5: AES-GCM under one key is safe for 2^24.5 full records, which are 400 GB. */
    RECORDS_PER_KEY = 1 << 22,
    RECORD_BYTES_MAX = 16384,
    AHEAD_BYTES = 4 * (RECORD_BYTES_MAX + 256),
};

struct kolo__secure {
    const struct kolo__credentials *credentials;
    SSL *ssl;
    int fd;
    enum kolo__secure_side side;
    bool done;              /* the handshake */
    bool wants_write;       /* why KOLO_AGAIN */
    bool unsent;            /* a record is encrypted and not sent, or not all of it */
    bool closed;            /* by the other side */
    int broken;             /* errno of the socket, or 0 */
    uint64_t written_bytes; /* under the key in use */
    size_t handshake_bytes; /* received */
    unsigned char first[5]; /* of these */
    char heard[160];        /* an acceptor: the identity that it does not know; "" : none */
};

/* ---- the socket under OpenSSL ---------------------------------------------------------------- */

static BIO_METHOD *socket_method;
static pthread_once_t socket_method_once = PTHREAD_ONCE_INIT;

static bool is_tls(const struct kolo__secure *secure)
{
    return secure->first[0] == RECORD_HANDSHAKE ||
           (secure->first[0] == RECORD_ALERT && secure->side == KOLO__SECURE_INITIATOR);
}

/* Notes what the other side says first. False: it need not be heard any longer. */
static bool count_handshake(struct kolo__secure *secure, const char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes && secure->handshake_bytes + i < sizeof secure->first; i++)
        secure->first[secure->handshake_bytes + i] = (unsigned char)data[i];
    secure->handshake_bytes += bytes;
    return is_tls(secure) && secure->handshake_bytes <= HANDSHAKE_BYTES_MAX;
}

static int read_socket(BIO *bio, char *data, int bytes)
{
    struct kolo__secure *secure = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t got;
    do
        got = recv(secure->fd, data, (size_t)bytes, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got > 0 && !secure->done && !count_handshake(secure, data, (size_t)got))
        return -1;
    if (got == 0)
        secure->closed = true;
    else if (got < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    else if (got < 0)
        secure->broken = errno;
    return (int)got;
}

static int write_socket(BIO *bio, const char *data, int bytes)
{
    struct kolo__secure *secure = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t sent;
    do
        sent = send(secure->fd, data, (size_t)bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EAGAIN)
        BIO_set_retry_write(bio);
    else if (sent < 0)
        secure->broken = errno;
    return (int)sent;
}

static long control_socket(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static void make_socket_method(void)
{
    socket_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kolo socket");
    KOLO__ASSERT(socket_method != NULL && BIO_meth_set_read(socket_method, read_socket) == 1 &&
                 BIO_meth_set_write(socket_method, write_socket) == 1 &&
                 BIO_meth_set_ctrl(socket_method, control_socket) == 1);
}

/* ---- both keys ------------------------------------------------------------------------------- */

static int offer_key(SSL *ssl, const EVP_MD *hash, const unsigned char **identity,
                     size_t *identity_bytes, SSL_SESSION **session)
{
    const struct kolo__secure *secure = SSL_get_app_data(ssl);
    (void)hash; /* the cipher's, and there is only one */
    *identity = (const unsigned char *)secure->credentials->identity;
    *identity_bytes = strlen(secure->credentials->identity);
    *session = kolo__credentials_session(secure->credentials, ssl);
    return *session != NULL;
}

/* Without a session the handshake fails: there is no certificate to go on with. */
static int find_key(SSL *ssl, const unsigned char *identity, size_t identity_bytes,
                    SSL_SESSION **session)
{
    struct kolo__secure *secure = SSL_get_app_data(ssl);
    const char *own = secure->credentials->identity;
    *session = NULL;
    if (identity_bytes == strlen(own) && memcmp(identity, own, identity_bytes) == 0) {
        secure->heard[0] = '\0';
        *session = kolo__credentials_session(secure->credentials, ssl);
        return *session != NULL;
    }
    size_t kept = identity_bytes < sizeof secure->heard ? identity_bytes : sizeof secure->heard - 1;
    for (size_t i = 0; i < kept; i++)
        secure->heard[i] = (char)(identity[i] >= 0x20 && identity[i] < 0x7f ? identity[i] : '?');
    secure->heard[kept] = '\0';
    return 1;
}

kolo_status kolo__secure_create(const struct kolo__credentials *credentials,
                                enum kolo__secure_side side, int fd, struct kolo__secure **result)
{
    pthread_once(&socket_method_once, make_socket_method);
    struct kolo__secure *secure = calloc(1, sizeof *secure);
    SSL *ssl = SSL_new(credentials->context);
    BIO *bio = BIO_new(socket_method);
    if (secure == NULL || ssl == NULL || bio == NULL) {
        BIO_free(bio);
        SSL_free(ssl);
        free(secure);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a connection");
    }
    secure->credentials = credentials;
    secure->side = side;
    secure->fd = fd;
    secure->ssl = ssl;
    BIO_set_data(bio, secure);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, secure);
    if (side == KOLO__SECURE_INITIATOR) {
        /* A server that does not take the key shows a certificate, and none is good enough. */
        SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
        SSL_set_psk_use_session_callback(ssl, offer_key);
        SSL_set_connect_state(ssl);
    } else {
        SSL_set_psk_find_session_callback(ssl, find_key);
        SSL_set_accept_state(ssl);
    }
    *result = secure;
    return KOLO_OK;
}

void kolo__secure_free(struct kolo__secure *secure)
{
    if (secure == NULL)
        return;
    SSL_free(secure->ssl);
    free(secure);
}

/* ---- handshake ------------------------------------------------------------------------------- */

static const char another_token[] = "it has another token: give every process of the job the same "
                                    "KOLO_TOKEN or KOLO_TOKEN_FILE";

/* Somebody who does not speak TLS at all. */
static kolo_status no_tls(const struct kolo__secure *secure)
{
    char shown[sizeof secure->first + 1] = "";
    if (memcmp(secure->first, "kolo", 4) == 0)
        return kolo__error(KOLO_ERR_NETWORK,
                           "it is an older kolo: use the same kolo for every process of the job");
    for (size_t i = 0; i < sizeof secure->first && i < secure->handshake_bytes; i++)
        shown[i] =
            (char)(secure->first[i] > 0x20 && secure->first[i] < 0x7f ? secure->first[i] : '.');
    return kolo__error(KOLO_ERR_NETWORK, "it is no kolo: what it says begins with '%s' (0x%02x)",
                       shown, secure->first[0]);
}

/* An initiator who named something else than what is here. */
static kolo_status other_identity(const struct kolo__secure *secure)
{
    struct kolo__identity own, other;
    if (!kolo__identity_parse(secure->heard, &other))
        return kolo__error(KOLO_ERR_NETWORK, "it is no kolo: its key is called '%s'",
                           secure->heard);
    KOLO__ASSERT(kolo__identity_parse(secure->credentials->identity, &own));
    if (other.version != own.version)
        return kolo__error(KOLO_ERR_NETWORK,
                           "it speaks version %u of the protocol, this is version %u: use the same "
                           "kolo for every process of the job",
                           other.version, own.version);
    if (strcmp(other.purpose, own.purpose) != 0)
        return kolo__error(KOLO_ERR_NETWORK, "it wants a connection for '%s', this one is for '%s'",
                           other.purpose, own.purpose);
    return kolo__error(KOLO_ERR_WORLD, "it is of job '%s', this is job '%s'", other.job, own.job);
}

static kolo_status refused_by_acceptor(const struct kolo__secure *secure, int alert)
{
    if (alert == SSL_AD_ILLEGAL_PARAMETER || alert == SSL_AD_DECRYPT_ERROR)
        return kolo__error(KOLO_ERR_NETWORK, "%s", another_token);
    if (alert == SSL_AD_HANDSHAKE_FAILURE)
        return kolo__error(KOLO_ERR_WORLD,
                           "it does not belong to job '%s', or is another version of kolo: see "
                           "what else listens there, and use the same kolo for every process",
                           secure->credentials->job);
    return kolo__error(KOLO_ERR_NETWORK, "it refused the connection: TLS alert %d", alert);
}

/* What ended the handshake. */
static kolo_status handshake_failed(const struct kolo__secure *secure)
{
    unsigned long failure = ERR_peek_last_error();
    int reason = ERR_GET_LIB(failure) == ERR_LIB_SSL ? ERR_GET_REASON(failure) : 0;
    if (secure->handshake_bytes > 0 && !is_tls(secure))
        return no_tls(secure);
    if (secure->handshake_bytes > HANDSHAKE_BYTES_MAX)
        return kolo__error(KOLO_ERR_NETWORK, "it is no kolo: its handshake has no end");
    if (secure->closed)
        return kolo__error(KOLO_ERR_PEER_LOST, "the other side closed the connection");
    if (secure->broken != 0)
        return kolo__error(KOLO_ERR_PEER_LOST, "the connection broke: %s",
                           strerror(secure->broken));
    if (reason > SSL_AD_REASON_OFFSET && secure->side == KOLO__SECURE_INITIATOR)
        return refused_by_acceptor(secure, reason - SSL_AD_REASON_OFFSET);
    if (reason == SSL_R_BINDER_DOES_NOT_VERIFY)
        return kolo__error(KOLO_ERR_NETWORK, "%s", another_token);
    if (secure->heard[0] != '\0')
        return other_identity(secure);
    const char *text = ERR_reason_error_string(failure);
    return kolo__error(KOLO_ERR_NETWORK, "it is no kolo of this job: %s",
                       text != NULL ? text : "it does not prove that it knows the token");
}

kolo_status kolo__secure_handshake(struct kolo__secure *secure)
{
    if (secure->done)
        return KOLO_OK;
    ERR_clear_error();
    int result = SSL_do_handshake(secure->ssl);
    int why = SSL_get_error(secure->ssl, result);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
        secure->wants_write = why == SSL_ERROR_WANT_WRITE;
        return KOLO_AGAIN;
    }
    kolo_status status = KOLO_OK;
    /* It can end without the key in no way, but this is what all rests on. */
    if (why != SSL_ERROR_NONE || !SSL_session_reused(secure->ssl))
        status = handshake_failed(secure);
    ERR_clear_error();
    secure->wants_write = false;
    secure->done = status == KOLO_OK;
    return status;
}

bool kolo__secure_wants_write(const struct kolo__secure *secure)
{
    return secure->wants_write;
}

int kolo__secure_fd(const struct kolo__secure *secure)
{
    return secure->fd;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* After a call that moved nothing. */
static kolo_status moved_nothing(struct kolo__secure *secure, int why)
{
    kolo_status status;
    secure->wants_write = why == SSL_ERROR_WANT_WRITE;
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return KOLO_AGAIN;
    if (secure->closed || why == SSL_ERROR_ZERO_RETURN)
        status = kolo__error(KOLO_ERR_PEER_LOST, "the other side closed the connection");
    else if (secure->broken != 0)
        status =
            kolo__error(KOLO_ERR_PEER_LOST, "the connection broke: %s", strerror(secure->broken));
    else
        status = kolo__error(KOLO_ERR_NETWORK,
                             "encrypted bytes do not fit their key: the other side is out of step, "
                             "or somebody changed them on their way");
    ERR_clear_error();
    return status;
}

kolo_status kolo__secure_read(struct kolo__secure *secure, void *data, size_t bytes, size_t *moved)
{
    KOLO__ASSERT(secure->done && bytes > 0);
    *moved = 0;
    ERR_clear_error();
    if (SSL_read_ex(secure->ssl, data, bytes, moved) == 1)
        return KOLO_OK;
    return moved_nothing(secure, SSL_get_error(secure->ssl, 0));
}

void kolo__secure_renew_key(struct kolo__secure *secure)
{
    /* Sent with the next bytes. Fails while a record is unsent: then later. */
    if (!secure->unsent && SSL_key_update(secure->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
        secure->written_bytes = 0;
}

kolo_status kolo__secure_write(struct kolo__secure *secure, const void *data, size_t bytes,
                               size_t *moved)
{
    KOLO__ASSERT(secure->done && bytes > 0);
    *moved = 0;
    ERR_clear_error();
    if (secure->written_bytes >= (uint64_t)RECORDS_PER_KEY * RECORD_BYTES_MAX)
        kolo__secure_renew_key(secure);
    if (SSL_write_ex(secure->ssl, data, bytes, moved) == 1) {
        /* Short records count as long ones do. */
        uint64_t records = (*moved + RECORD_BYTES_MAX - 1) / RECORD_BYTES_MAX;
        secure->written_bytes += records * RECORD_BYTES_MAX;
        secure->unsent = secure->wants_write = false;
        return KOLO_OK;
    }
    kolo_status status = moved_nothing(secure, SSL_get_error(secure->ssl, 0));
    secure->unsent = secure->wants_write;
    return status;
}

bool kolo__secure_pending(const struct kolo__secure *secure)
{
    return SSL_has_pending(secure->ssl) == 1;
}

void kolo__secure_read_ahead(struct kolo__secure *secure)
{
    SSL_set_default_read_buffer_len(secure->ssl, AHEAD_BYTES);
    SSL_set_read_ahead(secure->ssl, 1);
}

bool kolo__secure_leave(const struct kolo__secure *secure)
{
    return secure->done && !secure->unsent && !kolo__secure_pending(secure);
}
