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
echo "another one" >"$place/wrong"
chown 4711 "$place/token" && chmod 600 "$place/token" "$place/wrong"
port=4700

# agent_up HOST: returns when it listens.
agent_up() {
    KOLO_TOKEN_FILE=$place/token on "$1" setpriv --reuid 4711 --regid 4711 --clear-groups \
        "$kolo" agent --listen $port </dev/null >"$place/$1.out" 2>"$place/$1.err" &
    disown # it ends with its host
    wait_until 10 grep -q "listens at" "$place/$1.out" || fail "the agent of $1 does not listen: $(<"$place/$1.err")"
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
done
on host1 bash -c "for ((i = 0; i < 20; i++)); do exec {fd}<>/dev/tcp/10.77.0.2/$port; done; sleep 30" &
disown
KOLO_TOKEN_FILE=$place/wrong run --hosts host2:1 -- true
expect "another token: code" 64 "$code"
expect_text "another token" "cannot start on host host2: kolo agent at host2:$port: " "$err"
run --hosts host2:1 --no-prefix -- echo here
expect "among strangers" "0 here" "$code $out"
expect "strangers are logged once" 1 "$(wc -l <"$place/host2.err")"
KOLO_TOKEN_FILE='' run --hosts host2:1 -- true
expect "no token: code" 64 "$code"
expect_text "no token" "set KOLO_TOKEN_FILE" "$err"
run_at host1 --agent-port 9 --hosts host2:1 -- true
expect "nobody listens: code" 75 "$code"
expect_text "nobody listens" "Connection refused" "$err"

# ---- failures, and an agent that is told to go while its ranks run
run --hosts host1:1,host2:1 -- sh -c '[ $KOLO_RANK = 1 ] || exec sleep 30; kill -SEGV $$'
expect "crash: code" 76 "$code"
expect_text "crash" "kolo run: rank 1 (host host2, pid " "$err"
run --hosts host2:1,host3:1 -- sh -c '[ $KOLO_RANK = 0 ] && kill -TERM $(pgrep -f "agent --liste[n]"); exec sleep 77'
expect "an agent that goes: code" 76 "$code"
expect_text "an agent that goes" "(host host2" "$err"
no_sleep() { ! on host2 pgrep -x -f 'sleep 77' >/dev/null; }
wait_until 20 no_sleep || fail "ranks outlive their agent"

finish
