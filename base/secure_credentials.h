/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of secure.h, for secure.c: what both ends must have alike, as one identity that is
 * said in the clear and one key that is not.
 *
 *     identity   "kolo 4 data JOB"      version of the protocol, purpose, job
 *     key        HKDF-SHA256 (RFC 5869): secret token, salt "kolo", info identity; 32 bytes
 */
#ifndef KOLO_BASE_SECURE_CREDENTIALS_H
#define KOLO_BASE_SECURE_CREDENTIALS_H

#include "base/secure.h"

#include <openssl/ssl.h>

enum { KOLO__KEY_BYTES = 32 };

struct kolo__credentials {
    SSL_CTX *context;
    char job[KOLO__JOB_BYTES], identity[KOLO__JOB_BYTES + 32];
    unsigned char key[KOLO__KEY_BYTES];
};

struct kolo__identity {
    unsigned version;
    char purpose[16];
    char job[KOLO__JOB_BYTES];
};

/* False: no kolo calls its key so. */
bool kolo__identity_parse(const char *text, struct kolo__identity *identity);
/* The key as OpenSSL wants it, for one handshake; transfers. NULL: no memory. */
SSL_SESSION *kolo__credentials_session(const struct kolo__credentials *credentials, SSL *ssl);

#endif
