/* SPDX-License-Identifier: Apache-2.0 */
/* Finding, splitting and reading the files of a corpus: see corpus.h. */
#include "corpus.h"

#include "random.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HELD_OUT_ONE_IN = 20 };

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xCBF29CE484222325U; /* FNV-1a, mixed: its low bits alone are weak */
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001B3U;
    return random_mix(hash);
}

/* 0, or -1 when memory is short. */
static int append(struct span_list *list, const char *path, uint64_t offset, uint64_t bytes)
{
    if ((list->count & (list->count - 1)) == 0) { /* full: the capacity is a power of two */
        size_t capacity = list->count ? 2 * list->count : 1;
        struct span *grown = realloc(list->spans, capacity * sizeof(*grown));
        if (!grown)
            return -1;
        list->spans = grown;
    }
    char *copy = strdup(path);
    if (!copy)
        return -1;
    list->spans[list->count++] = (struct span){.path = copy, .offset = offset, .bytes = bytes};
    list->bytes += bytes;
    return 0;
}

static void release(struct span_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->spans[i].path);
    free(list->spans);
    *list = (struct span_list){0};
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* What a walk found below one of the given paths. */
struct findings {
    size_t files, empty, unreadable;
};

static int refuse_path(const char *path, const char *why)
{
    fprintf(stderr, "train_bytes: %s: %s\n", path, why);
    return -1;
}

/* A given path that cannot be followed: fts does not say why a symbolic link leads nowhere. */
static int refuse_entry(const FTSENT *entry)
{
    struct stat status;
    errno = entry->fts_errno;
    if (entry->fts_info == FTS_SLNONE && stat(entry->fts_accpath, &status) == 0)
        errno = ENOENT; /* it was made in the meantime */
    return refuse_path(entry->fts_path, strerror(errno));
}

static int add_file(const FTSENT *entry, struct span_list *files, struct findings *found)
{
    if (entry->fts_statp->st_size == 0) {
        found->empty++;
        return 0;
    }
    if (faccessat(AT_FDCWD, entry->fts_accpath, R_OK, AT_EACCESS) != 0) {
        found->unreadable++;
        return entry->fts_level == 0 ? refuse_path(entry->fts_path, strerror(errno)) : 0;
    }
    found->files++;
    if (append(files, entry->fts_path, 0, (uint64_t)entry->fts_statp->st_size) == 0)
        return 0;
    return refuse_path(entry->fts_path, "not enough memory for the list of files");
}

/* The end of a directory that was given by name. */
static int check_findings(const FTSENT *entry, const struct findings *found)
{
    if (found->files > 0)
        return 0;
    fprintf(stderr, "train_bytes: no readable files in %s (%zu empty, %zu unreadable)\n",
            entry->fts_path, found->empty, found->unreadable);
    return -1;
}

/* Below a given path, what is no regular file or cannot be read is passed over: FIFOs and devices,
 * which may block, and symbolic links, because the same text would count twice. */
static int visit(const FTSENT *entry, struct span_list *files, struct findings *found)
{
    bool given = entry->fts_level == 0;
    switch (entry->fts_info) {
    case FTS_F:
        return add_file(entry, files, found);
    case FTS_D:
        if (given)
            *found = (struct findings){0};
        return 0;
    case FTS_DP:
        return given ? check_findings(entry, found) : 0;
    case FTS_NS:
    case FTS_DNR:
    case FTS_ERR:
    case FTS_SLNONE:
        found->unreadable += entry->fts_info != FTS_SLNONE;
        return given ? refuse_entry(entry) : 0;
    case FTS_DEFAULT:
        return given ? refuse_path(entry->fts_path, "not a regular file or a directory") : 0;
    default:
        return 0;
    }
}

static int find_files(char *const *paths, struct span_list *files, size_t *unreadable)
{
    FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
    if (!walk)
        return refuse_path(paths[0], strerror(errno));
    struct findings found = {0};
    int result = 0;
    FTSENT *entry;
    errno = 0;
    while (result == 0 && (entry = fts_read(walk))) {
        result = visit(entry, files, &found);
        if (entry->fts_level == 0 && entry->fts_info == FTS_DP)
            *unreadable += found.unreadable;
        errno = 0;
    }
    if (result == 0 && errno != 0) {
        fprintf(stderr, "train_bytes: cannot list the files: %s\n", strerror(errno));
        result = -1;
    } else if (result == 0 && files->count == 0) {
        fprintf(stderr, "train_bytes: the given files are empty\n");
        result = -1;
    }
    fts_close(walk);
    return result;
}

static int by_hash(const void *a, const void *b)
{
    uint64_t left = hash_text(((const struct span *)a)->path);
    uint64_t right = hash_text(((const struct span *)b)->path);
    return (left > right) - (left < right);
}

/* Splits by whole files; by tails when one side would be empty. */
static int split(const struct span_list *files, struct corpus *corpus)
{
    int result = 0;
    for (size_t i = 0; i < files->count && result == 0; i++) {
        const struct span *file = &files->spans[i];
        bool out = hash_text(file->path) % HELD_OUT_ONE_IN == 0;
        result = append(out ? &corpus->held_out : &corpus->training, file->path, 0, file->bytes);
    }
    if (result != 0 || (corpus->training.count && corpus->held_out.count))
        return result;

    release(&corpus->training);
    release(&corpus->held_out);
    for (size_t i = 0; i < files->count && result == 0; i++) {
        const struct span *file = &files->spans[i];
        uint64_t tail = file->bytes / 10;
        result = append(&corpus->training, file->path, 0, file->bytes - tail);
        if (result == 0 && tail)
            result = append(&corpus->held_out, file->path, file->bytes - tail, tail);
    }
    return result;
}

/* Cuts the held-out text to `limit` bytes, in the order of the hashes so that no directory
 * dominates, and each file so that no file does: one in 16 of the limit, or more where files are
 * few. */
static void limit_held_out(struct span_list *held_out, uint64_t limit)
{
    if (held_out->count == 0)
        return;
    qsort(held_out->spans, held_out->count, sizeof(*held_out->spans), by_hash);
    uint64_t share = limit / (held_out->count < 16 ? held_out->count : 16);
    held_out->bytes = 0;
    for (size_t i = 0; i < held_out->count; i++) {
        struct span *span = &held_out->spans[i];
        uint64_t left = limit - held_out->bytes, most = share < left ? share : left;
        span->bytes = span->bytes < most ? span->bytes : most;
        held_out->bytes += span->bytes;
    }
    while (held_out->count > 0 && held_out->spans[held_out->count - 1].bytes == 0)
        free(held_out->spans[--held_out->count].path);
}

int corpus_open(char *const *paths, uint64_t held_out_bytes, struct corpus *corpus)
{
    *corpus = (struct corpus){0};
    struct span_list files = {0};
    int result = find_files(paths, &files, &corpus->unreadable);
    if (result == 0 && split(&files, corpus) != 0) {
        fprintf(stderr, "train_bytes: not enough memory for a list of %zu files\n", files.count);
        result = -1;
    }
    release(&files);
    if (result != 0) {
        corpus_close(corpus);
        return -1;
    }
    limit_held_out(&corpus->held_out, held_out_bytes);

    uint64_t start = 0;
    for (size_t i = 0; i < corpus->training.count; i++) {
        struct span *span = &corpus->training.spans[i];
        span->start = start;
        start += 1 + span->bytes;
        corpus->fingerprint =
            random_mix(random_mix(corpus->fingerprint ^ hash_text(span->path)) + span->bytes);
    }
    return 0;
}

void corpus_close(struct corpus *corpus)
{
    release(&corpus->training);
    release(&corpus->held_out);
}

uint64_t corpus_stream_bytes(const struct corpus *corpus)
{
    return corpus->training.bytes + corpus->training.count;
}

int corpus_check_length(const struct corpus *corpus, uint64_t context)
{
    if (corpus_stream_bytes(corpus) > context)
        return 0;
    fprintf(stderr,
            "train_bytes: %llu bytes to train on (and %llu held out), but --context %llu needs "
            "%llu: give more files or a smaller --context\n",
            (unsigned long long)corpus->training.bytes, (unsigned long long)corpus->held_out.bytes,
            (unsigned long long)context,
            (unsigned long long)(context + 1 - corpus->training.count)); /* separators count */
    return -1;
}

int corpus_read(const struct span *span, uint64_t first, size_t bytes, uint8_t *window)
{
    if (first == 0 && bytes > 0) {
        *window++ = 0;
        bytes--;
    } else {
        first--; /* positions count the separator */
    }
    int file = open(span->path, O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;
    while (file >= 0 && bytes > 0) {
        got = pread(file, window, bytes, (off_t)(span->offset + first));
        if (got <= 0)
            break;
        window += got;
        first += (uint64_t)got;
        bytes -= (size_t)got;
    }
    if (bytes > 0)
        fprintf(stderr, "train_bytes: %s: %s\n", span->path,
                got < 0 ? strerror(errno) : "became shorter during training");
    if (file >= 0)
        close(file);
    return bytes > 0 ? -1 : 0;
}

int corpus_training_window(const struct corpus *corpus, uint64_t seed, uint64_t step,
                           uint64_t sequence, size_t bytes, uint8_t *window)
{
    const struct span_list *training = &corpus->training;
    uint64_t places = corpus_stream_bytes(corpus) - bytes + 1;
    uint64_t place = random_at(seed, step, sequence) % places;

    size_t low = 0, high = training->count; /* the last span that starts at or before place */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (training->spans[middle].start <= place)
            low = middle;
        else
            high = middle;
    }
    for (; bytes > 0; low++) {
        const struct span *span = &training->spans[low];
        uint64_t left = span->start + 1 + span->bytes - place;
        size_t part = left < bytes ? (size_t)left : bytes;
        if (corpus_read(span, place - span->start, part, window) != 0)
            return -1;
        window += part;
        bytes -= part;
        place += part;
    }
    return 0;
}

int corpus_export_held_out(const struct corpus *corpus, const char *path)
{
    FILE *file = fopen(path, "wb");
    bool good = file;
    for (size_t i = 0; i < corpus->held_out.count && good; i++) {
        const struct span *span = &corpus->held_out.spans[i];
        uint8_t part[65536];
        for (uint64_t at = 0; at < span->bytes && good; at += sizeof(part)) {
            uint64_t left = span->bytes - at;
            size_t bytes = left < sizeof(part) ? (size_t)left : sizeof(part);
            if (corpus_read(span, 1 + at, bytes, part) != 0) {
                fclose(file);
                return -1;
            }
            good = fwrite(part, 1, bytes, file) == bytes;
        }
    }
    if (file && fclose(file) != 0)
        good = false;
    if (!good)
        fprintf(stderr, "train_bytes: cannot write %s: %s\n", path, strerror(errno));
    return good ? 0 : -1;
}
