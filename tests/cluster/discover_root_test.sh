#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run --max, --discover: hosts come and go while the job runs, and ranks with them.
# shellcheck disable=SC2317 # functions are called by name
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
trap hosts_down EXIT
hosts_up 3
install_for_all
cp "$TEST_DIR/launcher_trainer" "$place/bin"
echo "a secret of this job" >"$place/token"
export KOLO_TOKEN_FILE=$place/token KOLO_TIMEOUT=30 KOLO_INIT_TIMEOUT=30
end=$place/end.$mark list=$place/list runs=$place/runs

# What the jobs ask: it prints the list, in whatever state that is, and counts how often.
cat >"$place/discover.sh" <<SCRIPT
#!/bin/sh
. $place/mood
echo run >>$runs
exec cat $list
SCRIPT
chmod +x "$place/discover.sh"

# mood COMMANDS: what the script does before it prints.
mood() { echo "$*" >"$place/mood.new" && mv "$place/mood.new" "$place/mood"; }
# hosts LINE...: what it prints from now on.
hosts() { printf '%s\n' "$@" >"$list.new" && mv "$list.new" "$list"; }

# looked N: it has run so many times since the last call.
looks=0
looked() { (($(wc -l <"$runs") >= looks + $1)); }
look() {
    looks=$(wc -l <"$runs")
    wait_until 20 looked 3 || fail "the script does not run any more"
}

# agent_up HOST
agent_up() {
    : >"$place/$1.err"
    on "$1" "$kolo" agent </dev/null 2>"$place/$1.err" &
    disown
    wait_until 10 grep -q "listens at" "$place/$1.err" || fail "the agent of $1 does not listen: $(<"$place/$1.err")"
}

# said EPOCH SIZE: as many ranks as that have said that they are in it.
said() {
    [[ $(grep -c "epoch $1: rank [0-9]* of $2," out) == "$2" ]]
}

# world SIZE SECONDS WHAT: the last epoch has that size, and all its ranks are in it.
world() {
    is_world() {
        local epoch
        epoch=$(sed -nE 's/.*epoch ([0-9]+): .*/\1/p' out | sort -n | tail -n 1)
        [[ -n $epoch ]] && said "$epoch" "$1"
    }
    wait_until "$2" is_world "$1" || fail "$3: $(tail -n 5 out; tail -n 5 err)"
}

# begin ARGUMENTS: kolo run on host1, beside us, as $pid.
begin() {
    rm -f out err "$end"
    : >"$runs"
    (cd "$place" && exec env "KOLO_TOKEN_FILE=$KOLO_TOKEN_FILE" nsenter --target "${HOSTS_PID[host1]}" --net --uts --mount --pid \
        --wd="$place" -- timeout -k 2 100 "$kolo" run --agent-port 7701 "$@") >out 2>err </dev/null &
    pid=$!
}

# finish_job WHAT CODE
finish_job() {
    wait $pid
    expect "$1: code" "$2" $?
    grep "nothing of the job is left\|the sum is" out err && fail "$1"
    wait_until 5 none_left host1 || fail "$1: left behind: $(left_on host1)"
}

train=(-x LD_LIBRARY_PATH="$place/lib" -- bin/launcher_trainer "$end")

# ---- nobody is there when the job begins; then hosts come, one by one
mood :
hosts "# none yet"
nobody=10.77.0.99:1 # a host that is listed, and not there
begin --min 2 --max 4 --grace 20 --discover ./discover.sh "${train[@]}"
look
agent_up host2
agent_up host3
hosts "host2:2 # Horovod's form"
world 2 20 "two ranks do not start"
hosts "host2:2" "host3 slots=3" "$nobody"
world 4 20 "the job does not grow"
hosts "host2:2" "host3 slots=3" "$nobody" "host1:4"
look
expect "never more than --max" "" "$(grep -E 'of ([5-9]|1[0-9]),' out)"

# ---- one goes: its ranks leave in good order, and the others' slots are used
hosts "host2:2" "host1:1" "$nobody"
left() { [[ $(grep -c "has left" out) == "$1" ]]; }
wait_until 20 left 2 || fail "ranks do not leave in good order: $(<out)"
world 3 20 "the job does not shrink"
expect_text "one line about it" "host3: this host is not listed any more: its ranks are to leave" "$(<err)"
gone() { ! on host3 pgrep -f "agent --stdio" >/dev/null; }
wait_until 10 gone || fail "the agent of a host without ranks stays"

# ---- scripts that fail, or print something else, change nothing, and are told once
epochs=$(grep -c epoch out)
mood "echo run >>$runs; echo no such cloud >&2; exit 3"
wait_until 20 grep -q "discover.sh exited with code 3, no such cloud: what it said before holds" err || fail "no word of a script that fails: $(<err)"
mood "echo run >>$runs; echo; echo 'Traceback (most recent call last)'; exit 0"
wait_until 20 grep -q "what --discover ./discover.sh printed, line 2: '(most' means nothing here: a line is HOST slots=N, or HOST:N" err ||
    fail "no word of garbage: $(<err)"
look
expect "once" 1 "$(grep -c "means nothing here" err)"
expect "meanwhile" "$epochs" "$(grep -c epoch out)"

# ---- it is well again
mood :
hosts "host2:2" "host1:1" "$nobody" "host3:1"
world 4 20 "a host that comes again gets no rank"

# ---- a host has fewer slots than before, and as many again: one rank goes, and another comes
hosts "host2:1" "host1:1" "$nobody" "host3:1"
wait_until 20 left 3 || fail "no rank leaves a host with fewer slots: $(<out)"
world 3 20 "the others do not go on without it"
hosts "host2:2" "host1:1" "$nobody" "host3:1"
world 4 20 "a slot that was left gets no rank"

# ---- an agent is lost with its rank and comes again
on host3 pkill -KILL -f "kolo agent"
wait_until 20 grep -q "host3, pid .* was lost: its agent has gone" err || fail "no word of a lost agent: $(<err)"
world 3 20 "the others do not go on"
agent_up host3
world 4 30 "its host gets no rank any more"

# ---- the host that is not there: that is said, and it is tried again after a pause
wait_until 40 grep -q "10.77.0.99: this host is not used: .*; it is tried again in 5 s" err || fail "no word of a host that is not there: $(<err)"
retried() { on host1 pgrep -f "connect 10.77.0.99:7701" >/dev/null; }
wait_until 20 retried || fail "a host that was not there is not tried again"
touch "$end"
finish_job "come and go" 0

# ---- too few: those who are needed stay until the time is over
hosts "host2:1" "host3:1"
KOLO_INIT_TIMEOUT=6 begin --min-np 2 --max-np 2 --host-discovery-script ./discover.sh "${train[@]}"
world 2 20 "two ranks do not start"
hosts "host2:1"
finish_job "too few" 75
expect_text "too few" "fewer than the 2 ranks of --min were left for 6 s (KOLO_INIT_TIMEOUT), and no host came" "$(tail -n 1 err)"

# ---- fixed hosts with more slots than ranks
begin -n 2 --max 3 --hosts host2:3,host3:1 "${train[@]}"
world 3 20 "it does not grow on fixed hosts"
touch "$end"
finish_job "fixed hosts" 0

# ---- what is wrong from the start
hosts "host2:two"
begin --min 1 --max 2 --discover ./discover.sh -- true
finish_job "garbage at the start" 64
expect_text "garbage at the start" "line 1: 'two' is no number of slots for host2: give a number from 1" "$(<err)"
expect "garbage at the start: lines" 1 "$(wc -l <err)"
begin --min 1 --max 2 --discover ./nothing.sh -- true
finish_job "no script" 64
expect_text "no script" "--discover ./nothing.sh cannot be executed (" "$(<err)"
hosts "host2:1"
KOLO_INIT_TIMEOUT=3 begin --min 2 --max 2 --discover ./discover.sh -- true
finish_job "too few at the start" 75
expect_text "too few at the start" "brought hosts with 1 of the 2 slots to begin with, within 3 s" "$(<err)"
finish
