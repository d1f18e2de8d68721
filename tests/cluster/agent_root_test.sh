#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run without ssh: an agent listens on each host, as another user, and takes those who know the token.
# shellcheck disable=SC2016,SC2317 # the ranks' shell expands them; functions are called by name
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
trap hosts_down EXIT
hosts_up 3
install_for_all
echo "a secret of this job" >"$place/token"
echo "the secret of another" >"$place/wrong"
chown 4711 "$place/token" && chmod 600 "$place/token" "$place/wrong"
port=7701 # where it waits if nobody says otherwise

# agent_up HOST [TOKEN FILE]: returns when it listens; its process, in setpriv's clothes, is $agent.
agent_up() {
    local token=${2:-$place/token}
    KOLO_TOKEN_FILE=$token on "$1" setpriv --reuid 4711 --regid 4711 --clear-groups \
        "$kolo" agent </dev/null 2>"$place/$1.err" &
    agent=$!
    wait_until 10 grep -q "listens at" "$place/$1.err" || fail "the agent of $1 does not listen: $(<"$place/$1.err")"
}
export KOLO_TOKEN_FILE=$place/token
run() { run_at host1 --agent-port $port "$@"; }

agent_up host2
agent_up host3
show='echo $KOLO_RANK $KOLO_WORLD_SIZE $KOLO_LOCAL_RANK $(uname -n) $(id -u) ${KOLO_TOKEN_FILE-none}'
run --hosts host1:1,host2:2,10.77.0.3:1 --no-prefix -- sh -c "$show"
expect "places: code" 0 "$code"
expect "places" $'0 4 0 host1 0 none\n1 4 0 host2 4711 none\n2 4 1 host2 4711 none\n3 4 0 host3 4711 none' "$(sort <<<"$out")"
run --hosts "host2:2,[fd77::3]:2" -x LD_LIBRARY_PATH="$place/lib" -- "$place/bin/hello_allreduce"
expect "hello: code and lines" "0 4" "$code $(grep -c . out)"

# ---- output and input are whole; two jobs at once
run --hosts host2:1 -- seq 1 200000 &
seq 1 100000 | (cd "$place" && on host1 timeout 60 "$kolo" run --agent-port $port --hosts host3:1 -- md5sum) >input
wait $!
expect "output" "$(seq -f '[0] %.0f' 1 200000 | md5sum)" "$(md5sum <out)"
expect "input" "[0] $(seq 1 100000 | md5sum)" "$(<input)"

# ---- strangers
for ((i = 0; i < 30; i++)); do
    on host1 bash -c "exec 3<>/dev/tcp/10.77.0.2/$port; head -c 3000 /dev/urandom >&3" 2>/dev/null
    on host1 bash -c "exec 3<>/dev/tcp/10.77.0.2/$port" # as a probe of readiness
done
on host1 bash -c "for ((i = 0; i < 100; i++)); do exec {fd}<>/dev/tcp/10.77.0.2/$port; done; sleep 30" &
disown
# Ends when the agent closes, which is not yet; 124 where it never does.
on host1 bash -c "exec 3<>/dev/tcp/10.77.0.3/$port; timeout 25 cat <&3" &
silent=$!
run --hosts host2:1 --no-prefix -- echo here
expect "among strangers" "0 here" "$code $out"
crowded() { grep -q "from 10.77.0.1.*: it proved nothing while many others waited" "$place/host2.err"; }
wait_until 10 crowded || fail "no stranger makes room: $(<"$place/host2.err")"
refused=$(grep -c "refused a connection from 10.77.0.1" "$place/host2.err")
((refused >= 1 && refused <= 8)) || fail "strangers fill the log: $(<"$place/host2.err")"
KOLO_TOKEN_FILE=$place/wrong KOLO_INIT_TIMEOUT=2 run --hosts host2:1 -- true
expect "another token: code" 64 "$code"
expect_text "another token" "cannot start on host host2: kolo agent at host2:$port: " "$err"
expect_text "another token" "it has another token" "$err"
expect_text "another token, there" "another token" "$(<"$place/host2.err")"
KOLO_TOKEN_FILE='' run --hosts host2:1 -- true
expect "no token: code" 64 "$code"
expect_text "no token" "set KOLO_TOKEN_FILE" "$err"
KOLO_TOKEN_FILE='' on host3 "$kolo" agent 2>none
expect "an agent without a token: code" 64 "$?"
KOLO_INIT_TIMEOUT=2 run_at host1 --agent-port 9 --hosts host2:1,host3:1 -- true
expect "nobody listens: code" 75 "$code"
expect_text "nobody listens" "no agent within 2 s (KOLO_INIT_TIMEOUT): host2 (" "$err"
expect_text "nobody listens" "Connection refused" "$err"
expect_text "nobody listens" ", host3 (" "$err"

# ---- the doctor comes the same way
(cd "$place" && on host1 timeout 60 "$kolo" doctor --agent-port $port --hosts host2:1,host3:1) >out 2>err
expect_text "doctor" "host2" "$(<out)"
grep -q 'cannot\|does not answer' out err && fail "doctor: $(<out) $(<err)"

# ---- without a token, for who says so on both sides
KOLO_TOKEN_FILE='' KOLO_INSECURE=1 on host2 "$kolo" agent --listen 7702 </dev/null 2>"$place/insecure.err" &
wait_until 10 grep -q "listens at" "$place/insecure.err" || fail "no agent without a token: $(<"$place/insecure.err")"
KOLO_TOKEN_FILE='' KOLO_INSECURE=1 run_at host1 --agent-port 7702 --hosts host1:1,host2:1 -- "$place/bin/hello_allreduce"
expect "without a token: code and lines" "0 2" "$code $(grep -c . out)"
KOLO_INIT_TIMEOUT=2 run_at host1 --agent-port 7702 --hosts host2:1 -- true
expect "a token where there is none: code" 64 "$code"

# ---- failures
run --hosts host1:1,host2:1 -- sh -c '[ $KOLO_RANK = 1 ] || exec sleep 30; kill -SEGV $$'
expect "crash: code" 76 "$code"
expect_text "crash" "kolo run: rank 1 (host host2, pid " "$err"
run --hosts host2:1,host3:1 -- sh -c '[ $KOLO_RANK = 0 ] || exec sleep 20; exit 7'
expect "the rank's own code" 7 "$code"
cp "$TEST_DIR/launcher_holdup" "$place/bin"
KOLO_TIMEOUT=3 run --hosts host1:1,host2:2,host3:1 -- "$place/bin/launcher_holdup" 2 sleep
expect_text "who holds up the others" "kolo run: rank 2 (host host2) never entered allreduce #11 (5 x fp32" "$err"
expect_text "who holds up the others" "; it is outside of kolo, after allreduce #10 (5 x fp32" "$err"
expect_text "who holds up the others" "; 3 ranks wait since " "$err"
# Nothing is left on its host to be asked when kolo run wants to know.
run --hosts host1:1,host2:1,host3:1 --flight-file flight -- "$place/bin/launcher_holdup" 1 leave
expect "who has gone: code" 76 "$code"
expect "who has gone: its operations" 10 "$(grep -c ^1, "$place/flight")"
expect_text "who has gone" "kolo run: rank 1 (host host2) never entered allreduce #11 (5 x fp32" "$err"
expect_text "who has gone" "; its process has ended" "$err"

# ---- kolo run is killed: its ranks end, its agents wait for the next
# In the background `on` is a shell, its child is nsenter, and the child of that is the command.
command_of() {
    local nsenter=$(($(<"/proc/$1/task/$1/children")))
    echo $(($(<"/proc/$nsenter/task/$nsenter/children")))
}
no_sleep() { ! on "$1" pgrep -x -f "sleep $2" >/dev/null; }
has_sleep() { on "$1" pgrep -x -f "sleep $2" >/dev/null; }
on host1 "$kolo" run --agent-port $port --wdir / --hosts host2:1,host3:1 -- sleep 76 >killed 2>&1 &
killed=$!
wait_until 10 has_sleep host2 76 || fail "no job to kill: $(<killed)"
kill -KILL "$(command_of $killed)"
wait_until 20 no_sleep host2 76 || fail "ranks outlive kolo run"
run --hosts host2:1,host3:1 --no-prefix -- echo again
expect "after a killed kolo run" $'0 again\nagain' "$code $out"

wait $silent
expect "a stranger that says nothing is cut off" 0 "$?"

# ---- an agent is told to go while its ranks run: they end first, kolo run hears how
(cd "$place" && on host1 timeout 60 "$kolo" run --agent-port $port --hosts host2:1,host3:1 -- sleep 77) >out 2>err &
job=$!
wait_until 10 has_sleep host3 77 || fail "no job"
kill -TERM "$(command_of "$agent")"
wait $job
expect "an agent that goes: code" 76 "$?"
expect_text "an agent that goes" "(host host3" "$(<err)"
wait_until 20 no_sleep host3 77 || fail "ranks outlive their agent"
gone() { ! kill -0 "$agent" 2>/dev/null; }
wait_until 10 gone || fail "the agent stays"
wait "$agent"
expect "the agent's code" 143 "$?"

# ---- kolo run is there first
(run --hosts host2:1,host3:1 --no-prefix -- sh -c 'uname -n'; echo "$code" >late.code; cp out late.out; cp err late.err) &
late=$!
sleep 1.5
agent_up host3
wait $late
expect "a late agent" "0 host2 host3" "$(<late.code) $(sort late.out | tr '\n' ' ' | sed 's/ $//')"

finish
