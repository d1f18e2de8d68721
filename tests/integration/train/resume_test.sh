#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A run that is killed and resumed follows the curve of one that never stopped, to the last digit; and
# a checkpoint that cannot be trusted stops the run and stays as it is.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

expect() { # expect <exit code> <words on stderr> <command...>
    local code=0 want=$1 words=$2
    shift 2
    "$@" >out 2>err || code=$?
    [[ $code == "$want" ]] || fail "exit code $code instead of $want: $* : $(cat err)"
    grep -q -- "$words" err || fail "'$words' expected from: $* : $(cat err)"
}

make_text text
rm -f ./*.ckpt ./*.csv
saving=(--steps 400 --checkpoint "$PWD/state.ckpt" --checkpoint-every 40 --csv resumed.csv)
train 2 --steps 400 --csv straight.csv text >straight.log

train 2 "${saving[@]}" text >killed.log 2>&1 &
run=$!
for _ in $(seq 3000); do
    [[ -e state.ckpt ]] && break
    sleep 0.01
done
for worker in $(pgrep -f -- "$PWD/state.ckpt"); do # also finds the launcher; it shall end by itself
    # The second may have ended already, because the first is lost.
    [[ $(cat "/proc/$worker/comm" 2>/dev/null) == train_bytes ]] && kill -9 "$worker" 2>/dev/null
done || true
wait $run && fail "the run was to be killed before its end"
[[ -e state.ckpt ]] || fail "no checkpoint within 30 s"

expect 64 'add --resume' train 1 "${saving[@]}" text
train 2 "${saving[@]}" --resume text >resumed.log
same_losses straight.csv resumed.csv 0 || fail "the resumed run follows another curve"

cp state.ckpt good
head -c 10000 good >state.ckpt
expect 1 torn train 1 "${saving[@]}" --resume text
cmp -s state.ckpt <(head -c 10000 good) || fail "a torn checkpoint was changed"
{ head -c 10000 good && printf X && tail -c +10002 good; } >state.ckpt
expect 1 checksum train 2 "${saving[@]}" --resume text
echo 'no checkpoint at all' >state.ckpt
expect 1 'not a checkpoint' train 1 "${saving[@]}" --resume text
cp good state.ckpt
expect 1 'another --seed' train 1 "${saving[@]}" --resume --seed 9 text
cmp -s good state.ckpt || fail "a refused checkpoint was changed"
