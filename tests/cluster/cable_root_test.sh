#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A cable is cut while ranks compute together over tcp: no FIN, no RST. Every rank and kolo run end with an
# error that names the host, well before the operation's own limit; nothing is left. A rank that only does
# not look, with a closed window, is left alone for longer than that.
# shellcheck disable=SC2030,SC2031,SC2317 # functions are called by name; hosts.sh has its own names
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
trap hosts_down EXIT
hosts_up 2
install_for_all
cp "$TEST_DIR/cable_worker" "$place/bin"
silent="does not answer any more: it is down, or the network to it is cut"
# Silence of 5 s is too long for these; no operation gives up before 50 s.
export KOLO_TIMEOUT=50 KOLO_TOKEN=the-secret-of-this-test KOLO_WORLD_SIZE=2

# start_ranks MODE BYTES: rank 0, which holds the rendezvous, on host1, rank 1 on host2.
start_ranks() {
    local rank
    notes=$place/notes
    rm -rf "$notes"
    mkdir "$notes"
    for rank in 0 1; do
        (cd "$place" && exec nsenter --target "${HOSTS_PID[host$((rank + 1))]}" --net --uts --mount --pid --wd="$place" -- \
            env KOLO_RANK=$rank KOLO_RENDEZVOUS=10.77.0.1:7001 "$place/bin/cable_worker" "$notes" "$1" "$2" "$mark") \
            >"out$rank" 2>&1 &
        ranks[rank]=$!
    done
}

noted() {
    local rank
    for rank in 0 1; do grep -q "^$1" "$notes/$rank" 2>/dev/null || return 1; done
}

# ended WHAT RANK CODE PART: its error, in time.
ended() {
    wait_until 25 not_running "${ranks[$2]}" || { fail "$1: rank $2 does not end"; kill -9 "${ranks[$2]}"; }
    wait "${ranks[$2]}"
    expect "$1: code of rank $2" "$3" "$?"
    expect_text "$1: rank $2" "$4" "$(tail -n 1 "$notes/$2")"
}

not_running() {
    [[ ! -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# ---- during allreduces of many segments: bytes are under way, which keepalive does not see
start_ranks loop 4000000
wait_until 20 noted loops || fail "the ranks do not start: $(cat out0 out1)"
link_down host2
ended "cut while data moves" 0 8 "host2"
expect_text "cut while data moves: rank 0" "$silent" "$(tail -n 1 "$notes/0")"
ended "cut while data moves" 1 8 "host1"
expect_text "cut while data moves: rank 1" "$silent" "$(tail -n 1 "$notes/1")"
link_up host2
expect_none_left "cut while data moves" 5 host1 host2

# ---- before an operation, while nothing moves
start_ranks late 4000000
wait_until 20 noted ready || fail "the ranks do not start: $(cat out0 out1)"
link_down host2
touch "$notes/go"
ended "cut before an operation" 0 8 "host2"
ended "cut before an operation" 1 8 "host1"
link_up host2
expect_none_left "cut before an operation" 5 host1 host2

# ---- a rank that only does not look: the window is closed, its kernel answers. Stopped besides, for twice
# as long as a silent host is given, and allowed to be, as in a debugger.
export KOLO_PEER_TIMEOUT=0
start_ranks lend 64000000
wait_until 20 noted ready || fail "the ranks do not start: $(cat out0 out1)"
stopped=$(($(<"/proc/${ranks[1]}/task/${ranks[1]}/children")))
kill -STOP "$stopped"
sleep 12
# nsenter stops with what it entered for.
kill -CONT "$stopped" "${ranks[1]}"
touch "$notes/go"
ended "a closed window" 0 0 "done"
ended "a closed window" 1 0 "done"
expect_none_left "a closed window" 5 host1 host2

unset KOLO_PEER_TIMEOUT

# ---- under kolo run over ssh
if ssh_need; then
    ssh_up host2
    unset KOLO_TOKEN KOLO_JOB KOLO_WORLD_SIZE
    rm -rf "$notes"
    mkdir -m 777 "$notes"
    # Longer than the 10 s after which kolo run gives a host up: it is who finds it.
    (cd "$place" && on host1 env KOLO_TIMEOUT=300 "$kolo" run "${SSH[@]}" --grace 1 -x "LD_LIBRARY_PATH=$place/lib" \
        --hosts host1:1,host2:1 -- "$place/bin/cable_worker" "$notes" loop 4000000 "$mark") >out 2>err &
    launcher=$!
    wait_until 20 noted loops || fail "the ranks do not start: $(<err)"
    link_down host2
    wait_until 40 not_running "$launcher" || { fail "kolo run does not end"; kill -9 "$launcher"; }
    wait "$launcher"
    expect "kolo run: code" 76 "$?"
    expect_text "kolo run" "(host host2, pid " "$(<err)"
    expect_text "kolo run: rank 0" "host2" "$(tail -n 1 "$notes/0")"
    expect_none_left "kolo run" 20 host1
    expect_none_left "kolo run, behind the cut" 60 host2
fi

finish
