/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose last line is a sum of all before it. The first byte of an input says whether the rest
 * is the whole file, or lacks that line with the right sum, which is then put there: so that it is
 * not the sum alone that refuses nonsense.
 */
#ifndef KOLO_TESTS_SUMMED_H
#define KOLO_TESTS_SUMMED_H

#include "runtime/cache_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void check_summed(const uint8_t *data, size_t bytes,
                         void (*check)(const char *text, size_t bytes))
{
    char text[4096 + 32];
    if (bytes == 0)
        return;
    const char *rest = (const char *)data + 1;
    size_t length = bytes - 1;
    if (data[0] % 2 == 0 || length > 4096) {
        check(rest, length);
        return;
    }
    memcpy(text, rest, length);
    length += (size_t)snprintf(text + length, sizeof text - length, "check %016" PRIx64 "\n",
                               kolo__cache_hash(text, length));
    check(text, length);
}

#endif
