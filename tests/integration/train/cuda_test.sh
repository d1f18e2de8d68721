#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# --device cuda follows the curve of --device cpu: with all that train_bytes asks of a reducer, from one rank to
# two, over a checkpoint. Without a GPU stand-ins take its place: one for the driver, which runs kolo's kernels on
# the processor, and one for libtrain_bytes_cuda.so, which runs its layers there. What fails is said.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
code=0
timeout 20 "$BIN_DIR/train_bytes" "${model[@]}" --steps 1 --device gpu text 2>err || code=$?
[[ $code == 64 ]] || fail "--device gpu ended with $code: $(cat err)"
grep -q 'neither cpu nor cuda' err || fail "no word on --device gpu: $(cat err)"

standins=$TEST_DIR/standin_train
if [[ ! -e $standins/libtrain_bytes_cuda.so ]]; then
    echo "skipped: kolo was built without CUDA"
    exit 77
fi
mkdir -p with
cp "$BIN_DIR/train_bytes" "$standins/libtrain_bytes_cuda.so" with
export LD_LIBRARY_PATH=$TEST_DIR/standin/running:$BIN_DIR/../lib:$BIN_DIR/.. KOLO_NCCL=off

# on_gpu <ranks> <arguments>...
on_gpu() {
    local ranks=$1
    shift
    KOLO_LOG=error "$BIN_DIR/kolo" run -n "$ranks" -- with/train_bytes "${model[@]}" --device cuda "$@"
}

train 1 --steps 20 --csv cpu.csv text >cpu.log
on_gpu 1 --steps 20 --csv 1.csv text >1.log
on_gpu 2 --steps 20 --csv 2.csv text >2.log
on_gpu 2 --steps 20 --csv parts.csv --accumulate 2 --shard-optimizer text >parts.log
grep -q 'and a GPU each' 2.log || fail "no word of a GPU: $(cat 2.log)"
for curve in 1 2 parts; do
    [[ $(wc -l <"$curve.csv") == "$(wc -l <cpu.csv)" ]] || fail "$curve.csv has not a row for each step"
    same_losses cpu.csv "$curve.csv" 1e-3 || fail "the curve of $curve.csv is another one"
done
train 1 --steps 20 --csv narrow.csv --wire fp8_e4m3 text >narrow.log
on_gpu 2 --steps 20 --csv narrow_gpu.csv --wire fp8_e4m3 text >narrow_gpu.log
same_losses narrow.csv narrow_gpu.csv 0.02 || fail "with 8 bits the curve is another one"

# A checkpoint of the one goes on with the other.
rm -f state
train 1 --steps 10 --checkpoint state --checkpoint-every 10 text >begin.log
on_gpu 2 --steps 20 --checkpoint state --resume --csv resumed.csv text >resumed.log
grep -q '^20,' resumed.csv || fail "no step 20 after a checkpoint: $(cat resumed.log)"

# A GPU that fails in the middle: the text, and nobody waits.
code=0
STANDIN_PROBLEM=5 timeout 60 "$BIN_DIR/kolo" run -n 2 -- with/train_bytes "${model[@]}" --device cuda --steps 100 text \
    >failed.log 2>&1 || code=$?
[[ $code == 1 ]] || fail "a GPU that failed ended with $code: $(cat failed.log)"
grep -q 'its GPU has failed' failed.log || fail "nothing of a GPU that failed: $(cat failed.log)"
