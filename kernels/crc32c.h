/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli: RFC 3720, 12.1): the polynomial for which processors have an instruction. */
#ifndef KOLO_KERNELS_CRC32C_H
#define KOLO_KERNELS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of the bytes behind those of which crc is the checksum already; 0: there are none. */
uint32_t kolo__crc32c(uint32_t crc, const void *data, size_t bytes);
/* The same without the instruction. */
uint32_t kolo__crc32c_portable(uint32_t crc, const void *data, size_t bytes);

#endif
