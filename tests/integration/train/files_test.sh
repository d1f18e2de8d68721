#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Files that cannot be read or written are found before training, by name and with the reason; what
# could block is never opened.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

[[ ! -e data ]] || chmod -R u+rwX data # what a failed run left
rm -rf data && mkdir data && cd data
make_text text
unset "${!KOLO_@}"
# Root reads everything; without its capabilities it is like anybody else.
as_user=()
[[ $(id -u) != 0 ]] || as_user=(setpriv --bounding-set=-all --inh-caps=-all)

# refused <exit code> <all of stderr> <arguments...>
refused() {
    local want=$1 words=$2 code=0
    shift 2
    timeout -k 5 20 "${as_user[@]}" "$BIN_DIR/train_bytes" "${model[@]}" --steps 1 "$@" >out 2>err || code=$?
    [[ $code == "$want" ]] || fail "exit code $code instead of $want for: $* : $(cat err)"
    [[ $(<err) == "train_bytes: $words" ]] || fail "'$words' expected for: $* : $(cat err)"
}

# ---- what is read ----
mkdir -p empty closed mixed/inner
mkfifo fifo mixed/fifo
: >nothing
: >mixed/nothing
cp text/part1.txt locked
cp text/part1.txt mixed/locked
chmod 000 locked mixed/locked closed mixed/inner
ln -s absent dangling
printf '%20s' '' >short
refused 64 'no readable files in empty (0 empty, 0 unreadable)' text empty
refused 64 'no readable files in mixed (1 empty, 2 unreadable)' mixed
refused 64 'the given files are empty' nothing
refused 64 'locked: Permission denied' text locked
refused 64 'closed: Permission denied' text closed
refused 64 'dangling: No such file or directory' text dangling
refused 64 'fifo: not a regular file or a directory' text fifo
refused 64 '/dev/zero: not a regular file or a directory' /dev/zero
refused 64 '18 bytes to train on (and 2 held out), but --context 32 needs 32: give more files or a smaller --context' short

# Below a directory they are passed over, and counted.
cp -r text mixed/text
timeout -k 5 60 "${as_user[@]}" "$BIN_DIR/train_bytes" "${model[@]}" --steps 1 mixed nothing >log ||
    fail "what cannot be read below a directory stops training"
grep -qx 'text: 2 files or directories cannot be read and are left out' log || fail "not counted: $(cat log)"

# ---- what is written ----
mkdir -p readonly folder
chmod 555 readonly
refused 1 'cannot write the checkpoint absent/state: No such file or directory' --checkpoint absent/state text
refused 1 'cannot write the checkpoint readonly/state: Permission denied' --checkpoint readonly/state text
refused 1 'cannot write the checkpoint folder: Is a directory' --checkpoint folder --resume text
refused 1 'cannot write the checkpoint fifo: it is no regular file' --checkpoint fifo --resume text
refused 1 'cannot write absent/loss.csv: No such file or directory' --checkpoint folder/state --csv absent/loss.csv text
refused 1 'cannot write readonly/loss.csv: Permission denied' --csv readonly/loss.csv text
grep -q 'step' out && fail "training began: $(cat out)"

# Of several ranks, the one that writes says so, and no other.
code=0
train 2 --steps 1 --checkpoint absent/state text >out 2>err || code=$?
[[ $code == 1 && $(grep -c train_bytes: err) == 1 ]] || fail "exit code $code: $(cat err)"
grep -q 'step' out && fail "training began: $(cat out)"

# Finding out leaves nothing behind.
chmod -R u+rwX .
[[ -z $(find . -name "*.tmp" -o -name "state*" -o -path "*folder/*" -o -path "*readonly/*") ]] || fail "a trace of the check is left"
