/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of the fuzz target here: lists that are whole, and each that just is none.
 * Usage: fuzz_elastic_seeds tests/fuzz/elastic/corpus */
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

/* The list of a file with one byte that is another. */
static void write_changed(const char *name, const unsigned char *file, size_t bytes, size_t at,
                          unsigned char value)
{
    unsigned char changed[1024];
    memcpy(changed, file, bytes);
    changed[at] = value;
    write_seed(name, '1', changed, bytes);
}

static void whole_seeds(void)
{
    unsigned char file[1024] = {0};
    KOLO__ASSERT(kolo__checkpoint_file_bytes(state, STATE_COUNT) <= sizeof file);
    kolo__checkpoint_lay_out(file, state, STATE_COUNT, 120);
    kolo__checkpoint_seal(file);
    write_seed("whole", '0', file, LIST_BYTES);
    write_seed("torn", '0', file, LIST_BYTES - 9);
    write_seed("head_alone", '1', file, KOLO__CHECKPOINT_HEAD_BYTES);
    write_changed("magic", file, LIST_BYTES, 0, 'k');
    write_changed("version", file, LIST_BYTES, 8, 3);
    write_changed("tensors", file, LIST_BYTES, 12, 3);
    write_changed("list_bytes", file, LIST_BYTES, 25, 1);
    write_changed("list_of_terabytes", file, LIST_BYTES, 30, 1);
    write_changed("dtype", file, LIST_BYTES, 32, 200);
    write_changed("name_bytes", file, LIST_BYTES, 37, 255);
    write_changed("count", file, LIST_BYTES, 40, 6);
    write_changed("name", file, LIST_BYTES, 56, 'W');
    write_changed("manifest_of_none", file, LIST_BYTES, 8, 2);
}

static void manifest_seeds(void)
{
    static const struct kolo__checkpoint_part parts[] = {{1, 256}, {2, 320}, {3, 64}};
    unsigned char file[1024] = {0};
    size_t bytes = kolo__manifest_bytes(state, STATE_COUNT, 3);
    kolo__manifest_lay_out(file, state, STATE_COUNT, 120, parts, 3);
    kolo__checkpoint_seal(file);
    write_seed("manifest", '0', file, bytes);
    write_changed("manifest_as_whole", file, bytes, 8, 1);
    write_changed("manifest_magic", file, bytes, 4, 'P');
}

static void part_seeds(void)
{
    const kolo_elastic_piece pieces[] = {{.tensor = 0, .first = 2, .count = 3, .data = weights},
                                         {.tensor = 1, .count = 1, .data = &place}};
    enum { PIECES = 2, BYTES = 32 + PIECES * 32 + 8 };
    unsigned char file[1024] = {0};
    kolo__part_lay_out(file, state, pieces, PIECES, 120);
    kolo__checkpoint_seal(file);
    write_seed("part", '0', file, BYTES);
    write_changed("part_version", file, BYTES, 8, 9);
    write_changed("part_pieces", file, BYTES, 12, 3);
    write_changed("part_of_no_tensor", file, BYTES, 32, 2);
    write_changed("part_dtype", file, BYTES, 36, 1);
    write_changed("part_behind_its_tensor", file, BYTES, 40, 3);
    write_changed("part_of_terabytes", file, BYTES, 54, 1);
}

int main(int argc, char **argv)
{
    KOLO__ASSERT(argc == 2);
    folder = argv[1];
    whole_seeds();
    manifest_seeds();
    part_seeds();
    return 0;
}
