/* SPDX-License-Identifier: Apache-2.0 */
/* The elements that change nothing when they are reduced with others. */
#ifndef KOLO_RUNTIME_NEUTRAL_H
#define KOLO_RUNTIME_NEUTRAL_H

#include <kolo/kolo.h>

/* AVERAGE and PREMUL_SUM as SUM: zeros. */
void kolo__fill_neutral(void *data, size_t count, kolo_dtype dtype, kolo_op op);

#endif
