/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

#include <stdbool.h>

size_t kolo__utf8_bytes(const char *text, uint32_t *character)
{
    static const struct {
        unsigned char mask, mark;
        uint32_t least;
    } KINDS[] = {{0x80, 0, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    const unsigned char *bytes = (const unsigned char *)text;
    for (size_t more = 0; more < sizeof KINDS / sizeof *KINDS; more++) {
        if ((bytes[0] & KINDS[more].mask) != KINDS[more].mark)
            continue;
        uint32_t code = bytes[0] & (unsigned char)~KINDS[more].mask;
        for (size_t i = 1; i <= more; i++) {
            if ((bytes[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (bytes[i] & 0x3f);
        }
        bool surrogate = code >= 0xd800 && code < 0xe000;
        if (code < KINDS[more].least || code > 0x10ffff || surrogate)
            return 0;
        if (character != NULL)
            *character = code;
        return more + 1;
    }
    return 0;
}
