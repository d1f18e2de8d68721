#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# rdma.sh: messages over RDMA beside perftest, and an allreduce beside kolo's own TCP, between the two
# Soft-RoCE devices of a virtual machine (tests/rdma/README.md), one rank on each. In turns; a ratio is that of
# medians over the rounds of a boot, and the median of boots is what counts. Its processor is emulated, so only
# ratios mean anything, and they only while nothing else runs on this machine.
#
#   rdma.sh [--boots N] [--rounds N] [--output FILE]    3 boots of 3 rounds; FILE keeps every measurement
#   rdma.sh --costs ...                                 only what an allreduce costs
#   rdma.sh --table FILE                                what FILE has kept
#
# TCP is at an advantage that a network would not give it, whose size the costs show: over veth its packets are of 64 KiB and have no checksum,
# while Soft-RoCE's are of 4 KiB with a CRC that the processor computes at both ends. What ib_write_bw reaches bounds RDMA.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/..
build=$root/build
sizes=(65536 131072 1048576)
boots=3 rounds=3 raw='' kept='' round_of=one_round

fail() {
    echo "rdma.sh: $*" >&2
    exit 64
}

# ---- inside the virtual machine -------------------------------------------------------------

# perftest TOOL ARGUMENT...: its line of results.
perftest() {
    timeout 60 "$1" -d rxe1 -x 1 -F "${@:2}" &>/dev/null &
    sleep 0.4
    timeout 60 "$1" -d rxe0 -x 1 -F "${@:2}" 10.99.0.2 2>&1 | awk '/#bytes/ { getline; print }'
    wait
}

# pair TRANSPORT PROGRAM [ARGUMENT...]: as two ranks, each on its own device and interface.
pair() {
    local rank
    port=$((port + 1))
    for rank in 0 1; do
        KOLO_TOKEN_FILE=$PWD/token KOLO_RANK=$rank KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=10.99.0.1:$port KOLO_NET=veth$rank \
            NCCL_IB_HCA="=rxe$rank" KOLO_TRANSPORT=$1 "${@:2}" >"out$rank" 2>"err$rank" &
    done
    wait
    cat err0 err1 >&2
    cat out0
}

# What has crossed the cable, both ways: packets, KiB; the processors' time since boot in us: the kernel's, programs'.
counters() {
    local packets=0 bytes=0 end
    for end in veth0 veth1; do
        packets=$((packets + $(<"/sys/class/net/$end/statistics/tx_packets")))
        bytes=$((bytes + $(<"/sys/class/net/$end/statistics/tx_bytes")))
    done
    awk -v packets="$packets" -v bytes="$bytes" '$1 == "cpu" { print packets, bytes / 1024, ($4 + $7 + $8) * 10000, ($2 + $3) * 10000 }' /proc/stat
}

# cost NAME COMMAND...: of an operation, of which COMMAND does as many as its last argument says: the difference of many
# and few, so that beginning and end are in neither.
cost() {
    local name=$1 times=220 few=20 before middle
    shift
    "$@" $few >/dev/null # what programs are made of is in memory from here on
    read -ra before <<<"$(counters)"
    "$@" $few >/dev/null
    read -ra middle <<<"$(counters)"
    "$@" $times >/dev/null
    counters | awk -v name="$name" -v n=$((times - few)) -v before="${before[*]}" -v middle="${middle[*]}" '{
        split(before, b); split(middle, m); split("packets KiB kernel_us programs_us", what)
        for (i = 1; i <= 4; i++) printf "cost_%s %s %.1f\n", name, what[i], ($i - 2 * m[i] + b[i]) / n }'
}
# timed_allreduce NAME TRANSPORT
timed_allreduce() {
    pair "$2" "$build/bin/kolo" bench allreduce --min 1M --max 1M --seconds 0.3 --format csv |
        awk -F, -v name="$1" '/^allreduce/ { if ($NF != 0) exit 1; print "allreduce_1048576", name, $8 }'
}
writes_both_ways() { perftest ib_write_bw -b -t 8 -s 1048576 -n "$1"; }
allreduces() { pair "$1" "$build/bin/kolo" bench allreduce --min 1M --max 1M --no-check --warmup 5 --iters "$2"; }

# An allreduce of 1 MiB between two ranks sends 1 MiB each way. With `small` TCP has packets like those of Soft-RoCE.
one_round_of_costs() {
    cost writes writes_both_ways
    cost rdma allreduces rdma
    cost tcp allreduces tcp
    timed_allreduce rdma rdma
    timed_allreduce tcp tcp
    ip link set veth0 gso_max_segs 1
    ip link set veth1 gso_max_segs 1
    cost tcp_small allreduces tcp
    timed_allreduce tcp_small tcp
    ip link set veth0 gso_max_segs 65535
    ip link set veth1 gso_max_segs 65535
}

one_round() {
    local size
    echo "latency perftest $(perftest ib_write_lat -s 8 -n 1000 | awk '{ print $5 }')" # t_typical
    pair rdma "$build/tests/message_rates" "${sizes[@]}" | awk '$1 == "latency" { print "latency kolo", $2; next } { print $1 "_" $2, "kolo", $3 }'
    for size in "${sizes[@]}"; do # MiB to MB a second
        echo "rate_$size perftest $(perftest ib_write_bw -t 8 -s "$size" -n $((16000000 / size)) | awk '{ print $4 * 1.048576 }')"
        echo "exchange_$size perftest $(perftest ib_write_bw -b -t 8 -s "$size" -n $((16000000 / size)) | awk '{ print $4 * 1.048576 }')"
    done
    one_round_of_costs
}

if [[ ${1:-} == inside ]]; then
    cd /tmp
    port=5000
    (umask 077 && head -c 24 /dev/urandom | base64 >token)
    # Else what goes from one own address to another would not use the cable.
    ip rule add pref 5 iif lo from 10.99.0.1 to 10.99.0.2 lookup 10
    ip rule add pref 6 iif lo from 10.99.0.2 to 10.99.0.1 lookup 11
    for ((round = 1; round <= $2; round++)); do
        $3 | sed "s/^/$round /"
    done
    exit
fi

# ---- outside --------------------------------------------------------------------------------

while (($#)); do
    [[ $1 != --costs ]] || { round_of=one_round_of_costs && shift && continue; }
    (($# > 1)) || fail "no value after '$1'"
    case $1 in
    --boots) boots=$2 ;;
    --rounds) rounds=$2 ;;
    --output) raw=$2 ;;
    --table) kept=$2 ;;
    *) fail "unknown option $1" ;;
    esac
    shift 2
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
raw=${kept:-${raw:-$scratch/raw}}
[[ $kept ]] || : >"$raw"
[[ ! $kept ]] || boots=0
for ((boot = 1; boot <= boots; boot++)); do
    XDG_CACHE_HOME=$build/rdma "$root/tests/rdma/vm.sh" --timeout $((200 + 150 * rounds)) --share "$root" -- "$here/rdma.sh" inside "$rounds" "$round_of" |
        sed "s/^/$boot /" >>"$raw"
done

# Lines: boot round what who value; or comments.
grep -v '^#' "$raw" | sort -k1,1n -k3,3 -k4,4 -k5,5n | awk -v only="$round_of" '
    { key = $1 " " $3 " " $4; n[key]++; sorted[key, n[key]] = $5; if ($1 > boots) boots = $1; what[$3] }
    function median(key) { return sorted[key, int((n[key] + 1) / 2)] }
    function row(w, mine, other, goal, inverse, label,    b, r, list, count, i, k, t, a, c) {
        for (b = 1; b <= boots; b++) {
            a = median(b " " w " " mine); c = median(b " " w " " other)
            if (a == "" || c == "" || a == 0 || c == 0) continue
            list[++count] = inverse ? c / a : a / c
            ours[count] = a; theirs[count] = c
        }
        for (i = 2; i <= count; i++)
            for (k = i; k > 1 && list[k] < list[k - 1]; k--) { t = list[k]; list[k] = list[k - 1]; list[k - 1] = t
                t = ours[k]; ours[k] = ours[k - 1]; ours[k - 1] = t; t = theirs[k]; theirs[k] = theirs[k - 1]; theirs[k - 1] = t }
        if (!count) { printf "%-38s nothing measured\n", label; return }
        i = int((count + 1) / 2)
        printf "%-38s %10.1f %10.1f %7.2f [%.2f %.2f]  %s\n", label, ours[i], theirs[i], list[i], list[1], list[count], goal
    }
    function middle(w, who,    b, list, count, i, k, t) {
        for (b = 1; b <= boots; b++) if (n[b " " w " " who]) list[++count] = median(b " " w " " who)
        for (i = 2; i <= count; i++) for (k = i; k > 1 && list[k] < list[k - 1]; k--) { t = list[k]; list[k] = list[k - 1]; list[k - 1] = t }
        return count ? list[int((count + 1) / 2)] : 0
    }
    function cost(w, label) {
        if (!middle("cost_" w, "packets")) return
        printf "%-38s %10.0f %10.0f %12.0f %12.0f\n", label, middle("cost_" w, "packets"), middle("cost_" w, "KiB"), middle("cost_" w, "kernel_us"), middle("cost_" w, "programs_us")
    }
    END {
        printf "%-38s %10s %10s %7s %s\n", "", "kolo RDMA", "beside", "ratio", "[over boots]  goal"
        if (only != "one_round_of_costs") {
            row("latency", "kolo", "perftest", "<= 2", 0, "8 B one way, us; ib_write_lat")
            row("rate_65536", "kolo", "perftest", ">= 0.8", 0, "64 KiB messages, MB/s; ib_write_bw")
            row("rate_131072", "kolo", "perftest", ">= 0.8", 0, "128 KiB")
            row("rate_1048576", "kolo", "perftest", ">= 0.8", 0, "1 MiB")
            row("exchange_65536", "kolo", "perftest", ">= 0.8", 0, "64 KiB both ways, MB/s; ib_write_bw -b")
            row("exchange_131072", "kolo", "perftest", ">= 0.8", 0, "128 KiB")
            row("exchange_1048576", "kolo", "perftest", ">= 0.8", 0, "1 MiB")
        }
        row("allreduce_1048576", "rdma", "tcp", "<= 1", 0, "allreduce 1 MiB, us; kolo by TCP")
        row("allreduce_1048576", "rdma", "tcp_small", "", 0, "  by TCP in packets of one segment")
        printf "\n%-38s %10s %10s %12s %12s\n", "1 MiB each way: median of boots", "packets", "KiB", "kernel, us", "programs, us"
        cost("writes", "ib_write_bw -b")
        cost("rdma", "allreduce, kolo by RDMA")
        cost("tcp", "allreduce, kolo by TCP")
        cost("tcp_small", "  in packets of one segment")
    }'
