#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A worker killed in mid-training ends all of them with exit code 76 and the name of the lost rank,
# and what rank 0 had saved can be resumed by another number of ranks.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

make_text text
rm -f state.ckpt
saving=(--checkpoint "$PWD/state.ckpt" --checkpoint-every 20)
train 3 --steps 1000000 "${saving[@]}" text >log 2>&1 &
run=$!
for _ in $(seq 3000); do
    [[ -e state.ckpt ]] && break
    sleep 0.01
done
[[ -e state.ckpt ]] || fail "no checkpoint within 30 s: $(tail -n 3 log)"
for pid in $(pgrep -f -- "$PWD/state.ckpt"); do
    [[ $(cat "/proc/$pid/comm") == train_bytes ]] && worker=$pid
done
kill -9 "$worker"
code=0
wait "$run" || code=$?
[[ $code == 76 ]] || fail "exit code $code instead of 76: $(tail -n 3 log)"
grep -q 'KOLO_ERR_PEER_LOST: .*rank [012].*SIGKILL' log || fail "no survivor names the lost rank"
pgrep -f -- "$PWD/state.ckpt" && fail "a process is left"

train 2 --seconds 0.001 "${saving[@]}" --resume text >resumed.log || fail "cannot resume on 2 ranks"
