/* SPDX-License-Identifier: Apache-2.0 */
/* The conversions of single values, for callers outside the kernels. */
#include "kernels/kernels.h"
#include "kernels/cpu/float16.h"

float kolo__fp16_to_fp32(uint16_t bits)
{
    return fp16_to_fp32(bits);
}

uint16_t kolo__fp16_from_fp32(float value)
{
    return fp16_from_fp32(value);
}

float kolo__bf16_to_fp32(uint16_t bits)
{
    return bf16_to_fp32(bits);
}

uint16_t kolo__bf16_from_fp32(float value)
{
    return bf16_from_fp32(value);
}
