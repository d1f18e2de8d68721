#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Narrow gradients with error feedback learn as much: after 300 steps the loss, mean of 20 steps, is
# that of fp32 within 2 % for 16 bits and 4 % for 8 bits. Wider than the 1 % of a whole training,
# because the loss still falls fast here, and rounding sends it along another path: over three seeds
# it ended up to 0.5 % away with 16 bits, to 0.8 % with 8.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
rm -f ./*.csv
for wire in fp32 bf16 fp16 fp8_e4m3 fp8_e5m2; do
    train 2 --steps 300 --lr 0.01 --wire "$wire" --csv "$wire.csv" text >"$wire.log" || fail "$wire: $(tail -n 3 "$wire.log")"
    echo "$wire: $(last_loss "$wire.csv")"
done
within() { # within <wire> <relative bound>
    awk -v wide="$(last_loss fp32.csv)" -v narrow="$(last_loss "$1.csv")" -v bound="$2" \
        'BEGIN { exit !(wide > 0 && narrow < wide * (1 + bound) && narrow > wide * (1 - bound)) }' ||
        fail "$1 ends with a loss of $(last_loss "$1.csv"), fp32 with $(last_loss fp32.csv)"
}
within bf16 0.02
within fp16 0.02
within fp8_e4m3 0.04
within fp8_e5m2 0.04
cmp -s fp32.csv bf16.csv && fail "bf16 on the wire changed nothing"
true
