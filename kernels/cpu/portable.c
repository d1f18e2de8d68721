/* SPDX-License-Identifier: Apache-2.0 */
/* The reference: plain C for whatever the compiler takes as the least machine. */
#include "kernels/cpu/variant.h"

static bool supported(void)
{
    return true;
}

#define LANES        16
#define VARIANT      kolo__cpu_portable
#define VARIANT_NAME "portable"
#include "kernels/cpu/all_dtypes.h"
