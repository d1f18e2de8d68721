/* SPDX-License-Identifier: Apache-2.0 */
/* The job's token: where it comes from, and what may be done without one. */
#ifndef KOLO_BASE_TOKEN_H
#define KOLO_BASE_TOKEN_H

#include "base/config.h"
#include "base/socket.h"

enum {
    KOLO__TOKEN_BYTES = 256, /* its final zero included */
    KOLO__TOKEN_WITH_KEY_BYTES = 2 * KOLO__TOKEN_BYTES,
    KOLO__TOKEN_LEAST = 16, /* characters: who records a handshake tries guesses by the billion */
};

/* KOLO_TOKEN, else the contents of KOLO_TOKEN_FILE without white space around it, else, in a pod,
 * what follows from the job's ssh key (kolo__token_from_key), else "". Warns once about a file that
 * everybody on the host may read. Whoever has read it forgets it with explicit_bzero. */
kolo_status kolo__token_read(const struct kolo__config *config, char token[KOLO__TOKEN_BYTES]);

/* A token from a file that only the job's pods have: mpi-operator and Trainer mount a fresh ssh key
 * pair into all pods of a job, as .ssh/id_rsa of the user (home), of root or of mpiuser; the first
 * that can be read counts. HKDF-SHA256 of the file's bytes, in hex. "" where there is none. */
kolo_status kolo__token_from_key(const char *home, char token[KOLO__TOKEN_BYTES]);

/* What agents and those who look for them prove: the token, and, in a pod, what follows from the
 * job's ssh key too where another token was given. That may be one which somebody made for all jobs
 * of a namespace; the key is new with each, so agents of a job of before are not this one's. */
kolo_status kolo__token_read_with_key(const struct kolo__config *config,
                                      char token[KOLO__TOKEN_WITH_KEY_BYTES]);

/* Before listening on, or joining by, an address: KOLO_ERR_CONFIG when strangers can reach it and
 * there is no token, unless the user said that this is meant. */
kolo_status kolo__token_permits(const char *token, bool insecure,
                                const struct kolo__address *address);

/* bytes random bytes as 2*bytes hex digits and a zero. */
kolo_status kolo__token_random(char *text, size_t bytes);

#endif
