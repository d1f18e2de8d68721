#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Programs started by real mpirun (Open MPI) and real mpiexec (MPICH), unchanged.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launch/common.sh"
mpirun=$(command -v mpirun.openmpi || command -v mpirun) || mpirun=
mpiexec=$(command -v mpiexec.mpich) || mpiexec=
if [[ -z $mpirun || -z $mpiexec ]]; then
    echo "skipped: needs openmpi-bin and mpich"
    exit 77
fi

# by_mpirun RANKS COMMAND..., by_mpiexec RANKS COMMAND...: leave $out, $err, $code.
by_mpirun() {
    timeout -k 2 60 "$mpirun" --oversubscribe --bind-to none -np "$@" >out 2>err
    code=$? out=$(<out) err=$(<err)
}
by_mpiexec() {
    timeout -k 2 60 "$mpiexec" -n "$@" >out 2>err
    code=$? out=$(<out) err=$(<err)
}

# Where it was just writing to a rank that it has killed, hydra breaks itself, or dies of SIGPIPE (code 141), and
# loses what ranks said.
by_whole_mpiexec() {
    local try
    for ((try = 0; try < 5; try++)); do
        by_mpiexec "$@"
        [[ $code == 141 || $err == *"HYDU_sock_write"*"Broken pipe"* ]] || break
    done
}

text=$PWD/text
mkdir -p "$text"
for file in 1 2 3 4 5 6 7 8; do
    seq -f "the %g th turn of the round goes to the left, " "$file" 7 2000 >"$text/part$file.txt"
done
train=("$BIN_DIR/train_bytes" --layers 1 --width 32 --heads 2 --context 32 --batch 4
    --held-out-bytes 4096 --threads 1 --steps 20)

for launcher in by_mpirun by_mpiexec; do
    $launcher 2 "$BIN_DIR/hello_allreduce"
    expect "$launcher: hello_allreduce: code" 0 "$code"
    expect "$launcher: hello_allreduce" "rank 0 of 2: the sum of all ranks is 1
rank 1 of 2: the sum of all ranks is 1" "$(sort out)"
    $launcher 4 "$member" sum
    expect "$launcher: 4 ranks" "0 4" "$code $(grep -c 'of 4 done' out)"
    $launcher 1 "$member" sum
    expect "$launcher: a world of one" "0 rank 0 of 1 done" "$code $out"
    rm -f losses.csv
    $launcher 2 "${train[@]}" --csv "$PWD/losses.csv" "$text"
    expect "$launcher: train_bytes: code" 0 "$code"
    expect "$launcher: train_bytes: steps" 20 "$(grep -c '^[0-9]' losses.csv)"
    KOLO_RENDEZVOUS=127.0.0.1:$port $launcher 3 "$member" sum
    expect "$launcher: at a place that was given" "0 3" "$code $(grep -c 'of 3 done' out)"
    $launcher 2 "$member" leave 1
    [[ $code != 0 ]] || fail "$launcher: a rank failed, and nobody knows"
done

# ---- what was found is said once
export KOLO_LOG=info
by_mpirun 2 "$member" sum
expect "mpirun: said once" 1 "$(grep -c 'info: 2 ranks, by Open MPI (OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE), meeting at' err)"
by_mpiexec 2 "$member" sum
expect "mpiexec: said once" 1 "$(grep -c 'info: 2 ranks, by MPICH (PMI_RANK, PMI_SIZE), meeting at' err)"
unset KOLO_LOG

# ---- mpiexec: who does not come is named
# shellcheck disable=SC2016 # for the ranks' shells
late='case $PMI_RANK in 1 | 3) exec sleep 6 ;; esac; exec "$0" sum'
KOLO_INIT_TIMEOUT=2 by_whole_mpiexec 5 bash -c "$late" "$member"
[[ $code != 0 && $code != 124 ]] || fail "mpiexec: ranks are missing, and the code is $code"
expect_text "mpiexec: who is missing" "KOLO_ERR_TIMEOUT: 2 of 5 ranks did not call kolo_init in time; missing: 1, 3. See" "$err$out"

# ---- mpiexec: a rank that fails before it meets the others ends the job, though they wait, or have not come so far
# shellcheck disable=SC2016
wrong='[[ $PMI_RANK != 1 ]] || export KOLO_STREAMS=many; [[ $PMI_RANK != 2 ]] || exec sleep 1000; exec "$0" sum'
by_whole_mpiexec 4 bash -c "$wrong" "$member"
[[ $code != 0 && $code != 124 ]] || fail "mpiexec: a rank's option is wrong, and the code is $code"
expect_text "mpiexec: a wrong option" "KOLO_STREAMS=many: give a number" "$err$out"
# shellcheck disable=SC2016
never='[[ $PMI_RANK != 1 ]] || exec sleep 1000; exec "$0" sum'
KOLO_INIT_TIMEOUT=1 by_whole_mpiexec 3 bash -c "$never" "$member"
[[ $code != 0 && $code != 124 ]] || fail "mpiexec: a rank never comes, and the code is $code"
expect_text "mpiexec: it is named" "missing: 1. See" "$err$out"
by_mpiexec 2 "$member" again
expect "mpiexec: a second world is refused, and nobody is killed for it" "9 2 0" \
    "$code $(grep -c 'joined its world and left it' err) $(grep -c 'BAD TERMINATION' out)"

# ---- allreduces by MPI itself
export KOLO_ALGORITHM=mpi
for dtype in int8 uint16 int32 int64 fp32 fp64; do
    by_mpirun 3 "$BIN_DIR/kolo" bench allreduce --dtype "$dtype" --op all --min 8 --max 32K --factor 64 --seconds 0.001
    expect "by MPI: $dtype" "0 # wrong results: 0" "$code $(grep 'wrong results' out)"
done
by_mpirun 2 "$BIN_DIR/kolo" bench allreduce --in-place --min 1M --max 1M --seconds 0.01
expect "by MPI: in place" "0 # wrong results: 0" "$code $(grep 'wrong results' out)"
by_mpirun 2 "$member" differ 0
[[ $code != 0 ]] || fail "by MPI: ranks differ, and nobody knows"
expect_text "by MPI: ranks differ" "KOLO_ERR_MISMATCH" "$err$out"
expect_text "by MPI: it was MPI" "(1 x fp32, max, mpi)" "$err$out"
by_mpirun 3 "$member" unused 20
expect "by MPI: communicators that end before they did anything: code" 0 "$code"
by_mpirun 2 "${train[@]}" --csv "$PWD/by_mpi.csv" "$text"
expect "by MPI: train_bytes: steps" 20 "$(grep -c '^[0-9]' by_mpi.csv)"
by_mpirun 2 "$BIN_DIR/kolo" bench allreduce --dtype bf16 --min 1K --max 1K --seconds 0.01 # MPI has none: kolo does it
expect "by MPI: bf16" "0 # wrong results: 0" "$code $(grep 'wrong results' out)"
KOLO_DETERMINISTIC=1 by_mpirun 3 "$BIN_DIR/kolo" bench allreduce --algorithm mpi --min 1K --max 1K --seconds 0.01
expect_text "by MPI: deterministic" "KOLO_DETERMINISTIC=1 demands" "$err$out"
KOLO_ENCRYPT=1 by_mpirun 2 "$BIN_DIR/kolo" bench allreduce --min 1K --max 1K --seconds 0.01
expect "by MPI, encrypted: kolo does it" "0 # wrong results: 0" "$code $(grep 'wrong results' out)"
expect_text "by MPI, encrypted: said" "KOLO_ALGORITHM=mpi is left aside: MPI neither encrypts nor checks" "$err"
unset KOLO_ALGORITHM
timeout 20 "$BIN_DIR/kolo" bench allreduce -n 2 --algorithm mpi --min 1K --max 1K --seconds 0.01 >out 2>&1
expect_text "no MPI" "MPI is not here: mpirun starts worlds that have it" "$(<out)"

# ---- without the module: on one host they meet all the same, on several the remedy is named
mkdir -p bare
cp -a "$BUILD_DIR"/lib/libkolo.so* bare
export KOLO_LOG=debug LD_LIBRARY_PATH=$PWD/bare
by_mpirun 2 "$member" sum
expect "no module: one host" "0 2" "$code $(grep -c 'of 2 done' out)"
expect_text "no module: said" "MPI module cannot be loaded" "$err"
unset KOLO_LOG
OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1 \
    timeout 10 "$member" sum >out 2>&1
expect "no module: several hosts: code" 9 $?
expect_text "no module: several hosts" "KOLO_ERR_UNSUPPORTED" "$(<out)"
expect_text "no module: several hosts" "set KOLO_RENDEZVOUS to HOST:PORT" "$(<out)"
unset LD_LIBRARY_PATH

# ---- a program with an MPI of its own, which it begins first
if [[ -z $SANITIZE ]] && pkg-config --exists ompi-c; then
    read -ra flags < <(pkg-config --cflags --libs ompi-c)
    "$CC" -I "$SOURCE_DIR/include" "$SOURCE_DIR/tests/integration/launch/with_mpi/with_mpi.c" -o with_mpi \
        -L "$BUILD_DIR/lib" -lkolo -Wl,-rpath,"$BUILD_DIR/lib" "${flags[@]}" || fail "with_mpi.c does not compile"
    by_mpirun 2 ./with_mpi
    expect "a program with MPI" "0 2" "$code $(grep -c 'both sums are right' out)"
fi

finish
