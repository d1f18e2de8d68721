/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/introduction.h"

#include "base/assert.h"
#include "base/status.h"

#include <string.h>

/* NULL: need not be alike. */
static const char *const ALIKE[KOLO__INTRODUCTION_TEXTS] = {
    [KOLO__ALIKE_TRANSPORT] = "KOLO_TRANSPORT", [KOLO__ALIKE_DETERMINISTIC] = "KOLO_DETERMINISTIC",
    [KOLO__ALIKE_TIMELINE] = "KOLO_TIMELINE",   [KOLO__ALIKE_ENCRYPT] = "KOLO_ENCRYPT",
    [KOLO__ALIKE_CHECKSUM] = "KOLO_CHECKSUM",   [KOLO__ALIKE_STREAMS] = "KOLO_STREAMS",
    [KOLO__ALIKE_ALGORITHM] = "KOLO_ALGORITHM", [KOLO__ALIKE_SEGMENT_BYTES] = "KOLO_SEGMENT_BYTES",
};

size_t kolo__introduction_encode(const struct kolo__introduction *introduction,
                                 unsigned char bytes[KOLO__INTRODUCTION_BYTES_MAX])
{
    size_t used = 0;
    for (size_t i = 0; i < KOLO__INTRODUCTION_TEXTS; i++) {
        size_t length = strlen(introduction->text[i]) + 1;
        KOLO__ASSERT(used + length <= KOLO__INTRODUCTION_BYTES_MAX);
        memcpy(bytes + used, introduction->text[i], length);
        used += length;
    }
    return used;
}

kolo_status kolo__introduction_decode(const unsigned char *blob, size_t bytes,
                                      struct kolo__introduction *introduction)
{
    const char *next = (const char *)blob;
    for (size_t i = 0; i < KOLO__INTRODUCTION_TEXTS; i++) {
        const char *end = memchr(next, '\0', bytes);
        if (end == NULL)
            return kolo__error(KOLO_ERR_WORLD, "it tells less of itself than this version expects");
        introduction->text[i] = next;
        bytes -= (size_t)(end + 1 - next);
        next = end + 1;
    }
    if (bytes > 0)
        return kolo__error(KOLO_ERR_WORLD, "it tells more of itself than this version expects");
    return KOLO_OK;
}

int kolo__introduction_find_difference(const struct kolo__introduction *a,
                                       const struct kolo__introduction *b)
{
    for (int i = 0; i < KOLO__INTRODUCTION_TEXTS; i++)
        if (ALIKE[i] != NULL && strcmp(a->text[i], b->text[i]) != 0)
            return i;
    return -1;
}

const char *kolo__introduction_name(int text)
{
    return ALIKE[text];
}

kolo_status kolo__introduction_compare(uint32_t own_rank, const struct kolo__introduction *own,
                                       uint32_t other_rank, const struct kolo__introduction *other)
{
    int i = kolo__introduction_find_difference(own, other);
    if (i < 0)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "%s is %s on rank %u and %.40s on rank %u: set it alike everywhere",
                       ALIKE[i], own->text[i], own_rank, other->text[i], other_rank);
}
