#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo bench --alloc cuda: every collective of buffers in "a GPU's memory", which the driver's stand-in has, with
# right results; and what is said where there is no driver.
set -euo pipefail

fail() {
    echo "FAIL: $*"
    exit 1
}
bench() { # bench <collective> <arguments>...
    timeout 60 "$BIN_DIR/kolo" bench "$1" -n 2 --alloc cuda --min 4 --max 256K --factor 16 --iters 3 --warmup 1 "${@:2}" \
        >out 2>err
}

standin=$TEST_DIR/standin/running
if [[ ! -e $standin/libcuda.so.1 ]]; then
    echo "skipped: kolo was built without CUDA"
    exit 77
fi
export KOLO_NCCL=off
if ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    bench allreduce && fail "without a driver it ended well: $(cat out)"
    grep -q 'there is no NVIDIA driver here' err || fail "without a driver: $(cat err)"
fi
export LD_LIBRARY_PATH=$standin
for collective in allreduce allgather reduce_scatter broadcast reduce alltoall sendrecv; do
    bench "$collective" || fail "$collective: $(cat err)"
    grep -q "buffers from a GPU's memory" out || fail "no word of a GPU: $(cat out)"
done
bench allreduce --rewrite --in-place --dtype bf16 --op average || fail "in place: $(cat err)"
