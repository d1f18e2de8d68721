#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Signals to the launcher reach every rank's process group, and tell in the exit code.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
worker=$TEST_DIR/launcher_worker

# start ARGUMENTS: in the background, but with signals as in the foreground; $pid is the launcher.
start() {
    rm -f out err
    env --default-signal=INT,QUIT,HUP,TERM "$kolo" run "$@" >out 2>err &
    pid=$!
}

# ---- passed on, one after the other
start -n 3 -- "$worker" signals "$mark"
wait_until 10 lines_in out 3 || fail "the ranks do not start"
expect "ready" 3 "$(grep -c ready out)"
n=3
for signal in USR1 USR2 HUP QUIT INT; do
    kill -$signal $pid
    n=$((n + 3))
    wait_until 10 lines_in out $n || fail "SIG$signal does not reach all ranks"
    expect "SIG$signal" 3 "$(grep -c "got SIG$signal" out)"
done

# ---- a second SIGINT kills those that do not listen
kill -INT $pid
wait_code $pid
expect "second SIGINT: exit code" 129 "$code" # the first that asked was SIGHUP
none_marked || fail "ranks survive a second SIGINT"
expect "second SIGINT: nothing failed" "" "$(<err)"

# ---- graceful ends
for case in TERM:143 INT:130 HUP:129; do
    start -n 2 -- sh -c "trap 'echo bye; exit 0' ${case%:*}; echo ready; while :; do sleep 0.05; done; : $mark"
    wait_until 10 lines_in out 2 || fail "the ranks do not start"
    kill -"${case%:*}" $pid
    wait_code $pid
    expect "SIG${case%:*}: exit code" "${case#*:}" "$code"
    expect "SIG${case%:*}: ranks say goodbye" 2 "$(grep -c bye out)"
    expect "SIG${case%:*}: nothing failed" 0 "$(grep -c 'kolo run' err)"
done

# ---- ranks that know nothing of signals die of them
start -n 2 -- sh -c "echo ready; '$worker' wait $mark; :"
wait_until 10 lines_in out 2 || fail "the ranks do not start"
kill -TERM $pid
wait_code $pid
expect "SIGTERM by default: exit code" 143 "$code"
none_marked || fail "something survives SIGTERM"

# ---- nohup: an ignored SIGHUP stays ignored, here and in the ranks
(
    trap '' HUP
    exec "$kolo" run -n 2 -- sh -c "echo ready; sleep 1; echo finished; : $mark"
) >out 2>err &
pid=$!
wait_until 10 lines_in out 2 || fail "the ranks do not start"
kill -HUP $pid
wait_code $pid
expect "ignored SIGHUP: exit code" 0 "$code"
expect "ignored SIGHUP: ranks finish" 2 "$(grep -c 'finished' out)"

finish
