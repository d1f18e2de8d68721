/* SPDX-License-Identifier: Apache-2.0 */
/* Writing and reading checkpoints: see checkpoint.h. */
#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As a number in the writer's byte order, it also refuses a file of the other byte order. */
static const uint64_t MAGIC = 0x54504B4359425254U; /* "TRBYCKPT" */
enum { VERSION = 2 };                              /* 1 had the matrices before the gains */

struct header {
    uint64_t magic, version;
    struct run_identity identity;
    uint64_t step;
    double seconds;
    uint64_t count;
};

uint64_t checksum(uint64_t hash, const void *data, size_t bytes)
{
    const uint8_t *byte = data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ byte[i]) * 0x100000001B3U;
    return hash;
}

static uint64_t sum_of(const struct header *header, const float *arrays)
{
    uint64_t hash = checksum(CHECKSUM_START, header, sizeof(*header));
    return checksum(hash, arrays, 3 * header->count * sizeof(float));
}

/* A rename is on the disk when its directory is. */
static int sync_directory(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -1;
    int directory = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (directory < 0)
        return -1;
    int result = fsync(directory);
    close(directory);
    return result;
}

static int cannot_write(const char *path, const char *why)
{
    fprintf(stderr, "train_bytes: cannot write the checkpoint %s: %s\n", path, why);
    return -1;
}

enum { NAME_BYTES = 4096 };

/* What is written under another name first replaces the last checkpoint whole or not at all. */
static int temporary_name(const char *path, char name[NAME_BYTES])
{
    return snprintf(name, NAME_BYTES, "%s.tmp", path) < NAME_BYTES
               ? 0
               : cannot_write(path, strerror(ENAMETOOLONG));
}

int checkpoint_probe(const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return cannot_write(path,
                            S_ISDIR(status.st_mode) ? strerror(EISDIR) : "it is no regular file");
    char temporary[NAME_BYTES];
    if (temporary_name(path, temporary) != 0)
        return -1;
    /* Without O_NONBLOCK a FIFO of that name would wait for a reader. */
    int file = open(temporary, O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666);
    if (file < 0)
        return cannot_write(path, strerror(errno));
    close(file);
    if (unlink(temporary) != 0 || sync_directory(path) != 0)
        return cannot_write(path, strerror(errno));
    return 0;
}

int checkpoint_save(const char *path, const struct run_identity *identity,
                    const struct training_state *state)
{
    struct header header = {MAGIC, VERSION, *identity, state->step, state->seconds, state->count};
    uint64_t sum = sum_of(&header, state->parameters);
    char temporary[NAME_BYTES];
    if (temporary_name(path, temporary) != 0)
        return -1;
    FILE *file = fopen(temporary, "wb");
    bool good =
        file && fwrite(&header, sizeof(header), 1, file) == 1 &&
        fwrite(state->parameters, sizeof(float), 3 * state->count, file) == 3 * state->count &&
        fwrite(&sum, sizeof(sum), 1, file) == 1 && fflush(file) == 0 && fsync(fileno(file)) == 0;
    if (file && fclose(file) != 0)
        good = false;
    if (good && rename(temporary, path) == 0 && sync_directory(path) == 0)
        return 0;
    return cannot_write(path, strerror(errno));
}

static enum checkpoint_result refuse(const char *path, const char *why)
{
    fprintf(stderr,
            "train_bytes: %s: %s. The file was not changed; to train from the start, move it away "
            "or choose another --checkpoint\n",
            path, why);
    return CHECKPOINT_REFUSED;
}

/* Names the first thing in which the checkpoint's run differs from this one. */
static const char *difference(const struct run_identity *saved, const struct run_identity *wanted)
{
    if (saved->layers != wanted->layers || saved->width != wanted->width ||
        saved->heads != wanted->heads)
        return "it holds a model of another size (--layers, --width, --heads)";
    if (saved->context != wanted->context || saved->batch != wanted->batch)
        return "its run had another --context or --batch";
    if (saved->seed != wanted->seed || saved->learning_rate != wanted->learning_rate)
        return "its run had another --seed or --lr";
    if (saved->corpus != wanted->corpus)
        return "its run was trained on other files, or they have changed";
    return NULL;
}

static enum checkpoint_result read_checked(FILE *file, const char *path,
                                           const struct run_identity *identity,
                                           struct training_state *state)
{
    struct header header = {0};
    size_t got = fread(&header, 1, sizeof(header), file);
    if (got >= sizeof(header.magic) && header.magic != MAGIC)
        return refuse(path, "not a checkpoint of train_bytes on this kind of machine");
    if (got < sizeof(header))
        return refuse(path, "torn: shorter than the head of a checkpoint");
    if (header.version != VERSION)
        return refuse(path, "a checkpoint of another version of train_bytes");
    const char *unlike = difference(&header.identity, identity);
    if (unlike)
        return refuse(path, unlike);

    struct stat status;
    off_t size = (off_t)(sizeof(header) + 3 * state->count * sizeof(float) + sizeof(uint64_t));
    if (fstat(fileno(file), &status) != 0)
        return refuse(path, strerror(errno));
    if (header.count != state->count || status.st_size != size) {
        char why[128];
        snprintf(why, sizeof(why), "torn: %lld bytes instead of %lld", (long long)status.st_size,
                 (long long)size);
        return refuse(path, why);
    }
    uint64_t sum;
    if (fread(state->parameters, sizeof(float), 3 * state->count, file) != 3 * state->count ||
        fread(&sum, sizeof(sum), 1, file) != 1)
        return refuse(path, "torn: it cannot be read to its end");
    if (sum != sum_of(&header, state->parameters))
        return refuse(path, "damaged: its checksum does not fit its contents");
    state->step = header.step;
    state->seconds = header.seconds;
    return CHECKPOINT_OK;
}

enum checkpoint_result checkpoint_load(const char *path, const struct run_identity *identity,
                                       struct training_state *state)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return errno == ENOENT ? CHECKPOINT_ABSENT : refuse(path, strerror(errno));
    enum checkpoint_result result = read_checked(file, path, identity, state);
    fclose(file);
    return result;
}
