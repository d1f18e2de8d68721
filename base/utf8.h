/* SPDX-License-Identifier: Apache-2.0 */
/* Texts from outside, which may be of any bytes, go into formats of UTF-8: JSON, YAML. */
#ifndef KOLO_BASE_UTF8_H
#define KOLO_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that text, which ends with a zero, begins with; 0: it begins with none.
 * character may be NULL. */
size_t kolo__utf8_bytes(const char *text, uint32_t *character);

#endif
