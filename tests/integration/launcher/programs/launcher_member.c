/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank that joins its world, for the launcher's tests. Whatever fails is printed, and the code is
 * then 9: one that the launcher gives to nothing.
 *
 *   sum            joins, takes part in a sum, leaves
 *   walk_out       joins, and ends with code 0
 *   again          joins, leaves, joins
 *   be RANK SIZE   joins as that rank of such a world
 */
#include <kolo/kolo.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int check(kolo_status status)
{
    if (status != KOLO_OK)
        fprintf(stderr, "%s: %s\n", kolo_status_name(status), kolo_error_text());
    return status == KOLO_OK ? 0 : 9;
}

static int sum(const kolo_init_options *options)
{
    kolo_context *context;
    float one = 1;
    int failed = check(kolo_init(options, &context));
    if (failed != 0)
        return failed;
    failed = check(kolo_allreduce(kolo_world(context), &one, &one, 1, KOLO_FP32, KOLO_SUM, NULL));
    kolo_finalize(context);
    return failed;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "sum";
    kolo_context *context;
    if (strcmp(mode, "walk_out") == 0)
        _exit(check(kolo_init(NULL, &context))); /* a sanitizer would see what is left behind */
    if (strcmp(mode, "be") == 0 && argc == 4) {
        const kolo_init_options options = {
            .size = sizeof options, .rank = atoi(argv[2]), .world_size = atoi(argv[3])};
        return sum(&options);
    }
    int failed = sum(NULL);
    return failed == 0 && strcmp(mode, "again") == 0 ? sum(NULL) : failed;
}
