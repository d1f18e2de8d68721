/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that the stand-in driver runs: by name, NULL where there is no such; and one of them. */
#ifndef TESTS_GPU_STANDIN_KERNELS_H
#define TESTS_GPU_STANDIN_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

const void *standin_kernel(const char *name);
/* False: no kernel is started with so many threads. */
bool standin_run(const void *kernel, unsigned blocks, unsigned threads, void **parameters);
/* Bytes of the parameter of a kernel that waits for those of other ranks; 0: it waits for none. */
size_t standin_waits(const void *kernel, const void *parameter);
void standin_limit_spins(void *parameter, unsigned spins);

#endif
