#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The tests that need a GPU, on a machine that has one and a CUDA toolkit: builds what they need in
# build-gpu/ and runs them, unattended, in less than 8 minutes. Nothing is installed, and no setting of
# the GPU is touched. The last line is "gpu tests: passed" or "gpu tests: FAILED".
#
#     tests/gpu/run.sh [folder for logs]
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
logs=${1:-$root/build-gpu}
build=$root/build-gpu
mkdir -p "$logs" "$build"
failed=0

# step <name> <seconds> <command>...
step() {
    local name=$1 seconds=$2
    shift 2
    if timeout "$seconds" "$@" >"$logs/$name.log" 2>&1; then
        echo "$name: passed"
    else
        echo "$name: FAILED (status $?); the end of $logs/$name.log:"
        tail -15 "$logs/$name.log"
        failed=1
        return 1
    fi
}

nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader || {
    echo "gpu tests: FAILED (no GPU here)"
    exit 1
}
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
if step build 200 "$root/tests/gpu/build.sh" "$build" "$capability"; then
    step pack 120 "$build/tests/pack_gpu_test"
    if command -v compute-sanitizer >/dev/null; then
        step memcheck 150 compute-sanitizer --tool memcheck --error-exitcode 9 \
            "$build/tests/pack_gpu_test" 0x1234
    else
        echo "memcheck: skipped (no compute-sanitizer)"
    fi
fi

# NCCL with one rank on one GPU: calls, a CUDA graph, registered memory, the way through the host, a reducer,
# an abort.
nccl() {
    local test status=0 library
    test=$(timeout 120 "$root/tests/gpu/build_nccl.sh" "$build" 2>"$logs/build_nccl.log") || status=$?
    if [[ $status == 77 ]]; then
        echo "nccl: skipped ($test)"
        return
    elif [[ $status != 0 ]]; then
        echo "nccl: FAILED to build (status $status); the end of $logs/build_nccl.log:"
        tail -15 "$logs/build_nccl.log"
        failed=1
        return
    fi
    # Where it came with Python's package the dynamic linker does not know it.
    library=$(python3 -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])' 2>/dev/null)/lib/libnccl.so.2
    if [[ -z ${KOLO_NCCL:-} && -f $library ]] && ! ldconfig -p | grep -q 'libnccl\.so\.2'; then
        export KOLO_NCCL=$library
    fi
    timeout 120 "$test" >"$logs/nccl.log" 2>&1 || status=$?
    if [[ $status == 77 ]]; then
        echo "nccl: $(tail -1 "$logs/nccl.log")"
    elif [[ $status != 0 ]]; then
        echo "nccl: FAILED (status $status); the end of $logs/nccl.log:"
        tail -15 "$logs/nccl.log"
        failed=1
    else
        echo "nccl: passed"
    fi
}
nccl
if [[ $failed == 0 ]]; then
    echo "gpu tests: passed"
else
    echo "gpu tests: FAILED"
fi
exit $failed
