/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in a checkpoint: checkpoint.h has the picture. Nothing here is believed that the sum
 * of head and records does not cover, and nothing is larger than what was read. */
#include "runtime/elastic/checkpoint.h"

#include "base/bytes.h"
#include "kernels/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const unsigned char MAGIC[8] = {'K', 'O', 'L', 'O', 'C', 'K', 'P', 'T'};

enum {
    VERSION = 1,
    RECORD_BYTES = 24, /* without the name */
    SUM_BYTES = 8,     /* with a hole */
    DATA_ALIGNMENT = 64,
    NAME_BYTES_MAX = 4096,
};

static size_t round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

static size_t name_bytes(const kolo_tensor *tensor)
{
    return tensor->name != NULL ? strnlen(tensor->name, NAME_BYTES_MAX) : 0;
}

static size_t data_bytes(const kolo_tensor *tensor)
{
    return tensor->count * kolo_dtype_bytes(tensor->dtype);
}

/* ---- sizes ------------------------------------------------------------------------------------
 */

size_t kolo__checkpoint_list_bytes(const kolo_tensor *state, size_t count)
{
    size_t bytes = KOLO__CHECKPOINT_HEAD_BYTES + SUM_BYTES;
    for (size_t i = 0; i < count; i++)
        bytes += RECORD_BYTES + round_up(name_bytes(&state[i]), 8);
    return bytes;
}

size_t kolo__checkpoint_data_at(const kolo_tensor *state, size_t count, size_t index)
{
    size_t at = round_up(kolo__checkpoint_list_bytes(state, count), DATA_ALIGNMENT);
    for (size_t i = 0; i < index; i++)
        at += round_up(data_bytes(&state[i]), DATA_ALIGNMENT);
    return at;
}

size_t kolo__checkpoint_file_bytes(const kolo_tensor *state, size_t count)
{
    return kolo__checkpoint_data_at(state, count, count);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

void kolo__checkpoint_seal(unsigned char *file, const kolo_tensor *state, size_t count,
                           uint64_t step)
{
    size_t list = kolo__checkpoint_list_bytes(state, count);
    size_t data = kolo__checkpoint_data_at(state, count, 0);
    unsigned char *at = file + KOLO__CHECKPOINT_HEAD_BYTES;
    memset(file, 0, data);
    memcpy(file, MAGIC, sizeof MAGIC);
    kolo__store_u32(file + 8, VERSION);
    kolo__store_u32(file + 12, (uint32_t)count);
    kolo__store_u64(file + 16, step);
    kolo__store_u64(file + 24, list);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = data_bytes(&state[i]), name = name_bytes(&state[i]);
        kolo__store_u32(at, (uint32_t)state[i].dtype);
        kolo__store_u32(at + 4, (uint32_t)name);
        kolo__store_u64(at + 8, state[i].count);
        kolo__store_u32(at + 16, kolo__crc32c(0, file + data, bytes));
        if (name > 0)
            memcpy(at + RECORD_BYTES, state[i].name, name);
        at += RECORD_BYTES + round_up(name, 8);
        data += round_up(bytes, DATA_ALIGNMENT);
    }
    kolo__store_u32(at, kolo__crc32c(0, file, (size_t)(at - file)));
}

/* ---- reading ----------------------------------------------------------------------------------
 */

bool kolo__checkpoint_head(const unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES], size_t *bytes,
                           char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    uint64_t claimed = kolo__load_u64(head + 24);
    if (memcmp(head, MAGIC, sizeof MAGIC) != 0) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "it is no checkpoint of kolo");
        return false;
    }
    if (claimed < KOLO__CHECKPOINT_HEAD_BYTES + SUM_BYTES ||
        claimed > KOLO__CHECKPOINT_LIST_BYTES_MAX) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "its head has %" PRIu64 " bytes, it says",
                 claimed);
        return false;
    }
    *bytes = (size_t)claimed;
    return true;
}

static enum kolo__checkpoint_verdict differs(char why[KOLO__CHECKPOINT_WHY_BYTES], size_t index,
                                             const kolo_tensor *tensor, const char *name,
                                             size_t name_length, uint32_t dtype, uint64_t count)
{
    const char *type = dtype < KOLO_DTYPE_COUNT ? kolo_dtype_name((kolo_dtype)dtype) : "?";
    snprintf(why, KOLO__CHECKPOINT_WHY_BYTES,
             "its tensor %zu is '%.*s', %" PRIu64 " x %s; here it is '%.64s', %zu x %s", index,
             name_length < 64 ? (int)name_length : 64, name, count, type,
             tensor->name != NULL ? tensor->name : "", tensor->count,
             kolo_dtype_name(tensor->dtype));
    return KOLO__CHECKPOINT_OTHER;
}

static enum kolo__checkpoint_verdict read_records(const unsigned char *at, const unsigned char *end,
                                                  const kolo_tensor *state, size_t count,
                                                  uint32_t *sums,
                                                  char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    for (size_t i = 0; i < count; i++) {
        if (end - at < RECORD_BYTES)
            break;
        uint32_t dtype = kolo__load_u32(at), length = kolo__load_u32(at + 4);
        uint64_t elements = kolo__load_u64(at + 8);
        const char *name = (const char *)at + RECORD_BYTES;
        sums[i] = kolo__load_u32(at + 16);
        at += RECORD_BYTES;
        if (length > NAME_BYTES_MAX || round_up(length, 8) > (size_t)(end - at))
            break;
        at += round_up(length, 8);
        if (dtype != (uint32_t)state[i].dtype || elements != state[i].count ||
            length != name_bytes(&state[i]) ||
            (length > 0 && memcmp(name, state[i].name, length) != 0))
            return differs(why, i, &state[i], name, length, dtype, elements);
        if (i + 1 == count && at == end)
            return KOLO__CHECKPOINT_GOOD;
    }
    snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "its records do not fit their number");
    return KOLO__CHECKPOINT_DAMAGED;
}

enum kolo__checkpoint_verdict kolo__checkpoint_read_list(const unsigned char *list, size_t bytes,
                                                         const kolo_tensor *state, size_t count,
                                                         uint64_t *step, uint32_t *sums,
                                                         char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    size_t claimed;
    if (bytes < KOLO__CHECKPOINT_HEAD_BYTES) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "it is torn: shorter than its head");
        return KOLO__CHECKPOINT_DAMAGED;
    }
    if (!kolo__checkpoint_head(list, &claimed, why))
        return KOLO__CHECKPOINT_DAMAGED;
    const unsigned char *end = list + bytes - SUM_BYTES;
    if (claimed != bytes || kolo__load_u32(end + 4) != 0 ||
        kolo__crc32c(0, list, bytes - SUM_BYTES) != kolo__load_u32(end)) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "the sum of its head does not fit");
        return KOLO__CHECKPOINT_DAMAGED;
    }
    if (kolo__load_u32(list + 8) != VERSION) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES,
                 "it is of version %" PRIu32 ", and this kolo reads %d", kolo__load_u32(list + 8),
                 VERSION);
        return KOLO__CHECKPOINT_OTHER;
    }
    if (kolo__load_u32(list + 12) != count) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "it has %" PRIu32 " tensors; here there are %zu",
                 kolo__load_u32(list + 12), count);
        return KOLO__CHECKPOINT_OTHER;
    }
    *step = kolo__load_u64(list + 16);
    return read_records(list + KOLO__CHECKPOINT_HEAD_BYTES, end, state, count, sums, why);
}
