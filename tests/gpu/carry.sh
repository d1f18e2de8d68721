#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# For a machine with a GPU, but with neither network nor headers of OpenSSL and hwloc: puts the test of NCCL, the
# modules, and the libraries that they need into build-carry/ (some 20 MB), which travels with the sources.
# tests/gpu/run.sh takes them where it cannot build them. Run it where ./dev build has built all.
#
#     tests/gpu/carry.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${BUILD:-$root/build}
carried=${CARRIED:-$root/build-carry}
rm -rf "$carried"
mkdir -p "$carried/tests" "$carried/lib"
cp "$build/tests/nccl_gpu_test" "$carried/tests"
cp -L "$build"/lib/libkolo-{cuda,nccl}.so.0 "$carried/lib"
# All but the C library, which is that machine's; it has to be as new as this one's.
ldd "$carried/tests/nccl_gpu_test" | awk '$2 == "=>" && $1 !~ /^lib(c|m|dl|rt|pthread)[.]so/ { print $3 }' |
    xargs -I{} cp -L {} "$carried/lib"
du -sh "$carried"
