#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What KOLO_TRANSPORT=auto makes of RDMA between hosts, which are users here: it is taken when a message has
# come through, by shared memory within hosts; else TCP is, with one line. And limits are told with their remedy.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

fail() {
    echo "$*"
    exit 1
}

# as_hosts PROGRAM [ARGUMENT...]: as a rank; the odd ones on the other device and on another host.
as_hosts() {
    local own=rxe$((KOLO_RANK % 2))
    [[ ${DEVICES:-} != named ]] || export NCCL_IB_HCA="=$own"
    [[ ${DEVICES:-} != but_one || $KOLO_RANK != 3 ]] || export NCCL_IB_HCA=none0
    [[ ${DEVICES:-} != but_one || $KOLO_RANK == 3 ]] || export NCCL_IB_HCA="=$own"
    [[ $KOLO_RANK != 0 || -z ${ASIDE:-} ]] || eval "$ASIDE"
    ((KOLO_RANK % 2 == 0)) || { ulimit -l "${LOCKED:-unlimited}" && exec setpriv --reuid 1000 --clear-groups "$@"; }
    exec "$@"
}

# job: 4 ranks of 2 hosts; what they say is in out, rows of results in rows.
job() {
    code=0
    KOLO_LOG=info "$BIN_DIR/kolo" run --no-prefix -n 4 "$@" -- bash "$here/auto_test.sh" as_hosts "$BIN_DIR/kolo" bench allreduce --min 8 \
        --max 256K --factor 32768 --seconds 0.02 --format csv >rows 2>out || code=$?
    echo "$code: $(grep -o ',[a-z+]*,4,' rows | sort -u | tr '\n' ' ') $(grep -i 'rdma' out | head -n 3)"
    ! grep -v ',wrong$' rows | grep -qv ',0$' || fail "wrong: $(cat rows)"
}
expect() { grep -q -- "$1" "$2" || fail "not said: $1 but: $(cat rows out)"; }

if [[ ${1:-} == as_hosts ]]; then
    "$@"
fi
if [[ ${1:-} == inside ]]; then
    cd /tmp
    chmod 666 /dev/infiniband/*

    DEVICES=named job
    expect ',shm+rdma,4,' rows
    expect 'RDMA: rxe1 port 1, GID ::ffff:10.99.0.2' out

    job # nobody named a device of software
    expect ',shm+tcp,4,' rows
    ! grep -q 'WARN' out || fail "nobody asked: $(cat out)"

    DEVICES=named NCCL_IB_DISABLE=1 job
    expect ',shm+tcp,4,' rows

    DEVICES=but_one job
    expect ',shm+tcp,4,' rows
    expect 'no RDMA between hosts, tcp is used instead: rank 3 .*rxe0 port 1: left out by NCCL_IB_HCA' out

    DEVICES=named LOCKED=64 job
    expect ',shm+tcp,4,' rows
    expect 'tcp is used instead: rank 1 .*may lock 64 KiB of memory, and RDMA to 2 ranks wants 4104 KiB: raise the limit' out
    DEVICES=named LOCKED=64 job --transport shm+rdma
    [[ $code != 0 ]] || fail "memory was locked above the limit"
    expect 'cannot register 2101248 bytes: Cannot allocate memory; raise the limit of locked memory' out

    mkdir -p groups
    mount -t cgroup2 none groups
    echo +rdma >groups/cgroup.subtree_control
    mkdir groups/few
    # shellcheck disable=SC2016
    ASIDE='echo rxe0 hca_handle=2 hca_object=3 >/tmp/groups/few/rdma.max; echo $$ >/tmp/groups/few/cgroup.procs' \
        DEVICES=named job
    expect ',shm+tcp,4,' rows
    expect "tcp is used instead: rank [0-9] .*the control group's limit of RDMA objects is reached: raise hca_handle" out

    # Short packets pass, long ones do not, as through a switch with a smaller MTU.
    ip route replace 10.99.0.0/24 dev veth0 table 10 mtu lock 1500
    DEVICES=named job
    expect ',shm+tcp,4,' rows
    expect 'tcp is used instead: rank [0-9] .*nothing came from rank [0-9] by RDMA within 5 s.*packets as long as theirs' out
    ip route replace 10.99.0.0/24 dev veth0 table 10
    DEVICES=named job
    expect ',shm+rdma,4,' rows

    ip neighbour replace 10.99.0.2 lladdr 02:00:00:00:00:07 dev veth0 nud permanent
    DEVICES=named job
    expect ',shm+tcp,4,' rows
    expect 'tcp is used instead: rank [0-9] .*nothing came from rank [0-9] by RDMA within 5 s' out
    exit
fi

# shellcheck source=tests/rdma/common.sh
source "$here/common.sh"
in_vm "$SOURCE_DIR/tests/rdma/auto_test.sh" inside
