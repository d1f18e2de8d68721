#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The tests that need a GPU, on a machine that has one and a CUDA toolkit: builds what they need in
# build-gpu/ and runs them, unattended, in less than 8 minutes. Nothing is installed, and no setting of
# the GPU is touched. A line for each step; a step that fails does not keep the others from running. The
# last line is "gpu tests: passed" or "gpu tests: FAILED", the exit code 0 or 1.
#
#     tests/gpu/run.sh [folder for logs]
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${BUILD:-$root/build-gpu}
logs=${1:-$build}
limit=470 # seconds, of all steps together
mkdir -p "$logs" "$build"
failed=0
skipped=0

# optional_step <name> <seconds> <command>...: never longer than that, or than what is left of the limit. Exit
# code 77 is a visible skip, with the reason in the last line of the output.
optional_step() {
    local name=$1 seconds=$2 began=$SECONDS status=0
    local log=$logs/$name.log
    shift 2
    ((seconds <= limit - SECONDS)) || seconds=$((limit - SECONDS))
    if ((seconds < 1)); then
        echo "$name: FAILED (not run: no time was left)"
        failed=1
        return 1
    fi
    # A process that the driver holds, or that ends by SIGTERM only between two steps, is killed.
    timeout -k 5 "$seconds" "$@" >"$log" 2>&1 || status=$?
    case $status in
    0) echo "$name: passed ($((SECONDS - began)) s): $(tail -n 1 "$log")" ;;
    77)
        echo "$name: skipped: $(tail -n 1 "$log")"
        skipped=$((skipped + 1))
        ;;
    *)
        ((status != 124 && status != 137)) || echo "$name: not done after $seconds s"
        echo "$name: FAILED (status $status, $((SECONDS - began)) s); the end of $log:"
        tail -n 15 "$log"
        failed=1
        ;;
    esac
    return "$status"
}

# The same, for what needs nothing but the GPU: it may not be skipped.
step() {
    optional_step "$@"
    [[ $? != 77 ]] || failed=1
}

finish() {
    local result=passed
    ((!failed)) || result=FAILED
    echo "gpu tests: $result ($SECONDS s, $skipped skipped)"
    exit $failed
}

nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader || {
    echo "no GPU here"
    failed=1
    finish
}
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
step build 200 "$root/tests/gpu/build.sh" "$build" "$capability"

step reference 60 "$build/tests/reference_gpu_test"
step pack 120 "$build/tests/pack_gpu_test"
step exchange 60 "$build/tests/exchange_gpu_test"

# NCCL with one rank on one GPU: calls, a CUDA graph, registered memory, parts, the way through the host,
# reducers, an abort. Where there are several GPUs then a rank on each, and few bytes by kolo's own kernels. Needs
# more of a machine than the others: each miss is a visible skip.
# shellcheck disable=SC2317 # called by the shells below
nccl() { # <ranks>
    local test status=0 library rank jobs=()
    test=$("$root/tests/gpu/build_nccl.sh" "$build") || status=$?
    if [[ $status != 0 ]]; then
        echo "$test"
        return "$status"
    fi
    # Where it came with Python's package the dynamic linker does not know it.
    library=$(python3 -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])' 2>/dev/null)/lib/libnccl.so.2
    if [[ -z ${KOLO_NCCL:-} && -f $library ]] && ! ldconfig -p | grep -q 'libnccl\.so\.2'; then
        export KOLO_NCCL=$library
    fi
    # Libraries of kolo's that came along (carry.sh).
    [[ $test != "$root"/build-carry/* ]] || export LD_LIBRARY_PATH=$root/build-carry/lib
    export KOLO_WORLD_SIZE=$1 KOLO_RENDEZVOUS=127.0.0.1:$((20000 + $$ % 12000))
    for ((rank = 0; rank < $1; rank++)); do
        KOLO_RANK=$rank KOLO_LOCAL_RANK=$rank "$test" &
        jobs+=($!)
    done
    for rank in "${jobs[@]}"; do
        wait "$rank" || status=$?
    done
    return "$status"
}
export -f nccl
export root build
optional_step nccl 240 bash -c 'nccl 1'
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)
((gpus < 2)) || optional_step nccl-ranks 120 bash -c "nccl $((gpus < 8 ? gpus : 8))"
optional_step train 120 "$root/tests/gpu/train.sh" "$build"

# The kernels' tests again, smaller, with every access checked, then what threads share, then where they meet. The
# toolkit's programs need not be on the path.
PATH=$PATH:/usr/local/cuda/bin
for tool in memcheck racecheck synccheck; do
    for test in reference pack exchange; do
        if command -v compute-sanitizer >/dev/null; then
            step "$tool-$test" 100 compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$build/tests/${test}_gpu_test" --quick
        else
            echo "$tool-$test: skipped: no compute-sanitizer"
            skipped=$((skipped + 1))
        fi
    done
done
finish
