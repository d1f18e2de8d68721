/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of the fuzz target here: a list whole, and each that just is none. Usage:
 * fuzz_elastic_seeds tests/fuzz/elastic/corpus */
#include "state.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *folder;

/* `first`: what the target is to do with the sum. */
static void write_seed(const char *name, char first, const unsigned char *list, size_t bytes)
{
    char path[4096];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/state", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/state/%s", folder, name);
    FILE *file = fopen(path, "wb");
    KOLO__ASSERT(file != NULL && fputc(first, file) == first &&
                 fwrite(list, 1, bytes, file) == bytes && fclose(file) == 0);
}

/* The list with one byte that is another. */
static void write_changed(const char *name, size_t at, unsigned char value)
{
    unsigned char file[1024] = {0};
    kolo__checkpoint_seal(file, state, STATE_COUNT, 120);
    file[at] = value;
    write_seed(name, '1', file, LIST_BYTES);
}

int main(int argc, char **argv)
{
    unsigned char file[1024] = {0};
    KOLO__ASSERT(argc == 2 && kolo__checkpoint_file_bytes(state, STATE_COUNT) <= sizeof file);
    folder = argv[1];
    kolo__checkpoint_seal(file, state, STATE_COUNT, 120);
    write_seed("whole", '0', file, LIST_BYTES);
    write_seed("torn", '0', file, LIST_BYTES - 9);
    write_seed("head_alone", '1', file, KOLO__CHECKPOINT_HEAD_BYTES);
    write_changed("magic", 0, 'k');
    write_changed("version", 8, 2);
    write_changed("tensors", 12, 3);
    write_changed("list_bytes", 25, 1);
    write_changed("list_of_terabytes", 30, 1);
    write_changed("dtype", 32, 200);
    write_changed("name_bytes", 37, 255);
    write_changed("count", 40, 6);
    write_changed("name", 56, 'W');
    return 0;
}
