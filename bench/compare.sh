#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# compare.sh: kolo's allreduce beside its peers', measured in turns so that whatever else the machine
# does hits all of them. Rounds begin with another contender each time; what counts is the median
# over rounds, and the ratio of medians, with the lowest and highest ratio of any one round.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kolo=$here/../build/bin/kolo
ranks=2 rounds=5 seconds=0.5 dtype=f32 place=in rewrite=1 alloc=kolo raw=
min=4 max=67108864 factor=4

usage() {
    cat <<'END'
usage: compare.sh [option...] [PEER:TRANSPORT...]

  PEER:TRANSPORT    what peers/run.sh takes, joined by a colon: openmpi:shm openmpi:ucx openmpi:tcp
                    mpich:shm mpich:tcp gloo:tcp ... Default: openmpi:shm openmpi:ucx mpich:shm.
                    kolo runs over shared memory or TCP, as the peers given need.
  -n RANKS          processes (2)
  -r ROUNDS         at least 5 (5)
  -t SECONDS        timed work per size and round (0.5)
  -b, -e, -f N      first size, last size (bytes; K, M, G allowed), factor (4, 64M, 4)
  -d f32|f16|bf16   dtype (f32)
  -p in|out         in place, or separate buffers (in)
  -s                leave inputs as they are between operations. Without it they are written anew
                    before each, as in training; then each operation is timed alone after a barrier
  -m                kolo's buffers from malloc, as the peers', instead of kolo_alloc
  -k FILE           the kolo program (build/bin/kolo)
  -o FILE           keep every measurement: round, contender, bytes, microseconds, bus GB/s

The first call installs the peers from the distribution's packages, as root (peers/run.sh).
Prints one line per size and peer; ratio is the peer's time divided by kolo's: above 1 kolo is faster.
END
}

fail() {
    echo "compare.sh: $*" >&2
    exit 64
}

to_bytes() {
    [[ $1 =~ ^([0-9]+)([KMGkmg]?)$ ]] || fail "'$1' is no size: say 64, 4K, 256M or 1G"
    case ${BASH_REMATCH[2]} in
    [Kk]) echo $((BASH_REMATCH[1] << 10)) ;;
    [Mm]) echo $((BASH_REMATCH[1] << 20)) ;;
    [Gg]) echo $((BASH_REMATCH[1] << 30)) ;;
    *) echo "${BASH_REMATCH[1]}" ;;
    esac
}

while getopts n:r:t:b:e:f:d:p:smk:o:h option; do
    case $option in
    n) ranks=$OPTARG ;;
    r) rounds=$OPTARG ;;
    t) seconds=$OPTARG ;;
    b) min=$(to_bytes "$OPTARG") ;;
    e) max=$(to_bytes "$OPTARG") ;;
    f) factor=$OPTARG ;;
    d) dtype=$OPTARG ;;
    p) place=$OPTARG ;;
    s) rewrite=0 ;;
    m) alloc=malloc ;;
    k) kolo=$OPTARG ;;
    o) raw=$OPTARG ;;
    h) usage && exit ;;
    *) usage >&2 && exit 64 ;;
    esac
done
shift $((OPTIND - 1))

case $dtype in
f32) kolo_dtype=fp32 ;;
f16) kolo_dtype=fp16 ;;
bf16) kolo_dtype=bf16 ;;
*) fail "-d $dtype: say f32, f16 or bf16" ;;
esac
[[ $place == in || $place == out ]] || fail "-p $place: say in or out"
[[ $ranks =~ ^[1-9][0-9]*$ ]] || fail "-n $ranks: say a number of processes"
[[ $rounds =~ ^[0-9]+$ && $rounds -ge 5 ]] || fail "-r $rounds: say 5 or more; fewer show no spread"
[[ $factor =~ ^[0-9]+$ && $factor -ge 2 ]] || fail "-f $factor: say 2 or more"
((min > 0 && min <= max)) || fail "-b must be at least 1 and at most -e"
[[ -x $kolo ]] || fail "no program $kolo: build it (./dev build), or say where it is with -k"

sizes=$min
for ((bytes = min * factor; bytes <= max; bytes *= factor)); do
    sizes+=,$bytes
done

# Shared memory or TCP: who is compared with whom.
kind_of() {
    case ${1#*:} in
    shm | small | mid | large | ucx) echo shm ;;
    tcp | tcp2) echo tcp ;;
    *) fail "$1: kolo has nothing to set beside this transport" ;;
    esac
}

peers=("$@")
[[ $# -gt 0 ]] || peers=(openmpi:shm openmpi:ucx mpich:shm)
contenders=()
for peer in "${peers[@]}"; do
    [[ $peer == *:* ]] || fail "'$peer': say PEER:TRANSPORT, such as openmpi:shm"
    kind=$(kind_of "$peer")
    [[ " ${contenders[*]} " == *" kolo:$kind "* ]] || contenders+=("kolo:$kind")
done
contenders+=("${peers[@]}")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
: "${raw:=$scratch/raw}"
: >"$raw"

# Each prints lines "bytes microseconds bus-GB/s".
run_kolo() {
    local options=(--seconds "$seconds" --dtype "$kolo_dtype" --min "$min" --max "$max"
        --factor "$factor" --transport "$1" --alloc "$alloc" --format csv)
    [[ $place == out ]] || options+=(--in-place)
    [[ $rewrite == 0 ]] || options+=(--rewrite)
    "$kolo" bench allreduce -n "$ranks" "${options[@]}" | awk -F, 'NR > 1 { print $4, $8, $11 }'
}

run_peer() {
    PLACE=$place DTYPE=$dtype SECS=$seconds REWRITE=$rewrite \
        "$here/peers/run.sh" "${1%%:*}" "${1#*:}" "$ranks" "$sizes" |
        awk '$NF != "ok" { print "wrong result: " $0 >"/dev/stderr"; bad = 1 }
             { print $4, $5, $7 } END { exit bad }'
}

count=${#contenders[@]}
for ((round = 0; round < rounds; round++)); do
    for ((i = 0; i < count; i++)); do
        contender=${contenders[(round + i) % count]}
        echo "round $((round + 1)) of $rounds: $contender" >&2
        if [[ $contender == kolo:* ]]; then
            run_kolo "${contender#*:}"
        else
            run_peer "$contender"
        fi >"$scratch/lines" || {
            echo "compare.sh: $contender failed; nothing is reported" >&2
            exit 1
        }
        sed "s/^/$round $contender /" "$scratch/lines" >>"$raw"
    done
done

echo "# allreduce sum, $ranks ranks, $dtype, $place place, $rounds rounds," \
    "inputs $([[ $rewrite == 1 ]] && echo rewritten || echo left alone)," \
    "kolo's buffers from $alloc"
echo "# median us, median bus GB/s; ratio: peer's time / kolo's, of medians [lowest highest of a round]"
printf '%11s %-14s %11s %8s %11s %8s %7s %s\n' "# bytes" peer "kolo us" "GB/s" "peer us" "GB/s" ratio spread
for peer in "${peers[@]}"; do
    awk -v peer="$peer" -v kolo="kolo:$(kind_of "$peer")" '
        # The median of the values of a table under keys "<bytes> <round>".
        function median(table, bytes,    values, n, r, i, v) {
            n = 0
            for (r in seen_round)
                if ((bytes, r) in table) {
                    v = table[bytes, r]
                    for (i = n++; i > 0 && values[i] > v; i--)
                        values[i + 1] = values[i]
                    values[i + 1] = v
                }
            return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
        }
        $2 == kolo { seen_round[$1]; kolo_us[$3, $1] = $4; kolo_bw[$3, $1] = $5 }
        $2 == peer {
            if (!($3 in known)) { known[$3]; order[++sizes] = $3 }
            peer_us[$3, $1] = $4; peer_bw[$3, $1] = $5
        }
        END {
            for (s = 1; s <= sizes; s++) {
                bytes = order[s]; low = 0; high = 0; both = 0
                for (r in seen_round) {
                    if (!((bytes, r) in kolo_us) || !((bytes, r) in peer_us)) continue
                    ratio = peer_us[bytes, r] / kolo_us[bytes, r]
                    if (!both || ratio < low) low = ratio
                    if (!both || ratio > high) high = ratio
                    both++
                }
                if (!both) continue
                k = median(kolo_us, bytes); p = median(peer_us, bytes)
                printf "%11d %-14s %11.2f %8.3f %11.2f %8.3f %7.2f [%.2f %.2f]\n", bytes, peer, k,
                    median(kolo_bw, bytes), p, median(peer_bw, bytes), p / k, low, high
            }
        }' "$raw"
done
