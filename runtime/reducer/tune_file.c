/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a search found, for later runs of the same plan on the same layout:
 *
 *     kolo tuning 1
 *     plan 0123456789abcdef; ranks 2 on 1 hosts; shm; AMD EPYC ...
 *     bucket_bytes 4194304
 *     segment_bytes 0
 *     check 0123456789abcdef                FNV-1a of all before
 *
 * One file a plan; the oldest go when there are many.
 */
#include "runtime/reducer/tune.h"

#include "base/log.h"
#include "runtime/cache_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const uint64_t BUCKET_BYTES_LEAST = 1024, BYTES_MOST = UINT64_C(1) << 40;

size_t kolo__tune_text(const char *key, const struct kolo__tuning *tuning,
                       char text[KOLO__TUNE_TEXT_BYTES])
{
    size_t length = (size_t)snprintf(
        text, KOLO__TUNE_TEXT_BYTES, "kolo tuning 1\n%.*s\nbucket_bytes %zu\nsegment_bytes %zu\n",
        KOLO__TUNE_KEY_BYTES, key, tuning->bucket_bytes, tuning->segment_bytes);
    return length + (size_t)snprintf(text + length, KOLO__TUNE_TEXT_BYTES - length,
                                     "check %016" PRIx64 "\n", kolo__cache_hash(text, length));
}

/* A number after `word`, up to the end of the line; *at moves behind it. */
static bool read_number(const char **at, const char *end, const char *word, uint64_t *value)
{
    size_t length = strlen(word);
    if ((size_t)(end - *at) < length || memcmp(*at, word, length) != 0)
        return false;
    *at += length;
    const char *first = *at;
    for (*value = 0; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        *value = 10 * *value + (uint64_t)(**at - '0');
        if (*value > BYTES_MOST)
            return false;
    }
    return *at > first && *at < end && *(*at)++ == '\n';
}

bool kolo__tune_parse(const char *text, size_t bytes, const char *key, struct kolo__tuning *tuning)
{
    char head[KOLO__TUNE_KEY_BYTES + 20], written[KOLO__TUNE_TEXT_BYTES];
    const char *at = text, *end = text + bytes;
    uint64_t bucket, segment;
    size_t length =
        (size_t)snprintf(head, sizeof head, "kolo tuning 1\n%.*s\n", KOLO__TUNE_KEY_BYTES, key);
    if (bytes < length || memcmp(text, head, length) != 0)
        return false;
    at += length;
    if (!read_number(&at, end, "bucket_bytes ", &bucket) ||
        !read_number(&at, end, "segment_bytes ", &segment) || bucket < BUCKET_BYTES_LEAST)
        return false;
    /* What would have been written: nothing else is believed. */
    struct kolo__tuning read = {.bucket_bytes = bucket, .segment_bytes = segment};
    if (kolo__tune_text(key, &read, written) != bytes || memcmp(text, written, bytes) != 0)
        return false;
    *tuning = read;
    return true;
}

bool kolo__tune_load(const char *key, struct kolo__tuning *tuning)
{
    char path[PATH_MAX], text[KOLO__TUNE_TEXT_BYTES];
    if (!kolo__cache_path("tuning", key, path))
        return false;
    size_t length = kolo__cache_read(path, text, sizeof text);
    if (length == 0)
        return false;
    if (kolo__tune_parse(text, length, key, tuning))
        return true;
    kolo__log(KOLO__LOG_WARN, "reducer: %s is not what kolo wrote: sizes are tuned anew", path);
    return false;
}

bool kolo__tune_save(const char *key, const struct kolo__tuning *tuning)
{
    char path[PATH_MAX], text[KOLO__TUNE_TEXT_BYTES];
    if (!kolo__cache_path("tuning", key, path) ||
        !kolo__cache_write(path, text, kolo__tune_text(key, tuning, text)))
        return false;
    kolo__cache_trim(path, KOLO__TUNE_FILES_MAX);
    return true;
}
