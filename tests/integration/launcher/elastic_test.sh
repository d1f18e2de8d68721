#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run --min: the job goes on while enough ranks are left. And the same without kolo run, where
# rank 0 holds the rendezvous.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
elastic=$TEST_DIR/launcher_elastic
export KOLO_TIMEOUT=30 KOLO_INIT_TIMEOUT=30
end=$PWD/end.$mark

# said EPOCH SIZE FILE...: as many ranks as that have said that they are in it.
said() {
    [[ $(cat "${@:3}" | grep -c "epoch $1: rank [0-9]* of $2,") == "$2" ]]
}

# pid_of EPOCH RANK FILE...
pid_of() {
    cat "${@:3}" | sed -nE "s/.*epoch $1: rank $2 of [0-9]+, pid ([0-9]+)\$/\1/p"
}

for transport in shm tcp; do
    export KOLO_TRANSPORT=$transport
    # ---- two of four are lost, one after the other; two are enough
    rm -f out err "$end"
    "$kolo" run --min 2 -n 4 -- "$elastic" "$end" >out 2>err &
    pid=$!
    wait_until 20 said 0 4 out || fail "$transport: four ranks do not start: $(<err)"
    first=$(pid_of 0 1 out)
    kill -9 "$first"
    wait_until 20 said 1 3 out || fail "$transport: three do not go on: $(<err)"
    kill -9 "$(pid_of 1 2 out)"
    wait_until 20 said 2 2 out || fail "$transport: two do not go on: $(<err)"
    touch "$end"
    wait_code $pid
    expect "$transport: survived: exit code" 0 "$code"
    expect_text "$transport: survived" \
        "kolo run: rank 1 (host $(uname -n), pid $first) was killed by signal 9 (SIGKILL); the other 3 go on" \
        "$(<err)"

    # ---- the third is one too many
    rm -f out err "$end"
    "$kolo" run --min 2 -n 3 -- "$elastic" "$end" >out 2>err &
    pid=$!
    wait_until 20 said 0 3 out || fail "$transport: three ranks do not start: $(<err)"
    kill -9 "$(pid_of 0 2 out)"
    wait_until 20 said 1 2 out || fail "$transport: two do not go on: $(<err)"
    kill -9 "$(pid_of 1 1 out)"
    wait_code $pid
    expect "$transport: too few: exit code" 76 "$code"
    expect_text "$transport: too few" "in consequence" "$(<err)"
done
unset KOLO_TRANSPORT

# ---- a stopped rank is expelled, and does not keep the job from ending
rm -f out err "$end"
KOLO_TIMEOUT=2 "$kolo" run --min 1 --grace 1 -n 3 -- "$elastic" "$end" >out 2>err &
pid=$!
wait_until 20 said 0 3 out || fail "three ranks do not start: $(<err)"
kill -STOP "$(pid_of 0 2 out)"
wait_until 20 said 1 2 out || fail "two do not go on without the stopped one: $(<err)"
touch "$end"
wait_code $pid
expect "stopped: exit code" 0 "$code"

# ---- the last that is left is stopped: before the others' fault, or before it is known to be
for moment in before after; do
    rm -f out err "$end"
    "$kolo" run --min 1 --peer-timeout 2 --grace 1 -n 2 -- "$elastic" "$end" >out 2>err &
    pid=$!
    wait_until 20 said 0 2 out || fail "two ranks do not start: $(<err)"
    kill -STOP "$(pid_of 0 0 out)"
    [[ $moment == after ]] || wait_until 20 said 1 1 out || fail "one does not go on: $(<err)"
    kill -9 "$(pid_of 0 1 out)"
    wait_code $pid
    ((code != 0)) || fail "nobody is left, $moment: exit code 0: $(<err)"
    expect_text "nobody is left, $moment" "rank 1 (host $(uname -n), pid " "$(<err)"
done

# ---- without kolo run: rank 0's thread is the server; a newcomer comes by hand
export KOLO_WORLD_SIZE=3 KOLO_TOKEN=$mark.of.a.test.alone KOLO_RENDEZVOUS=127.0.0.1:$((21000 + $$ % 8000))
rm -f rank? "$end"
pids=()
for r in 0 1 2; do
    KOLO_RANK=$r "$elastic" "$end" >"rank$r" 2>&1 &
    pids[r]=$!
done
wait_until 20 said 0 3 rank0 rank1 rank2 || fail "three ranks do not meet: $(cat rank?)"
kill -9 "${pids[1]}"
wait_until 20 said 1 2 rank0 rank2 || fail "by themselves two do not go on: $(cat rank?)"
KOLO_NEWCOMER=1 "$elastic" "$end" >rank3 2>&1 &
pids[3]=$!
wait_until 20 said 2 3 rank0 rank2 rank3 || fail "the newcomer is not taken in: $(cat rank?)"
expect_text "the newcomer is the last" "epoch 2: rank 2 of 3" "$(<rank3)"
kill -9 "${pids[0]}"
for r in 2 3; do
    wait_code "${pids[r]}"
    expect "rank 0 lost: exit code of rank$r" 4 "$code"
    expect_text "rank 0 lost: rank$r" "which held the rendezvous, is gone" "$(<rank$r)"
    expect_text "rank 0 lost: rank$r" "whoever started the job has to start it again" "$(<rank$r)"
done
finish
