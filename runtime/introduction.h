/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank tells all others when it joins the world: texts, each with its final zero, in this
 * order. Options that must be alike on all ranks are among them; an option of that kind is a new
 * text here and its name in introduction.c.
 */
#ifndef KOLO_RUNTIME_INTRODUCTION_H
#define KOLO_RUNTIME_INTRODUCTION_H

#include <kolo/kolo.h>

enum kolo__introduction_text {
    /* Ranks with the same text may try to share memory. */
    KOLO__INTRODUCTION_MACHINE,
    /* Where it accepts data connections (base/socket.h, struct kolo__endpoint); "" : nowhere. */
    KOLO__INTRODUCTION_ENDPOINT,
    KOLO__ALIKE_TRANSPORT,
    KOLO__ALIKE_DETERMINISTIC,
    KOLO__ALIKE_TIMELINE, /* "set" or "empty" */
    KOLO__ALIKE_ENCRYPT,
    KOLO__ALIKE_CHECKSUM,
    KOLO__ALIKE_STREAMS,
    KOLO__ALIKE_ALGORITHM, /* the first bytes of its name, or "empty" */
    KOLO__ALIKE_SEGMENT_BYTES,
    KOLO__INTRODUCTION_TEXTS
};

enum { KOLO__INTRODUCTION_BYTES_MAX = 1024 };

/* The texts are borrowed. */
struct kolo__introduction {
    const char *text[KOLO__INTRODUCTION_TEXTS];
};

/* Returns how many bytes. All texts together must fit. */
size_t kolo__introduction_encode(const struct kolo__introduction *introduction,
                                 unsigned char bytes[KOLO__INTRODUCTION_BYTES_MAX]);
/* The texts point into blob. KOLO_ERR_WORLD: these are not the texts of this version. */
kolo_status kolo__introduction_decode(const unsigned char *blob, size_t bytes,
                                      struct kolo__introduction *introduction);
/* The first text that has to be alike and is not; -1: none. And the option that it is of. */
int kolo__introduction_find_difference(const struct kolo__introduction *a,
                                       const struct kolo__introduction *b);
const char *kolo__introduction_name(int text);
/* KOLO_ERR_CONFIG names the first option that is not alike, and both values. */
kolo_status kolo__introduction_compare(uint32_t own_rank, const struct kolo__introduction *own,
                                       uint32_t other_rank, const struct kolo__introduction *other);

#endif
