#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The model of membership, by Spin: every order of what 3 ranks and a newcomer may do for one epoch.
# SIM_MODEL="RANKS EPOCHS" for others (model_soak_test.sh).
set -euo pipefail
command -v spin >/dev/null || { echo "needs spin (apt-get install spin)"; exit 1; }
read -r ranks epochs <<<"${SIM_MODEL:-3 1}"
# check MODEL: what pan says.
check() {
    spin -a -DRANKS="$ranks" -DEPOCHS="$epochs" "$1" >/dev/null
    gcc -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c
    timeout 500 ./pan -m100000 -n >pan.out || true
    grep -E "^State-vector|states, stored|assertion violated|invalid end|max search depth" pan.out
}
model=$SOURCE_DIR/tests/sim/membership.pml
check "$model"
if ! grep -q "errors: 0$" pan.out || grep -q "max search depth too small" pan.out; then
    cat pan.out
    exit 1
fi

# Wrong models are seen to be wrong: "what TEXT" REPLACEMENT.
wrong() {
    sed "s/$2/$3/" "$model" >wrong.pml
    ! cmp -s "$model" wrong.pml || { echo "$1: nothing was replaced"; exit 1; }
    check wrong.pml >/dev/null
    grep -qE "errors: [1-9]" pan.out || { echo "$1: not found"; cat pan.out; exit 1; }
    echo "found: $1"
}
wrong "the lost are kept" "heard\[i\] = true; state\[i\] = gone" "heard[i] = true"
wrong "newcomers wait alone" "comes + late == 0 \&\& waits > 0 -> ended = true" "comes + late == 0 \&\& waits > 0 -> skip"
wrong "who is late is never expelled, nor told" "late > 0 \&\& over ->" "false ->"
wrong "not everybody is told" "state\[i\] = present; to_process\[i\]!epoch" "state[i] = present; if :: i > 0 -> to_process[i]!epoch :: else fi"
