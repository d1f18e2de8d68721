#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# For a machine with a GPU, but with neither network nor headers of OpenSSL and hwloc: puts the test of NCCL,
# train_bytes, the modules, and the libraries that they need into build-carry/ (some 50 MB; cuBLAS is that
# machine's), which travels with the sources.
# tests/gpu/run.sh takes them where it cannot build them. Run it where ./dev build has built all.
#
#     tests/gpu/carry.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${BUILD:-$root/build}
carried=${CARRIED:-$root/build-carry}
rm -rf "$carried"
mkdir -p "$carried/tests" "$carried/bin" "$carried/lib"
cp "$build/tests/nccl_gpu_test" "$carried/tests"
cp -L "$build"/lib/libkolo-{cuda,nccl}.so.0 "$carried/lib"
programs=("$carried/tests/nccl_gpu_test")
if [[ -e $build/bin/libtrain_bytes_cuda.so ]]; then
    cp "$build/bin/train_bytes" "$build/bin/libtrain_bytes_cuda.so" "$carried/bin"
    programs+=("$carried/bin/train_bytes")
fi
# All but the C library, which is that machine's; it has to be as new as this one's.
ldd "${programs[@]}" | awk '$2 == "=>" && $1 !~ /^lib(c|m|dl|rt|pthread)[.]so/ { print $3 }' | sort -u |
    xargs -I{} cp -L {} "$carried/lib"
strip --strip-debug "$carried"/{tests,bin,lib}/*
du -sh "$carried"
