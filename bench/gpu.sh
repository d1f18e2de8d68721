#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu.sh: how fast gradients are packed on one GPU, beside a plain copy of as many bytes, cudaMemcpyAsync for
# each tensor, cudaMemcpyBatchAsync, the scheme of Horovod (written anew) and PyTorch's _foreach functions, and what that is against the
# goals. Builds what it needs in build-gpu/ and runs unattended, in 6 minutes at the most. Nothing is installed, and no setting of the GPU is touched.
#
#   gpu.sh [--quick] [--no-torch]    measures: rows, then the table of goals, to stdout; a file of them
#                                    belongs into bench/results/
#   gpu.sh --table FILE              the table anew, out of rows from before
#
# A time is the median of 11 rounds; in a round the contenders of a measurement take turns, each with a CUDA graph of
# 3 ms or more between two events. Buffers rotate among sets of twice the L2 cache's size.
#
# COMMIT says which this is, where the tree came without git's folder.
#
# Exit code: 0 measured (whatever the goals), 1 a program failed or a result was wrong, 2 wrong arguments,
# 77 no GPU or no CUDA toolkit.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
build=${BUILD:-$root/build-gpu}
quick=() torch=1 table=''
limit=360

usage() {
    sed -n '4,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

while (($#)); do
    case $1 in
    --quick) quick=(--quick) ;;
    --no-torch) torch=0 ;;
    --table)
        table=${2:-}
        [[ -r $table ]] || {
            echo "gpu.sh: --table needs a file that can be read" >&2
            exit 2
        }
        shift
        ;;
    --help)
        usage
        exit
        ;;
    *)
        echo "gpu.sh: what is $1? (--help)" >&2
        exit 2
        ;;
    esac
    shift
done

if [[ -n $table ]]; then
    awk -f "$here/gpu/table.awk" "$table"
    exit
fi

skip() {
    echo "skipped: $*"
    exit 77
}
nvidia-smi >/dev/null 2>&1 || skip "no GPU here (nvidia-smi finds none)"
command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]] || skip "no nvcc here (the CUDA toolkit)"

rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
failed=0

# within <command>...: for as long as is left of the limit.
within() {
    timeout -k 5 $((limit > SECONDS ? limit - SECONDS : 1)) "$@"
}

ask() {
    nvidia-smi --query-gpu="$1" --format=csv,noheader -i 0
}

describe() {
    local commit
    commit=$(git -C "$root" rev-parse --short=10 HEAD 2>/dev/null) || commit=${COMMIT:-unknown}
    [[ -z $(git -C "$root" status --porcelain -uno 2>/dev/null) ]] || commit+=+changes
    echo "#set date $(date -u +%Y-%m-%dT%H:%MZ)"
    echo "#set gpu $(ask name), driver $(ask driver_version), compute capability $(ask compute_cap)"
    echo "#set clocks $(ask clocks.sm), memory $(ask clocks.mem), at the most $(ask clocks.max.sm), $(ask clocks.max.mem)"
    echo "#set toolkit $({ nvcc --version 2>/dev/null || /usr/local/cuda/bin/nvcc --version; } | sed -n 's/.*release \(.*\)/\1/p')"
    echo "#set machine $(nproc) CPUs, $(uname -sr)"
    echo "#set commit $commit"
}

describe | tee "$rows"
capability=$(ask compute_cap | tr -d .)
if ! within "$root/tests/gpu/build.sh" "$build" "$capability" bench >"$rows.build" 2>&1; then
    echo "the build failed:" >&2
    cat "$rows.build" >&2
    rm -f "$rows.build"
    exit 1
fi
rm -f "$rows.build"
echo "#set build $SECONDS s" | tee -a "$rows"

within "$build/tests/gpu_bench" "${quick[@]}" | tee -a "$rows"
status=${PIPESTATUS[0]}
if ((status != 0)); then
    echo "#note gpu_bench: status $status"
    failed=1
fi
for model in resnet50 gpt2 small; do
    if ((!torch)) || ! command -v python3 >/dev/null; then
        echo "#note $model,torch: skipped ($( ((torch)) && echo "no python3" || echo "--no-torch"))" | tee -a "$rows"
        continue
    fi
    "$build/tests/gpu_bench" --list "$model" | within python3 "$here/gpu/foreach.py" "$model" | tee -a "$rows"
    if ((PIPESTATUS[1] != 0)); then
        echo "#note $model,torch: foreach.py failed" | tee -a "$rows"
        failed=1
    fi
done
awk -f "$here/gpu/table.awk" "$rows" || failed=1
echo "#set took $SECONDS s"
exit $failed
