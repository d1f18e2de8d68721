/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without a fuzzer, so that every build tests it:
 *
 *     replay <mutations> <file or folder>...
 *
 * feeds each file, then that many mutations of them, the same ones in every run. The input being
 * run lies in ./last_input: after a crash, `replay 0 last_input` repeats it.
 */
#include "base/random.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEEDS_MAX = 256, INPUT_MAX = 1 << 16, STUCK_SECONDS = 30 };

struct input {
    unsigned char data[INPUT_MAX];
    size_t bytes;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static struct input *seeds[SEEDS_MAX];
static size_t seed_count;
static int last_input;

static void fail(const char *what, const char *path)
{
    fprintf(stderr, "replay: %s: %s\n", path, what);
    exit(2);
}

static void run(const struct input *input)
{
    if (ftruncate(last_input, 0) != 0 ||
        pwrite(last_input, input->data, input->bytes, 0) != (ssize_t)input->bytes)
        fail("cannot write", "last_input");
    alarm(STUCK_SECONDS);
    /* A copy of its exact length: AddressSanitizer then sees a read behind its end. */
    uint8_t *exact = malloc(input->bytes > 0 ? input->bytes : 1);
    if (exact == NULL)
        fail("no memory", "input");
    memcpy(exact, input->data, input->bytes);
    LLVMFuzzerTestOneInput(exact, input->bytes);
    free(exact);
}

/* ---- reading seeds ------------------------------------------------------------------------- */

static void read_file(const char *path)
{
    struct input *seed = calloc(1, sizeof *seed);
    FILE *file = fopen(path, "rb");
    if (seed == NULL || file == NULL || seed_count == SEEDS_MAX)
        fail("cannot be read, or is one too many", path);
    seed->bytes = fread(seed->data, 1, sizeof seed->data, file);
    fclose(file);
    seeds[seed_count++] = seed;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* In the order of names: that of the file system may be another on another machine. */
static void read_folder(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, visible, alphasort);
    if (count < 0)
        fail("cannot be listed", path);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        read_file(name);
        free(entries[i]);
    }
    free(entries);
}

/* ---- mutating ------------------------------------------------------------------------------ */

static size_t below(struct kolo__random *random, size_t bound)
{
    return bound > 0 ? (size_t)kolo__random_below(random, bound) : 0;
}

/* Opens a gap of `bytes` at `at`, or closes one. What does not fit falls off the end. */
static void insert(struct input *input, size_t at, const unsigned char *data, size_t bytes)
{
    unsigned char copy[64];
    memcpy(copy, data, bytes);
    if (input->bytes + bytes > INPUT_MAX)
        return;
    memmove(input->data + at + bytes, input->data + at, input->bytes - at);
    memcpy(input->data + at, copy, bytes);
    input->bytes += bytes;
}

static void erase(struct input *input, size_t at, size_t bytes)
{
    if (bytes > input->bytes - at)
        bytes = input->bytes - at;
    memmove(input->data + at, input->data + at + bytes, input->bytes - at - bytes);
    input->bytes -= bytes;
}

/* A number where a length, a count or a rank may stand. */
static void overwrite_number(struct input *input, size_t at, struct kolo__random *random)
{
    static const uint32_t numbers[] = {0,          1,          2,          3,         4,
                                       255,        256,        65535,      65536,     1u << 26,
                                       0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    uint32_t number = numbers[below(random, sizeof numbers / sizeof *numbers)];
    for (size_t i = 0; i < 4 && at + i < input->bytes; i++)
        input->data[at + i] = (unsigned char)(number >> (8 * i));
}

/* From somewhere in another seed: its end. */
static void join_end_of_another(struct input *input, size_t at, struct kolo__random *random)
{
    const struct input *other = seeds[below(random, seed_count)];
    size_t from = below(random, other->bytes);
    size_t bytes = other->bytes - from;
    if (bytes > INPUT_MAX - at)
        bytes = INPUT_MAX - at;
    memcpy(input->data + at, other->data + from, bytes);
    input->bytes = at + bytes;
}

static void mutate(struct input *input, struct kolo__random *random)
{
    size_t at = below(random, input->bytes);
    unsigned char byte = (unsigned char)kolo__random_u64(random);
    size_t length = 1 + below(random, 32);
    switch (below(random, 7)) {
    case 0:
        if (at < input->bytes)
            input->data[at] ^= (unsigned char)(1u << (byte & 7));
        break;
    case 1:
        if (at < input->bytes)
            input->data[at] = byte;
        break;
    case 2:
        insert(input, at, &byte, 1);
        break;
    case 3:
        erase(input, at, length);
        break;
    case 4: /* again what stands there */
        insert(input, at, input->data + at, at + length <= input->bytes ? length : 0);
        break;
    case 5:
        overwrite_number(input, at, random);
        break;
    default:
        join_end_of_another(input, at, random);
        break;
    }
}

int main(int argc, char **argv)
{
    static struct input input;
    struct kolo__random random = {.state = 20240601};
    if (argc < 3)
        fail("usage: replay <mutations> <file or folder>...", "arguments");
    for (int i = 2; i < argc; i++) {
        struct stat info;
        if (stat(argv[i], &info) != 0)
            fail("is not there", argv[i]);
        if (S_ISDIR(info.st_mode))
            read_folder(argv[i]);
        else
            read_file(argv[i]);
    }
    if (seed_count == 0)
        fail("no seeds", argv[2]);
    last_input = open("last_input", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (last_input < 0)
        fail("cannot be written", "last_input");
    for (size_t i = 0; i < seed_count; i++)
        run(seeds[i]);
    long mutations = strtol(argv[1], NULL, 10);
    for (long i = 0; i < mutations; i++) {
        input = *seeds[below(&random, seed_count)];
        for (size_t times = 1 + below(&random, 4); times > 0; times--)
            mutate(&input, &random);
        run(&input);
    }
    printf("%zu seeds, %ld mutations\n", seed_count, mutations);
    for (size_t i = 0; i < seed_count; i++)
        free(seeds[i]);
    close(last_input);
    return 0;
}
