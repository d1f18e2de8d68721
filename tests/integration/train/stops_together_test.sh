#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A time limit ends training at the same step on every rank, whatever the wire type: rank 0 alone
# reads the clock, and what it says is not narrowed with the gradients. The timeline has an event for
# each step of each rank but the first.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
for options in "" "--wire fp8_e5m2" "--wire bf16 --shard-optimizer" "--accumulate 2"; do
    rm -f run.json
    # shellcheck disable=SC2086 # several words
    timeout -k 5 60 "$BIN_DIR/kolo" run -n 3 --timeline run.json -- \
        "$BIN_DIR/train_bytes" "${model[@]}" --seconds 0.5 $options text >log ||
        fail "3 ranks with $options do not end well: $(tail -n 3 log)"
    for rank in 0 1 2; do
        grep -o "\"pid\":$rank,[^{]*\"cat\":\"training step\"" run.json | wc -l
    done | uniq >counts
    [[ $(wc -l <counts) == 1 && $(<counts) -gt 1 ]] ||
        fail "with $options, ranks did different numbers of steps, or none: $(tr '\n' ' ' <counts)"
done
