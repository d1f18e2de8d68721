#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Ranks that nobody but a loop starts, with the variables of each launcher: they form a world, and
# rank 0 holds the rendezvous; what goes wrong is said by name.
# shellcheck disable=SC2317,SC2034 # functions are called by name; a descriptor is held
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launch/common.sh"

# ---- a world, in each style
for style in torchrun torch_bare slurm horovod trainer kolo; do
    KOLO_LOG=info start "$style" 3 "$member" sum
    finish_ranks
    expect "$style: codes" "0 0 0" "$codes"
    for r in 0 1 2; do
        expect_text "$style: rank $r" "rank $r of 3 done" "$(<"rank$r")"
    done
    expect "$style: what was found is said once" 1 "$(cat rank[0-2] | grep -c ' info: 3 ranks, by ')"
    expect_text "$style: by rank 0" "meeting at 127.0.0.1:" "$(<rank0)"
done

# ---- examples, unchanged
start torchrun 2 "$BIN_DIR/hello_allreduce"
finish_ranks
expect "hello_allreduce: codes" "0 0" "$codes"
expect "hello_allreduce" "rank 1 of 2: the sum of all ranks is 1" "$(<rank1)"

# ---- two jobs with the same MASTER_PORT, told apart by their ids
export KOLO_LOG=info
TORCHELASTIC_RUN_ID=first start torchrun 2 "$member" late 1
first=("${pids[@]}")
mkdir -p first && mv rank[01] first
TORCHELASTIC_RUN_ID=second start torchrun 2 "$member" late 1
finish_ranks
expect "second job: codes" "0 0" "$codes"
pids=("${first[@]}")
finish_ranks
expect "first job: codes" "0 0" "$codes"
place=$(grep -ho 'meeting at .*' first/rank0 rank0 | sort -u | wc -l)
expect "two jobs meet in two places" 2 "$place"
unset KOLO_LOG

# ---- an old generation is refused, and does no harm
TORCHELASTIC_RUN_ID=x TORCHELASTIC_RESTART_COUNT=1 start torchrun 2 "$member" turn made
started 2
RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=$host MASTER_PORT=$port \
    TORCHELASTIC_RUN_ID=x TORCHELASTIC_RESTART_COUNT=0 KOLO_INIT_TIMEOUT=3 timeout 30 "$member" sum >old 2>&1
expect "old generation: code" 9 $?
expect_text "old generation" "of its job id and token" "$(<old)"
expect "generation 1 says so once and goes on" 1 "$(grep -c "of job 'torchrun-x.0'" rank0)"

# ---- a rank dies: the others name it
kill_rank 1
finish_ranks
expect_text "rank 1 was killed" "KOLO_ERR_PEER_LOST" "$(<rank0)"
expect_text "rank 1 was killed" "rank 1 (host $(uname -n), pid" "$(<rank0)"
start torchrun 3 "$member" turn made
started 3
kill_rank 0
finish_ranks
for r in 1 2; do
    expect_text "rank 0 was killed" "KOLO_ERR_PEER_LOST" "$(<"rank$r")"
    expect_text "rank 0 was killed" "rank 0 (host $(uname -n), pid" "$(<"rank$r")"
done
start torchrun 3 "$member" leave 0
finish_ranks
expect "rank 0 left: codes" "3 9 9" "$codes"
expect_text "rank 0 left" "rank 0 (host $(uname -n), pid" "$(<rank2)"
expect_text "rank 0 left" "without kolo_finalize" "$(<rank2)"

# ---- the server stays until all have heard what went wrong, and until all have left
start torchrun 3 "$member" differ 0
finish_ranks
expect "ranks differ: codes" "9 9 9" "$codes"
for r in 0 1 2; do
    expect_text "ranks differ" "KOLO_ERR_MISMATCH" "$(<"rank$r")"
done
start torchrun 3 "$member" late 2
finish_ranks
expect "a late rank: codes" "0 0 0" "$codes"

# ---- a rank that lives and does not come is named to those that wait, though no kolo run watches
rm -rf notes
mkdir notes
KOLO_PEER_TIMEOUT=1 KOLO_TIMEOUT=4 start torchrun 3 "$TEST_DIR/chaos_rank" notes 7 think
wait "${pids[0]}" "${pids[1]}"
kill "${pids[2]}"
finish_ranks
named="rank 2 (host $(uname -n)) never entered .* #[0-9]* (.*); it is outside of kolo, after .*; 2 ranks wait since"
for r in 0 1; do
    grep -q "kolo\[$r@.* warn: this rank is held up: $named" rank$r || fail "a rank that thinks: rank $r says '$(<rank$r)'"
done
# Whose deadline passes first ends; if that is rank 0, which serves, the other may hear of that instead.
failed="failed .* did not finish within 4 s.* $named"
grep -q "$failed" notes/0 || grep -q "$failed" notes/1 || fail "a rank that thinks: $(cat notes/*)"
for r in 0 1; do
    grep -q -e "$failed" -e "failed .* rank $((1 - r)) .*" notes/$r || fail "a rank that thinks: rank $r: $(<notes/$r)"
done
expect "a rank that thinks says nothing" "" "$(<rank2)"

# ---- a world is joined once
start torchrun 2 "$member" again
finish_ranks
expect "again: codes" "9 9" "$codes"
expect_text "again" "KOLO_ERR_WORLD: kolo_init: this process joined its world and left it" "$(<rank1)"

# ---- who is missing
RANK=0 WORLD_SIZE=3 LOCAL_RANK=0 LOCAL_WORLD_SIZE=3 MASTER_PORT=$port KOLO_INIT_TIMEOUT=1 \
    timeout 20 "$member" sum >out 2>&1
expect "missing: code" 9 $?
expect_text "missing" "2 of 3 ranks did not join within 1 s; missing: 1-2" "$(<out)"

# ---- who is missing is said while there is time to do something about it, on both sides
rm -f rank[0-9]*
one_of_five() {
    env RANK="$1" WORLD_SIZE=5 LOCAL_RANK="$1" LOCAL_WORLD_SIZE=5 MASTER_ADDR=$host MASTER_PORT=$port KOLO_INIT_TIMEOUT=40 timeout 60 "$member" sum >"rank$1" 2>&1 &
    pids[$1]=$!
}
pids=()
for r in 0 1 2; do one_of_five $r; done
RANK=1 WORLD_SIZE=2 MASTER_ADDR=$host MASTER_PORT=$((port + 30)) KOLO_INIT_TIMEOUT=18 timeout 30 "$member" sum >lonely 2>&1 &
lonely=$!
told() { grep -q "warn: the world waits for 2 of 5 ranks: 3-4" rank0; }
wait_until 25 told || fail "nobody is told who is missing: $(<rank0)"
for r in 3 4; do one_of_five $r; done
finish_ranks
expect "late, but there: codes" "0 0 0 0 0" "$codes"
wait $lonely
expect "lonely: code" 9 $?
expect_text "lonely" "warn: has not reached rank 0 yet: " "$(<lonely)"
expect_text "lonely" "Connection refused" "$(<lonely)"

# ---- a crowd that says nothing holds nobody up for long
env RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2 MASTER_ADDR=$host MASTER_PORT=$port KOLO_LOG=info timeout 60 "$member" sum >rank0 2>&1 &
pids=($!)
meeting() { grep -q 'meeting at' rank0; }
wait_until 10 meeting || fail "no rendezvous"
place=$(grep -o 'meeting at .*' rank0)
rm -f crowd # of an earlier run
(
    for ((i = 0; i < 700; i++)); do
        exec {fd}<>"/dev/tcp/127.0.0.1/${place##*:}" || break
    done
    echo ready >crowd
    exec sleep 40
) 2>/dev/null &
crowd=$!
wait_until 20 test -e crowd || fail "no crowd"
RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=$host MASTER_PORT=$port KOLO_INIT_TIMEOUT=15 timeout 60 "$member" sum >rank1 2>&1 &
pids[1]=$!
finish_ranks
expect "a crowd: codes" "0 0" "$codes"
expect_text "a crowd" "it proved nothing while many others waited" "$(<rank0)"
kill $crowd

# ---- two jobs at one port, without ids
start torchrun 2 "$member" turn made
started 2
RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=$host MASTER_PORT=$port timeout 30 "$member" sum >out 2>&1
expect "same rank twice: code" 9 $?
expect_text "same rank twice" "give each a KOLO_JOB or a port of its own (MASTER_PORT)" "$(<out)"
kill_rank 1
finish_ranks

# alone WORDS VARIABLE...: refused at once, with these words.
alone() {
    local words=$1
    shift
    env "$@" timeout 10 "$member" sum >out 2>&1
    expect "$*: code" 9 $?
    expect_text "$*" "$words" "$(<out)"
}
alone "RANK=0 and WORLD_SIZE=1 (torchrun) contradict OMPI_COMM_WORLD_RANK=1 and OMPI_COMM_WORLD_SIZE=2" \
    RANK=0 WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2
alone "RANK is 1 but WORLD_SIZE is not set" RANK=1
alone "MASTER_ADDR (the host of rank 0) is not set" RANK=1 WORLD_SIZE=2
alone "KOLO_RENDEZVOUS is not set" KOLO_RANK=1 KOLO_WORLD_SIZE=2
alone "the job has no token: set KOLO_TOKEN_FILE" RANK=0 WORLD_SIZE=2 MASTER_ADDR=192.0.2.1
alone "this is no address of rank 0's host" RANK=0 WORLD_SIZE=2 MASTER_ADDR=192.0.2.77 KOLO_TOKEN=0123456789abcdef
alone "this is no address of rank 0's host" SLURM_PROCID=0 SLURM_NTASKS=2 \
    SLURM_JOB_NODELIST=192.0.2.77,b KOLO_TOKEN=0123456789abcdef

finish
