/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands of `kolo bench` that need a communicator share: start, join, leave, and say
 * what failed. */
#ifndef KOLO_BENCH_WORLD_H
#define KOLO_BENCH_WORLD_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum { BENCH_EXIT_WRONG = 1 };

struct bench_world {
    int argc;
    char **argv;           /* of kolo_bench_main, for the processes that are started */
    int ranks;             /* -n; 0: not said */
    bool launched;         /* started by another kolo bench: do not start others */
    const char *transport; /* NULL: not said */
};

typedef int bench_run(const void *options, kolo_context *context);

/* Calls run in the world, and gives the exit code of the process. With ranks and no launcher around
 * it does not return: the process becomes `kolo run`. */
int bench_in_world(const struct bench_world *world, bench_run *run, const void *options);

/* Says what failed and gives the exit code for it. */
int bench_report_error(const char *what, kolo_status status);

#endif
