/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ranks say before they fail, for who started them. Only a rank knows which peer was lost or
 * who is missing, and what it writes on stderr is one line among many. `kolo run` in a pod names it
 * as the pod's end; it gives its ranks the path of some memory, in which each has a slot. Not in a
 * flight recorder (runtime/flight.h): that one is opened when options and token are known, and what
 * is wrong with those is said here too.
 */
#ifndef KOLO_BASE_LAST_WORDS_H
#define KOLO_BASE_LAST_WORDS_H

#include <stdint.h>

enum { KOLO__LAST_WORDS_BYTES = 1024 };

struct kolo__last_words {
    int fd;        /* -1: there is no such memory, and nobody writes */
    char path[48]; /* "" likewise */
};

void kolo__last_words_open(struct kolo__last_words *words);
void kolo__last_words_close(struct kolo__last_words *words);
/* What the process of this slot wrote last, as one line; "" for nothing. Returns text. */
const char *kolo__last_words_read(const struct kolo__last_words *words, uint32_t slot,
                                  char text[KOLO__LAST_WORDS_BYTES]);

/* The other side. path "": nobody wants to know. Takes the place of what stands there. */
void kolo__last_words_write(const char *path, long slot, const char *text);

#endif
