/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that the stand-in driver runs: by name, NULL where there is no such; and one of them. */
#ifndef TESTS_GPU_STANDIN_KERNELS_H
#define TESTS_GPU_STANDIN_KERNELS_H

const void *standin_kernel(const char *name);
void standin_run(const void *kernel, unsigned blocks, void **parameters);

#endif
