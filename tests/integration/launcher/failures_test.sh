#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Whoever dies, the others end, nothing stays, and the message says who was first.
# shellcheck disable=SC2016 # variables in single quotes belong to the ranks' shell
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
worker=$TEST_DIR/launcher_worker

start() {
    rm -f out err
    "$kolo" run "$@" >out 2>err &
    pid=$!
}

since() {
    echo $(((${EPOCHREALTIME/[.,]/} - $1) / 1000))
}

# ---- kill -9 of one rank; the others do not even hear SIGTERM
start -n 4 -- "$worker" signals "$mark"
wait_until 10 lines_in out 4 || fail "the ranks do not start"
victim=$(sed -nE 's/^\[2\] ready ([0-9]+)$/\1/p' out)
began=${EPOCHREALTIME/[.,]/}
kill -9 "$victim"
wait_code $pid
took=$(since "$began")
expect "killed rank: exit code" 76 "$code"
expect "killed rank: message" \
    "kolo run: rank 2 (host $(uname -n), pid $victim) was killed by signal 9 (SIGKILL); in consequence 3 other ranks were ended" \
    "$(<err)"
expect "killed rank: the others were asked first" 3 "$(grep -c 'got SIGTERM' out)"
((took < 5000)) || fail "killed rank: the others took $took ms to end"

# ---- survivors have a moment to say what they saw, and then end by themselves
run -n 3 -- sh -c '[ $KOLO_RANK = 1 ] && kill -SEGV $$; sleep 0.3; echo "peer lost" >&2; exit 1'
expect "crash: exit code" 76 "$code"
expect "crash: survivors speak" 2 "$(grep -c '^\[[02]\] peer lost' err)"
expect_text "crash" "rank 1 (host" "$err"
expect_text "crash" "was killed by signal 11 (SIGSEGV" "$err"
expect_text "crash" "in consequence 2 other ranks failed (exit code 1)" "$err"

# ---- a stopped rank ends too; --grace 0 does not wait
run -n 2 --grace 0 -- sh -c "[ \$KOLO_RANK = 0 ] && exit 7; kill -STOP \$\$; : $mark"
expect "stopped rank: exit code" 7 "$code"

# ---- children, setsid, daemons with an empty environment: none outlives the job
run -n 2 -- "$worker" scatter "$mark"
expect "scattered: exit code" 0 "$code"
expect "scattered: were there" 2 "$(grep -c scattered out)"
none_marked || fail "scattered processes outlive the job"

# ---- children of the shell that became the launcher are not the job's
bash -c "'$worker' wait $mark & echo \$! >bystander; sleep 0.2; exec '$kolo' run -n 2 -- true" >out 2>err
[[ -e /proc/$(<bystander) ]] || fail "a process that is none of the job's was ended"
kill "$(<bystander)"
wait_until 5 none_marked || fail "the bystander does not end"

# ---- no zombies while the job runs, no guard and no child after it
start -n 2 -- sh -c "(true; sleep 0.2) & (exec true) & sleep 1; : $mark"
sleep 0.6
zombies=0
for child in $(children_of $pid); do
    grep -q '^State:[[:space:]]*Z' "/proc/$child/status" 2>/dev/null && zombies=$((zombies + 1))
done
expect "zombies" 0 "$zombies"
children=$(children_of $pid)
wait_code $pid
for child in $children; do
    gone "$child" || fail "process $child of the launcher outlives it"
done

# ---- kill -9 of the launcher: ranks, their children, those of other sessions, all end
for attempt in 1 2; do
    start -n 3 -- "$worker" scatter_and_stay "$mark"
    wait_until 10 lines_in out 3 || fail "the ranks do not start"
    children=$(children_of $pid)
    # With the launcher and its guard, whose arguments are the same.
    wait_until 10 marked_are 11 || fail "not there: 3 ranks, 6 scattered, launcher, guard"
    began=${EPOCHREALTIME/[.,]/}
    kill -9 $pid
    wait_until 5 none_marked || fail "attempt $attempt: not all end after kill -9 of the launcher"
    took=$(since "$began")
    for child in $children; do
        wait_until 5 not_running "$child" || fail "attempt $attempt: process $child stays (guard?)"
    done
    wait $pid 2>/dev/null
    ((took < 5000)) || fail "they took $took ms to end"
done

# ---- the guard holds nothing of ours: a pipe ends with the launcher's job
out=$(timeout 20 "$kolo" run -n 2 -- echo hi | cat | sort)
expect "pipe" $'[0] hi\n[1] hi' "$out"
start -n 1 -- "$worker" wait "$mark"
wait_until 10 marked_are 3 || fail "not there: the rank, launcher, guard"
for child in $(children_of $pid); do
    [[ $(<"/proc/$child/comm") == kolo-guard ]] || continue
    guard=$child
    expect "guard's files" $'0\n1\n2' "$(ls "/proc/$child/fd")"
    expect "guard's terminal and output" "2" "$(readlink /proc/"$child"/fd/[12] | grep -c '^/dev/null$')"
done
[[ -n ${guard-} ]] || fail "there is no guard"
kill -TERM $pid
wait_code $pid
gone "$guard" || fail "the guard outlives a normal end"

finish
