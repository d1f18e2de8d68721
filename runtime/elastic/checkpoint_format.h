/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the format, for those who write it and those who read it: checkpoint.h has the
 * picture. */
#ifndef KOLO_RUNTIME_ELASTIC_CHECKPOINT_FORMAT_H
#define KOLO_RUNTIME_ELASTIC_CHECKPOINT_FORMAT_H

#include "runtime/elastic/checkpoint.h"

#include <string.h>

#define KOLO__CHECKPOINT_MAGIC "KOLOCKPT"
#define KOLO__PART_MAGIC       "KOLOPART"

enum {
    KOLO__CHECKPOINT_MAGIC_BYTES = 8,
    KOLO__CHECKPOINT_WHOLE = 1, /* versions: of one file */
    KOLO__CHECKPOINT_MANIFEST,
    KOLO__PART_VERSION = 1,
    KOLO__CHECKPOINT_RECORD_BYTES = 24, /* without the name */
    KOLO__PART_RECORD_BYTES = 32,
    KOLO__MANIFEST_PART_BYTES = 16,
    KOLO__CHECKPOINT_SUM_BYTES = 8, /* with a hole */
    KOLO__CHECKPOINT_ALIGNMENT = 64,
    KOLO__CHECKPOINT_NAME_BYTES_MAX = 4096,
};

static inline size_t kolo__round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

static inline size_t kolo__checkpoint_name_bytes(const kolo_tensor *tensor)
{
    return tensor->name != NULL ? strnlen(tensor->name, KOLO__CHECKPOINT_NAME_BYTES_MAX) : 0;
}

#endif
