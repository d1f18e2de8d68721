/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutual proof that both ends of a connection know the job's token, without sending it. The
 * initiator speaks first:
 *
 *   initiator -> acceptor   "kolo" version:u8 role:u8 0:u16  nonce[32]                    40 bytes
 *   acceptor -> initiator   "kolo" version:u8 role:u8 0:u16  nonce[32] proof[32]          72 bytes
 *   initiator -> acceptor   proof[32]                                                     32 bytes
 *
 * proof = HMAC-SHA256(token, side | role | initiator nonce | acceptor nonce), side "initiator" or
 * "acceptor" (RFC 2104). Pure functions over bytes: the callers do the I/O, blocking or not.
 */
#ifndef KOLO_BASE_AUTH_H
#define KOLO_BASE_AUTH_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum {
    KOLO__AUTH_VERSION = 1,
    KOLO__AUTH_NONCE_BYTES = 32,
    KOLO__AUTH_HELLO_BYTES = 40,
    KOLO__AUTH_REPLY_BYTES = 72,
    KOLO__AUTH_PROOF_BYTES = 32,
};

/* What the connection is for: a connection for one purpose is refused for another. */
enum kolo__auth_role { KOLO__AUTH_CONTROL = 1, KOLO__AUTH_DATA = 2, KOLO__AUTH_HEAP = 3 };

struct kolo__auth {
    enum kolo__auth_role role;
    const char *token; /* borrowed */
    unsigned char initiator_nonce[KOLO__AUTH_NONCE_BYTES];
    unsigned char acceptor_nonce[KOLO__AUTH_NONCE_BYTES];
};

void kolo__auth_init(struct kolo__auth *auth, enum kolo__auth_role role, const char *token);
/* Initiator. */
kolo_status kolo__auth_hello(struct kolo__auth *auth, unsigned char hello[KOLO__AUTH_HELLO_BYTES]);
kolo_status kolo__auth_check_reply(struct kolo__auth *auth,
                                   const unsigned char reply[KOLO__AUTH_REPLY_BYTES],
                                   unsigned char proof[KOLO__AUTH_PROOF_BYTES]);
/* Acceptor. Errors: KOLO_ERR_NETWORK (no kolo on the other side, other version or role, wrong
 * token). */
kolo_status kolo__auth_reply(struct kolo__auth *auth,
                             const unsigned char hello[KOLO__AUTH_HELLO_BYTES],
                             unsigned char reply[KOLO__AUTH_REPLY_BYTES]);
kolo_status kolo__auth_check_proof(const struct kolo__auth *auth,
                                   const unsigned char proof[KOLO__AUTH_PROOF_BYTES]);

/* bytes random bytes as 2*bytes hex digits and a zero. */
kolo_status kolo__random_token(char *text, size_t bytes);

#endif
