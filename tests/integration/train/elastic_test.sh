#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Training under `kolo run --min`: a rank that is killed, at whatever moment, costs neither the run nor
# what it has learnt, also where it alone had its part of the optimizer's state; one that gets SIGTERM
# leaves, and with all of them the run is resumed later, as it is when all were killed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

mark=elastic.$$.csv # of this test's processes
trap 'rm -f "$mark"' EXIT

# workers: pids of the ranks that run.
workers() {
    local pid
    for pid in $(pgrep -f -- "$mark"); do
        [[ $(cat "/proc/$pid/comm" 2>/dev/null) == train_bytes ]] && echo "$pid"
    done || true
}

# await <rows>: until the curve has so many.
await() {
    for _ in $(seq 3000); do
        [[ -e $mark && $(wc -l <"$mark") -gt $1 ]] && return
        sleep 0.01
    done
    fail "no $1 steps within 30 s: $(tail -n 3 log)"
}

elastic() {
    timeout -k 5 60 "$BIN_DIR/kolo" run "${@:2:2}" -n "$1" -- "$BIN_DIR/train_bytes" "${model[@]}" --csv "$mark" "${@:4}"
}

make_text text
rm -f ./*.ckpt
train 3 --steps 200 --csv straight.csv --checkpoint "$PWD/straight.ckpt" --checkpoint-every 1000 text >straight.log

# goes_on <moment> <arguments>...: one of three is killed after so many steps.
goes_on() {
    local moment=$1
    shift
    rm -f "$mark" state.ckpt
    elastic 3 --min 2 --steps 200 --checkpoint "$PWD/state.ckpt" --checkpoint-every 1000 "$@" text >log 2>&1 &
    run=$!
    await "$moment"
    victim=$(workers | shuf -n 1)
    kill -9 "$victim"
    wait "$run" || fail "killed at $moment: exit code $?: $(cat log)"
    grep -q "2 ranks go on: rank [012] .*SIGKILL" log || fail "killed at $moment: $(cat log)"
    # Every step is there, and its loss is that of the undisturbed run, but for the order of sums. If the one that
    # writes them was killed, the line of its last step may be missing.
    awk -F, 'NR == FNR { is_there[$1]; next } $1 in is_there' "$mark" straight.csv >there.csv
    (($(wc -l <straight.csv) - $(wc -l <there.csv) <= 1)) || fail "killed at $moment: steps are missing"
    same_losses there.csv "$mark" 0.02 || fail "killed at $moment: another curve"
    diff <(grep -o 'held out: [0-9].[0-9][0-9]' straight.log) <(grep -o 'held out: [0-9].[0-9][0-9]' log) ||
        fail "killed at $moment: another result"
    same_weights straight.ckpt state.ckpt 0.02 || fail "killed at $moment: another model"
}
for moment in 1 $((RANDOM % 150)); do
    goes_on "$moment"
    goes_on "$moment" --shard-optimizer
done

# One leaves, the other goes on.
for way in "" --shard-optimizer; do
    rm -f "$mark" state.ckpt
    elastic 2 --min 1 --steps 200 --checkpoint "$PWD/state.ckpt" ${way:+"$way"} text >log 2>&1 &
    run=$!
    await 50
    kill -TERM "$(workers | head -n 1)"
    wait "$run" || fail "one leaves: exit code $?: $(cat log)"
    grep -q "1 rank goes on: .*left in good order" log || fail "one leaves: $(cat log)"
    ! grep -q refused log || fail "one leaves, and is refused what it does not ask for: $(cat log)"
    same_losses straight.csv "$mark" 0.02 || fail "one leaves: another curve"
    same_weights straight.ckpt state.ckpt 0.02 || fail "one leaves: another model"
done

# One is to go, without --min: all save and leave, and the run goes on later.
rm -f "$mark" state.ckpt
saving=(--steps 200 --checkpoint "$PWD/state.ckpt" --checkpoint-every 1000)
train 3 "${saving[@]}" --csv "$mark" text >log 2>&1 &
run=$!
await 50
kill -TERM "$(workers | tail -n 1)"
code=0
wait "$run" || code=$?
[[ $code == 143 ]] || fail "all leave: exit code $code instead of 143: $(cat log)"
[[ -e state.ckpt ]] || fail "all leave: no checkpoint"
[[ $(wc -l <"$mark") -lt 201 ]] || fail "all leave: after the last step"
train 3 "${saving[@]}" --csv "$mark" --resume text >log
same_losses straight.csv "$mark" 0 || fail "the resumed run follows another curve"

# All are killed, with the launcher; fewer go on from the disk.
rm -f "$mark" state.ckpt
saving=(--steps 200 --shard-optimizer --checkpoint "$PWD/state.ckpt")
elastic 3 --min 2 "${saving[@]}" --checkpoint-every 20 text >log 2>&1 &
run=$!
await $((30 + RANDOM % 60))
pgrep -f -- "$mark" | xargs kill -9
wait "$run" && fail "all killed: exit code 0"
[[ -e state.ckpt ]] || fail "all killed: no checkpoint"
elastic 2 --min 1 "${saving[@]}" --csv "$mark" --resume text >log 2>&1 || fail "all killed: not resumed: $(cat log)"
same_losses straight.csv "$mark" 0.02 || fail "all killed: the resumed run follows another curve"
same_weights straight.ckpt state.ckpt 0.02 || fail "all killed: another model"
