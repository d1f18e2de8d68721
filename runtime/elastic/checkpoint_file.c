/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints in a folder: written so that a name stands for a whole file, read so that nothing is
 * taken before all of it was found good. */
#include "runtime/elastic/checkpoint.h"

#include "base/log.h"
#include "base/status.h"
#include "kernels/crc32c.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 };

/* ---- the folder -------------------------------------------------------------------------------
 */

static kolo_status cannot_write(const char *folder, int reason)
{
    return kolo__error_errno(reason, "checkpoints cannot be written into %s", folder);
}

static kolo_status path_of(const char *folder, uint64_t step, const char *ending,
                           char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/step-%" PRIu64 ".kolo%s", folder, step, ending) < PATH_MAX
               ? KOLO_OK
               : cannot_write(folder, ENAMETOOLONG);
}

/* Other processes may write the same step, such as a rank that the others have expelled. */
static kolo_status temporary_path(const char *folder, uint64_t step, char path[PATH_MAX])
{
    char ending[300];
    snprintf(ending, sizeof ending, ".%s.%d.tmp", kolo__host_name(), (int)getpid());
    return path_of(folder, step, ending, path);
}

static int by_step_descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* The steps that the folder has files of, the last one first; to be freed. */
static kolo_status list_steps(const char *folder, uint64_t **steps, size_t *count)
{
    *steps = NULL;
    *count = 0;
    DIR *directory = opendir(folder);
    if (directory == NULL)
        return kolo__error_errno(errno, "checkpoints in %s cannot be read", folder);
    kolo_status status = KOLO_OK;
    for (struct dirent *entry; status == KOLO_OK && (entry = readdir(directory)) != NULL;) {
        uint64_t step;
        char name[64];
        if (sscanf(entry->d_name, "step-%" SCNu64, &step) != 1)
            continue;
        snprintf(name, sizeof name, "step-%" PRIu64 ".kolo", step);
        if (strcmp(name, entry->d_name) != 0)
            continue;
        uint64_t *more = realloc(*steps, (*count + 1) * sizeof **steps);
        if (more == NULL) {
            status = kolo__error(KOLO_ERR_MEMORY, "no memory to list checkpoints in %s", folder);
            break;
        }
        *steps = more;
        more[(*count)++] = step;
    }
    closedir(directory);
    if (*count > 1)
        qsort(*steps, *count, sizeof **steps, by_step_descending);
    return status;
}

/* A rename is on the disk when its folder is. */
static int sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = fsync(fd), reason = errno;
    close(fd);
    errno = reason;
    return result;
}

kolo_status kolo__checkpoint_prepare(const char *folder)
{
    char path[PATH_MAX];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return cannot_write(folder, errno);
    kolo_status status = temporary_path(folder, 0, path);
    if (status != KOLO_OK)
        return status;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return cannot_write(folder, errno);
    close(fd);
    return unlink(path) == 0 ? KOLO_OK : cannot_write(folder, errno);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static int write_all(int fd, const unsigned char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(fd, data, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        data += written;
        bytes -= (size_t)written;
    }
    return 0;
}

static void remove_old(const char *folder, int keep)
{
    uint64_t *steps;
    size_t count;
    char path[PATH_MAX];
    if (list_steps(folder, &steps, &count) == KOLO_OK)
        for (size_t i = (size_t)keep; i < count; i++)
            if (path_of(folder, steps[i], "", path) == KOLO_OK)
                unlink(path);
    free(steps);
}

kolo_status kolo__checkpoint_save(const char *folder, uint64_t step, const unsigned char *file,
                                  size_t bytes, int keep)
{
    char temporary[PATH_MAX], path[PATH_MAX];
    kolo_status status = temporary_path(folder, step, temporary);
    if (status == KOLO_OK)
        status = path_of(folder, step, "", path);
    if (status != KOLO_OK)
        return status;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = fd >= 0 && write_all(fd, file, bytes) == 0 && fsync(fd) == 0;
    int reason = errno;
    if (fd >= 0 && close(fd) != 0 && good) {
        good = false;
        reason = errno;
    }
    if (good && (rename(temporary, path) != 0 || sync_folder(folder) != 0)) {
        good = false;
        reason = errno;
    }
    if (!good) {
        unlink(temporary);
        return cannot_write(folder, reason);
    }
    remove_old(folder, keep);
    return KOLO_OK;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* False: fewer bytes are there, or they cannot be read. */
static bool read_all(int fd, void *data, size_t bytes, off_t at)
{
    for (char *to = data; bytes > 0;) {
        ssize_t got = pread(fd, to, bytes, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool is_tensor_good(int fd, off_t at, size_t bytes, uint32_t sum, unsigned char *buffer)
{
    uint32_t crc = 0;
    while (bytes > 0) {
        size_t part = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;
        if (!read_all(fd, buffer, part, at))
            return false;
        crc = kolo__crc32c(crc, buffer, part);
        at += (off_t)part;
        bytes -= part;
    }
    return crc == sum;
}

/* Everything is read twice, for only what was found good may replace the state. */
static enum kolo__checkpoint_verdict read_data(int fd, const kolo_tensor *state, size_t count,
                                               const uint32_t *sums, unsigned char *buffer,
                                               char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < count; i++) {
            off_t at = (off_t)kolo__checkpoint_data_at(state, count, i);
            size_t bytes = state[i].count * kolo_dtype_bytes(state[i].dtype);
            bool good = pass == 0 ? is_tensor_good(fd, at, bytes, sums[i], buffer)
                                  : read_all(fd, state[i].data, bytes, at);
            if (good)
                continue;
            snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "the sum of its tensor %zu does not fit", i);
            return pass == 0 ? KOLO__CHECKPOINT_DAMAGED : KOLO__CHECKPOINT_LOST;
        }
    return KOLO__CHECKPOINT_GOOD;
}

static enum kolo__checkpoint_verdict read_file(int fd, const kolo_tensor *state, size_t count,
                                               unsigned char *buffer, uint64_t *step,
                                               char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    struct stat file;
    size_t bytes = 0;
    unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES];
    enum kolo__checkpoint_verdict verdict = KOLO__CHECKPOINT_DAMAGED;
    snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "it is torn");
    if (!read_all(fd, head, sizeof head, 0) || !kolo__checkpoint_head(head, &bytes, why))
        return verdict;
    unsigned char *list = malloc(bytes);
    uint32_t *sums = calloc(count, sizeof *sums);
    if (list != NULL && sums != NULL && read_all(fd, list, bytes, 0))
        verdict = kolo__checkpoint_read_list(list, bytes, state, count, step, sums, why);
    size_t whole = kolo__checkpoint_file_bytes(state, count);
    if (verdict == KOLO__CHECKPOINT_GOOD &&
        (fstat(fd, &file) != 0 || file.st_size != (off_t)whole)) {
        verdict = KOLO__CHECKPOINT_DAMAGED;
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "it is torn: it should have %zu bytes", whole);
    }
    if (verdict == KOLO__CHECKPOINT_GOOD)
        verdict = read_data(fd, state, count, sums, buffer, why);
    free(list);
    free(sums);
    return verdict;
}

static enum kolo__checkpoint_verdict read_path(const char *path, const kolo_tensor *state,
                                               size_t count, unsigned char *buffer, uint64_t *step,
                                               char why[KOLO__CHECKPOINT_WHY_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(why, KOLO__CHECKPOINT_WHY_BYTES, "%s", strerror(errno));
        return KOLO__CHECKPOINT_DAMAGED;
    }
    enum kolo__checkpoint_verdict verdict = read_file(fd, state, count, buffer, step, why);
    close(fd);
    return verdict;
}

kolo_status kolo__checkpoint_load(const char *folder, const kolo_tensor *state, size_t count,
                                  bool *found, uint64_t *step)
{
    uint64_t *steps;
    size_t files;
    char path[PATH_MAX], why[KOLO__CHECKPOINT_WHY_BYTES];
    unsigned char *buffer = malloc(BUFFER_BYTES);
    *found = false;
    kolo_status status = list_steps(folder, &steps, &files);
    if (buffer == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "no memory to read checkpoints");
    for (size_t i = 0; i < files && status == KOLO_OK && !*found; i++) {
        status = path_of(folder, steps[i], "", path);
        if (status != KOLO_OK)
            break;
        switch (read_path(path, state, count, buffer, step, why)) {
        case KOLO__CHECKPOINT_GOOD:
            *found = true;
            break;
        case KOLO__CHECKPOINT_DAMAGED:
            kolo__log(KOLO__LOG_WARN, "checkpoint %s is left out: %s", path, why);
            break;
        case KOLO__CHECKPOINT_OTHER:
            status = kolo__error(KOLO_ERR_CONFIG,
                                 "checkpoint %s is of another state: %s; to begin anew, move it "
                                 "away or choose another folder",
                                 path, why);
            break;
        case KOLO__CHECKPOINT_LOST:
            status = kolo__error(KOLO_ERR_SYSTEM,
                                 "checkpoint %s could be read once, and not a second time", path);
        }
    }
    free(buffer);
    free(steps);
    return status;
}
