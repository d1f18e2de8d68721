/* SPDX-License-Identifier: Apache-2.0 */
#include "base/secure_credentials.h"

#include "base/assert.h"
#include "base/status.h"

#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *purpose_text(enum kolo__purpose purpose)
{
    static const char *const texts[] = {[KOLO__PURPOSE_CONTROL] = "control",
                                        [KOLO__PURPOSE_DATA] = "data",
                                        [KOLO__PURPOSE_HEAP] = "heap",
                                        [KOLO__PURPOSE_AGENT] = "agent"};
    return texts[purpose];
}

bool kolo__identity_parse(const char *text, struct kolo__identity *identity)
{
    int length = 0;
    memset(identity, 0, sizeof *identity);
    /* A job id may be empty, and may have spaces. */
    if (sscanf(text, "kolo %5u %15s%n", &identity->version, identity->purpose, &length) != 2 ||
        text[length] != ' ')
        return false;
    snprintf(identity->job, sizeof identity->job, "%s", text + length + 1);
    return true;
}

static void hmac(const void *key, size_t key_bytes, const void *data, size_t bytes,
                 unsigned char *result)
{
    unsigned int length = KOLO__KEY_BYTES;
    KOLO__ASSERT(HMAC(EVP_sha256(), key, (int)key_bytes, data, bytes, result, &length) != NULL);
}

/* RFC 5869 for one block of output, which is extract and one round of expand. Written out because
 * OpenSSL's HKDF refuses an empty secret. */
static void derive_key(const char *token, const char *identity, unsigned char *key)
{
    static const char salt[] = "kolo";
    unsigned char info[sizeof((struct kolo__credentials *)NULL)->identity + 1];
    unsigned char extracted[KOLO__KEY_BYTES];
    size_t bytes = strlen(identity) + 1;
    memcpy(info, identity, bytes);
    info[bytes - 1] = 1; /* the round's number, where the text's end was */
    hmac(salt, sizeof salt - 1, token, strlen(token), extracted);
    hmac(extracted, sizeof extracted, info, bytes, key);
    explicit_bzero(extracted, sizeof extracted);
}

/* One version, one cipher, one way to agree on keys: nothing is negotiated. */
static bool configure(SSL_CTX *context, enum kolo__purpose purpose)
{
    SSL_CTX_set_options(context,
                        SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_clear_options(context, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Buffers of 2 x 17 KiB are worth keeping where bytes flow all the time, which also spares the
     * way of data their allocation. */
    if (purpose != KOLO__PURPOSE_DATA)
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1 &&
           SSL_CTX_set1_groups_list(context, "X25519:P-256") == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_max_early_data(context, 0) == 1;
}

kolo_status kolo__credentials_create(enum kolo__purpose purpose, const char *job, const char *token,
                                     struct kolo__credentials **result)
{
    if (strlen(job) >= KOLO__JOB_BYTES)
        return kolo__error(KOLO_ERR_INVALID, "the job id has %zu bytes, up to %d are allowed",
                           strlen(job), KOLO__JOB_BYTES - 1);
    /* OpenSSL would else tidy up at exit before a program's own handlers, which may still call us.
     */
    OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
    struct kolo__credentials *credentials = calloc(1, sizeof *credentials);
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    if (credentials == NULL || context == NULL) {
        SSL_CTX_free(context);
        free(credentials);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for credentials");
    }
    credentials->context = context;
    snprintf(credentials->job, sizeof credentials->job, "%s", job);
    snprintf(credentials->identity, sizeof credentials->identity, "kolo %d %s %s",
             KOLO__PROTOCOL_VERSION, purpose_text(purpose), job);
    derive_key(token, credentials->identity, credentials->key);
    if (!configure(context, purpose)) {
        kolo__credentials_free(credentials);
        return kolo__error(
            KOLO_ERR_SYSTEM,
            "OpenSSL cannot do TLS 1.3 with AES-128-GCM and X25519, which kolo needs: "
            "see what OPENSSL_CONF or its configuration file forbids");
    }
    *result = credentials;
    return KOLO_OK;
}

void kolo__credentials_free(struct kolo__credentials *credentials)
{
    if (credentials == NULL)
        return;
    SSL_CTX_free(credentials->context);
    explicit_bzero(credentials->key, sizeof credentials->key);
    free(credentials);
}

SSL_SESSION *kolo__credentials_session(const struct kolo__credentials *credentials, SSL *ssl)
{
    static const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();
    if (session != NULL && cipher != NULL &&
        SSL_SESSION_set1_master_key(session, credentials->key, sizeof credentials->key) == 1 &&
        SSL_SESSION_set_cipher(session, cipher) == 1 &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
        return session;
    SSL_SESSION_free(session);
    return NULL;
}
