#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Training on the GPU follows the processor's curve: train_bytes --device cuda beside --device cpu, one rank, with all
# that it asks of a reducer. Takes what build_nccl.sh has compiled and adds the rest, or a train_bytes that came
# along (build-carry/, by carry.sh). Status 77, and what is missing: neither can be.
#
#     tests/gpu/train.sh <folder>
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$1
# shellcheck source-path=SCRIPTDIR source=../integration/train/common.sh
source "$root/tests/integration/train/common.sh"

ldconfig -p | grep -q 'libcuda\.so\.1' || {
    echo "no NVIDIA driver (libcuda.so.1)"
    exit 77
}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
cuda=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
program=$build/bin/train_bytes
if compgen -G "$build/objects/*.o" >/dev/null && pkg-config --exists openblas hwloc openssl 2>/dev/null; then
    mkdir -p "$build/bin"
    read -ra libraries <<<"$(pkg-config --cflags --libs openblas hwloc openssl)"
    gcc -std=c17 -O3 -D_GNU_SOURCE -fopenmp-simd -fno-math-errno "-I$root" "-I$root/include" "-I$root/examples/train_bytes" \
        -o "$program" "$root"/examples/train_bytes/*.c "$build"/objects/*.o "${libraries[@]}" -lm -ldl -lpthread
    "$nvcc" -std=c++17 -O3 -shared -Xcompiler=-fPIC,-fvisibility=hidden "-I$root/examples/train_bytes" \
        -o "$build/bin/libtrain_bytes_cuda.so" "$root/examples/train_bytes/cuda/device.cu" -lcublas \
        "-Xlinker=-rpath,$cuda/lib64"
else
    program=$root/build-carry/bin/train_bytes
    [[ -x $program ]] || {
        echo "no headers of OpenBLAS, hwloc or OpenSSL, and no build-carry/bin/train_bytes from elsewhere (tests/gpu/carry.sh)"
        exit 77
    }
    export LD_LIBRARY_PATH=$root/build-carry/lib
fi
# cuBLAS may come with Python's packages, as NCCL does.
of_python=$(python3 -c 'import glob, nvidia; print(*(file for path in nvidia.__path__ for file in glob.glob(path + "/*/lib/libcublas.so.*")))' 2>/dev/null) || true
if [[ -n $of_python ]] && ldd "$(dirname "$program")/libtrain_bytes_cuda.so" | grep -q 'libcublas.* not found'; then
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(dirname "${of_python%% *}")
fi
lacking=$(ldd "$program" "$(dirname "$program")/libtrain_bytes_cuda.so" 2>&1 | grep -e "not found" -e "No such" -e "not a dynamic" | tr -s ' \t\n' ' ') || true
if [[ -n $lacking ]]; then
    echo "$program does not run here:$lacking"
    exit 77
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
make_text text
# curve <name> <arguments>...: of some steps of one rank.
curve() {
    local name=$1
    shift
    timeout -k 5 60 "$program" --width 128 --heads 4 --layers 4 --context 128 --batch 8 --held-out-bytes 4096 --steps 30 \
        --csv "$name.csv" "$@" text >"$name.log" 2>&1 || fail "$name: $(tail -n 3 "$name.log")"
}
curve cpu
curve cuda --device cuda
same_losses cpu.csv cuda.csv 1e-3 || fail "the GPU's curve is another one"
curve sharded --device cuda --shard-optimizer --accumulate 2
same_losses cpu.csv sharded.csv 1e-3 || fail "the GPU's curve is another one with shards, in two parts"
curve narrow --device cuda --wire fp8_e4m3
same_losses cpu.csv narrow.csv 0.02 || fail "the GPU's curve is another one with 8 bits"
curve again --device cuda
cmp <(cut -d, -f1,2 cuda.csv) <(cut -d, -f1,2 again.csv) || fail "the same run gave other losses"
echo "losses as on the processor; $(tail -n 1 cuda.csv | cut -d, -f3) tokens/s, there $(tail -n 1 cpu.csv | cut -d, -f3)"
