#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# N ranks with a global batch of B follow the curve of one rank with B: only the order in which
# gradients are added differs, so the losses agree to a thousandth over 50 steps. 2 ranks share the
# batch of 6 evenly, 4 do not, and of 7 one has nothing to do.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
train 1 --steps 50 --csv 1.csv text >1.log
for ranks in 2 4 7; do
    train "$ranks" --steps 50 --csv "$ranks.csv" text >"$ranks.log"
    same_losses 1.csv "$ranks.csv" 1e-3 || fail "$ranks ranks follow another curve than one"
done
for ranks in 2 4 7; do
    train "$ranks" --steps 50 --csv "$ranks.parts.csv" --accumulate 2 --shard-optimizer text >"$ranks.parts.log"
    same_losses 1.csv "$ranks.parts.csv" 1e-3 || fail "$ranks ranks, sharded, in 2 parts follow another curve than one"
done
KOLO_TRANSPORT=tcp train 4 --steps 50 --csv tcp.csv text >tcp.log
same_losses 1.csv tcp.csv 1e-3 || fail "4 ranks over tcp follow another curve than one"

# The same text, once a step is another one, is another curve: the comparison can fail.
train 1 --steps 50 --seed 2 --csv other.csv text >other.log
same_losses 1.csv other.csv 1e-3 >/dev/null && fail "another seed gave the same curve"

# And so do the bits per byte that all of them end with.
for ranks in 2 4 7 tcp; do
    awk -v one="$(grep -o '[0-9.]* bits per byte' 1.log)" \
        -v many="$(grep -o '[0-9.]* bits per byte' "$ranks.log")" \
        'BEGIN { exit !(one + 0 > 0 && many / one < 1.001 && many / one > 0.999) }' ||
        fail "held-out bits per byte differ between 1.log and $ranks.log"
done
