/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/cache_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static const uint64_t FNV_OFFSET = UINT64_C(0xcbf29ce484222325);
static const uint64_t FNV_PRIME = UINT64_C(0x100000001b3);

uint64_t kolo__cache_hash(const char *text, size_t bytes)
{
    uint64_t hash = FNV_OFFSET;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)text[i]) * FNV_PRIME;
    return hash;
}

/* x86 names its model; elsewhere the architecture has to do. */
void kolo__cache_processor(char *name, size_t bytes)
{
    char line[256];
    struct utsname system;
    FILE *file = fopen("/proc/cpuinfo", "re");
    name[0] = '\0';
    while (file != NULL && name[0] == '\0' && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':') != NULL)
            snprintf(name, bytes, "%.100s",
                     strchr(line, ':') + 1 + strspn(strchr(line, ':') + 1, " "));
    if (file != NULL)
        fclose(file);
    name[strcspn(name, "\n")] = '\0';
    if (name[0] == '\0')
        snprintf(name, bytes, "%.100s", uname(&system) == 0 ? system.machine : "unknown");
}

bool kolo__cache_path(const char *kind, const char *key, char path[PATH_MAX])
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    uint64_t hash = kolo__cache_hash(key, strlen(key));
    /* XDG Base Directory Specification: relative paths are to be ignored. */
    if (cache != NULL && cache[0] == '/')
        length = snprintf(path, PATH_MAX, "%s/kolo/%s-%016" PRIx64, cache, kind, hash);
    else if (home != NULL && home[0] == '/')
        length = snprintf(path, PATH_MAX, "%s/.cache/kolo/%s-%016" PRIx64, home, kind, hash);
    if (length > 0 && length < PATH_MAX)
        return true;
    path[0] = '\0';
    return false;
}

size_t kolo__cache_read(const char *path, char *text, size_t capacity)
{
    struct stat what;
    /* Not blocking: it may be a pipe. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return 0;
    ssize_t length = -1;
    if (fstat(fd, &what) == 0 && S_ISREG(what.st_mode))
        length = read(fd, text, capacity);
    close(fd);
    return length > 0 ? (size_t)length : 0;
}

/* The folder of the file and the one above, which a new user may lack. */
static void make_folders(const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *last = strrchr(folder, '/');
    if (last == NULL)
        return;
    *last = '\0';
    char *above = strrchr(folder, '/');
    if (above != NULL && above != folder) {
        *above = '\0';
        mkdir(folder, 0700);
        *above = '/';
    }
    mkdir(folder, 0700);
}

bool kolo__cache_write(const char *path, const char *text, size_t bytes)
{
    char draft[PATH_MAX + 8];
    snprintf(draft, sizeof draft, "%s.XXXXXX", path);
    make_folders(path);
    int fd = mkostemp(draft, O_CLOEXEC);
    if (fd < 0)
        return false;
    bool written = write(fd, text, bytes) == (ssize_t)bytes;
    written &= close(fd) == 0;
    if (written && rename(draft, path) == 0)
        return true;
    unlink(draft);
    return false;
}

/* How many files of the folder begin like `name` up to its '-'; the name of the oldest other one.
 */
static size_t count_kind(DIR *folder, const char *name, char oldest[NAME_MAX + 1])
{
    size_t count = 0, kind = strcspn(name, "-") + 1;
    struct timespec since = {0, 0};
    oldest[0] = '\0';
    rewinddir(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        struct stat what;
        if (strncmp(entry->d_name, name, kind) != 0 ||
            fstatat(dirfd(folder), entry->d_name, &what, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(what.st_mode))
            continue;
        count++;
        bool older = what.st_mtim.tv_sec < since.tv_sec ||
                     (what.st_mtim.tv_sec == since.tv_sec && what.st_mtim.tv_nsec < since.tv_nsec);
        if (strcmp(entry->d_name, name) == 0 || (oldest[0] != '\0' && !older))
            continue;
        since = what.st_mtim;
        snprintf(oldest, NAME_MAX + 1, "%s", entry->d_name);
    }
    return count;
}

void kolo__cache_trim(const char *path, size_t most)
{
    char above[PATH_MAX], oldest[NAME_MAX + 1];
    snprintf(above, sizeof above, "%s", path);
    char *name = strrchr(above, '/');
    if (name == NULL)
        return;
    *name++ = '\0';
    DIR *folder = opendir(above);
    if (folder == NULL)
        return;
    /* Somebody else may trim as well: what is gone already is no reason to go on. */
    while (count_kind(folder, name, oldest) > most && oldest[0] != '\0')
        if (unlinkat(dirfd(folder), oldest, 0) != 0)
            break;
    closedir(folder);
}
