#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The model learns: on simple text the loss falls far below what single letters could give, files it has
# not seen get the same, and what it writes is made of the words of the text.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
train 2 --steps 250 --lr 0.01 --csv loss.csv --log-every 50 --sample 200 --temperature 0 text >log
cat log

[[ $(wc -l <loss.csv) == 251 && $(head -n 1 loss.csv) == step,loss,tokens_per_s,comm_share ]] ||
    fail "the CSV is not a heading and a row for each step"
awk -F, 'NR == 2 && !($2 > 5 && $2 < 6) { exit 1 } NR == 251 && $2 > 0.8 { exit 1 }
    NR > 1 && !($3 > 0 && $4 >= 0 && $4 <= 1) { exit 1 }' loss.csv ||
    fail "the loss did not fall from log(256) to below 0.8, or a column makes no sense"
[[ $(grep -c 'step .*loss .*tokens/s .*communication' log) == 5 ]] || fail "5 lines of progress wanted"
bits=$(grep -o 'held out: [0-9.]*' log | grep -o '[0-9.]*$')
awk -v bits="$bits" 'BEGIN { exit !(bits > 0 && bits < 1.2) }' || fail "held out: $bits bits per byte"
grep -q 'turn of the round' log || fail "the sample has no words of the text"
