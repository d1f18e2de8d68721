/* SPDX-License-Identifier: Apache-2.0 */
/* What a host finds out about itself. A probe has the limits that a rank would have: it was started
 * in the same way. */
#include "launcher/doctor/doctor.h"

#include "base/interfaces.h"
#include "base/log.h"
#include "base/token.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

void kolo__facts_gather(struct kolo__doctor_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    snprintf(facts->host, sizeof facts->host, "%.63s", kolo__host_name());
    kolo__limits_find(&facts->limits);
    bool loopback, others;
    if (kolo__interfaces_up(&loopback, &others) == KOLO_OK) { /* else: who knows */
        facts->no_loopback = !loopback;
        facts->no_network = !others;
    }
}

void kolo__facts_prove_token(const char *token_file, const unsigned char nonce[KOLO__PROOF_BYTES],
                             unsigned char proof[KOLO__PROOF_BYTES], char error[200])
{
    char token[KOLO__TOKEN_BYTES];
    const struct kolo__config config = {.token = "", .token_file = token_file};
    unsigned bytes = 0;
    error[0] = '\0';
    memset(proof, 0, KOLO__PROOF_BYTES);
    if (kolo__token_read(&config, token) != KOLO_OK)
        snprintf(error, 200, "%.190s", kolo_error_text());
    else if (HMAC(EVP_sha256(), token, (int)strlen(token), nonce, KOLO__PROOF_BYTES, proof,
                  &bytes) == NULL)
        snprintf(error, 200, "OpenSSL cannot compute HMAC-SHA256");
    explicit_bzero(token, sizeof token);
}
