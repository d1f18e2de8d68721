#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Pods without a cluster: processes that find what pods find in their environment, on one host.
# shellcheck disable=SC2016,SC2317 # the ranks' shell expands them; functions are called by name
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launch/common.sh"
export KOLO_TOKEN=the-secret-of-this-test KUBERNETES_SERVICE_HOST=10.96.0.1
export KOLO_METRICS_PORT=0 # these pods share one address, and so the port that each would take
place="KOLO_RENDEZVOUS=127.0.0.1:$port"
variables_job() {
    echo "JOB_COMPLETION_INDEX=$1 KOLO_WORLD_SIZE=$2 $place HOSTNAME=train-$1 KOLO_JOB=6f1c"
}
variables_jobset() {
    echo "JOBSET_NAME=train JOBSET_REPLICATED_JOB=ranks JOBSET_JOB_INDEX=$(($1 / 2)) JOBSET_JOB_GLOBAL_INDEX=$(($1 / 2))" \
        "JOBSET_PODS_PER_JOB=2 JOBSET_RESTART_ATTEMPT=0 JOB_COMPLETION_INDEX=$(($1 % 2)) KOLO_WORLD_SIZE=$2 $place"
}
variables_statefulset() {
    echo "HOSTNAME=bench-$1 KOLO_WORLD_SIZE=$2 $place"
}
variables_volcano() {
    echo "VC_TASK_INDEX=$1 VC_WORKER_HOSTS=w-0.t,w-1.t,w-2.t,w-3.t HOSTNAME=w-$1 $place"
}
variables_trainjob() {
    echo "PET_NODE_RANK=$1 PET_NNODES=$2 PET_MASTER_ADDR=127.0.0.1 PET_MASTER_PORT=$port JOB_COMPLETION_INDEX=$1 $place"
}

# all_done STYLE: every rank of 4 printed its line, and the code was 0.
all_done() {
    for ((r = 0; r < 4; r++)); do
        wait "${pids[r]}" || fail "$1: rank $r: code $?: $(<"rank$r")"
        expect "$1: rank $r" "rank $r of 4 done" "$(<"rank$r")"
    done
}

# ---- the program itself is the pod's command; or kolo run with a rank in each
for style in job jobset statefulset volcano trainjob; do
    start $style 4 "$member" sum
    all_done $style
done
for style in job jobset statefulset volcano trainjob; do
    start $style 4 "$kolo" run -- "$member" sum
    all_done "$style, kolo run"
done

if [[ $(uname -n) != *-[0-9] && $(id -u) == 0 ]] && unshare --uts true 2>/dev/null; then
    expect "HOSTNAME is not set" "0 2" "$(unshare --uts bash -c 'hostname bench-0; env -u HOSTNAME KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=bench-0.b:7700 \
        "$0" run --no-prefix -- sh -c "echo \$KOLO_RANK \$KOLO_WORLD_SIZE"' "$kolo")"
fi

# ---- several in each
variables_job_of_two() {
    echo "JOB_COMPLETION_INDEX=$1 KOLO_WORLD_SIZE=4 $place KOLO_JOB=6f1c"
}
start job_of_two 2 "$kolo" run --per-pod 2 -- "$member" sum
for r in 0 1; do
    wait "${pids[r]}" || fail "--per-pod: pod $r: code $?: $(<"rank$r")"
    expect "--per-pod: pod $r" "[$((2 * r))] rank $((2 * r)) of 4 done"$'\n'"[$((2 * r + 1))] rank $((2 * r + 1)) of 4 done" \
        "$(sort "rank$r")"
done

# ---- ids of jobs that differ in the end of a long text, as those of two generations do
long=$(printf 'j%.0s' {1..90})
variables_generation() {
    echo "JOB_COMPLETION_INDEX=$1 KOLO_WORLD_SIZE=$2 $place KOLO_JOB=$long.$1 KOLO_INIT_TIMEOUT=3"
}
for command in "$member sum" "$kolo run -- $member sum"; do
    # shellcheck disable=SC2086 # words of a command
    start generation 2 $command
    wait "${pids[0]}" && fail "two generations met: $(<rank0)"
    wait "${pids[1]}" && fail "two generations met: $(<rank1)"
    expect_text "two generations: $command" "it is of job '$long.1', this is job '$long.0'" "$(<rank0)"
done
expect_text "a job id that is too long" "up to 103 are allowed" \
    "$(JOB_COMPLETION_INDEX=0 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=127.0.0.1:$port KOLO_JOB=$long$long "$member" sum 2>&1)"

# ---- a pod whose numbers do not fit says so, also to pod 0, which else would wait for it and not know why
variables_misfit() {
    echo "$(variables_volcano "$1") KOLO_INIT_TIMEOUT=3 KOLO_WORLD_SIZE=$((4 + 5 * $1))"
}
start misfit 2 "$kolo" run -- "$member" sum
misfit="KOLO_WORLD_SIZE is 9, but 4 pods (Volcano) with 1 rank each make 4"
code=0
wait "${pids[1]}" || code=$?
expect "a pod that does not fit: code" 65 $code
expect_text "a pod that does not fit" "$misfit" "$(<rank1)"
wait "${pids[0]}" && fail "a pod that does not fit: the world formed"
expect_text "who waits for it" "KOLO_ERR_WORLD: kolo_init: 3 of 4 ranks did not join in time; missing: 1-3; refused was: rank 1" "$(<rank0)"
expect_text "who waits for it" "takes no part: $misfit" "$(<rank0)"

show='echo $KOLO_RANK $KOLO_WORLD_SIZE $KOLO_LOCAL_RANK $KOLO_LOCAL_SIZE $KOLO_RENDEZVOUS $KOLO_JOB'
PET_NODE_RANK=1 PET_NNODES=3 PET_MASTER_ADDR=tj-node-0-0.tj PET_MASTER_PORT=29400 KOLO_JOB=j \
    run --nproc-per-node 2 --no-prefix -- sh -c "$show"
expect "Trainer" $'2 6 0 2 tj-node-0-0.tj:7700 j\n3 6 1 2 tj-node-0-0.tj:7700 j' "$(sort <<<"$out")"
JOB_COMPLETION_INDEX=1 KOLO_WORLD_SIZE=4 KOLO_RENDEZVOUS=a-0.a:7700 run --per-pod 2 -- sh -c 'sleep 0.$KOLO_RANK; exit $((KOLO_RANK + 10))'
expect "the first failure: code" 12 "$code"
expect_text "the first failure" "rank 2 (host" "$err"
JOB_COMPLETION_INDEX=1 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=a-0.a:7700 run -- sh -c 'kill -9 $$'
expect "killed" 76 "$code"
JOB_COMPLETION_INDEX=1 run -n 2 -- true
expect "a job about no world" "0 " "$code $err"

# refused CODE TEXT ARGUMENTS...: variables are the caller's
refused() {
    local wanted=$1 text=$2
    shift 2
    run "$@"
    expect "$text: code" "$wanted" "$code"
    expect_text "refused" "$text" "$err"
}
JOB_COMPLETION_INDEX=0 refused 64 "the manifest has to set KOLO_WORLD_SIZE" -- true
JOB_COMPLETION_INDEX=0 KOLO_WORLD_SIZE=2 refused 64 "KOLO_RENDEZVOUS is not set" -- true
KOLO_TOKEN='' HOME=/nowhere JOB_COMPLETION_INDEX=2 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=a-0.a:7700 refused 65 "needs pods 0 to 1 only" -- true
JOB_COMPLETION_INDEX=0 KOLO_WORLD_SIZE=4 KOLO_RENDEZVOUS=a-0.a:7700 refused 65 "pods with 3 ranks each cannot make" --per-pod 3 -- true
JOB_COMPLETION_INDEX=0 KOLO_WORLD_SIZE=4 KOLO_RENDEZVOUS=a-0.a:7700 refused 65 "-n 3, but the pods" -n 3 -- true
KOLO_TOKEN='' JOB_COMPLETION_INDEX=0 KOLO_WORLD_SIZE=4 KOLO_RENDEZVOUS=a-0.a:7700 HOME=/nowhere \
    refused 64 "mount a Secret" -- true
refused 64 "--per-pod: nothing tells which pod" --per-pod 2 -- true
refused 64 "hosts have slots" --per-pod 2 --hosts localhost:2 -- true
expect_text "a program alone in a worker" "workers have to run \`kolo agent\`" "$(K_MPI_JOB_ROLE=worker "$member" sum 2>&1)"

# ---- the launcher of an MPIJob: the operator says where
K_MPI_JOB_ROLE=worker refused 64 "it has to run \`kolo agent\`" -- true
K_MPI_JOB_ROLE=weird OMPI_MCA_orte_default_hostfile=/etc/hostname refused 64 "K_MPI_JOB_ROLE=weird is no role of an MPIJob" -- true
expect_text "a program alone in no role" "K_MPI_JOB_ROLE=weird is no role" "$(K_MPI_JOB_ROLE=weird "$member" sum 2>&1)"
printf 'localhost slots=2\nw-0.train.ns.svc slots=2\n' >hostfile
export K_MPI_JOB_ROLE=launcher JOB_COMPLETION_INDEX=0
for variable in OMPI_MCA_orte_default_hostfile HYDRA_HOST_FILE I_MPI_HYDRA_HOST_FILE; do
    export "$variable=$PWD/hostfile"
    run --dry-run -- true
    expect_text "$variable" "host w-0.train.ns.svc: the agent at w-0.train.ns.svc:7701" "$out"
    expect_text "$variable" "4 ranks on 2 hosts" "$out"
    unset "$variable"
done
export OMPI_MCA_orte_default_hostfile=$PWD/hostfile
refused 65 "has 4 slots" --dry-run -n 5 -- true
refused 64 "has 4 slots" --dry-run -n 3 -- true
KOLO_WORLD_SIZE=5 refused 65 "KOLO_WORLD_SIZE is 5, but the operator's $PWD/hostfile has 4 slots" --dry-run -- true
POD_NAME=w-0 run --dry-run -- true
expect_text "hostNetwork: its own line" "4 ranks on this host" "$out"
echo 'localhost slots=2' >hostfile
run --no-prefix -- sh -c 'echo $KOLO_RANK $KOLO_WORLD_SIZE'
expect "all of it here" $'0 2\n1 2' "$(sort <<<"$out")"

finish
