#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run --restarts: a rank that fails is started again and comes to the world of the others.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
elastic=$TEST_DIR/launcher_elastic
export KOLO_TIMEOUT=30 KOLO_INIT_TIMEOUT=30
end=$PWD/end.$mark
host=$(uname -n)

# said EPOCH SIZE: as many ranks as that have said that they are in it.
said() {
    [[ $(grep -c "epoch $1: rank [0-9]* of $2," out) == "$2" ]]
}

# pid_of EPOCH RANK
pid_of() {
    sed -nE "s/.*epoch $1: rank $2 of [0-9]+, pid ([0-9]+)\$/\1/p" out
}

# begin ARGUMENTS: kolo run beside us, as $pid.
begin() {
    rm -f out err "$end"
    "$kolo" run "$@" >out 2>err </dev/null &
    pid=$!
}

# ---- wrong usage
run --restarts 1 -n 2 true
expect "without --min: exit code" 64 "$code"
expect_text "without --min" "say with --min how many ranks" "$err"
run --min 3 -n 2 true
expect "--min above -n: exit code" 64 "$code"
expect_text "--min above -n" "--min 3 is more than the 2 ranks of -n: lower it" "$err"

# ---- all are needed, and two failures are made good: by a signal, then the same rank's successor
begin --min 3 --restarts 2 -n 3 -- "$elastic" "$end"
wait_until 20 said 0 3 || fail "three ranks do not start: $(<err)"
first=$(pid_of 0 1)
kill -9 "$first"
wait_until 20 said 1 3 || fail "the lost rank is not replaced: $(<err)"
expect_text "its successor's lines are those of the same rank" "[1] epoch 1: rank 2 of 3" "$(<out)"
expect_text "one line about it" \
    "kolo run: rank 1 (host $host, pid $first) was killed by signal 9 (SIGKILL); the other 2 go on, and it is started again (1 of 2)" "$(<err)"
second=$(pid_of 1 2)
kill -9 "$second"
wait_until 20 said 2 3 || fail "the successor is not replaced: $(<err)"
expect_text "and one about its successor" \
    "rank 1 (host $host, pid $second) was killed by signal 9 (SIGKILL); the other 2 go on, and it is started again (2 of 2)" "$(<err)"
touch "$end"
wait_code $pid
expect "replaced: exit code" 0 "$code"
expect "replaced: lines of the launcher" 2 "$(grep -c '^kolo run' err)"

# ---- one that is told to go, and leaves in good order, is replaced and uses up no restart
begin --min 2 --restarts 1 -n 3 -- "$elastic" "$end" leave
wait_until 20 said 0 3 || fail "three ranks do not start: $(<err)"
first=$(pid_of 0 1)
kill -TERM "$first"
wait_until 20 said 2 3 || fail "who left is not replaced: $(<err)"
expect_text "told to go" \
    "rank 1 (host $host, pid $first) exited with code 143; the other 2 go on, and it is started again, which does not count: it was told to go" "$(<err)"
second=$(pid_of 2 0)
kill -9 "$second"
wait_until 20 said 4 3 || fail "no restart was left: $(<err)"
expect_text "a failure after that" "pid $second) was killed by signal 9 (SIGKILL); the other 2 go on, and it is started again (1 of 1)" "$(<err)"
touch "$end"
wait_code $pid
expect "told to go: exit code" 0 "$code"

# ---- no restart is left: the job goes on while --min holds, and then ends
begin --min 2 --restarts 1 -n 3 -- "$elastic" "$end"
wait_until 20 said 0 3 || fail "three ranks do not start: $(<err)"
kill -9 "$(pid_of 0 0)"
wait_until 20 said 2 3 || fail "rank 0 is not replaced: $(<err)"
kill -9 "$(pid_of 2 2)"
wait_until 20 said 3 2 || fail "two do not go on: $(<err)"
last=$(pid_of 3 1)
kill -9 "$last"
wait_code $pid
expect "used up: exit code" 76 "$code"
expect_text "used up" "was killed by signal 9 (SIGKILL); the other 2 go on"$'\n' "$(<err)"
expect_text "used up: the last" "pid $last) was killed by signal 9" "$(tail -n 1 err)"

# ---- two at once, which is one too many: the first is named, though it was to be started again
begin --min 3 --restarts 1 -n 3 -- "$elastic" "$end"
wait_until 20 said 0 3 || fail "three ranks do not start: $(<err)"
kill -9 "$(pid_of 0 1)" "$(pid_of 0 2)"
wait_code $pid
expect "too many: exit code" 76 "$code"
expect "too many: which is named" "$(sed -nE '1s/.*, (pid [0-9]+).*/\1/p' err)" \
    "$(sed -nE '$s/.*, (pid [0-9]+).*/\1/p' err)"

# ---- one that is stopped is expelled, ended, and started again; so is a newcomer
begin --min 3 --restarts 2 --peer-timeout 1 --grace 1 -n 3 -- "$elastic" "$end"
wait_until 20 said 0 3 || fail "three ranks do not start: $(<err)"
first=$(pid_of 0 1)
kill -STOP "$first"
wait_until 20 said 1 3 || fail "the stopped rank is not replaced: $(<err)"
not_running "$first" || fail "the stopped rank was not ended"
expect_text "stopped" "rank 1 (host $host, pid $first) is stopped (SIGSTOP), silent for" "$(<err)"
expect_text "stopped: it is said" "; the others go on without it, and it is ended"$'\n' "$(<err)"
expect_text "stopped: again" "pid $first) was killed by signal 15 (SIGTERM); the other 2 go on, and it is started again (1 of 2)" "$(<err)"
kill -STOP "$(pid_of 1 2)"
wait_until 20 said 2 3 || fail "the stopped newcomer is not replaced: $(<err)"
touch "$end"
wait_code $pid
expect "stopped: exit code" 0 "$code"

# ---- a failure before there is a world ends the job at once
run --min 1 --restarts 5 -n 3 -- bash -c "[[ \$KOLO_RANK == 1 ]] && exit 7; $TEST_DIR/launcher_elastic /nonexistent.$mark"
expect "before the world formed: exit code" 7 "$code"

# ---- a program that is gone: the others go on
cp "$elastic" "$PWD/gone.$mark"
begin --min 2 --restarts 5 -n 3 -- "$PWD/gone.$mark" "$end"
wait_until 20 said 0 3 || fail "three ranks do not start: $(<err)"
rm "$PWD/gone.$mark"
kill -9 "$(pid_of 0 2)"
wait_until 20 grep -q "rank 2 cannot be started again: cannot execute .*: No such file" err || fail "gone: $(<err)"
touch "$end"
wait_code $pid
expect "gone: exit code" 0 "$code"

# ---- a rank that fails when the others are at their end keeps nobody
begin --min 1 --restarts 5 -n 2 -- "$elastic" "$end"
wait_until 20 said 0 2 || fail "two ranks do not start: $(<err)"
kill -9 "$(pid_of 0 1)"
wait_until 20 said 1 1 || fail "one does not go on: $(<err)"
touch "$end"
wait_code $pid
expect "at the end: exit code" 0 "$code"
finish
