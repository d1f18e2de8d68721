#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The command line: --help and a time limit work, and what is wrong ends with 64 and a word on why.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

refused() { # refused <word on stderr> <arguments...>
    local word=$1 code=0
    shift
    timeout 20 "$BIN_DIR/train_bytes" "${model[@]}" --steps 1 "$@" >out 2>err || code=$?
    [[ $code == 64 ]] || fail "exit code $code instead of 64 for: $* : $(cat err)"
    grep -q -- "$word" err || fail "'$word' expected for: $* : $(cat err)"
}

make_text text
mkdir -p empty
"$BIN_DIR/train_bytes" --help | grep -q -- '--checkpoint-every' || fail "--help does not list the options"
refused 'whole number' --steps -1 text
refused 'whole number' --batch 0 text
refused 'whole number' --layers four text
refused 'not a number' --lr nan text
refused 'multiple of' --width 34 --heads 4 text
refused 'need --checkpoint' --resume text
refused 'No such file' absent
refused 'none of fp32' --wire int8 text
refused 'whole number' --accumulate 0 text
refused 'unrecognized option' --frobnicate text

# Outside of kolo run the exit code alone tells why there is no world.
worldless() { # worldless <code> <variable>...
    local wanted=$1 code=0
    shift
    env "$@" timeout 20 "$BIN_DIR/train_bytes" "${model[@]}" --steps 1 text >out 2>err || code=$?
    [[ $code == "$wanted" ]] || fail "exit code $code instead of $wanted with $*: $(cat err)"
}
worldless 64 KOLO_WORLD_SIZE=2
worldless 65 KOLO_WORLD_SIZE=2 KOLO_RANK=5
worldless 75 KOLO_WORLD_SIZE=2 KOLO_RANK=1 KOLO_RENDEZVOUS=127.0.0.1:1 KOLO_INIT_TIMEOUT=1

train 2 --seconds 1 text >log || fail "a run with a time limit failed"
grep -q 'bits per byte' log || fail "a run with a time limit did not reach its end"

"$BIN_DIR/train_bytes" --held-out-bytes 4096 --export-held-out held_out text || fail "cannot export"
[[ $(wc -c <held_out) == 4096 ]] || fail "4096 held-out bytes expected, not $(wc -c <held_out)"
bash "$SOURCE_DIR/examples/compare_compressors.sh" "$BIN_DIR/train_bytes" text >ratios
[[ $(grep -c 'bits per byte' ratios) == 2 ]] || fail "gzip and xz were to be compared: $(cat ratios)"
