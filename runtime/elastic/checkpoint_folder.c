/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints in a folder: names, of which each stands for a whole file. */
#include "runtime/elastic/checkpoint.h"

#include "base/log.h"
#include "base/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static kolo_status cannot_write(const char *folder, int reason)
{
    return kolo__error_errno(reason, "checkpoints cannot be written into %s", folder);
}

/* ---- names ------------------------------------------------------------------------------------
 */

kolo_status kolo__checkpoint_path(const char *folder, uint64_t step, uint32_t part, uint32_t parts,
                                  char path[PATH_MAX])
{
    char name[96] = "";
    if (parts > 0)
        snprintf(name, sizeof name, ".part-%" PRIu32 "-of-%" PRIu32, part, parts);
    return snprintf(path, PATH_MAX, "%s/step-%" PRIu64 "%s.kolo", folder, step, name) < PATH_MAX
               ? KOLO_OK
               : cannot_write(folder, ENAMETOOLONG);
}

/* Other processes may write the same one, such as a rank that the others have expelled. */
static kolo_status temporary_path(const char *folder, const char *path, char temporary[PATH_MAX])
{
    return snprintf(temporary, PATH_MAX, "%s.%s.%d.tmp", path, kolo__host_name(), (int)getpid()) <
                   PATH_MAX
               ? KOLO_OK
               : cannot_write(folder, ENAMETOOLONG);
}

/* ---- the folder -------------------------------------------------------------------------------
 */

static int by_step_descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

kolo_status kolo__checkpoint_steps(const char *folder, uint64_t **steps, size_t *count)
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
    char path[PATH_MAX], temporary[PATH_MAX];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return cannot_write(folder, errno);
    kolo_status status = kolo__checkpoint_path(folder, 0, 0, 0, path);
    if (status == KOLO_OK)
        status = temporary_path(folder, path, temporary);
    if (status != KOLO_OK)
        return status;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return cannot_write(folder, errno);
    close(fd);
    return unlink(temporary) == 0 ? KOLO_OK : cannot_write(folder, errno);
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

kolo_status kolo__checkpoint_save(const char *folder, const char *path, const unsigned char *file,
                                  size_t bytes)
{
    char temporary[PATH_MAX];
    kolo_status status = temporary_path(folder, path, temporary);
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
    return KOLO_OK;
}

/* ---- removing ---------------------------------------------------------------------------------
 */

/* The step that a file of a checkpoint is of, or of its parts, or of what was left of either. */
static bool is_of_step(const char *name, uint64_t *step)
{
    int end = 0;
    size_t length = strlen(name);
    if (sscanf(name, "step-%" SCNu64 "%n", step, &end) != 1 || length < 5)
        return false;
    bool is_own = strncmp(name + end, ".kolo", 5) == 0 || strncmp(name + end, ".part-", 6) == 0;
    return is_own &&
           (strcmp(name + length - 5, ".kolo") == 0 || strcmp(name + length - 4, ".tmp") == 0);
}

/* steps: descending, of which the first `kept` stay. */
static bool is_old(uint64_t step, uint64_t last, const uint64_t *steps, size_t kept)
{
    for (size_t i = 0; i < kept; i++)
        if (steps[i] == step)
            return false;
    return step < last;
}

/* A manifest goes before its parts: in between nobody may take it for a checkpoint. */
static void remove_files(const char *folder, uint64_t last, const uint64_t *steps, size_t kept)
{
    DIR *directory = opendir(folder);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        char path[PATH_MAX];
        uint64_t step;
        if (is_of_step(entry->d_name, &step) && is_old(step, last, steps, kept) &&
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < PATH_MAX)
            unlink(path);
    }
    if (directory != NULL)
        closedir(directory);
}

static bool is_among(uint64_t step, const uint64_t *steps, size_t count)
{
    while (count > 0 && steps[count - 1] != step)
        count--;
    return count > 0;
}

void kolo__checkpoint_remove_old(const char *folder, uint64_t last, int keep,
                                 const uint64_t *doubtful, size_t doubtful_count)
{
    uint64_t *steps;
    size_t count, kept = 0;
    char path[PATH_MAX];
    if (kolo__checkpoint_steps(folder, &steps, &count) == KOLO_OK && steps != NULL) {
        /* Not counted: those of a run that had come further, and those that were not taken up. */
        for (int good = 0; kept < count && good < keep; kept++)
            good += steps[kept] <= last && !is_among(steps[kept], doubtful, doubtful_count);
        for (size_t i = kept; i < count; i++)
            if (kolo__checkpoint_path(folder, steps[i], 0, 0, path) == KOLO_OK)
                unlink(path);
        remove_files(folder, last, steps, kept);
    }
    free(steps);
}
