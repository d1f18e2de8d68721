#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# reducer.sh: a step of `kolo bench reducer` beside what a training loop without fusion does with the
# peers: one blocking call for each gradient. In turns, as compare.sh does; the peers are built and
# started by peers/run.sh.
#
#   reducer.sh [MODEL...]    resnet50 gpt2 small (all)
#
# Environment: RANKS=2 ROUNDS=5 SECS=1 (per contender and round) RAW=file (keeps every measurement)
# KOLO=program PEERS="openmpi:shm ..." (those that serve inside one machine; Gloo not pinned: pinned, each of its
# calls took 4 ms here instead of 0.2)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kolo=${KOLO:-$here/../build/bin/kolo}
ranks=${RANKS:-2} rounds=${ROUNDS:-5} seconds=${SECS:-1}
read -ra peers <<<"${PEERS:-openmpi:shm openmpi:small openmpi:mid openmpi:large openmpi:ucx mpich:shm mpich:small mpich:mid gloo:tcp2}"
models=("$@")
((${#models[@]})) || models=(small resnet50 gpt2)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
raw=${RAW:-$scratch/raw}

describe() {
    local commit cpu
    commit=$(git -C "$here" rev-parse --short=10 HEAD 2>/dev/null) || commit=unknown
    [[ -z $(git -C "$here" status --porcelain -uno 2>/dev/null) ]] || commit+=+changes
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
    echo "#set date $(date -u +%Y-%m-%dT%H:%MZ)"
    echo "#set machine ${cpu:-$(uname -m)}, $(nproc) CPUs, $(uname -sr)"
    echo "#set commit $commit"
    echo "#set load $(cut -d' ' -f1 /proc/loadavg)"
    echo "#set ranks $ranks, rounds $rounds, seconds $seconds"
}

describe >"$raw"

# Lines "contender microseconds".
run_kolo() { # <model>: tuned and checked in the first round, whose size of buckets the others keep
    "$kolo" bench reducer -n "$ranks" --model "$1" --rounds 1 --seconds "$(awk -v s="$seconds" 'BEGIN { print 4 * s }')" \
        ${bucket:+--bucket "$bucket" --no-check} --mode views --format csv >"$scratch/kolo"
    bucket=$(awk -F, 'NR > 1 { print $9 }' "$scratch/kolo")
    awk -F, 'NR > 1 { if ($26 != "0" && $26 != "") exit 1; print "kolo", $13 }' "$scratch/kolo"
}

run_peer() { # <peer:setting>
    LIST=$scratch/sizes SECS=$seconds timeout 300 "$here/peers/run.sh" "${1%%:*}" "${1#*:}" "$ranks" |
        awk -v name="$1" '$NF != "ok" { exit 1 } { print name, $5 }'
}

for model in "${models[@]}"; do
    "$kolo" bench reducer --sizes --model "$model" >"$scratch/sizes"
    bucket=''
    contenders=(kolo "${peers[@]}")
    for ((round = 1; round <= rounds; round++)); do
        for ((i = 0; i < ${#contenders[@]}; i++)); do
            contender=${contenders[(round + i - 1) % ${#contenders[@]}]}
            if [[ $contender == kolo ]]; then run_kolo "$model"; else run_peer "$contender"; fi |
                sed "s/^/$model $round /" >>"$raw" ||
                echo "reducer.sh: $model, round $round: $contender failed" >&2
            [[ $contender != kolo ]] || bucket=$(awk -F, 'NR > 1 { print $9 }' "$scratch/kolo")
        done
    done
done

# The best peer is the one with the lowest median; the ratio's spread is that over rounds.
grep -v '^#' "$raw" | sort -k1,1 -k3,3 -k4,4n | awk '
    { n[$1 " " $3]++; sorted[$1 " " $3, n[$1 " " $3]] = $4; at[$1, $3, $2] = $4; models[$1]; names[$3]; if ($2 > rounds) rounds = $2 }
    END {
        printf "%-9s %10s  %-12s %12s %7s %s\n", "model", "kolo us", "best peer", "peer us", "ratio", "[lowest highest of a round]"
        for (m in models) {
            best = ""
            for (p in names) {
                key = m " " p
                if (!(key in n)) continue
                median[key] = sorted[key, int((n[key] + 1) / 2)]
                if (p != "kolo" && (best == "" || median[key] < median[m " " best])) best = p
            }
            low = 1e9; high = 0
            for (r = 1; r <= rounds; r++)
                if (((m, best, r) in at) && ((m, "kolo", r) in at)) {
                    ratio = at[m, best, r] / at[m, "kolo", r]
                    if (ratio < low) low = ratio
                    if (ratio > high) high = ratio
                }
            printf "%-9s %10.1f  %-12s %12.1f %7.2f [%.2f %.2f]\n", m, median[m " kolo"], best, median[m " " best], median[m " " best] / median[m " kolo"], low, high
        }
    }'
