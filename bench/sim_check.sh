#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Is `kolo sim` right? Real allreduces of 2 to 8 ranks, each on a host of its own (network namespaces
# with links of 200 Mbit/s each way, so that processors are not what limits), beside what is predicted
# with the constants that `kolo bench sendrecv` measures on the same links. On one switch, and on two
# of four hosts each, which are joined by 400 Mbit/s: a fat tree with over=2.
#
#   sudo bench/sim_check.sh [-b BUILD] [-r ROUNDS]      a line for each prediction
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/cluster/hosts.sh
. "$root/tests/cluster/hosts.sh"
build=$root/build rounds=5
while getopts b:r: option; do
    case $option in
        b) build=$OPTARG ;;
        r) rounds=$OPTARG ;;
        *) echo "usage: sim_check.sh [-b BUILD] [-r ROUNDS]" >&2; exit 64 ;;
    esac
done
kolo=$(realpath "$build/bin/kolo")
algorithms=(ring halving_doubling recursive_doubling double_binary_tree pairwise)
work=$(mktemp -d)
hosts_need
trap 'hosts_down; rm -rf "$work"' EXIT
port=5000

# slow HOST INTERFACE MBIT: what it sends.
slow() { on "$1" tc qdisc replace dev "$2" root tbf rate "$3mbit" burst 128kb limit 4mb; }

# measure RANKS COLLECTIVE MIN MAX [VARIABLE=VALUE]: rank 0's lines of csv.
measure() {
    local ranks=$1 collective=$2 min=$3 max=$4 rank running=()
    shift 4
    port=$((port + 1))
    for ((rank = 0; rank < ranks; rank++)); do
        on host$((rank + 1)) env KOLO_RANK=$rank KOLO_WORLD_SIZE="$ranks" KOLO_RENDEZVOUS=10.77.0.1:$port KOLO_STREAMS=1 \
            KOLO_TOKEN=the-secret-of-this-benchmark "$@" timeout -k 5 120 "$kolo" bench "$collective" --min "$min" --max "$max" \
            --factor 16 --seconds 0.5 --format csv >"$work/out$rank" 2>"$work/err$rank" &
        running+=($!)
    done
    for rank in "${!running[@]}"; do
        wait "${running[rank]}" || { echo "rank $rank: $(<"$work/err$rank")" >&2; return 1; }
    done
    grep "^$collective" "$work/out0"
}

# All algorithms, in turns, into $work/measured: topology,ranks,algorithm,bytes,us
measure_all() { # TOPOLOGY RANKS
    local round algorithm
    for ((round = 0; round < rounds; round++)); do
        for algorithm in "${algorithms[@]}"; do
            measure "$2" allreduce 256K 4M KOLO_ALGORITHM="$algorithm" |
                awk -F, -v head="$1,$2,$algorithm" '{ print head "," $4 "," $8 }' >>"$work/measured"
        done
    done
}

hosts_up 8
for ((i = 1; i <= 8; i++)); do
    slow host$i eth0 200
    slow switch host$i.eth0 200
done
latency=$(measure 2 sendrecv 8 8 | cut -d, -f8)
rate=$(measure 2 sendrecv 4M 4M | awk -F, '{ printf "%.4f", $4 * 8 / $8 / 1000 }')
echo "measured: $latency us a message, $rate Gbit/s a link each way"
for ranks in 2 4 8; do measure_all flat "$ranks"; done

on switch ip link add rack2 type bridge
on switch ip link set rack2 up
on switch ip link add up1 type veth peer name up2
for ((i = 5; i <= 8; i++)); do on switch ip link set host$i.eth0 master rack2; done
on switch ip link set up1 master rack
on switch ip link set up2 master rack2
for end in up1 up2; do
    on switch ip link set $end up
    slow switch $end 400
done
measure_all fat-tree:leaf=4,over=2 8

for ranks in 2 4 8; do
    for topology in flat fat-tree:leaf=4,over=2; do
        "$kolo" sim --ranks $ranks --per-host 1 --topology $topology --bytes 256K:4M --link-gbps "$rate" \
            --latency-us "$latency" --switch-us 0.001 --csv
    done
done >"$work/predicted"
python3 - "$work/measured" "$work/predicted" <<'END'
import csv
import statistics
import sys

measured = {}
for topology, ranks, algorithm, size, us in csv.reader(line.replace("leaf=4,over=2", "leaf=4;over=2") for line in open(sys.argv[1])):
    measured.setdefault((topology.replace(";", ","), int(ranks), algorithm, int(size)), []).append(float(us))
print(f"{'topology':24} {'ranks':>5} {'algorithm':20} {'bytes':>8} {'predicted us':>12} {'measured us':>12}  predicted / measured")
ratios = []
for row in csv.DictReader(open(sys.argv[2])):
    times = measured.get((row["topology"], int(row.get("ranks") or 0) if row["ranks"].isdigit() else 0, row["algorithm"],
                          int(row["bytes"]) if row["bytes"].isdigit() else 0))
    if times:
        median = statistics.median(times)
        ratios.append(float(row["time_us"]) / median)
        print(f"{row['topology']:24} {row['ranks']:>5} {row['algorithm']:20} {row['bytes']:>8} {float(row['time_us']):12.0f} {median:12.0f}"
              f"  {ratios[-1]:.2f} [{float(row['time_us']) / max(times):.2f} {float(row['time_us']) / min(times):.2f}]")
print(f"median {statistics.median(ratios):.2f}, least {min(ratios):.2f}, most {max(ratios):.2f} of {len(ratios)}")
END
