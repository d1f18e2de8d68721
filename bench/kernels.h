/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo bench kernels`: GB/s of the kernels in one thread, without a communicator. */
#ifndef KOLO_BENCH_KERNELS_H
#define KOLO_BENCH_KERNELS_H

/* argv[0] is "kernels". Returns the exit code of the process. */
int bench_kernels_main(int argc, char **argv);

#endif
