# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # variables are for those who source this file
#
# What the tests of launchers share: ranks started by loops that set variables, as launchers do.

# shellcheck source=../launcher/common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
member=$TEST_DIR/launch_member
export KOLO_INIT_TIMEOUT=30 KOLO_TIMEOUT=30
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# MPI libraries keep memory until a process ends, and take their own locks in more than one order.
export ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=detect_deadlocks=0

# Ports of its own for each test, so that tests beside each other do not meet.
port=$((21000 + $$ % 800 * 10))

# The variables of rank $1 of $2, by the style of a launcher. $host is where rank 0 is.
host=127.0.0.1
variables_torchrun() {
    echo "RANK=$1 WORLD_SIZE=$2 LOCAL_RANK=$1 LOCAL_WORLD_SIZE=$2 MASTER_ADDR=$host MASTER_PORT=$port"
}
variables_torch_bare() {
    echo "RANK=$1 WORLD_SIZE=$2 MASTER_ADDR=$host MASTER_PORT=$port"
}
variables_slurm() {
    echo "SLURM_PROCID=$1 SLURM_NTASKS=$2 SLURM_LOCALID=$1 SLURM_JOB_NODELIST=$host SLURM_JOB_ID=$port SLURM_STEP_ID=0"
}
variables_horovod() {
    echo "HOROVOD_RANK=$1 HOROVOD_SIZE=$2 HOROVOD_LOCAL_RANK=$1 HOROVOD_LOCAL_SIZE=$2 HOROVOD_GLOO_RENDEZVOUS_ADDR=$host HOROVOD_GLOO_RENDEZVOUS_PORT=$port"
}
variables_trainer() {
    echo "PET_NODE_RANK=$1 PET_NNODES=$2 PET_NPROC_PER_NODE=auto PET_MASTER_ADDR=$host PET_MASTER_PORT=$port"
}
variables_kolo() {
    echo "KOLO_RANK=$1 KOLO_WORLD_SIZE=$2 KOLO_RENDEZVOUS=$host:$port"
}

# start STYLE RANKS COMMAND...: in the background; the last rank first. Output of rank r: rank$r.
start() {
    local style=$1 ranks=$2 variables
    shift 2
    pids=()
    rm -f rank[0-9]*
    for ((r = ranks - 1; r >= 0; r--)); do
        read -ra variables < <("variables_$style" "$r" "$ranks")
        env "${variables[@]}" timeout -k 2 60 "$@" >"rank$r" 2>&1 &
        pids[r]=$!
    done
}

# started RANKS: waits until these have written their pids into made.rank*.
rm -f made.rank*
all_made() {
    for ((r = 0; r < $1; r++)); do
        [[ -s made.rank$r ]] || return 1
    done
}
started() {
    wait_until 20 all_made "$1" || fail "the world did not start"
}

# kill_rank RANK, after started.
kill_rank() {
    kill -KILL "$(<"made.rank$1")"
    rm -f made.rank*
}

# finish_ranks: waits for all; their codes, with blanks between, are in $codes.
finish_ranks() {
    local codes_of=()
    for r in "${!pids[@]}"; do
        wait "${pids[r]}"
        codes_of[r]=$?
    done
    codes="${codes_of[*]}"
}
