/* SPDX-License-Identifier: Apache-2.0 */
/* Reading checkpoints, so that nothing is taken before all of it was found good. What a manifest
 * names are files like others: a whole checkpoint is one file, which has a piece of each tensor. */
#include "base/log.h"
#include "base/status.h"
#include "kernels/crc32c.h"
#include "runtime/elastic/checkpoint_format.h"
#include "runtime/elastic/ranges.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 };

struct file {
    char *path;                            /* owned */
    struct kolo__checkpoint_piece *pieces; /* owned */
    size_t count;
};

struct kolo__checkpoint {
    const kolo_tensor *state; /* borrowed */
    size_t count;
    struct file *files; /* owned */
    uint32_t file_count;
};

static enum kolo__checkpoint_verdict damaged(char why[KOLO__CHECKPOINT_WHY_BYTES], const char *path,
                                             const char *what)
{
    const char *name = strrchr(path, '/');
    snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "%.60s: %.180s", name != NULL ? name + 1 : path,
             what);
    return KOLO__CHECKPOINT_DAMAGED;
}

/* ---- files ------------------------------------------------------------------------------------
 */

/* False: fewer bytes are there, or they cannot be read. */
static bool read_all(int fd, void *data, size_t bytes, uint64_t at)
{
    for (char *to = data; bytes > 0;) {
        ssize_t got = pread(fd, to, bytes, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        at += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return true;
}

/* Opens a file and reads its list, which is to be freed. -1: why says it. */
static int open_file(const char *path, unsigned char **list, size_t *list_bytes,
                     uint64_t *file_bytes, char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES];
    char what[KOLO__CHECKPOINT_WHY_BYTES] = "it is torn";
    struct stat status;
    *list = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe's would wait for ever */
    if (fd < 0 || fstat(fd, &status) != 0) {
        damaged(why, path, strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        damaged(why, path, "it is no file");
    } else if (read_all(fd, head, sizeof head, 0) &&
               kolo__checkpoint_head(head, list_bytes, what) && /* not more than is there: */
               (uint64_t)status.st_size >= *list_bytes && (*list = malloc(*list_bytes)) != NULL &&
               read_all(fd, *list, *list_bytes, 0)) {
        *file_bytes = (uint64_t)status.st_size;
        return fd;
    } else {
        damaged(why, path, what);
    }
    free(*list);
    *list = NULL;
    if (fd >= 0)
        close(fd);
    return -1;
}

static enum kolo__checkpoint_verdict open_part(const char *folder, uint64_t step, uint32_t index,
                                               const struct kolo__checkpoint *checkpoint,
                                               struct kolo__checkpoint_part expected,
                                               char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    struct file *file = &checkpoint->files[index];
    char path[PATH_MAX], what[KOLO__CHECKPOINT_WHY_BYTES];
    unsigned char *list;
    size_t list_bytes;
    uint64_t bytes, said;
    if (kolo__checkpoint_path(folder, step, index, checkpoint->file_count, path) != KOLO_OK ||
        (file->path = strdup(path)) == NULL)
        return damaged(why, path, "no memory");
    int fd = open_file(path, &list, &list_bytes, &bytes, why);
    if (fd < 0)
        return KOLO__CHECKPOINT_DAMAGED;
    close(fd);
    enum kolo__checkpoint_verdict verdict = KOLO__CHECKPOINT_GOOD;
    file->count = kolo__checkpoint_records(list);
    if (list_bytes >= KOLO__CHECKPOINT_SUM_BYTES &&
        kolo__checkpoint_list_sum(list, list_bytes) != expected.sum)
        verdict = damaged(why, path, "it is another part than the one that the checkpoint names");
    /* No more pieces than the list has room for. */
    file->pieces = calloc(list_bytes / KOLO__PART_RECORD_BYTES + 1, sizeof *file->pieces);
    if (verdict == KOLO__CHECKPOINT_GOOD && file->pieces == NULL)
        verdict = damaged(why, path, "no memory");
    if (verdict == KOLO__CHECKPOINT_GOOD) {
        verdict = kolo__part_read_list(list, list_bytes, checkpoint->state, checkpoint->count,
                                       file->pieces, &said, what);
        if (verdict != KOLO__CHECKPOINT_GOOD)
            damaged(why, path, what);
        else if (bytes != expected.bytes || bytes != said)
            verdict = damaged(why, path, "it is torn");
    }
    free(list);
    return verdict;
}

/* Every element of every tensor is in a piece; that none is in two who wrote them has seen to. */
static bool is_whole(const struct kolo__checkpoint *checkpoint)
{
    uint64_t *counts = calloc(checkpoint->count + 1, sizeof *counts);
    bool whole = counts != NULL;
    for (uint32_t f = 0; whole && f < checkpoint->file_count; f++)
        for (size_t k = 0; k < checkpoint->files[f].count; k++)
            counts[checkpoint->files[f].pieces[k].tensor] += checkpoint->files[f].pieces[k].count;
    for (size_t i = 0; whole && i < checkpoint->count; i++)
        whole = counts[i] == checkpoint->state[i].count;
    free(counts);
    return whole;
}

/* The files that a manifest names. */
static enum kolo__checkpoint_verdict open_parts(const char *folder, uint64_t step,
                                                const unsigned char *list, size_t list_bytes,
                                                struct kolo__checkpoint *checkpoint,
                                                char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    enum kolo__checkpoint_verdict verdict = KOLO__CHECKPOINT_GOOD;
    for (uint32_t i = 0; i < checkpoint->file_count && verdict == KOLO__CHECKPOINT_GOOD; i++)
        verdict =
            open_part(folder, step, i, checkpoint,
                      kolo__checkpoint_part_at(list, list_bytes, checkpoint->file_count, i), why);
    if (verdict == KOLO__CHECKPOINT_GOOD && !is_whole(checkpoint)) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "its parts do not make up the state");
        verdict = KOLO__CHECKPOINT_DAMAGED;
    }
    return verdict;
}

static enum kolo__checkpoint_verdict open_list(const char *folder, uint64_t step, const char *path,
                                               struct kolo__checkpoint *checkpoint,
                                               char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    unsigned char *list;
    size_t list_bytes;
    uint64_t bytes, said;
    uint32_t parts = 0;
    int fd = open_file(path, &list, &list_bytes, &bytes, why);
    if (fd < 0)
        return KOLO__CHECKPOINT_DAMAGED;
    close(fd);
    struct kolo__checkpoint_piece *pieces = calloc(checkpoint->count + 1, sizeof *pieces);
    enum kolo__checkpoint_verdict verdict =
        pieces != NULL ? kolo__checkpoint_read_list(list, list_bytes, checkpoint->state,
                                                    checkpoint->count, &said, &parts, pieces, why)
                       : damaged(why, path, "no memory");
    if (verdict == KOLO__CHECKPOINT_GOOD && said != step)
        verdict = damaged(why, path, "it is of another step than its name says");
    size_t whole =
        parts > 0 ? list_bytes : kolo__checkpoint_file_bytes(checkpoint->state, checkpoint->count);
    if (verdict == KOLO__CHECKPOINT_GOOD && bytes != whole)
        verdict = damaged(why, path, "it is torn");
    checkpoint->file_count = parts > 0 ? parts : 1;
    checkpoint->files = calloc(checkpoint->file_count, sizeof *checkpoint->files);
    if (verdict == KOLO__CHECKPOINT_GOOD && checkpoint->files == NULL)
        verdict = damaged(why, path, "no memory");
    if (verdict == KOLO__CHECKPOINT_GOOD && parts > 0) {
        verdict = open_parts(folder, step, list, list_bytes, checkpoint, why);
    } else if (verdict == KOLO__CHECKPOINT_GOOD) {
        checkpoint->files[0] =
            (struct file){.path = strdup(path), .pieces = pieces, .count = checkpoint->count};
        pieces = NULL;
        if (checkpoint->files[0].path == NULL)
            verdict = damaged(why, path, "no memory");
    }
    free(pieces);
    free(list);
    return verdict;
}

enum kolo__checkpoint_verdict kolo__checkpoint_open(const char *folder, uint64_t step,
                                                    const kolo_tensor *state, size_t count,
                                                    struct kolo__checkpoint **result,
                                                    char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    char path[PATH_MAX];
    struct kolo__checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    *result = NULL;
    if (checkpoint == NULL || kolo__checkpoint_path(folder, step, 0, 0, path) != KOLO_OK) {
        free(checkpoint);
        return damaged(why, folder, "no memory, or too long a name");
    }
    checkpoint->state = state;
    checkpoint->count = count;
    enum kolo__checkpoint_verdict verdict = open_list(folder, step, path, checkpoint, why);
    if (verdict == KOLO__CHECKPOINT_GOOD)
        *result = checkpoint;
    else
        kolo__checkpoint_close(checkpoint);
    return verdict;
}

void kolo__checkpoint_close(struct kolo__checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return;
    for (uint32_t f = 0; f < checkpoint->file_count && checkpoint->files != NULL; f++) {
        free(checkpoint->files[f].path);
        free(checkpoint->files[f].pieces);
    }
    free(checkpoint->files);
    free(checkpoint);
}

/* ---- data -------------------------------------------------------------------------------------
 */

static size_t element_bytes(const struct kolo__checkpoint *checkpoint, uint64_t tensor)
{
    return kolo_dtype_bytes(checkpoint->state[tensor].dtype);
}

static bool is_piece_good(int fd, const struct kolo__checkpoint_piece *piece, uint64_t bytes,
                          unsigned char *buffer)
{
    uint32_t crc = 0;
    for (uint64_t at = piece->at; bytes > 0;) {
        size_t part = bytes < BUFFER_BYTES ? (size_t)bytes : BUFFER_BYTES;
        if (!read_all(fd, buffer, part, at))
            return false;
        crc = kolo__crc32c(crc, buffer, part);
        at += part;
        bytes -= part;
    }
    return crc == piece->sum;
}

static enum kolo__checkpoint_verdict verify_file(const struct kolo__checkpoint *checkpoint,
                                                 const struct file *file, unsigned char *buffer,
                                                 char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    char what[80];
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return damaged(why, file->path, strerror(errno));
    for (size_t k = 0; k < file->count; k++) {
        const struct kolo__checkpoint_piece *piece = &file->pieces[k];
        if (is_piece_good(fd, piece, piece->count * element_bytes(checkpoint, piece->tensor),
                          buffer))
            continue;
        close(fd);
        snprintf(what, sizeof what, "the sum of its tensor %" PRIu64 " does not fit",
                 piece->tensor);
        return damaged(why, file->path, what);
    }
    close(fd);
    return KOLO__CHECKPOINT_GOOD;
}

enum kolo__checkpoint_verdict kolo__checkpoint_verify(struct kolo__checkpoint *checkpoint,
                                                      uint32_t first, uint32_t stride,
                                                      char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    unsigned char *buffer = malloc(BUFFER_BYTES);
    enum kolo__checkpoint_verdict verdict =
        buffer != NULL ? KOLO__CHECKPOINT_GOOD : damaged(why, "", "no memory to read it");
    for (uint64_t f = first; f < checkpoint->file_count && verdict == KOLO__CHECKPOINT_GOOD;
         f += stride)
        verdict = verify_file(checkpoint, &checkpoint->files[f], buffer, why);
    free(buffer);
    return verdict;
}

bool kolo__checkpoint_fill(const struct kolo__checkpoint *checkpoint, size_t tensor, size_t first,
                           size_t count, void *data)
{
    size_t element = element_bytes(checkpoint, tensor), filled = 0;
    for (uint32_t f = 0; f < checkpoint->file_count && filled < count; f++) {
        const struct file *file = &checkpoint->files[f];
        int fd = -1;
        for (size_t k = 0; k < file->count && filled < count; k++) {
            const struct kolo__checkpoint_piece *piece = &file->pieces[k];
            uint64_t from, length;
            if (piece->tensor != tensor ||
                !kolo__ranges_meet(piece->first, piece->count, first, count, &from, &length))
                continue;
            if (fd < 0)
                fd = open(file->path, O_RDONLY | O_CLOEXEC);
            if (fd < 0 || !read_all(fd, (char *)data + (from - first) * element, length * element,
                                    piece->at + (from - piece->first) * element))
                break;
            filled += length;
        }
        if (fd >= 0)
            close(fd);
    }
    return filled == count;
}

/* ---- the last good one ------------------------------------------------------------------------
 */

kolo_status kolo__checkpoint_judge(const char *folder, uint64_t step,
                                   enum kolo__checkpoint_verdict verdict, const char *why)
{
    switch (verdict) {
    case KOLO__CHECKPOINT_GOOD:
        break;
    case KOLO__CHECKPOINT_DAMAGED:
        kolo__log(KOLO__LOG_WARN, "checkpoint %s/step-%" PRIu64 ".kolo is left out: %s", folder,
                  step, why);
        break;
    case KOLO__CHECKPOINT_OTHER:
        return kolo__error(KOLO_ERR_CONFIG,
                           "checkpoint %s/step-%" PRIu64 ".kolo is of another state: %s; to begin "
                           "anew, move it away or choose another folder",
                           folder, step, why);
    case KOLO__CHECKPOINT_LOST:
        return kolo__error(KOLO_ERR_SYSTEM,
                           "checkpoint %s/step-%" PRIu64
                           ".kolo could be read once, and not a second time",
                           folder, step);
    }
    return KOLO_OK;
}

static enum kolo__checkpoint_verdict load(const char *folder, uint64_t step,
                                          const kolo_tensor *state, size_t count,
                                          char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    struct kolo__checkpoint *checkpoint;
    enum kolo__checkpoint_verdict verdict =
        kolo__checkpoint_open(folder, step, state, count, &checkpoint, why);
    if (verdict == KOLO__CHECKPOINT_GOOD)
        verdict = kolo__checkpoint_verify(checkpoint, 0, 1, why);
    /* Everything is read twice, for only what was found good may replace the state. */
    for (size_t i = 0; i < count && verdict == KOLO__CHECKPOINT_GOOD; i++)
        if (!kolo__checkpoint_fill(checkpoint, i, 0, state[i].count, state[i].data))
            verdict = KOLO__CHECKPOINT_LOST;
    kolo__checkpoint_close(checkpoint);
    return verdict;
}

kolo_status kolo__checkpoint_load(const char *folder, const kolo_tensor *state, size_t count,
                                  bool *found, uint64_t *step)
{
    uint64_t *steps;
    size_t files;
    char why[KOLO__CHECKPOINT_WHY_BYTES] = "";
    *found = false;
    kolo_status status = kolo__checkpoint_steps(folder, &steps, &files);
    for (size_t i = 0; i < files && status == KOLO_OK && !*found; i++) {
        enum kolo__checkpoint_verdict verdict = load(folder, steps[i], state, count, why);
        status = kolo__checkpoint_judge(folder, steps[i], verdict, why);
        *found = verdict == KOLO__CHECKPOINT_GOOD;
        *step = steps[i];
    }
    if (status == KOLO_OK && !*found && files > 0)
        kolo__log(KOLO__LOG_WARN, "none of the %zu checkpoints in %s is good", files, folder);
    free(steps);
    return status;
}
