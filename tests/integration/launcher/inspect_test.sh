#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Flight recorders: who holds up whom, while it hangs (kolo inspect) and when it failed (kolo run).
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
holdup=$TEST_DIR/launcher_holdup
host=$(uname -n)
entered="rank 2 (host $host) never entered allreduce #11 (5 x fp32, sum"

# start ARGUMENTS: in the background, until all four ranks are ready; leaves $pid.
start() {
    rm -f out err
    "$kolo" run -n 4 "$@" >out 2>err &
    pid=$!
    wait_until 10 lines_in out 4 || fail "the ranks do not start: $(<err)"
}

# stuck TEXT: kolo inspect of the job says so.
stuck() {
    "$kolo" inspect "$job" >seen 2>&1 && grep -qF "$1" seen
}

find_job() {
    job=$(tr '\0' '\n' <"/proc/$(children_of $pid | awk '{print $NF}')/environ" | sed -n 's/^KOLO_JOB=//p')
}

end() {
    kill -KILL $pid
    wait $pid 2>/dev/null
}

# ---- while it hangs
start -- "$holdup" 2 sleep
find_job
wait_until 10 stuck "$entered" || fail "a rank that computes is not named: $(<seen)"
expect_text "the job" "job $job: 4 of 4 ranks are on this host" "$(<seen)"
expect "a line a rank" 4 "$(grep -c '^  rank [0-3]' seen)"
expect_text "what it does" "; it is outside of kolo, after allreduce #10 (5 x fp32" "$(<seen)"
expect "who waits" 3 "$(grep -c 'allreduce #11 .*, waits since [0-9.]* s$' seen)"
"$kolo" inspect --csv "$job" >csv || fail "no csv"
expect "columns" 'rank,communicator,kind,operation,phase,peer_or_root,wait_began_s,waited_s,step,bucket' "$(head -1 csv)"
expect "operations of the late rank" 10 "$(grep -c '^2,[0-9]*,collective,"allreduce #[0-9]* (5 x fp32.*",done,' csv)"
expect "of one that waits" 1 "$(grep -c '^0,[0-9]*,collective,"allreduce #11 (5 x fp32.*",called,' csv)"
"$kolo" inspect >all || fail "without a name"
expect_text "all jobs" "job $job: " "$(<all)"
end
"$kolo" inspect "$job" >seen 2>&1
expect "a job that is gone" "1 kolo inspect: no job $job runs on host $host, as far as this user may see" "$? $(<seen)"
"$kolo" inspect one two >seen 2>&1
expect "usage" 64 $?

start -- "$holdup" 2 stop
find_job
wait_until 10 stuck "; it is stopped (SIGSTOP, or a debugger); 3 ranks wait since " || fail "a stopped rank is not named: $(<seen)"
end

# ---- when it failed
KOLO_TIMEOUT=2 run -n 4 --flight-file flight.csv -- "$holdup" 2 sleep
expect "time-out: code" 3 "$code"
expect_text "time-out" "kolo run: $entered" "$err"
expect "the file" "$(printf '%s\n' 10 11 11 11)" "$(for rank in 2 0 1 3; do grep -c "^$rank,[0-9]*,collective,\"allreduce #" flight.csv; done)"
expect "what failed" 3 "$(grep -c 'allreduce #11 .*,failed,' flight.csv)"
run -n 2 --flight-file nowhere/flight.csv -- "$holdup" 1 die
expect "no such folder: code" 76 "$code"
expect_text "no such folder" "kolo run: KOLO_FLIGHT_FILE=nowhere/flight.csv: cannot write it: No such file" "$err"
run -n 4 --timeout 2 -- "$holdup" 2 stop
expect "--timeout: code" 124 "$code"
expect_text "--timeout" "; it is stopped (SIGSTOP, or a debugger); 3 ranks wait since " "$err"
run -n 4 -- "$holdup" 2 die
expect "a rank that dies: code" 76 "$code"
expect_text "a rank that dies" "kolo run: $entered" "$err"
expect_text "a rank that dies" "; its process has ended; 3 ranks wait since " "$err"
run -n 4 -- "$holdup" 2 other
expect_text "another collective" "kolo run: rank 2 (host $host) called barrier #11" "$err"
expect_text "another collective, the last line" "rank 2 (host $(uname -n)) called barrier #11" "$(tail -n 1 err)"
run -n 4 -- "$holdup" 2 abort
expect "abort: exit code" 3 "$code"
expect "abort: the last line" "kolo run: rank 2 (host $(uname -n)) aborted: the loss is no number; in consequence 3 other ranks failed (exit code 3)" "$(tail -n 1 err)"
run -n 4 -- "$holdup" 2 spoil
expect "spoilt state: exit code" 3 "$code"
expect_text "spoilt state: the last line" "kolo run: after step 3 ranks do not hold the same state: rank 2 (host $(uname -n)) has other contents of tensor 0 'weights'" "$(tail -n 1 err)"
expect_text "spoilt state: the last line" "; in consequence 4 ranks failed (exit code 3)" "$(tail -n 1 err)"
KOLO_TRANSPORT=tcp run -n 4 -- "$holdup" 2 die
expect_text "over TCP" "kolo run: $entered" "$err"
rm -f pipe && mkfifo pipe
run -n 2 --flight-file pipe -- "$holdup" 1 die
expect "a pipe that nobody reads: code" 76 "$code"
start -- "$holdup" 2 sleep
find_job
wait_until 10 stuck "$entered" && sleep 2.5
kill -TERM $pid
wait_code $pid
expect_text "SIGTERM to a job that hangs" "kolo run: $entered" "$(<err)"
start -- "$holdup" 2 message
find_job
wait_until 10 stuck "s in receive from rank 3" || fail "a message that does not come: $(<seen)"
expect_text "a message that does not come" "rank 2 (host $host) waits since " "$(<seen)"
end
# What bears the recorders' name and is none: a pipe without a writer.
if [[ -w / ]]; then
    trap 'rm -f "/memfd:kolo-flight-$mark"' EXIT
    mkfifo "/memfd:kolo-flight-$mark"
    # shellcheck disable=SC2094 # it holds both ends for a moment, so that neither waits
    (exec 3<>"/memfd:kolo-flight-$mark" 4<"/memfd:kolo-flight-$mark" 3>&- && exec sleep 20) &
    sleeper=$!
    timeout 10 "$kolo" inspect none-of-that-name >seen 2>&1
    expect "a pipe of that name" 1 $?
    kill $sleeper
fi
# ---- a name that a terminal would obey; and one that two users have
# alone NAME [COMMAND...]: a world of one rank that sleeps; its process is the last of $alone.
alone=()
alone() {
    local name=$1
    shift
    KOLO_JOB=$name KOLO_RANK=0 KOLO_WORLD_SIZE=1 "$@" 0 sleep >"ready${#alone[@]}" 2>&1 &
    alone+=($!)
    wait_until 10 lines_in "ready$((${#alone[@]} - 1))" 1 || fail "no rank of $name: $(<"ready$((${#alone[@]} - 1))")"
}
alone $'a\e[2J'"$mark" "$holdup"
"$kolo" inspect >seen 2>&1
expect_text "a name with control characters" "job a?[2J$mark: 1 of 1" "$(<seen)"
if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null; then
    # Where another user may read it, wherever this tree is.
    place=$(mktemp -d)
    trap 'rm -rf "$place" "/memfd:kolo-flight-$mark"' EXIT
    chmod 755 "$place"
    cp "$holdup" "$BIN_DIR"/../lib/libkolo.so.0 "$place"
    alone "shared-$mark" "$holdup"
    alone "shared-$mark" env LD_LIBRARY_PATH="$place" XDG_CACHE_HOME=/nonexistent setpriv --reuid 4711 --regid 4711 --clear-groups "$place/launcher_holdup"
    "$kolo" inspect "shared-$mark" >seen 2>&1
    expect "jobs of two users" "$(printf 'job shared-%s: 1 of 1 ranks are on this host\n' "$mark" "$mark")" "$(grep '^job' seen)"
fi
kill -KILL "${alone[@]}"
run -n 4 -- "$holdup" 2 none
expect "nobody: code and stderr" "0 " "$code $err"

((failures == 0))
