#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the CUDA module for one architecture, and the tests of its kernels (or, with `bench`, the benchmark),
# with nvcc and gcc alone: they need the two lowest layers only, and a machine with a GPU may have none of
# kolo's other libraries.
#
#     tests/gpu/build.sh <folder> <compute capability, such as 90> [tests|bench]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$1
capability=$2
what=${3:-tests}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
flags=(-std=c17 -O2 -g -D_GNU_SOURCE -ffp-contract=off -fPIC -I"$root" -I"$root/include")
target=(-gencode "arch=compute_$capability,code=sm_$capability")
mkdir -p "$build/lib" "$build/tests" "$build/parts"

# The module takes the longest, and is as it was when only the benchmark is built next.
module=$build/lib/libkolo-cuda.so.0
made_for=$build/lib/made_for
if [[ $(cat "$made_for" 2>/dev/null) != "$capability" ||
    -n $(find "$root/kernels" "$root/base" -newer "$module" -print -quit) ]]; then
    "$nvcc" -std=c++17 -O3 -fmad=false -I"$root" "${target[@]}" --fatbin -o "$build/exchange.fatbin" \
        "$root/kernels/cuda/exchange.cu" &
    other=$!
    "$nvcc" -std=c++17 -O3 -fmad=false -I"$root" "${target[@]}" --fatbin -o "$build/pack.fatbin" \
        "$root/kernels/cuda/pack.cu"
    wait $other
    gcc "${flags[@]}" -isystem "$cuda/include" "-DKOLO_FATBINS=\"$build\"" \
        "-DKOLO_CUDA_ARCHITECTURES=\"$capability\"" -shared -fvisibility=hidden \
        "-Wl,--version-script=$root/kernels/cuda/module.map" -o "$module" \
        "$root"/kernels/cuda/*_module.c "$root/kernels/cuda/tables.c" "$root/kernels/dtype.c" -ldl -lpthread
    echo "$capability" >"$made_for"
fi

# All of them at once; the first that fails ends the script.
jobs=()
compile() { # <source>...
    local source
    for source in "$@"; do
        gcc "${flags[@]}" -c -o "$build/parts/$what.$(basename "$source").o" "$root/$source" &
        jobs+=($!)
    done
}
finish() {
    local job
    for job in "${jobs[@]}"; do
        wait "$job"
    done
    jobs=()
}

cd "$root"
compile base/status.c base/clock.c base/module.c kernels/device.c kernels/dtype.c
if [[ $what == bench ]]; then
    compile bench/models.c
    for source in bench/gpu/*.cu; do
        "$nvcc" -std=c++20 -O3 -I"$root" -I"$root/include" "${target[@]}" -c \
            -o "$build/parts/$what.$(basename "$source").o" "$source" &
        jobs+=($!)
    done
    finish
    "$nvcc" -o "$build/tests/gpu_bench" "$build"/parts/bench.*.o -ldl -lpthread
    exit
fi
shopt -s extglob
compile kernels/!(device|dtype).c kernels/cpu/*.c
finish
for source in tests/gpu/*_gpu_test.c; do
    gcc "${flags[@]}" -o "$build/tests/$(basename "$source" .c)" "$source" "$build"/parts/tests.*.o -lm -ldl \
        -lpthread &
    jobs+=($!)
done
finish
