#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Hosts with several network interfaces: all that serve carry data, the others cost nothing but a
# moment. What went through an interface is what the system has counted.
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
trap hosts_down EXIT
hosts_up 2
install_for_all
# Two networks on one switch: an interface answers for its own addresses only.
for host in host1 host2; do on $host sh -c 'echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore'; done

# sent HOST INTERFACE: bytes so far; /sys shows another host's.
# shellcheck disable=SC2016 # awk expands them
sent() { on "$1" awk -v name="$2:" '$1 == name { sent = $10 } END { printf "%.0f", sent }' /proc/net/dev; }

# exchange RENDEZVOUS [VARIABLE=VALUE...]: two ranks, one on each host, in several allreduces of 4 MiB.
# What rank 0 says of its connections is in $lanes; MiB that host2 sent through eth0 and eth1 in $mib.
exchange() {
    local rendezvous=$1 rank before=() after=() interface codes=""
    shift
    for interface in eth0 eth1; do before+=("$(sent host2 $interface)"); done
    for rank in 0 1; do
        on host$((rank + 1)) env KOLO_RANK=$rank KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS="$rendezvous" KOLO_TOKEN=the-secret-of-this-test \
            KOLO_LOG=info KOLO_ALGORITHM=ring KOLO_STREAMS=1 "$@" timeout -k 5 60 "$kolo" bench allreduce --min 4M --max 4M \
            --iters 20 >"out$rank" 2>"err$rank" &
        codes+=" $!"
    done
    # shellcheck disable=SC2086
    for rank in $codes; do wait $rank || fail "$rendezvous $*: code $?: $(<err0) $(<err1)"; done
    for interface in eth0 eth1; do after+=("$(sent host2 $interface)"); done
    lanes=$(grep -o 'rank 1 .*connection.*' err0 | head -n 1)
    mib=("$(((after[0] - before[0]) >> 20))" "$(((after[1] - before[1]) >> 20))")
}

# 20 x 4 MiB at least, and the warm-up.
expect_through() {
    local what=$1 index=0 wanted
    shift
    for wanted in "$@"; do
        case $wanted in
            all) ((mib[index] >= 78)) || fail "$what: ${mib[*]} MiB; $lanes" ;;
            half) ((mib[index] >= 38 && mib[index] * 10 > (mib[0] + mib[1]) * 4)) || fail "$what: ${mib[*]} MiB; $lanes" ;;
            none) ((mib[index] < 3)) || fail "$what: ${mib[*]} MiB; $lanes" ;;
        esac
        index=$((index + 1))
    done
}

exchange 10.77.0.1:5000
expect_text "one interface" "1 connection, 10.77.0.1:" "$lanes"
expect_through "one interface" all none
exchange 10.77.0.1:5001 KOLO_STREAMS=3
expect_text "three streams" "3 connections, 10.77.0.1:" "$lanes"

# ---- a limit for each connection, by the last bits of the port that the connecting side has: most of
# several connections get a share of their own. How many are wanted is found out.
limit() { # HOST, END that connects of its packets (sport, dport)
    local class
    on "$1" tc qdisc add dev eth0 root handle 1: htb r2q 1 || return 1
    for ((class = 0; class < 16; class++)); do
        on "$1" tc class add dev eth0 parent 1: classid "1:1$(printf %x $class)" htb rate 200mbit burst 16k &&
            on "$1" tc filter add dev eth0 parent 1: protocol ip u32 match ip "$2" $((2 * class)) 0x1e \
                flowid "1:1$(printf %x $class)" || return 1
    done
}
if limit host1 dport 2>/dev/null && limit host2 sport 2>/dev/null; then
    # What is found depends on what else the machine does: docs/PERFORMANCE.md has figures. Here: that
    # what was found is done.
    exchange 10.77.0.1:5010 KOLO_STREAMS=0
    found=$(grep -o 'streams: .*' err0)
    echo "a limit for each connection: $found"
    expect_text "a limit for each connection: $found" "$(sed -E 's/streams: ([0-9]+) .*/\1/' <<<"$found") connection" "$lanes"
else
    echo "not tested: limits for each connection (the kernel has no htb and u32)"
fi
on host1 tc qdisc del dev eth0 root 2>/dev/null
on host2 tc qdisc del dev eth0 root 2>/dev/null
exchange 10.77.0.1:5015 KOLO_STREAMS=0
expect_text "without a limit" " with 4)" "$(grep -o 'streams: .*' err0)"

# ---- two networks
hosts_plug host1 eth1 10.78.0.1/24
hosts_plug host2 eth1 10.78.0.2/24
exchange 10.77.0.1:5002
expect_text "two interfaces" "2 connections, 10.77.0.1:" "$lanes"
expect_text "two interfaces" ", 10.78.0.1:" "$lanes"
expect_through "two interfaces" half half
exchange 10.77.0.1:5003 KOLO_ENCRYPT=1
expect_through "two interfaces, encrypted" half half
exchange 10.77.0.1:5004 KOLO_NET=eth1
expect_text "an interface by name" "1 connection, 10.78.0.1:" "$lanes"
expect_through "an interface by name" none all

# ---- a cable comes out under way: the network is named, for the host is not down
flowing() { (($(sent host2 eth1) > $1 + (20 << 20))); }
before=$(sent host2 eth1) ranks=()
for rank in 0 1; do
    on host$((rank + 1)) env KOLO_RANK=$rank KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=10.77.0.1:5020 KOLO_TOKEN=the-secret-of-this-test KOLO_TIMEOUT=50 \
        KOLO_STREAMS=1 timeout -k 5 60 "$kolo" bench allreduce --min 4M --max 4M --seconds 50 >"out$rank" 2>"err$rank" &
    ranks+=($!)
done
wait_until 20 flowing "$before" || fail "nothing goes through eth1: $(<err0) $(<err1)"
link_down host2 eth1
for rank in "${ranks[@]}"; do
    wait "$rank"
    expect "a cable comes out under way: code" 75 "$?"
done
grep -q "the network to it is cut (.*from 10.78.0.[12]:" err0 err1 ||
    fail "a cable comes out under way: $(<err0) $(<err1)"
link_up host2 eth1

# ---- a cable is out; then it is in, and leads nowhere; then it leads to another network
link_down host2 eth1
exchange 10.77.0.1:5005
expect_through "a cable is out" all none
link_up host2 eth1
on switch ip link set host2.eth1 nomaster
exchange 10.77.0.1:5006
expect_text "a cable leads nowhere" "2 connections, 10.77.0.1:" "$lanes"
expect_through "a cable leads nowhere" all none
on switch ip link set host2.eth1 master rack
on host2 ip address flush dev eth1
on host2 ip address add 10.79.0.2/24 dev eth1
exchange 10.77.0.1:5007
expect_through "another network" all none

# ---- nothing but loopback for rank 0, to which rank 1 connects: said at once, with the variable's name
codes=()
for rank in 0 1; do
    on host$((rank + 1)) env KOLO_RANK=$rank KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=10.77.0.1:5010 KOLO_TOKEN=the-secret-of-this-test \
        KOLO_NET=lo timeout -k 5 60 "$kolo" bench allreduce --min 4M --max 4M --iters 20 >"out$rank" 2>"err$rank" &
    codes+=($!)
done
for rank in 0 1; do
    wait "${codes[rank]}" && fail "loopback only: rank $rank ends well"
    expect_text "loopback only" "rank 0 (host host1) is at loopback only" "$(<"err$rank")"
done

# ---- IPv4 is there and leads nowhere
on host1 ip route add blackhole 10.77.0.2/32
on host2 ip route add blackhole 10.77.0.1/32
exchange '[fd77::1]:5009' KOLO_NET=eth0
expect_text "IPv4 leads nowhere" "1 connection, [fd77::1]:" "$lanes"
on host1 ip route del blackhole 10.77.0.2/32
on host2 ip route del blackhole 10.77.0.1/32

# ---- no IPv4
for host in host1 host2; do
    on $host ip link set eth1 down
    on $host ip -4 address flush dev eth0
done
exchange '[fd77::1]:5008'
expect_text "IPv6 only" "1 connection, [fd77::1]:" "$lanes"
expect_through "IPv6 only" all none
finish
