/* SPDX-License-Identifier: Apache-2.0 */
/* The same C as the reference, and NEON's conversions of fp16. Every 64-bit Arm processor has NEON.
 *
 * No streaming stores: cores notice whole lines being written, and stop reading them first. */
#if defined(__aarch64__)
#include "kernels/cpu/variant.h"

#include <arm_neon.h>
#include <string.h>

static bool supported(void)
{
    return true;
}

#define LANES 16
#define LANES_FP16_NEON
#define VARIANT      kolo__cpu_neon
#define VARIANT_NAME "neon"
#include "kernels/cpu/all_dtypes.h"
#endif
