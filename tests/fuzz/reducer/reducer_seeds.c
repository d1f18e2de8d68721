/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the seeds of the fuzz target here: announcements that fit, and some that just do not.
 * Usage: fuzz_reducer_seeds tests/fuzz/reducer/corpus
 */
#include "base/assert.h"
#include "runtime/reducer/names.h"

#include <stdio.h>
#include <sys/stat.h>

static const char *folder;

static void write_seed(const char *name, const void *data, size_t bytes)
{
    char path[4096];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/names", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/names/%s", folder, name);
    FILE *file = fopen(path, "wb");
    KOLO__ASSERT(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
}

static void announce(const char *file, const kolo_tensor *tensors, size_t count, size_t torn)
{
    struct kolo__names names = {0};
    struct kolo__name *added;
    struct kolo__frame_writer writer = {0};
    for (size_t i = 0; i < count; i++)
        KOLO__ASSERT(kolo__names_add(&names, &tensors[i], 1, &added) == KOLO_OK);
    kolo__names_write(&names, &writer);
    write_seed(file, writer.data, writer.bytes - torn);
    kolo__frame_writer_free(&writer);
    kolo__names_free(&names);
}

int main(int argc, char **argv)
{
    KOLO__ASSERT(argc == 2);
    folder = argv[1];
    const kolo_tensor list[] = {
        {.name = "known", .count = 6, .dtype = KOLO_FP32, .dimensions = 2, .shape = {2, 3}},
        {.name = "h.3.attn.w", .count = 12, .dtype = KOLO_BF16, .dimensions = 1, .shape = {12}},
        {.name = "loss", .count = 1, .dtype = KOLO_FP64},
    };
    const kolo_tensor other = {.name = "known", .count = 6, .dtype = KOLO_FP32};
    announce("none", list, 0, 0);
    announce("three", list, 3, 0);
    announce("torn", list, 3, 5);
    announce("other_shape", &other, 1, 0);
    return 0;
}
