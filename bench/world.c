/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/world.h"

#include "bench/launch.h"

#include <stdio.h>

enum { EXIT_ARGUMENTS = 64, EXIT_WORLD = 65, EXIT_NO_WORLD = 75, EXIT_PEER_LOST = 76 };

int bench_report_error(const char *what, kolo_status status)
{
    fprintf(stderr, "kolo bench: %s: %s: %s\n", what, kolo_status_name(status), kolo_error_text());
    switch (status) {
    case KOLO_ERR_PEER_LOST:
        return EXIT_PEER_LOST;
    case KOLO_ERR_NETWORK:
        return EXIT_NO_WORLD;
    case KOLO_ERR_CONFIG:
        return EXIT_ARGUMENTS;
    case KOLO_ERR_WORLD:
        return EXIT_WORLD;
    default:
        return 1;
    }
}

/* The number of ranks is the launcher's; -n may only repeat it. */
static int check_ranks(int ranks, kolo_comm *world)
{
    int size = kolo_comm_size(world);
    if (ranks == 0 || ranks == size)
        return 0;
    const char *variable = bench_launcher_variable();
    if (kolo_comm_rank(world) == 0)
        fprintf(stderr,
                "kolo bench: -n %d, but the launcher (%s is set) started %d: leave out -n\n", ranks,
                variable != NULL ? variable : "unknown", size);
    return EXIT_ARGUMENTS;
}

int bench_in_world(const struct bench_world *world, bench_run *run, const void *options)
{
    if (world->ranks > 1 && !world->launched && bench_launcher_variable() == NULL)
        return bench_launch(world->ranks, world->argc, world->argv);

    kolo_init_options init = {.size = sizeof init, .transport = world->transport};
    kolo_context *context;
    kolo_status status = kolo_init(&init, &context);
    if (status != KOLO_OK) {
        int code = bench_report_error("cannot join the world", status);
        return status == KOLO_ERR_TIMEOUT ? EXIT_NO_WORLD : code;
    }
    int code = check_ranks(world->ranks, kolo_world(context));
    if (code == 0)
        code = run(options, context);
    if (ferror(stdout)) {
        perror("kolo bench: standard output");
        code = 1;
    }
    status = kolo_finalize(context);
    if (status != KOLO_OK && code == 0)
        code = bench_report_error("cannot leave the world", status);
    return code;
}
