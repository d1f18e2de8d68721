/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo bench`: how fast a collective is, and whether its results are right.
 *
 * Sees the library only through <kolo/kolo.h>, like any program of a user, so that it measures what
 * users get.
 */
#ifndef KOLO_BENCH_BENCH_H
#define KOLO_BENCH_BENCH_H

/* argv[0] is the name to show, "kolo bench"; then come its arguments. Returns the exit code of the
 * process (kolo bench --help lists them). With -n and no launcher around it does not return: the
 * process becomes `kolo run`. */
int kolo_bench_main(int argc, char **argv);

#endif
