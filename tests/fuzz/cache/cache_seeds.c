/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of the fuzz targets here: a file whole, without its sum, and each that just is
 * none. Usage: fuzz_cache_seeds tests/fuzz/cache/corpus */
#include "base/assert.h"
#include "runtime/costs.h"
#include "runtime/reducer/tune.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *folder;

/* `first`: what the target is to do with it. */
static void write_seed(const char *target, const char *name, char first, const char *text,
                       size_t bytes)
{
    char path[4096];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
    FILE *file = fopen(path, "wb");
    KOLO__ASSERT(file != NULL && fputc(first, file) == first &&
                 fwrite(text, 1, bytes, file) == bytes && fclose(file) == 0);
}

static void write_costs(void)
{
    static const char key[] = "Processor 5; caches 1 2 3; cpus 2; Linux 6.1.0; ranks 2, bound";
    char text[KOLO__COSTS_TEXT_BYTES];
    size_t bytes = kolo__costs_text(key, &kolo__default_cost_model, text);
    size_t unsigned_bytes = (size_t)(strstr(text, "check ") - text);
    write_seed("costs", "whole", '0', text, bytes);
    write_seed("costs", "torn", '0', text, bytes - 5);
    write_seed("costs", "unsigned", '1', text, unsigned_bytes);
    write_seed("costs", "more", '1', text, bytes);
    bytes = kolo__costs_text("another machine", &kolo__default_cost_model, text);
    write_seed("costs", "other_key", '0', text, bytes);
}

static void write_tuning(void)
{
    static const char key[] =
        "plan 0123456789abcdef; ranks 2 on 1 hosts; shm; Processor 5; kolo 0.1.0";
    static const struct kolo__tuning usual = {.bucket_bytes = 4 << 20, .segment_bytes = 65536};
    static const struct kolo__tuning small = {.bucket_bytes = 1023};
    char text[KOLO__TUNE_TEXT_BYTES];
    size_t bytes = kolo__tune_text(key, &usual, text);
    size_t unsigned_bytes = (size_t)(strstr(text, "check ") - text);
    write_seed("tuning", "whole", '0', text, bytes);
    write_seed("tuning", "torn", '0', text, bytes - 5);
    write_seed("tuning", "unsigned", '1', text, unsigned_bytes);
    write_seed("tuning", "one_number", '1', text, (size_t)(strstr(text, "segment_bytes") - text));
    bytes = kolo__tune_text(key, &small, text);
    write_seed("tuning", "too_small", '0', text, bytes);
    bytes = kolo__tune_text("plan of somebody else", &usual, text);
    write_seed("tuning", "other_key", '0', text, bytes);
}

int main(int argc, char **argv)
{
    KOLO__ASSERT(argc == 2);
    folder = argv[1];
    write_tuning();
    write_costs();
    return 0;
}
