#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run --max on this machine: slots that are free from the start get ranks; and what is refused.
# Several hosts: tests/cluster/discover_root_test.sh.
# shellcheck disable=SC2317 # functions are called by name
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
export KOLO_TIMEOUT=30 KOLO_INIT_TIMEOUT=30
end=$PWD/end.$mark

# said EPOCH SIZE: as many ranks as that have said that they are in it.
said() {
    [[ $(grep -c "epoch $1: rank [0-9]* of $2," out) == "$2" ]]
}

# ---- wrong usage
# refused WHAT ARGUMENTS: the text that says so.
refused() {
    run "${@:2}" -- true
    expect "$*: exit code" 64 "$code"
    expect_text "$*" "$1" "$err"
}
refused "--max 4: say with --min how many ranks" --max 4
refused "--max 2 is less than -n 3: raise it" --min 1 --max 2 -n 3
refused "--max 2 is less than --min 3: raise it" --min-np 3 --max-np 2
refused "--discover: say with --max" --min 1 --discover true
refused "leave --hosts and --hostfile out" --min 1 --max 2 --host-discovery-script true -H localhost:2
refused "--min 3 is more than the 2 slots of localhost:2" --min 3 --max 4 -H localhost:2

# ---- two begin, and a third comes; without --min it is -n
rm -f out err
"$kolo" run -np 2 --max-np 4 -H localhost:3 -- "$TEST_DIR/launcher_trainer" "$end" >out 2>err </dev/null &
pid=$!
wait_until 20 said 0 2 || fail "two ranks do not start: $(cat out err)"
wait_until 20 said 1 3 || fail "no third comes: $(cat out err)"
expect_text "the newcomer" "[2] epoch 1: rank 2 of 3" "$(<out)"
# One that fails is not replaced: that is for --restarts.
kill -9 "$(sed -nE 's/.*epoch 1: rank 0 of 3, pid ([0-9]+)$/\1/p' out)"
wait_until 20 said 2 2 || fail "two do not go on: $(cat out err)"
touch "$end"
wait_code $pid
expect "exit code" 0 "$code"
expect "epochs" 2 "$(sed -nE 's/.*epoch ([0-9]+): .*/\1/p' out | sort -n | tail -n 1)"
grep "the sum is" out && fail "a newcomer has another state"

# ---- too few end the job at once: nobody is going to come
rm -f out err "$end"
"$kolo" run -np 2 --max-np 2 -H localhost:2 -- "$TEST_DIR/launcher_trainer" "$end" >out 2>err </dev/null &
pid=$!
wait_until 20 said 0 2 || fail "two ranks do not start: $(cat out err)"
kill -9 "$(sed -nE 's/.*epoch 0: rank 1 of 2, pid ([0-9]+)$/\1/p' out)"
wait_code $pid
expect "too few: exit code" 76 "$code"

# ---- as many as there are slots, --max at most
run --min 1 --max 2 -H localhost:3 --dry-run -- true
expect_text "without -n" "2 ranks on this host" "$out"
run --min 1 --max 2 --discover ./hosts.sh --dry-run -- true
expect_text "discovered" "ranks: 1 to 2, on the hosts that ./hosts.sh prints" "$out"
finish
