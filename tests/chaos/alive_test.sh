#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Who lives is not lost: a rank that is stopped for less than KOLO_PEER_TIMEOUT, and one that never comes back
# from what it does, which is named while the others wait, and ended by KOLO_TIMEOUT alone. A kolo run that is
# stopped for longer is.
# shellcheck disable=SC2317 # functions are called by name
# shellcheck source=tests/integration/launcher/common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
rank=$TEST_DIR/chaos_rank

all_say() {
    local r
    for r in 0 1 2; do grep -q "^$1" "notes/$r" 2>/dev/null || return 1; done
}

start() {
    rm -rf notes
    mkdir notes
    "$kolo" run -n 3 --grace 1 "$@" "$mark" >out 2>err &
    pid=$!
    wait_until 20 all_say ready || fail "the ranks do not start: $(<err)"
}

# ---- stopped, twice, for less than a quarter of the time: whoever is asked, after 7/10 of it, may just have been stopped
start --peer-timeout 8 -- "$rank" notes 7 work "$mark"
victim=$(sed -n 's/^ready //p' notes/2)
for _ in 1 2 3; do
    kill -STOP "$victim"
    sleep 1.5
    kill -CONT "$victim"
    sleep 2
done
expect "stopped for a while: what was said" "" "$(<err)$(grep -h failed notes/*)"
not_running $pid && fail "stopped for a while: the job ended"
kill -TERM $pid
wait_code $pid
expect "stopped for a while: code" 143 "$code"

# ---- it thinks: named on every rank that waits, and by kolo run, with what the others wait in, as soon as it would
# have been lost in silence, and again; then the operation is over
start --peer-timeout 2 --operation-timeout 7 -- "$rank" notes 7 think "$mark"
wait_code $pid
host=$(uname -n)
named="rank 2 (host $host) never entered .* #[0-9]* (.*); it is outside of kolo, after .*; 2 ranks wait since"
for who in "kolo run: $named" "\[0\] .*kolo\[0@$host\] warn: this rank is held up: $named" \
    "\[1\] .*kolo\[1@$host\] warn: this rank is held up: $named"; do
    warnings=$(grep -c "^$who [0-9.]* s[.;].*KOLO_TIMEOUT ends that" err)
    ((warnings >= 1 && warnings <= 2)) || fail "a rank that thinks: $warnings warnings of '$who': $(<err)"
    first=$(sed -n "s/^$who \([0-9]*\)\.[0-9] s.*/\1/p" err | head -n 1)
    ((first < 3)) || fail "a rank that thinks: named after $first s: $(<err)"
done
expect "a rank that thinks: what waits for nobody hears nothing" 0 "$(grep -c 'kolo\[2@' err)"
for r in 0 1; do
    expect_text "a rank that thinks: rank $r" "did not finish within 7 s" "$(tail -n 1 notes/$r)"
    grep -q "failed .* $named [4-7]\.[0-9] s\. KOLO_TIMEOUT sets the limit" notes/$r ||
        fail "a rank that thinks: rank $r does not say who held it up: $(tail -n 1 notes/$r)"
done
[[ $(<err) != *"rank 2 (host $(uname -n), pid"*silent* ]] || fail "a rank that thinks was taken for dead: $(<err)"

# ---- kolo run itself is stopped: its ranks say so, and end
start --peer-timeout 1 -- "$rank" notes 7 work "$mark"
kill -STOP $pid
wait_until 10 all_say failed || fail "kolo run is stopped: the ranks go on"
kill -CONT $pid
wait_code $pid
for r in 0 1 2; do
    expect_text "kolo run is stopped: rank $r" "the rendezvous (kolo run) has said nothing for 1." "$(tail -n 1 notes/$r)"
    expect_text "kolo run is stopped: rank $r" "though its host answers: it is stopped (SIGSTOP, a debugger) or hangs" "$(tail -n 1 notes/$r)"
done

finish
