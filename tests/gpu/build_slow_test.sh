#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a machine with a GPU builds for itself (tests/gpu/build.sh) builds here, too, and says that there is no
# GPU, so that neither tests/gpu/run.sh nor bench/gpu.sh breaks unseen.
set -euo pipefail

command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]] || {
    echo "skipped: no nvcc here"
    exit 77
}
for what in tests bench; do
    "$SOURCE_DIR/tests/gpu/build.sh" "$PWD/gpu" 90 "$what"
done
[[ $(gpu/tests/gpu_bench --list resnet50 | wc -l) == 161 ]]
if command -v nvidia-smi >/dev/null; then
    exit 0 # they may run, which takes minutes: tests/gpu/run.sh
fi
for program in gpu/tests/*; do
    status=0
    "$program" >out 2>&1 || status=$?
    if [[ $status != 77 ]] || ! grep -q '^skipped: ' out; then
        echo "$program: status $status without a GPU: $(cat out)"
        exit 1
    fi
done
