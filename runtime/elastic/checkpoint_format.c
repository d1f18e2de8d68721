/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints as they are written: checkpoint.h has the picture. */
#include "runtime/elastic/checkpoint_format.h"

#include "base/bytes.h"
#include "kernels/crc32c.h"

#include <string.h>

static uint64_t piece_bytes(const kolo_tensor *state, const kolo_elastic_piece *piece)
{
    return piece->count * kolo_dtype_bytes(state[piece->tensor].dtype);
}

/* ---- sizes ------------------------------------------------------------------------------------
 */

size_t kolo__checkpoint_list_bytes(const kolo_tensor *state, size_t count)
{
    size_t bytes = KOLO__CHECKPOINT_HEAD_BYTES + KOLO__CHECKPOINT_SUM_BYTES;
    for (size_t i = 0; i < count; i++)
        bytes += KOLO__CHECKPOINT_RECORD_BYTES +
                 kolo__round_up(kolo__checkpoint_name_bytes(&state[i]), 8);
    return bytes;
}

size_t kolo__checkpoint_data_at(const kolo_tensor *state, size_t count, size_t index)
{
    size_t at =
        kolo__round_up(kolo__checkpoint_list_bytes(state, count), KOLO__CHECKPOINT_ALIGNMENT);
    for (size_t i = 0; i < index; i++)
        at += kolo__round_up(state[i].count * kolo_dtype_bytes(state[i].dtype),
                             KOLO__CHECKPOINT_ALIGNMENT);
    return at;
}

size_t kolo__checkpoint_file_bytes(const kolo_tensor *state, size_t count)
{
    return kolo__checkpoint_data_at(state, count, count);
}

static size_t part_list_bytes(size_t count)
{
    return KOLO__CHECKPOINT_HEAD_BYTES + count * KOLO__PART_RECORD_BYTES +
           KOLO__CHECKPOINT_SUM_BYTES;
}

size_t kolo__part_file_bytes(const kolo_tensor *state, const kolo_elastic_piece *pieces,
                             size_t count)
{
    size_t bytes = kolo__round_up(part_list_bytes(count), KOLO__CHECKPOINT_ALIGNMENT);
    for (size_t k = 0; k < count; k++)
        bytes += kolo__round_up(piece_bytes(state, &pieces[k]), KOLO__CHECKPOINT_ALIGNMENT);
    return bytes;
}

size_t kolo__manifest_bytes(const kolo_tensor *state, size_t count, uint32_t parts)
{
    return kolo__checkpoint_list_bytes(state, count) + (size_t)parts * KOLO__MANIFEST_PART_BYTES;
}

/* ---- contents ---------------------------------------------------------------------------------
 */

/* Holes are zero, whatever the memory held before. */
static unsigned char *put_data(unsigned char *to, const void *data, size_t bytes)
{
    size_t filled = kolo__round_up(bytes, KOLO__CHECKPOINT_ALIGNMENT);
    if (bytes > 0)
        memcpy(to, data, bytes);
    memset(to + bytes, 0, filled - bytes);
    return to + filled;
}

static void put_head(unsigned char *file, const char *magic, uint32_t version, size_t records,
                     uint64_t step, size_t list_bytes, bool has_data)
{
    memset(file, 0, has_data ? kolo__round_up(list_bytes, KOLO__CHECKPOINT_ALIGNMENT) : list_bytes);
    memcpy(file, magic, KOLO__CHECKPOINT_MAGIC_BYTES);
    kolo__store_u32(file + 8, version);
    kolo__store_u32(file + 12, (uint32_t)records);
    kolo__store_u64(file + 16, step);
    kolo__store_u64(file + 24, list_bytes);
}

static unsigned char *put_records(unsigned char *at, const kolo_tensor *state, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t name = kolo__checkpoint_name_bytes(&state[i]);
        kolo__store_u32(at, (uint32_t)state[i].dtype);
        kolo__store_u32(at + 4, (uint32_t)name);
        kolo__store_u64(at + 8, state[i].count);
        if (name > 0)
            memcpy(at + KOLO__CHECKPOINT_RECORD_BYTES, state[i].name, name);
        at += KOLO__CHECKPOINT_RECORD_BYTES + kolo__round_up(name, 8);
    }
    return at;
}

void kolo__checkpoint_lay_out(unsigned char *file, const kolo_tensor *state, size_t count,
                              uint64_t step)
{
    unsigned char *data = file + kolo__checkpoint_data_at(state, count, 0);
    put_head(file, KOLO__CHECKPOINT_MAGIC, KOLO__CHECKPOINT_WHOLE, count, step,
             kolo__checkpoint_list_bytes(state, count), true);
    put_records(file + KOLO__CHECKPOINT_HEAD_BYTES, state, count);
    for (size_t i = 0; i < count; i++)
        data = put_data(data, state[i].data, state[i].count * kolo_dtype_bytes(state[i].dtype));
}

void kolo__part_lay_out(unsigned char *file, const kolo_tensor *state,
                        const kolo_elastic_piece *pieces, size_t count, uint64_t step)
{
    unsigned char *at = file + KOLO__CHECKPOINT_HEAD_BYTES;
    unsigned char *data = file + kolo__round_up(part_list_bytes(count), KOLO__CHECKPOINT_ALIGNMENT);
    put_head(file, KOLO__PART_MAGIC, KOLO__PART_VERSION, count, step, part_list_bytes(count), true);
    for (size_t k = 0; k < count; k++, at += KOLO__PART_RECORD_BYTES) {
        kolo__store_u32(at, (uint32_t)pieces[k].tensor);
        kolo__store_u32(at + 4, (uint32_t)state[pieces[k].tensor].dtype);
        kolo__store_u64(at + 8, pieces[k].first);
        kolo__store_u64(at + 16, pieces[k].count);
        data = put_data(data, pieces[k].data, piece_bytes(state, &pieces[k]));
    }
}

void kolo__manifest_lay_out(unsigned char *file, const kolo_tensor *state, size_t count,
                            uint64_t step, const struct kolo__checkpoint_part *parts,
                            uint32_t part_count)
{
    put_head(file, KOLO__CHECKPOINT_MAGIC, KOLO__CHECKPOINT_MANIFEST, count, step,
             kolo__manifest_bytes(state, count, part_count), false);
    unsigned char *at = put_records(file + KOLO__CHECKPOINT_HEAD_BYTES, state, count);
    for (uint32_t i = 0; i < part_count; i++, at += KOLO__MANIFEST_PART_BYTES) {
        kolo__store_u32(at, parts[i].sum);
        kolo__store_u64(at + 8, parts[i].bytes);
    }
}

/* ---- sums -------------------------------------------------------------------------------------
 */

/* One record of a file that kolo itself has laid out. sum: where that of its data belongs. */
static unsigned char *walk(unsigned char *at, bool is_part, size_t *bytes, unsigned char **sum)
{
    kolo_dtype dtype = (kolo_dtype)kolo__load_u32(is_part ? at + 4 : at);
    *bytes = kolo__load_u64(is_part ? at + 16 : at + 8) * kolo_dtype_bytes(dtype);
    *sum = is_part ? at + 24 : at + 16;
    return at + (is_part
                     ? KOLO__PART_RECORD_BYTES
                     : KOLO__CHECKPOINT_RECORD_BYTES + kolo__round_up(kolo__load_u32(at + 4), 8));
}

uint32_t kolo__checkpoint_seal(unsigned char *file)
{
    bool is_part = memcmp(file, KOLO__PART_MAGIC, KOLO__CHECKPOINT_MAGIC_BYTES) == 0;
    size_t list = kolo__load_u64(file + 24) - KOLO__CHECKPOINT_SUM_BYTES;
    unsigned char *at = file + KOLO__CHECKPOINT_HEAD_BYTES, *sum;
    unsigned char *data =
        file + kolo__round_up(list + KOLO__CHECKPOINT_SUM_BYTES, KOLO__CHECKPOINT_ALIGNMENT);
    bool has_data = is_part || kolo__load_u32(file + 8) == KOLO__CHECKPOINT_WHOLE;
    for (uint32_t i = 0; has_data && i < kolo__checkpoint_records(file); i++) {
        size_t bytes;
        at = walk(at, is_part, &bytes, &sum);
        kolo__store_u32(sum, kolo__crc32c(0, data, bytes));
        data += kolo__round_up(bytes, KOLO__CHECKPOINT_ALIGNMENT);
    }
    uint32_t all = kolo__crc32c(0, file, list);
    kolo__store_u32(file + list, all);
    return all;
}
