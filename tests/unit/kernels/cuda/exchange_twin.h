/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host twin of the exchange kernels (kernels/cuda/exchange.h): a rank in the calling thread, so
 * that threads are GPUs; or all ranks of a launch in one thread, a step at a time.
 */
#ifndef KOLO_TESTS_EXCHANGE_TWIN_H
#define KOLO_TESTS_EXCHANGE_TWIN_H

#include <stdint.h>

struct exchange;

/* kind: enum exchange_kind; format: 0 fp16, 1 bf16, 2 fp32, 3 fp64. Returns when all blocks are
 * done, or one gave up. */
void twin_exchange(int kind, int format, const struct exchange *x, uint32_t blocks);

/* launch: struct exchange_launch. */
void twin_exchange_together(int kind, int format, const void *launch, uint32_t blocks);

#endif
