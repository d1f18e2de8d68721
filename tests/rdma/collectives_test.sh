#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# All collectives between ranks on two devices, checked element by element by kolo bench; also by IPv6, by several
# connections, while one packet in a hundred is lost, and where buffers may not be locked, which is said.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

# bench RANKS COLLECTIVE ARGUMENT...: fails when an element is wrong.
bench() {
    local ranks=$1
    shift
    "$BIN_DIR/kolo" run --no-prefix -n "$ranks" --transport rdma -- bash "$here/on_device.sh" "$BIN_DIR/kolo" bench "$@" \
        --seconds 0.02 --format csv >rows
    echo "$* with $ranks ranks: $(grep -c rdma rows) rows"
    awk -F, '/rdma/ && $NF != 0 { print "wrong: " $0; bad = 1 } END { exit bad }' rows
    grep -q rdma rows
}

# Addresses of IPv6 on the same cable, as vm.sh gives it those of IPv4.
add_ipv6() {
    local end other
    ip -6 rule add pref 100 lookup local
    ip -6 rule del pref 0
    for end in 0 1; do
        other=$((1 - end))
        echo 0 >/proc/sys/net/ipv6/conf/veth$end/disable_ipv6
        ip address add fd00:99::$((end + 1))/64 dev veth$end nodad
        ip -6 neighbour replace fd00:99::$((other + 1)) lladdr 02:00:00:00:00:0$other dev veth$end nud permanent
        ip -6 route add fd00:99::/64 dev veth$end table 1$end
        ip -6 rule add pref 1$end to fd00:99::$((other + 1)) oif veth$end lookup 1$end
    done
}

if [[ ${1:-} == limited ]]; then
    bench 2 allreduce --min 16M --max 16M 2>said || { cat said && exit 1; }
    grep 'messages in a buffer of kolo_alloc are copied.*raise the limit of locked memory' said
    exit
fi

if [[ ${1:-} == inside ]]; then
    cd /tmp
    for collective in allreduce reduce_scatter allgather broadcast reduce alltoall; do
        bench 2 "$collective" --min 8 --max 4M --factor 64
    done
    bench 4 allreduce --min 8 --max 1M --factor 64
    bench 3 allreduce --min 8 --max 256K --factor 32768
    for collective in reduce_scatter allgather broadcast reduce alltoall; do
        bench 3 "$collective" --min 1K --max 256K --factor 256
        bench 4 "$collective" --min 1K --max 256K --factor 256
    done
    # Their connections fit, buffers do not.
    (ulimit -l 12288 && setpriv --bounding-set=-ipc_lock bash "$0" limited)
    NCCL_IB_QPS_PER_CONNECTION=3 bench 2 allreduce --min 8 --max 4M --factor 524288
    add_ipv6
    KOLO_LOG=info GIDS=fd00 bench 2 allreduce --min 8 --max 1M --factor 131072 2>said || { cat said && exit 1; }
    grep 'RDMA: rxe0 port 1, GID fd00:99::1 (index' said
    grep 'RDMA: rxe1 port 1, GID fd00:99::2 (index' said
    tc qdisc add dev veth0 root netem loss 1%
    export NCCL_IB_TIMEOUT=10
    bench 2 allreduce --min 8 --max 1M --factor 128
    for collective in reduce_scatter allgather broadcast reduce alltoall; do
        bench 3 "$collective" --min 256K --max 256K
    done
    exit
fi

# shellcheck source=tests/rdma/common.sh
source "$here/common.sh"
in_vm "$SOURCE_DIR/tests/rdma/collectives_test.sh" inside
