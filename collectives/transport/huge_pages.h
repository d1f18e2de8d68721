/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of 2 MiB for large blocks of the heap, where the kernel gives them. */
#ifndef KOLO_COLLECTIVES_TRANSPORT_HUGE_PAGES_H
#define KOLO_COLLECTIVES_TRANSPORT_HUGE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KOLO__HUGE_PAGE_BYTES ((uint64_t)2 << 20)

/* Says that a mapping of a memfd may have huge pages. */
void kolo__huge_pages_allow(unsigned char *memory, uint64_t bytes);

/* memory: in a shared mapping of a memfd, a multiple of the huge page in address and in file
 * offset, and not reserved yet. Fills the whole huge pages of [memory, +bytes) with zeros, as many
 * as can be had, and maps them in this process. What could not be had remains to be reserved: true
 * means that nothing does but the end that is less than a huge page. Blocks for about 60 ms a GiB.
 */
bool kolo__huge_pages_fill(unsigned char *memory, uint64_t bytes);

/* Tries it with one page. One line: "used for buffers of 2 MiB and more", or why not and what
 * permits them. Returns text. */
const char *kolo__huge_pages_text(char *text, size_t bytes);

#endif
