#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Who lives is not lost: a rank that is stopped for less than KOLO_PEER_TIMEOUT, and one that never comes back
# from what it does, which is named while the others wait, and ended by KOLO_TIMEOUT alone.
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

# ---- stopped, twice, for less than the time
start --peer-timeout 4 -- "$rank" notes 7 work "$mark"
victim=$(sed -n 's/^ready //p' notes/2)
for _ in 1 2; do
    kill -STOP "$victim"
    sleep 1.5
    kill -CONT "$victim"
    sleep 1
done
expect "stopped for a while: what was said" "" "$(<err)$(grep -h failed notes/*)"
not_running $pid && fail "stopped for a while: the job ended"
kill -TERM $pid
wait_code $pid
expect "stopped for a while: code" 143 "$code"

# ---- it thinks: named at first and again, with what the others wait in; then the operation is over
start --peer-timeout 1 --operation-timeout 5 -- "$rank" notes 7 think "$mark"
wait_code $pid
named="kolo run: rank 2 (host $(uname -n)) never entered .* #[0-9]* (.*); it is outside of kolo, after .*; 2 ranks wait since .* s"
warnings=$(grep -c "^$named; KOLO_TIMEOUT ends that after 5 s\$" err)
((warnings >= 1 && warnings <= 2)) || fail "a rank that thinks: $warnings warnings: $(<err)"
for r in 0 1; do
    expect_text "a rank that thinks: rank $r" "did not finish within 5 s" "$(tail -n 1 notes/$r)"
done
[[ $(<err) != *"rank 2 (host $(uname -n), pid"*silent* ]] || fail "a rank that thinks was taken for dead: $(<err)"

finish
