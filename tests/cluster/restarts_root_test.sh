#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run --restarts over several hosts: ranks that fail are started again where they were, or elsewhere.
# shellcheck disable=SC2317 # functions are called by name
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
trap hosts_down EXIT
hosts_up 3
install_for_all
cp "$TEST_DIR/launcher_elastic" "$place/bin"
echo "a secret of this job" >"$place/token"
export KOLO_TOKEN_FILE=$place/token KOLO_TIMEOUT=30 KOLO_INIT_TIMEOUT=30
end=$place/end.$mark

: >"$place/agent.err"
on host2 "$kolo" agent </dev/null 2>"$place/agent.err" &
wait_until 10 grep -q "listens at" "$place/agent.err" || fail "the agent does not listen: $(<"$place/agent.err")"

# said EPOCH SIZE: as many ranks as that have said that they are in it.
said() {
    [[ $(grep -c "epoch $1: rank [0-9]* of $2," out) == "$2" ]]
}

# pid_of EPOCH RANK, on its host
pid_of() {
    sed -nE "s/.*epoch $1: rank $2 of [0-9]+, pid ([0-9]+)\$/\1/p" out
}

# begin ARGUMENTS: kolo run on host1, or on $from, beside us, as $pid.
begin() {
    rm -f out err "$end"
    (cd "$place" && exec env "KOLO_TOKEN_FILE=$KOLO_TOKEN_FILE" nsenter --target "${HOSTS_PID[${from:-host1}]}" --net --uts --mount --pid \
        --wd="$place" -- timeout -k 2 60 "$kolo" run --agent-port 7701 "$@") >out 2>err </dev/null &
    pid=$!
}

# part HOST NUMBER: nothing comes from that other host any more.
part() {
    on "$1" nft "add table inet cut; add chain inet cut input { type filter hook input priority 0 ; };
        add rule inet cut input ip saddr 10.77.0.$2 drop; add rule inet cut input ip6 saddr fd77::$2 drop"
}

# run_three HOSTS [FLAG...]: three ranks, all needed, until the file is there.
run_three() {
    begin --min 3 --restarts 3 -n 3 --hosts "$1" "${@:2}" -x LD_LIBRARY_PATH="$place/lib" -- bin/launcher_elastic "$end"
    wait_until 20 said 0 3 || fail "$1: three ranks do not start: $(<err)"
}

# end_three HOSTS
end_three() {
    touch "$end"
    wait $pid
    expect "$1: code" 0 $?
    grep "nothing of the job is left" err && fail "$1: agents do not go when the ranks have ended"
    wait_until 5 none_left host1 || fail "$1: left behind: $(left_on host1)"
}

# ---- the only rank of a host, whose agent waits; then that host has failed twice, and another takes it
run_three host2:1,host1:3
first=$(pid_of 0 0)
on host2 kill -9 "$first"
wait_until 20 said 1 3 || fail "the lost rank is not replaced: $(<err)"
expect_text "replaced" "[0] epoch 1: rank 2 of 3" "$(<out)"
expect_text "replaced" \
    "kolo run: rank 0 (host host2, pid $first) was killed by signal 9 (SIGKILL); the other 2 go on, and it is started again (1 of 3)" "$(<err)"
second=$(pid_of 1 2)
on host2 kill -9 "$second"
wait_until 20 said 2 3 || fail "the successor is not replaced: $(<err)"
expect_text "successor" "rank 0 (host host2, pid $second) was killed by" "$(<err)"
expect_text "cool-down" "host2: two ranks failed within a minute: none is started again here for 30 s" "$(<err)"
third=$(pid_of 2 2)
on host1 kill -9 "$third"
wait_until 20 said 3 3 || fail "the successor elsewhere is not replaced: $(<err)"
expect_text "elsewhere" "rank 0 (host host1, pid $third) was killed by" "$(<err)"
end_three "two hosts"

# ---- a host that had no ranks takes those of one whose agent is lost
run_three host2:3,host1:3
agent=$(on host2 ps -o ppid= -p "$(pid_of 0 0)")
on host2 kill -9 $agent # a number
wait $pid
expect "all lost: code" 76 $?
run_three host2:2,host1:3
agent=$(on host2 ps -o ppid= -p "$(pid_of 0 0)")
on host2 kill -9 $agent
wait_until 20 said 1 3 || fail "ranks of a lost host are not replaced: $(<err)"
expect_text "a lost host" "rank 0 (host host2, pid " "$(<err)"
expect_text "a lost host" "was lost: its agent has gone" "$(<err)"
end_three "lost host"

# ---- none is left: the others' end is the job's
begin --min 2 --restarts 1 --hosts host1:1,host2:2 -x LD_LIBRARY_PATH="$place/lib" -- bin/launcher_elastic "$end"
wait_until 20 said 0 3 || fail "three ranks do not start: $(<err)"
on host1 kill -9 "$(pid_of 0 0)"
wait_until 20 said 2 3 || fail "rank 0 is not replaced: $(<err)"
on host2 kill -9 "$(pid_of 2 0)" "$(pid_of 2 1)"
wait $pid
expect "too few: code" 76 $?

# ---- nothing passes between two hosts, for good: who is started again on one of them does not reach the other either, and is not the one
# that stays
on host1 "$kolo" agent </dev/null 2>"$place/agent1.err" &
wait_until 10 grep -q "listens at" "$place/agent1.err" || fail "the agent does not listen: $(<"$place/agent1.err")"
from=host3 begin --min 1 --restarts 5 --peer-timeout 2 --hosts host1:1,host2:1 -x LD_LIBRARY_PATH="$place/lib" -- bin/launcher_elastic "$end"
wait_until 20 said 0 2 || fail "two ranks do not start: $(<err)"
first=$(pid_of 0 0)
part host1 2
part host2 1
wait_until 40 grep -q "rank 1 (host host2, .* (2 of 5)" err || fail "the successor of who was cut off stays: $(<err)"
grep "rank 0 (host host1, pid $first)" err && fail "the one that has been there from the start has to go"
expect_text "cut off" "is cut off from rank 0 (host host1), though not from the rendezvous" "$(<err)"
touch "$end"
wait $pid
expect "cut off: code" 0 $?
finish
