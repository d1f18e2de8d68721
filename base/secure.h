/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a connection whose two ends prove to each other that they know the job's token: TLS
 * 1.3 with a pre-shared key made from it (RFC 8446, psk_dhe_ke), without certificates and tickets.
 *
 * The key belongs to a purpose and a job, which the initiator names in the clear (the identity of
 * the pre-shared key), so that a connection for another purpose or job is refused before anything
 * else is said. Afterwards both ends may
 *
 *   stay    read and write here, encrypted
 *   leave   free this and use the socket as it is: see kolo__secure_leave
 *
 * Nothing here waits, but for what says so. The caller owns the socket, which must be non-blocking,
 * watches it and keeps deadlines. An object is used by one thread at a time.
 */
#ifndef KOLO_BASE_SECURE_H
#define KOLO_BASE_SECURE_H

#include <kolo/kolo.h>
#include <stdbool.h>

/* What a connection is for. */
enum kolo__purpose {
    KOLO__PURPOSE_CONTROL, /* a rank to its rendezvous */
    KOLO__PURPOSE_DATA,    /* a rank to a rank */
    KOLO__PURPOSE_HEAP,    /* a rank to the first of its host */
    KOLO__PURPOSE_AGENT,   /* `kolo run` to `kolo agent` */
};

enum {
    KOLO__PROTOCOL_VERSION = 4, /* part of the identity: both ends must have the same */
    KOLO__JOB_BYTES = 104,      /* of a job id, its final zero included */
    KOLO__JOB_GIVEN_BYTES = 128 /* to keep one that may be too long: refused, not cut */
};

/* ---- credentials: who we are ----------------------------------------------------------------- */

struct kolo__credentials;

/* For any number of connections of one purpose and job. job may be "" (an agent serves many).
 * token may be "": then everybody proves it, and the connection is as good as open.
 * KOLO_ERR_INVALID: the job id is too long. */
kolo_status kolo__credentials_create(enum kolo__purpose purpose, const char *job, const char *token,
                                     struct kolo__credentials **credentials);
/* After all connections made with them. credentials may be NULL. */
void kolo__credentials_free(struct kolo__credentials *credentials);

/* ---- connections ----------------------------------------------------------------------------- */

struct kolo__secure;

enum kolo__secure_side { KOLO__SECURE_INITIATOR, KOLO__SECURE_ACCEPTOR };

/* The socket is connected. credentials and fd are borrowed until free. */
kolo_status kolo__secure_create(const struct kolo__credentials *credentials,
                                enum kolo__secure_side side, int fd, struct kolo__secure **secure);
/* Does not close the socket, and sends nothing. secure may be NULL. */
void kolo__secure_free(struct kolo__secure *secure);

/* Goes on with the handshake. KOLO_OK: both ends have proved themselves. KOLO_AGAIN: call again
 * when the socket is writable (kolo__secure_wants_write), else when it is readable. Errors, with a
 * text that says what the other side is or does, and how to mend it:
 *   KOLO_ERR_PEER_LOST  it closed, or the connection broke: another attempt may succeed
 *   KOLO_ERR_WORLD      it is of another job
 *   KOLO_ERR_NETWORK    another token, another version, or no kolo at all
 * What proves the token stands in the initiator's first message, so a stranger gets an acceptor to
 * read a few KiB at most and to compute some hashes; one that repeats a message it has recorded, to
 * compute one shared secret. */
kolo_status kolo__secure_handshake(struct kolo__secure *secure);
bool kolo__secure_wants_write(const struct kolo__secure *secure);
int kolo__secure_fd(const struct kolo__secure *secure);

/* Moves some bytes: KOLO_OK with *moved > 0; KOLO_AGAIN: nothing can move now; KOLO_ERR_PEER_LOST:
 * the connection ended or broke; KOLO_ERR_NETWORK: somebody changed it on its way.
 *
 * Read until KOLO_AGAIN, or until kolo__secure_pending is false, before waiting for the socket: it
 * may be empty while bytes wait in here. After KOLO_AGAIN the next write must begin with the same
 * bytes (it may have more behind them): they are encrypted already. The end of the stream proves
 * nothing, for anybody can cut a connection: what must not be cut short says where it ends. */
kolo_status kolo__secure_read(struct kolo__secure *secure, void *data, size_t bytes, size_t *moved);
kolo_status kolo__secure_write(struct kolo__secure *secure, const void *data, size_t bytes,
                               size_t *moved);
bool kolo__secure_pending(const struct kolo__secure *secure);
/* After KOLO_ERR_PEER_LOST: it broke because the other host does not answer (base/silence.h). */
bool kolo__secure_timed_out(const struct kolo__secure *secure);
/* Another key for what is written from now on. kolo__secure_write does so by itself in time. */
void kolo__secure_renew_key(struct kolo__secure *secure);

/* For many bytes, or many short records: reads what the socket has, and not only the record that is
 * wanted, nor that in two calls. Not to be taken back, and not before leaving. */
void kolo__secure_read_ahead(struct kolo__secure *secure);

/* Is nothing of the stream left in here, neither received nor to be sent? Then free it, and what
 * comes on the socket is what the other end sends after it has left. It must know when: agree on
 * who says the last word in here, and after that word nobody says another. Nothing beyond that word
 * has been read from the socket, for records are read one by one (unless read_ahead), and TLS by
 * itself says nothing after the handshake: no tickets, no new keys, no goodbye. */
bool kolo__secure_leave(const struct kolo__secure *secure);

/* ---- with a wait, for short messages --------------------------------------------------------- */

/* Until the deadline (kolo__real_clock): KOLO_ERR_TIMEOUT. */
kolo_status kolo__secure_handshake_by(struct kolo__secure *secure, uint64_t deadline_ns);
/* *sent: what has gone out, also of an error's. After KOLO_ERR_TIMEOUT the next write must begin
 * with the rest. */
kolo_status kolo__secure_send_some(struct kolo__secure *secure, const void *data, size_t bytes,
                                   uint64_t deadline_ns, size_t *sent);
kolo_status kolo__secure_send_all(struct kolo__secure *secure, const void *data, size_t bytes,
                                  uint64_t deadline_ns);
kolo_status kolo__secure_recv_all(struct kolo__secure *secure, void *data, size_t bytes,
                                  uint64_t deadline_ns);

#endif
