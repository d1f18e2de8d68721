/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo bench -n N` without a launcher: becomes `kolo run -n N -- kolo bench ...`. */
#ifndef KOLO_BENCH_LAUNCH_H
#define KOLO_BENCH_LAUNCH_H

/* The environment variable by which a launcher shows itself; NULL: there is none. */
const char *bench_launcher_variable(void);

/* Replaces this process; the arguments are those of kolo_bench_main. Returns only on failure,
 * after saying why, with the exit code. */
int bench_launch(int ranks, int argc, char **argv);

#endif
