/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder that all hosts see, for checkpoints: it outlives processes, and the job. What was
 * written and not brought to the disk is lost in part with the host that wrote it; a full disk
 * takes nothing; bits flip while nobody looks, and what was written last is lost.
 *
 *     a file    | on the disk (fsync) | written |
 */
#include "world.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "runtime/elastic/checkpoint_format.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 256, NAME_BYTES = 96 };

struct disk_file {
    char name[NAME_BYTES]; /* "": it has none any more */
    unsigned char *bytes;
    size_t count, synced;
    uint32_t open; /* descriptors */
    bool damaged;
};

struct folder_walk {
    uint32_t next;
    struct dirent entry;
};

static const char FOLDER[] = "/disk";
static struct disk_file *disk[FILES_MAX]; /* NULL: free */
static bool is_made;

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t bytes);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);
ssize_t __real_pread(int fd, void *data, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t at);
int __real_fstat(int fd, struct stat *what);
int __wrap_fstat(int fd, struct stat *what);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_mkdir(const char *path, mode_t mode);
int __real_access(const char *path, int how);
int __wrap_access(const char *path, int how);
DIR *__real_opendir(const char *path);
DIR *__wrap_opendir(const char *path);
struct dirent *__real_readdir(DIR *directory);
struct dirent *__wrap_readdir(DIR *directory);
int __real_closedir(DIR *directory);
int __wrap_closedir(DIR *directory);
int __wrap_usleep(useconds_t us);

/* ---- names ------------------------------------------------------------------------------------
 */

/* Of a path in the folder; "": the folder's; NULL: elsewhere. */
static const char *name_in(const char *path)
{
    size_t length = strlen(FOLDER);
    if (world == NULL || world->current == NULL || strncmp(path, FOLDER, length) != 0)
        return NULL;
    return path[length] == '/' ? path + length + 1 : path + length;
}

static struct disk_file *find(const char *name)
{
    for (uint32_t i = 0; i < FILES_MAX; i++)
        if (disk[i] != NULL && strcmp(disk[i]->name, name) == 0)
            return disk[i];
    return NULL;
}

static void forget(struct disk_file *file)
{
    uint32_t i = 0;
    if (file->name[0] != '\0' || file->open > 0)
        return;
    while (disk[i] != file)
        i++;
    disk[i] = NULL;
    struct process *inside = memory_step_out();
    free(file->bytes);
    free(file);
    memory_step_in(inside);
}

static void take_name(struct disk_file *file)
{
    file->name[0] = '\0';
    forget(file);
}

static struct disk_file *make(const char *name)
{
    uint32_t i = 0;
    while (i < FILES_MAX && disk[i] != NULL)
        i++;
    KOLO__ASSERT(i < FILES_MAX && strlen(name) < NAME_BYTES);
    struct process *inside = memory_step_out();
    disk[i] = calloc(1, sizeof *disk[i]);
    memory_step_in(inside);
    KOLO__ASSERT(disk[i] != NULL);
    snprintf(disk[i]->name, NAME_BYTES, "%s", name);
    return disk[i];
}

/* The disk takes its time, in which a process may be killed. */
static void take_time(void)
{
    fiber_wait(world->now_ns + 1 + world_below(world->plan.disk_ns));
}

static bool is_full(void)
{
    return world->disk_full_until_ns > world->now_ns;
}

/* ---- files ------------------------------------------------------------------------------------
 */

int __wrap_open(const char *path, int flags, ...)
{
    const char *name = name_in(path);
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    if (name == NULL)
        return __real_open(path, flags, mode);
    take_time();
    struct disk_file *file = find(name);
    errno = ENOENT;
    if (!is_made)
        return -1;
    if (name[0] == '\0')
        return file_of_disk(world->current, NULL);
    if (file == NULL && (flags & O_CREAT) == 0)
        return -1;
    if (file == NULL)
        file = make(name);
    if ((flags & O_TRUNC) != 0)
        file->count = file->synced = 0;
    file->open++;
    return file_of_disk(world->current, file);
}

void disk_close(struct disk_file *file, bool silent)
{
    if (file == NULL)
        return;
    if (silent && file->synced < file->count)
        file->count = file->synced + world_below(file->count - file->synced);
    file->open--;
    forget(file);
}

ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
    struct disk_file *file;
    if (!disk_of_file(fd, &file))
        return __real_write(fd, data, bytes);
    take_time();
    if (is_full()) {
        errno = ENOSPC;
        return -1;
    }
    bytes = world_chance(30) ? 1 + world_below(bytes) : bytes;
    struct process *inside = memory_step_out();
    file->bytes = realloc(file->bytes, file->count + bytes);
    memory_step_in(inside);
    KOLO__ASSERT(file->bytes != NULL);
    memcpy(file->bytes + file->count, data, bytes);
    file->count += bytes;
    return (ssize_t)bytes;
}

int __wrap_fsync(int fd)
{
    struct disk_file *file;
    KOLO__ASSERT(disk_of_file(fd, &file));
    take_time();
    if (file != NULL)
        file->synced = file->count;
    return 0;
}

ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t at)
{
    struct disk_file *file;
    if (!disk_of_file(fd, &file))
        return __real_pread(fd, data, bytes, at);
    take_time();
    size_t from = (size_t)at < file->count ? (size_t)at : file->count;
    bytes = bytes < file->count - from ? bytes : file->count - from;
    if (bytes > 1 && world_chance(20))
        bytes = 1 + world_below(bytes);
    if (bytes > 0)
        memcpy(data, file->bytes + from, bytes);
    return (ssize_t)bytes;
}

int __wrap_fstat(int fd, struct stat *what)
{
    struct disk_file *file;
    if (!disk_of_file(fd, &file))
        return __real_fstat(fd, what);
    *what = (struct stat){.st_size = (off_t)file->count, .st_mode = S_IFREG};
    return 0;
}

/* ---- the folder -------------------------------------------------------------------------------
 */

int __wrap_mkdir(const char *path, mode_t mode)
{
    (void)mode;
    KOLO__ASSERT(name_in(path) != NULL);
    errno = EEXIST;
    if (is_made)
        return -1;
    is_made = true;
    return 0;
}

int __wrap_access(const char *path, int how)
{
    const char *name = name_in(path);
    if (name == NULL)
        return __real_access(path, how);
    errno = ENOENT;
    return find(name) != NULL ? 0 : -1;
}

/* How many parts its manifest is of: what lies there of a world of another size means nothing. */
static uint32_t count_parts(const struct disk_file *manifest)
{
    const unsigned char *head = manifest->bytes;
    size_t records = kolo__load_u32(head + 12) * (size_t)KOLO__CHECKPOINT_RECORD_BYTES;
    return kolo__load_u32(head + 8) == KOLO__CHECKPOINT_MANIFEST
               ? (uint32_t)((manifest->count - KOLO__CHECKPOINT_HEAD_BYTES - records -
                             KOLO__CHECKPOINT_SUM_BYTES) /
                            KOLO__MANIFEST_PART_BYTES)
               : 0;
}

static const struct disk_file *find_part(uint64_t step, uint32_t part, uint32_t parts)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "step-%" PRIu64 ".part-%" PRIu32 "-of-%" PRIu32 ".kolo", step, part,
             parts);
    return find(name);
}

/* A manifest comes last. Who was expelled, and does not know it yet, may be late with its own. */
static void check_parts(const struct disk_file *manifest)
{
    uint32_t parts = count_parts(manifest);
    uint64_t step = kolo__load_u64(manifest->bytes + 16);
    unsigned others = world->pauses + world->cuts + world->slowed + world->damaged;
    for (uint32_t r = 0; r < parts && others == 0; r++) {
        const struct disk_file *part = find_part(step, r, parts);
        struct kolo__checkpoint_part meant =
            kolo__checkpoint_part_at(manifest->bytes, manifest->count, parts, r);
        if (part == NULL || part->count != meant.bytes)
            world_broken("%s is there before its part %" PRIu32, manifest->name, r);
    }
}

/* What has a step's name is whole, for whoever sees it, and on the disk. */
int __wrap_rename(const char *from, const char *to)
{
    take_time();
    struct disk_file *file = find(name_in(from)), *before = find(name_in(to));
    errno = ENOENT;
    if (file == NULL)
        return -1;
    if (file->synced < file->count)
        world_broken("%s has %zu bytes, of which %zu are on the disk", to, file->count,
                     file->synced);
    if (before != NULL && before != file)
        take_name(before);
    KOLO__ASSERT(strlen(name_in(to)) < NAME_BYTES);
    snprintf(file->name, NAME_BYTES, "%s", name_in(to));
    if (strstr(to, ".part-") == NULL) {
        check_parts(file);
        world->saved++;
    }
    world_note(file->count);
    return 0;
}

int __wrap_unlink(const char *path)
{
    struct disk_file *file = find(name_in(path));
    errno = ENOENT;
    if (file == NULL)
        return -1;
    take_time();
    if (find(name_in(path)) == file) /* nobody else was quicker */
        take_name(file);
    return 0;
}

DIR *__wrap_opendir(const char *path)
{
    if (world == NULL || world->current == NULL)
        return __real_opendir(path);
    KOLO__ASSERT(name_in(path) != NULL);
    errno = ENOENT;
    struct folder_walk *walk = is_made ? calloc(1, sizeof *walk) : NULL;
    return (DIR *)(void *)walk;
}

struct dirent *__wrap_readdir(DIR *directory)
{
    struct folder_walk *walk = (struct folder_walk *)(void *)directory;
    if (world == NULL || world->current == NULL)
        return __real_readdir(directory);
    while (walk->next < FILES_MAX) {
        const struct disk_file *file = disk[walk->next++];
        if (file == NULL || file->name[0] == '\0')
            continue;
        memcpy(walk->entry.d_name, file->name, NAME_BYTES);
        return &walk->entry;
    }
    return NULL;
}

int __wrap_closedir(DIR *directory)
{
    if (world == NULL || world->current == NULL)
        return __real_closedir(directory);
    free(directory);
    return 0;
}

int __wrap_usleep(useconds_t us)
{
    uint64_t until_ns = world->now_ns + us * US;
    while (world->now_ns < until_ns)
        fiber_wait(until_ns);
    return 0;
}

/* ---- what befalls it --------------------------------------------------------------------------
 */

/* The same part of another checkpoint. */
static const struct disk_file *find_other(const struct disk_file *file)
{
    const char *part = strstr(file->name, ".part-");
    for (uint32_t i = 0; i < FILES_MAX && part != NULL; i++) {
        const char *its = disk[i] != NULL ? strstr(disk[i]->name, ".part-") : NULL;
        if (disk[i] != file && its != NULL && strcmp(its, part) == 0)
            return disk[i];
    }
    return NULL;
}

static void flip_bit(struct disk_file *file)
{
    size_t at = world_below(file->count);
    while (file->bytes[at] == 0) /* perhaps a hole between tensors, which nobody reads */
        at = (at + 1) % file->count;
    file->bytes[at] ^= (unsigned char)(1u << world_below(8));
}

static void become(struct disk_file *file, const struct disk_file *other)
{
    struct process *inside = memory_step_out();
    file->bytes = realloc(file->bytes, other->count);
    memory_step_in(inside);
    KOLO__ASSERT(file->bytes != NULL);
    memcpy(file->bytes, other->bytes, other->count);
    file->count = file->synced = other->count;
}

void disk_damage(void)
{
    struct disk_file *files[FILES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < FILES_MAX; i++)
        if (disk[i] != NULL && disk[i]->count > 0 && strncmp(disk[i]->name, "step-", 5) == 0)
            files[count++] = disk[i];
    if (count == 0)
        return;
    struct disk_file *file = files[world_below(count)];
    const struct disk_file *other = world_chance(50) ? find_other(file) : NULL;
    if (other != NULL)
        become(file, other);
    else
        flip_bit(file);
    file->damaged = true;
    world_log("%s is damaged", file->name);
    world->damaged++;
}

/* Itself, or one of the parts that it means. */
static bool is_damaged(const struct disk_file *checkpoint, uint64_t step)
{
    bool damaged = checkpoint->damaged;
    uint32_t parts = damaged ? 0 : count_parts(checkpoint);
    for (uint32_t r = 0; r < parts && !damaged; r++) {
        const struct disk_file *part = find_part(step, r, parts);
        damaged = part == NULL || part->damaged;
    }
    return damaged;
}

bool disk_has(const char *prefix)
{
    for (uint32_t i = 0; i < FILES_MAX; i++)
        if (disk[i] != NULL && strncmp(disk[i]->name, prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

uint64_t disk_last_good(void)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < FILES_MAX; i++) {
        uint64_t step;
        int end = 0;
        if (disk[i] != NULL && sscanf(disk[i]->name, "step-%" SCNu64 ".kolo%n", &step, &end) == 1 &&
            end > 0 && disk[i]->name[end] == '\0' && step > last && !is_damaged(disk[i], step))
            last = step;
    }
    return last;
}

void disk_end(void)
{
    for (uint32_t i = 0; i < FILES_MAX; i++)
        if (disk[i] != NULL) {
            disk[i]->open = 0;
            take_name(disk[i]);
        }
    is_made = false;
}
