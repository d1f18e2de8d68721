#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the CUDA module for one architecture, and the test of its kernels, with nvcc and gcc alone: they
# need the two lowest layers only, and a machine with a GPU may have none of kolo's other libraries.
#
#     tests/gpu/build.sh <folder> <compute capability, such as 90>
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$1
capability=$2
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
flags=(-std=c17 -O2 -g -D_GNU_SOURCE -ffp-contract=off -fPIC -I"$root" -I"$root/include")
mkdir -p "$build/lib" "$build/tests"

"$nvcc" -std=c++17 -O3 -fmad=false -I"$root" -gencode "arch=compute_$capability,code=sm_$capability" \
    --fatbin -o "$build/pack.fatbin" "$root/kernels/cuda/pack.cu"
gcc "${flags[@]}" -isystem "$cuda/include" "-DKOLO_FATBIN=\"$build/pack.fatbin\"" \
    "-DKOLO_CUDA_ARCHITECTURES=\"$capability\"" -shared -fvisibility=hidden \
    "-Wl,--version-script=$root/kernels/cuda/module.map" -o "$build/lib/libkolo-cuda.so.0" \
    "$root"/kernels/cuda/*_module.c "$root/kernels/cuda/tables.c" "$root/kernels/dtype.c" -ldl -lpthread
gcc "${flags[@]}" -o "$build/tests/pack_gpu_test" "$root/tests/gpu/pack_gpu_test.c" "$root"/kernels/*.c \
    "$root"/kernels/cpu/*.c "$root/base/status.c" "$root/base/module.c" -lm -ldl -lpthread
