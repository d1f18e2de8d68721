#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run over ssh when things break while it runs: Ctrl-C, a cut cable, the launcher or an agent
# killed. Nothing is left on any host. The hosts have no names but their addresses.
# shellcheck disable=SC2016,SC2317 # the ranks' shell expands them; functions are called by name
# shellcheck source=tests/cluster/common.sh
HOSTS_DNSLESS=1
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
ssh_need
trap hosts_down EXIT
hosts_up 3
install_for_all
ssh_up host2 host3
hosts="10.77.0.1:1,10.77.0.2:2,[fd77::3]:1"

# start ARGUMENTS: on host1, in the background; $pid is kolo run, seen from outside.
start() {
    rm -f out err
    (cd "$place" && exec nsenter --target "${HOSTS_PID[host1]}" --net --uts --mount --pid --wd="$place" -- \
        env --default-signal=INT,TERM "$kolo" run "${SSH[@]}" "$@") >out 2>err &
    local entered=$!
    wait_until 10 child_of $entered >/dev/null || fail "kolo run does not start"
    pid=$(child_of $entered)
    waited=$entered
}

child_of() {
    local child
    child=$(cat "/proc/$1/task/$1/children" 2>/dev/null)
    [[ -n $child ]] && echo "${child%% *}"
}

# wait_code SECONDS: of what start started.
wait_code() {
    wait_until "$1" not_running "$waited" || { fail "kolo run does not end"; kill -9 "$pid" "$waited"; }
    wait "$waited"
    code=$?
    err=$(<err)
}

not_running() {
    [[ ! -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

worker=$place/bin/launcher_worker

# ---- signals reach every rank on every host
start --hosts "$hosts" -- "$worker" signals "$mark"
wait_until 20 lines_in out 4 || fail "the ranks do not start: $(<err)"
kill -USR1 "$pid"
wait_until 10 lines_in out 8 || fail "SIGUSR1 does not reach all ranks"
expect "SIGUSR1" 4 "$(grep -c 'got SIGUSR1' out)"
kill -INT "$pid"
wait_until 10 lines_in out 12 || fail "SIGINT does not reach all ranks"
kill -INT "$pid"
wait_code 20
expect "two SIGINT: code" 130 "$code"
expect "two SIGINT: nothing failed" "" "$err"
expect_none_left "two SIGINT" 10 host1 host2 host3

# ---- stopped and continued: SIGCONT takes back a SIGTSTP that a rank has not taken yet
mkdir -m 777 "$place/stopped"
all_stopped() { [[ $(ls "$place/stopped") == $'rank.0\nrank.1\nrank.2\nrank.3' ]]; }
start --hosts "$hosts" -- "$worker" signals "$mark" "$place/stopped/rank"
wait_until 20 lines_in out 4 || fail "the ranks do not start"
kill -TSTP "$pid"
wait_until 10 grep -q '^State:[[:space:]]*T' "/proc/$pid/status" || fail "kolo run does not stop"
wait_until 10 all_stopped || fail "SIGTSTP does not come to: $(ls "$place/stopped")"
kill -CONT "$pid" "$waited" # nsenter stops with what it entered for
wait_until 10 lines_in out 8 || fail "what ranks said while kolo run was stopped is lost"
kill -TERM "$pid"
wait_until 10 lines_in out 12 || fail "SIGTERM does not reach all ranks after SIGCONT"
kill -TERM "$pid"
wait_code 20
expect "after a stop: code" 143 "$code"

# ---- what ranks leave behind goes too: other sessions, other groups
start --hosts "$hosts" -- "$worker" scatter "$mark"
wait_code 20
expect "scattered: code" 0 "$code"
expect_none_left "scattered" 10 host1 host2 host3

# ---- kill -9 of kolo run
start --hosts "$hosts" -- "$worker" scatter_and_stay "$mark"
wait_until 20 lines_in out 4 || fail "the ranks do not start"
kill -9 "$pid"
wait_code 10
expect_none_left "kill -9 of kolo run" 20 host1 host2 host3

# ---- kill -9 of an agent: its guard ends its ranks, and its host is lost
start --hosts "$hosts" -- "$worker" scatter_and_stay "$mark"
wait_until 20 lines_in out 4 || fail "the ranks do not start"
on host2 bash -c 'for p in /proc/[0-9]*; do
    [[ $(tr "\0" " " 2>/dev/null <$p/cmdline) == */kolo\ agent\ --stdio* && $(cat $p/comm) == kolo ]] && kill -9 "${p#/proc/}"; done; true'
wait_code 20
expect "kill -9 of an agent: code" 76 "$code"
expect_text "kill -9 of an agent" "kolo run: rank 1 (host host2, pid " "$err"
expect_text "kill -9 of an agent" "was lost: its agent has gone: the connection was closed" "$err"
expect_none_left "kill -9 of an agent" 20 host1 host2 host3

# ---- the cable of a host is cut: its ranks are lost, and the others end; it clears up by itself
start --hosts "$hosts" --grace 1 -- "$worker" scatter_and_stay "$mark"
wait_until 20 lines_in out 4 || fail "the ranks do not start"
link_down host3
wait_code 40
expect "a cut cable: code" 76 "$code"
expect_text "a cut cable" "kolo run: rank 3 (host host3, pid " "$err"
expect_text "a cut cable" "was lost: nothing was heard from its host for 10 s" "$err"
expect_none_left "a cut cable" 20 host1 host2
expect_none_left "the host behind it" 60 host3
link_up host3

# ---- a host that does not answer at all
link_down host2
start --hosts "$hosts" -- true
wait_code 40
expect "a host that is down: code" 75 "$code"
expect_text "a host that is down" "cannot start on host 10.77.0.2: ssh: connect to host 10.77.0.2" "$err"
expect_none_left "a host that is down" 20 host1 host3

# ---- Ctrl-C while hosts are starting
start --hosts "$hosts" -- true
sleep 0.5
kill -INT "$pid"
wait_code 10
expect "Ctrl-C while hosts start: code" 130 "$code"
expect_none_left "Ctrl-C while hosts start" 20 host1 host3

finish
