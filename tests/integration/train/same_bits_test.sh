#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What must not change a single bit of parameters and optimizer state: doing it again; adding up a
# step's gradients in parts, which adds the same numbers in the same order; and, on 2 ranks, where
# the optimizer's state is, because a sum of two is the same whoever adds them, and the norm that
# clips, though its parts are added in another order, is rounded from fp64 to fp32.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
rm -f ./*.ckpt ./*.csv
run() { # run <name> <ranks> <arguments...>
    local name=$1 ranks=$2
    shift 2
    train "$ranks" --steps 60 --csv "$name.csv" --checkpoint "$PWD/$name.ckpt" "$@" text >"$name.log" ||
        fail "$name: $(tail -n 3 "$name.log")"
}
same() { # same <name> <name>
    same_losses "$1.csv" "$2.csv" 0 || fail "$1 and $2 have other losses"
    [[ $(weights "$1.ckpt") == "$(weights "$2.ckpt")" ]] || fail "$1 and $2 end with other parameters"
}

run plain 2
run again 2
run parts2 2 --accumulate 2
run parts4 2 --accumulate 4 # more parts than the 3 sequences of a rank
run sharded 2 --shard-optimizer
run sharded_parts 2 --shard-optimizer --accumulate 2
for other in again parts2 parts4 sharded sharded_parts; do
    same plain "$other"
done

run bf16 2 --wire bf16
run bf16_again 2 --wire bf16
run bf16_sharded 2 --wire bf16 --shard-optimizer
run four 4
run four_again 4
same bf16 bf16_again
same bf16 bf16_sharded
same four four_again
# Over messages, where the order of arrival could decide; and 8-bit floats, whose scale ranks agree on.
KOLO_TRANSPORT=tcp run tcp 3 --wire bf16 --accumulate 2
KOLO_TRANSPORT=tcp run tcp_again 3 --wire bf16 --accumulate 2
run fp8 4 --wire fp8_e4m3 --shard-optimizer
run fp8_again 4 --wire fp8_e4m3 --shard-optimizer
same tcp tcp_again
same fp8 fp8_again
# The comparison can fail.
[[ $(weights plain.ckpt) != "$(weights bf16.ckpt)" ]] || fail "bf16 on the wire changed nothing"
