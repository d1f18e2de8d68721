/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auth.h"

#include "base/assert.h"
#include "base/status.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static kolo_status random_bytes(unsigned char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t got = getrandom(data, bytes, 0);
        if (got < 0 && errno != EINTR)
            return kolo__error_errno(errno, "cannot get random numbers");
        if (got > 0) {
            data += got;
            bytes -= (size_t)got;
        }
    }
    return KOLO_OK;
}

static void make_proof(const struct kolo__auth *auth, const char *side, unsigned char *proof)
{
    unsigned char message[16 + 2 * KOLO__AUTH_NONCE_BYTES] = {0};
    snprintf((char *)message, 15, "%s", side);
    message[15] = (unsigned char)auth->role;
    memcpy(message + 16, auth->initiator_nonce, KOLO__AUTH_NONCE_BYTES);
    memcpy(message + 16 + KOLO__AUTH_NONCE_BYTES, auth->acceptor_nonce, KOLO__AUTH_NONCE_BYTES);
    unsigned int length = KOLO__AUTH_PROOF_BYTES;
    KOLO__ASSERT(HMAC(EVP_sha256(), auth->token, (int)strlen(auth->token), message, sizeof message,
                      proof, &length) != NULL);
}

static void write_head(const struct kolo__auth *auth, unsigned char *head)
{
    memcpy(head, "kolo", 4);
    head[4] = KOLO__AUTH_VERSION;
    head[5] = (unsigned char)auth->role;
    head[6] = head[7] = 0;
}

static kolo_status check_head(const struct kolo__auth *auth, const unsigned char *head)
{
    if (memcmp(head, "kolo", 4) != 0)
        return kolo__error(KOLO_ERR_NETWORK, "the other side does not speak kolo");
    if (head[4] != KOLO__AUTH_VERSION)
        return kolo__error(KOLO_ERR_NETWORK,
                           "the other side speaks version %d of the protocol, this is version %d: "
                           "use the same kolo everywhere",
                           head[4], KOLO__AUTH_VERSION);
    if (head[5] != auth->role || head[6] != 0 || head[7] != 0)
        return kolo__error(KOLO_ERR_NETWORK, "the connection is for another purpose (role %d)",
                           head[5]);
    return KOLO_OK;
}

static kolo_status check_proof(const struct kolo__auth *auth, const char *side,
                               const unsigned char *proof)
{
    unsigned char expected[KOLO__AUTH_PROOF_BYTES];
    make_proof(auth, side, expected);
    if (CRYPTO_memcmp(expected, proof, sizeof expected) != 0)
        return kolo__error(KOLO_ERR_NETWORK, "the other side has another token: give every process "
                                             "of the job the same KOLO_TOKEN or KOLO_TOKEN_FILE");
    return KOLO_OK;
}

void kolo__auth_init(struct kolo__auth *auth, enum kolo__auth_role role, const char *token)
{
    memset(auth, 0, sizeof *auth);
    auth->role = role;
    auth->token = token;
}

kolo_status kolo__auth_hello(struct kolo__auth *auth, unsigned char hello[KOLO__AUTH_HELLO_BYTES])
{
    kolo_status status = random_bytes(auth->initiator_nonce, KOLO__AUTH_NONCE_BYTES);
    if (status != KOLO_OK)
        return status;
    write_head(auth, hello);
    memcpy(hello + 8, auth->initiator_nonce, KOLO__AUTH_NONCE_BYTES);
    return KOLO_OK;
}

kolo_status kolo__auth_reply(struct kolo__auth *auth,
                             const unsigned char hello[KOLO__AUTH_HELLO_BYTES],
                             unsigned char reply[KOLO__AUTH_REPLY_BYTES])
{
    kolo_status status = check_head(auth, hello);
    if (status != KOLO_OK)
        return status;
    memcpy(auth->initiator_nonce, hello + 8, KOLO__AUTH_NONCE_BYTES);
    status = random_bytes(auth->acceptor_nonce, KOLO__AUTH_NONCE_BYTES);
    if (status != KOLO_OK)
        return status;
    write_head(auth, reply);
    memcpy(reply + 8, auth->acceptor_nonce, KOLO__AUTH_NONCE_BYTES);
    make_proof(auth, "acceptor", reply + 8 + KOLO__AUTH_NONCE_BYTES);
    return KOLO_OK;
}

kolo_status kolo__auth_check_reply(struct kolo__auth *auth,
                                   const unsigned char reply[KOLO__AUTH_REPLY_BYTES],
                                   unsigned char proof[KOLO__AUTH_PROOF_BYTES])
{
    kolo_status status = check_head(auth, reply);
    if (status != KOLO_OK)
        return status;
    memcpy(auth->acceptor_nonce, reply + 8, KOLO__AUTH_NONCE_BYTES);
    status = check_proof(auth, "acceptor", reply + 8 + KOLO__AUTH_NONCE_BYTES);
    if (status == KOLO_OK)
        make_proof(auth, "initiator", proof);
    return status;
}

kolo_status kolo__auth_check_proof(const struct kolo__auth *auth,
                                   const unsigned char proof[KOLO__AUTH_PROOF_BYTES])
{
    return check_proof(auth, "initiator", proof);
}

kolo_status kolo__random_token(char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte;
        kolo_status status = random_bytes(&byte, 1);
        if (status != KOLO_OK)
            return status;
        snprintf(text + 2 * i, 3, "%02x", byte);
    }
    return KOLO_OK;
}
