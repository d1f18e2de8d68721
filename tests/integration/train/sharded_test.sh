#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checkpoints are whole, whoever had the optimizer's state: of a sharded run it is that of a plain one
# to the bit, and any number of ranks goes on from it, sharded or not. To the last digit as the plain
# run with as many ranks; to a thousandth where the number, and so the order of sums, is another one.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
rm -f ./*.ckpt ./*.csv
run() { # run <name> <ranks> <arguments...>
    local name=$1 ranks=$2
    shift 2
    train "$ranks" --csv "$name.csv" --checkpoint "$PWD/$name.ckpt" "$@" text >"$name.log" ||
        fail "$name: $(tail -n 3 "$name.log")"
}
run plain 2 --steps 30
run sharded 2 --steps 30 --shard-optimizer
[[ $(weights plain.ckpt) == "$(weights sharded.ckpt)" ]] || fail "the sharded checkpoint is another one"

on() { # on <name> <checkpoint> <ranks> <arguments...>: 30 steps on from it, and their losses
    local name=$1 from=$2 ranks=$3
    shift 3
    cp "$from.ckpt" "$name.ckpt"
    run "$name" "$ranks" --resume --steps 60 "$@"
    [[ $(wc -l <"$name.csv") == 31 ]] || fail "$name did not go on from step 30"
}
on straight plain 2
on unsharded sharded 2
on resharded plain 2 --shard-optimizer
on alone sharded 1 --shard-optimizer
on three sharded 3 --shard-optimizer
on four sharded 4
for name in unsharded resharded; do
    same_losses straight.csv "$name.csv" 0 || fail "$name follows another curve"
    [[ $(weights straight.ckpt) == "$(weights "$name.ckpt")" ]] || fail "$name ends with other parameters"
done
for name in alone three four; do
    same_losses straight.csv "$name.csv" 1e-3 || fail "$name follows another curve"
done

# A sample is written after the world has ended, with the reducer's memory.
train 2 --steps 2 --shard-optimizer --sample 20 text >sample.log || fail "a sharded run with a sample failed"
grep -q -- '---- sample' sample.log || fail "no sample of a sharded run"
