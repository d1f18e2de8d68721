/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of checkpoints as a disk gives them back: checkpoint.h has the picture. Nothing is believed
 * that the sum does not cover, and nothing is larger than what was read. */
#include "base/bytes.h"
#include "kernels/crc32c.h"
#include "runtime/elastic/checkpoint_format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

uint32_t kolo__checkpoint_records(const unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES])
{
    return kolo__load_u32(head + 12);
}

uint32_t kolo__checkpoint_list_sum(const unsigned char *list, size_t bytes)
{
    return kolo__load_u32(list + bytes - KOLO__CHECKPOINT_SUM_BYTES);
}

static bool has_magic(const unsigned char *head, const char *magic)
{
    return memcmp(head, magic, KOLO__CHECKPOINT_MAGIC_BYTES) == 0;
}

bool kolo__checkpoint_head(const unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES], size_t *bytes,
                           char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    uint64_t claimed = kolo__load_u64(head + 24);
    if (!has_magic(head, KOLO__CHECKPOINT_MAGIC) && !has_magic(head, KOLO__PART_MAGIC)) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "it is no checkpoint of kolo");
        return false;
    }
    if (claimed < KOLO__CHECKPOINT_HEAD_BYTES + KOLO__CHECKPOINT_SUM_BYTES ||
        claimed > KOLO__CHECKPOINT_LIST_BYTES_MAX) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "its head has %" PRIu64 " bytes, it says",
                 claimed);
        return false;
    }
    *bytes = (size_t)claimed;
    return true;
}

static enum kolo__checkpoint_verdict damaged(char why[KOLO__CHECKPOINT_WHY_BYTES], const char *what)
{
    snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "%s", what);
    return KOLO__CHECKPOINT_DAMAGED;
}

/* A list that is as it was written. *end: of its records, where its sum begins. */
static enum kolo__checkpoint_verdict check_sum(const unsigned char *list, size_t bytes,
                                               const char *magic, const unsigned char **end,
                                               char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    size_t claimed;
    if (bytes < KOLO__CHECKPOINT_HEAD_BYTES)
        return damaged(why, "it is torn: shorter than its head");
    if (!kolo__checkpoint_head(list, &claimed, why))
        return KOLO__CHECKPOINT_DAMAGED;
    *end = list + bytes - KOLO__CHECKPOINT_SUM_BYTES;
    if (claimed != bytes || kolo__load_u32(*end + 4) != 0 ||
        kolo__crc32c(0, list, (size_t)(*end - list)) != kolo__load_u32(*end))
        return damaged(why, "the sum of its head does not fit");
    return has_magic(list, magic) ? KOLO__CHECKPOINT_GOOD
                                  : damaged(why, "a part, or a whole checkpoint, under the name "
                                                 "of the other");
}

static enum kolo__checkpoint_verdict other_version(uint32_t version, uint32_t known,
                                                   char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    snprintf(why, KOLO__CHECKPOINT_WHY_BYTES,
             "it is of version %" PRIu32 ", and this kolo reads %" PRIu32, version, known);
    return KOLO__CHECKPOINT_OTHER;
}

/* ---- whole checkpoints, and manifests ---------------------------------------------------------
 */

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

/* *at: of the record, then behind it. */
static enum kolo__checkpoint_verdict read_record(const unsigned char **at, const unsigned char *end,
                                                 size_t index, const kolo_tensor *tensor,
                                                 char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    const unsigned char *record = *at;
    if (end - record < KOLO__CHECKPOINT_RECORD_BYTES)
        return damaged(why, "its records do not fit their number");
    uint32_t dtype = kolo__load_u32(record), length = kolo__load_u32(record + 4);
    uint64_t elements = kolo__load_u64(record + 8);
    const char *name = (const char *)record + KOLO__CHECKPOINT_RECORD_BYTES;
    *at += KOLO__CHECKPOINT_RECORD_BYTES;
    if (length > KOLO__CHECKPOINT_NAME_BYTES_MAX || kolo__round_up(length, 8) > (size_t)(end - *at))
        return damaged(why, "its records do not fit their number");
    *at += kolo__round_up(length, 8);
    if (dtype == (uint32_t)tensor->dtype && elements == tensor->count &&
        length == kolo__checkpoint_name_bytes(tensor) &&
        (length == 0 || memcmp(name, tensor->name, length) == 0))
        return KOLO__CHECKPOINT_GOOD;
    return differs(why, index, tensor, name, length, dtype, elements);
}

enum kolo__checkpoint_verdict kolo__checkpoint_read_list(const unsigned char *list, size_t bytes,
                                                         const kolo_tensor *state, size_t count,
                                                         uint64_t *step, uint32_t *parts,
                                                         struct kolo__checkpoint_piece *pieces,
                                                         char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    const unsigned char *end, *at = list + KOLO__CHECKPOINT_HEAD_BYTES;
    enum kolo__checkpoint_verdict verdict =
        check_sum(list, bytes, KOLO__CHECKPOINT_MAGIC, &end, why);
    if (verdict != KOLO__CHECKPOINT_GOOD)
        return verdict;
    uint32_t version = kolo__load_u32(list + 8);
    if (version != KOLO__CHECKPOINT_WHOLE && version != KOLO__CHECKPOINT_MANIFEST)
        return other_version(version, KOLO__CHECKPOINT_MANIFEST, why);
    if (kolo__checkpoint_records(list) != count) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "it has %" PRIu32 " tensors; here there are %zu",
                 kolo__checkpoint_records(list), count);
        return KOLO__CHECKPOINT_OTHER;
    }
    for (size_t i = 0; i < count; i++) {
        pieces[i] = (struct kolo__checkpoint_piece){
            .tensor = i, .count = state[i].count, .at = kolo__checkpoint_data_at(state, count, i)};
        const unsigned char *record = at;
        verdict = read_record(&at, end, i, &state[i], why);
        if (verdict != KOLO__CHECKPOINT_GOOD)
            return verdict;
        pieces[i].sum = kolo__load_u32(record + 16);
    }
    size_t rest = (size_t)(end - at);
    bool fits = version == KOLO__CHECKPOINT_WHOLE
                    ? rest == 0
                    : rest > 0 && rest % KOLO__MANIFEST_PART_BYTES == 0;
    if (!fits)
        return damaged(why, "its records do not fit their number");
    *step = kolo__load_u64(list + 16);
    *parts = (uint32_t)(rest / KOLO__MANIFEST_PART_BYTES);
    return KOLO__CHECKPOINT_GOOD;
}

struct kolo__checkpoint_part kolo__checkpoint_part_at(const unsigned char *list, size_t bytes,
                                                      uint32_t parts, uint32_t index)
{
    const unsigned char *at = list + bytes - KOLO__CHECKPOINT_SUM_BYTES -
                              (size_t)(parts - index) * KOLO__MANIFEST_PART_BYTES;
    return (struct kolo__checkpoint_part){.sum = kolo__load_u32(at),
                                          .bytes = kolo__load_u64(at + 8)};
}

/* ---- parts ------------------------------------------------------------------------------------
 */

enum kolo__checkpoint_verdict kolo__part_read_list(const unsigned char *list, size_t bytes,
                                                   const kolo_tensor *state, size_t count,
                                                   struct kolo__checkpoint_piece *pieces,
                                                   uint64_t *file_bytes,
                                                   char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    const unsigned char *end, *at = list + KOLO__CHECKPOINT_HEAD_BYTES;
    enum kolo__checkpoint_verdict verdict = check_sum(list, bytes, KOLO__PART_MAGIC, &end, why);
    if (verdict != KOLO__CHECKPOINT_GOOD)
        return verdict;
    if (kolo__load_u32(list + 8) != KOLO__PART_VERSION)
        return other_version(kolo__load_u32(list + 8), KOLO__PART_VERSION, why);
    uint32_t records = kolo__checkpoint_records(list);
    if ((uint64_t)records * KOLO__PART_RECORD_BYTES != (uint64_t)(end - at))
        return damaged(why, "its records do not fit their number");
    uint64_t data = kolo__round_up(bytes, KOLO__CHECKPOINT_ALIGNMENT);
    for (uint32_t k = 0; k < records; k++, at += KOLO__PART_RECORD_BYTES) {
        struct kolo__checkpoint_piece *piece = &pieces[k];
        *piece = (struct kolo__checkpoint_piece){.tensor = kolo__load_u32(at),
                                                 .first = kolo__load_u64(at + 8),
                                                 .count = kolo__load_u64(at + 16),
                                                 .at = data,
                                                 .sum = kolo__load_u32(at + 24)};
        if (piece->tensor >= count)
            return damaged(why, "it has a piece of a tensor that is not there");
        const kolo_tensor *tensor = &state[piece->tensor];
        if (kolo__load_u32(at + 4) != (uint32_t)tensor->dtype || piece->first > tensor->count ||
            piece->count > tensor->count - piece->first)
            return damaged(why, "it has a piece that is not within its tensor");
        data += kolo__round_up(piece->count * kolo_dtype_bytes(tensor->dtype),
                               KOLO__CHECKPOINT_ALIGNMENT);
    }
    *file_bytes = data;
    return KOLO__CHECKPOINT_GOOD;
}
