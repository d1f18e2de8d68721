#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints where the test of NCCL on a GPU is, and builds it for that if need be: beside the CUDA module that
# build.sh has made, with gcc alone. It needs all layers below the launcher, so headers of OpenSSL and hwloc,
# and nccl.h. Where something is missing, a test that was built on another machine serves, with what it needs
# (build-carry/, by carry.sh). Status 77, and what is missing: neither can be.
#
#     tests/gpu/build_nccl.sh <folder>
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$1

use_carried() {
    local carried=$root/build-carry/tests/nccl_gpu_test lacking
    if [[ ! -x $carried ]]; then
        echo "$1, and no build-carry/ from elsewhere (tests/gpu/carry.sh)"
        exit 77
    fi
    lacking=$(LD_LIBRARY_PATH=$root/build-carry/lib ldd "$carried" 2>&1 |
        grep -e "not found" -e "not a dynamic" | tr -s ' \t\n' ' ') || true
    if [[ -n $lacking ]]; then
        echo "$1, and build-carry/tests/nccl_gpu_test does not run here:$lacking"
        exit 77
    fi
    echo "$carried"
    exit 0
}

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
# The header may come with Python's package, as the library does.
of_python=$(python3 -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])' 2>/dev/null || true)
header=
for folder in "$cuda/include" /usr/include "$of_python/include"; do
    if [[ -z $header && -f $folder/nccl.h ]]; then
        header=$folder
    fi
done
[[ -n $header ]] || use_carried "no nccl.h"
version=$(sed -n 's/^#define NCCL_VERSION_CODE \([0-9]*\).*/\1/p' "$header/nccl.h")
[[ $version -ge 22700 ]] || use_carried "nccl.h is of NCCL $version, before 2.27"
pkg-config --exists hwloc openssl 2>/dev/null || use_carried "no headers of hwloc or OpenSSL"

flags=(-std=c17 -O2 -g -D_GNU_SOURCE -ffp-contract=off -fPIC "-I$root" "-I$root/include" "-I$root/tests/nccl")
read -ra libraries <<<"$(pkg-config --cflags --libs hwloc openssl)"
gcc "${flags[@]}" -isystem "$header" -isystem "$cuda/include" -shared -fvisibility=hidden \
    "-Wl,--version-script=$root/collectives/offload/nccl/module.map" -o "$build/lib/libkolo-nccl.so.0" \
    "$root"/collectives/offload/nccl/*_module.c "$root/kernels/dtype.c" -ldl -lpthread
mkdir -p "$build/objects"
# shellcheck disable=SC2016 # xargs' shell expands it
find "$root"/{base,kernels,collectives,runtime} -name '*.c' ! -name '*_module.c' -print0 |
    BUILD=$build ROOT=$root xargs -0 -P "$(nproc)" -I{} bash -c \
        'file={}; name=${file#"$ROOT/"}; exec gcc "$@" -c -o "$BUILD/objects/${name//\//-}.o" "$file"' \
        compile "${flags[@]}"
gcc "${flags[@]}" -o "$build/tests/nccl_gpu_test" "$root/tests/nccl/nccl_gpu_test.c" "$root/bench/models.c" "$build"/objects/*.o \
    "${libraries[@]}" -lm -ldl -lpthread
echo "$build/tests/nccl_gpu_test"
