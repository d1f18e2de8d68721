#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# compare.sh: kolo's collectives beside its peers' and the machine's limit, measured in turns so that
# whatever else the machine does hits all of them. Rounds begin with another contender each time;
# what counts is the median over rounds, and the ratio of medians with its spread over rounds.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kolo=$here/../build/bin/kolo
peers_script=$here/peers/run.sh
ranks_list=2,4 rounds=5 seconds=0.5 dtype=f32 place='' rewrite=auto alloc=kolo raw='' plot=''
collective=allreduce min=4 max=268435456 factor=4 quick=0 all=0 run_limit=600

usage() {
    cat <<'END'
usage: compare.sh [option...] [PEER:SETTING...]
       compare.sh --tcp [option...]    over TCP, also between hosts, against goals (--tcp --help)

  PEER:SETTING      what peers/run.sh takes, joined by a colon: openmpi:ucx mpich:shm gloo:tcp ...
                    Without any: all that serve inside one machine; for each class of sizes (to
                    32K, to 8M, above) a first scan drops those twice as slow as the
                    best, but no library's best one.
  -n, --ranks LIST  processes; several numbers are measured one after the other (2,4)
  -r, --rounds N    at least 5 (5); below 64K three times as many, of a third of the time
  -t, --seconds S   timed work per size and round (0.5)
  -b, -e, -f N      first size, last size (bytes; K, M, G allowed), factor (4, 256M, 4)
  -c, --collective  allreduce reduce_scatter allgather broadcast alltoall (allreduce)
  -d, --dtype       f32 f16 bf16 (f32)
  -p in|out         results replace the inputs, or not (in for allreduce, else out)
  -w, --rewrite     auto always never: write inputs anew before each operation, as training does;
                    each is timed alone after a barrier then. auto: from 64K up (auto)
  -m, --malloc      kolo's buffers from malloc, as the peers', instead of kolo_alloc
  -q, --quick       a first impression in under 3 minutes: 3 rounds, few sizes, no scan, no Gloo
  -a, --all         a line per peer, not only for the best
  -o, --output FILE keep every measurement; table and plot can be made from it again
  --plot FILE       draw a PNG (needs python3-matplotlib)
  --table FILE      measure nothing: table (and plot) of a file that -o wrote
  -k FILE           the kolo program (build/bin/kolo)
  --peers FILE      what runs a peer (bench/peers/run.sh)

The first call installs the peers from the distribution's packages, as root (peers/run.sh). If all
PEERs given run over TCP, so does kolo; otherwise it shares memory.
Exit code: 0; 1 something failed or was wrong, the rest is reported; 64 these arguments make no sense.
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

# ---- arguments ------------------------------------------------------------------------------

for argument in "$@"; do
    [[ $argument != --tcp ]] || exec "$here/compare_tcp.sh" "$@"
done
for argument in "$@"; do # first, so that options before it count as well
    [[ $argument != -q && $argument != --quick ]] || quick=1 rounds=3 seconds=0.1 max=67108864 factor=16
done
peers=() table=''
while (($#)); do
    case $1 in
    -m | --malloc) alloc=malloc ;;
    -q | --quick) ;; # seen above
    -a | --all) all=1 ;;
    -h | --help) usage && exit ;;
    -*)
        (($# > 1)) || fail "$1: say a value after it (--help lists the options)"
        case $1 in
        -n | --ranks) ranks_list=$2 ;;
        -r | --rounds) rounds=$2 ;;
        -t | --seconds) seconds=$2 ;;
        -b) min=$(to_bytes "$2") ;;
        -e) max=$(to_bytes "$2") ;;
        -f) factor=$2 ;;
        -c | --collective) collective=$2 ;;
        -d | --dtype) dtype=$2 ;;
        -p) place=$2 ;;
        -w | --rewrite) rewrite=$2 ;;
        -o | --output) raw=$2 ;;
        --plot) plot=$2 ;;
        --table) table=$2 ;;
        -k) kolo=$2 ;;
        --peers) peers_script=$2 ;;
        *) fail "unknown option $1 (--help lists them)" ;;
        esac
        shift
        ;;
    *:*) peers+=("$1") ;;
    *) fail "'$1': say PEER:SETTING, such as openmpi:shm" ;;
    esac
    shift
done

# The distribution's matplotlib belongs to the distribution's python, which may not be the first one.
python=''
if [[ -n $plot ]]; then
    for python in python3 /usr/bin/python3 ''; do
        [[ -z $python ]] || ! "$python" -c 'import matplotlib' 2>/dev/null || break
    done
    [[ -n $python ]] || fail "--plot needs matplotlib: apt-get install python3-matplotlib (./dev bench peers does it)"
fi

print_results() { # <file>
    awk -v all="$all" -f "$here/peers/table.awk" "$1"
    [[ -z $plot ]] || "$python" "$here/plot.py" "$1" "$plot"
}

if [[ -n $table ]]; then
    [[ -r $table ]] || fail "--table $table: no such file"
    print_results "$table"
    exit
fi

case $dtype in
f32 | fp32) dtype=f32 kolo_dtype=fp32 ;;
f16 | fp16) dtype=f16 kolo_dtype=fp16 ;;
bf16) kolo_dtype=bf16 ;;
*) fail "--dtype $dtype: say f32, f16 or bf16" ;;
esac
case $collective in
allreduce) : "${place:=in}" ;;
broadcast) place=in ;;
reduce_scatter | allgather | alltoall)
    [[ ${place:=out} == out ]] || fail "-p $place: the peers have $collective only with separate buffers here"
    ;;
*) fail "--collective $collective: say allreduce, reduce_scatter, allgather, broadcast or alltoall" ;;
esac
[[ $place == in || $place == out ]] || fail "-p $place: say in or out"
[[ $rewrite == auto || $rewrite == always || $rewrite == never ]] || fail "--rewrite $rewrite: say auto, always or never"
[[ $ranks_list =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ && ,$ranks_list, != *,1,* ]] || fail "--ranks $ranks_list: say numbers from 2 up, such as 2,4"
[[ $rounds =~ ^[0-9]+$ && $rounds -ge $((quick ? 3 : 5)) ]] || fail "--rounds $rounds: say 5 or more; fewer show no spread"
[[ $seconds =~ ^[0-9]*\.?[0-9]+$ ]] || fail "--seconds $seconds: say a number such as 0.5"
[[ $factor =~ ^[0-9]+$ && $factor -ge 2 ]] || fail "-f $factor: say 2 or more"
((min > 0 && min <= max)) || fail "-b must be at least 1 and at most -e"
[[ -x $kolo ]] || fail "no program $kolo: build it (./dev build), or say where it is with -k"

transport=shm
if ((${#peers[@]})); then
    transport=tcp
    for peer in "${peers[@]}"; do
        case ${peer#*:} in
        shm | small | mid | large | ucx) transport=shm ;;
        tcp | tcp2) ;;
        *) fail "$peer: kolo has nothing to set beside this setting" ;;
        esac
    done
fi

# ---- contenders -----------------------------------------------------------------------------

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM # after the run of a contender, which timeout keeps from the terminal's signal
: "${raw:=$scratch/raw}"
: >"$raw"
failed=0

# Each prints lines "bytes microseconds bus-GB/s" for the sizes of the class being measured.
run_kolo() { # <seconds>
    local bind=auto
    local options=(--seconds "$1" --dtype "$kolo_dtype" --min "${sizes%%,*}" --max "${sizes##*,}"
        --factor "$factor" --transport "$transport" --alloc "$alloc" --format csv)
    [[ $place == out || $collective == broadcast ]] || options+=(--in-place)
    [[ $rewritten == 0 ]] || options+=(--rewrite)
    # The peers' ranks take the first CPUs in turn, where kolo would spread over caches and NUMA nodes.
    ((ranks >= $(nproc))) || bind=core
    KOLO_BIND=$bind timeout "$run_limit" "$kolo" bench "$collective" -n "$ranks" "${options[@]}" |
        awk -F, 'NR > 1 { print $4, $8, $11 }'
}

run_peer() { # <peer:setting> <seconds>
    COLLECTIVE=$collective PLACE=$place DTYPE=$dtype SECS=$2 REWRITE=$rewritten \
        timeout "$run_limit" "$peers_script" "${1%%:*}" "${1#*:}" "$ranks" "$sizes" |
        awk '$NF != "ok" { print "wrong result: " $0 >"/dev/stderr"; bad = 1 }
             { print $4, $5, $7 } END { exit bad }'
}

# The limit is the fastest variant of ideal.c; beside it, what a message costs between two CPUs now.
run_limits() { # <seconds>
    PLACE=$place SECS=$1 REWRITE=$rewritten timeout "$run_limit" "$peers_script" ideal "$ranks" "$sizes" |
        awk -v ranks="$ranks" '
            $2 == "pingpong_rtt" { print "pingpong", $4, $5 / 1000, 0 }
            $2 ~ /^ideal_/ && (!($4 in best) || $5 < best[$4]) { best[$4] = $5 }
            END { for (b in best) print "limit", b, best[b], b / best[b] / 1000 * 2 * (ranks - 1) / ranks }'
}

# run_contender <name> <seconds>: lines "contender bytes microseconds bus-GB/s" in $scratch/lines
run_contender() {
    case $1 in
    kolo) run_kolo "$2" | sed 's/^/kolo /' ;;
    limit) run_limits "$2" ;;
    *) run_peer "$1" "$2" | sed "s/^/$1 /" ;;
    esac >"$scratch/lines" && [[ -s $scratch/lines ]]
}

all_settings() {
    if [[ $quick == 1 ]]; then
        echo "openmpi:$class openmpi:ucx mpich:$class"
    else
        # mpich:large is mpich:mid.
        echo openmpi:{shm,small,mid,large,ucx} mpich:{shm,small,mid}
        [[ $collective != allreduce || $dtype == bf16 ]] || echo gloo:tcp
    fi
}

note() {
    echo "compare.sh: $*" >&2
    echo "#note $*" >>"$raw"
}

# Sets peers_now to the settings that scan.awk keeps by their times at the first and the last size.
# Two passes, the better of which counts: one bad moment must not drop anybody.
scan() {
    local pass peer verdict setting reason full=$sizes
    sizes=${full%%,*}
    [[ $full == "$sizes" ]] || sizes+=,${full##*,}
    : >"$scratch/scan"
    for pass in 1 2; do
        for peer in $(all_settings); do
            echo "scan $pass of 2, $ranks ranks, $class: $peer" >&2
            run_contender "$peer" 0.05 2>"$scratch/errors" ||
                echo "$peer failed" >"$scratch/lines"
            cat "$scratch/lines" >>"$scratch/scan"
        done
    done
    sizes=$full
    awk -f "$here/peers/scan.awk" "$scratch/scan" >"$scratch/kept"
    peers_now=()
    local dropped=''
    while read -r verdict setting reason; do
        case $verdict in
        keep) peers_now+=("$setting") ;;
        *) dropped+="${dropped:+, }$setting ($reason)" ;;
        esac
    done <"$scratch/kept"
    [[ -z $dropped ]] || note "$ranks ranks, $class sizes: the scan left out $dropped"
}

# measure_class <class> <sizes>: all rounds of one class of sizes.
measure_class() {
    class=$1 sizes=$2 rewritten=1
    [[ $rewrite == always || ($rewrite == auto && $class != small) ]] || rewritten=0
    peers_now=("${peers[@]}")
    if ((${#peers[@]} == 0)); then
        # shellcheck disable=SC2207 # words without blanks
        if [[ $quick == 1 ]]; then peers_now=($(all_settings)); else scan; fi
    fi
    local contenders=(kolo "${peers_now[@]}") round i contender out=' ' turns=$rounds length=$seconds
    # What a small message takes follows the machine's modes, which change within a minute: many short
    # rounds see all of them, and contenders that stand beside each other the same one.
    if [[ $class == small && $quick == 0 ]]; then
        turns=$((3 * rounds))
        length=$(awk -v s="$seconds" 'BEGIN { print s / 3 }')
    fi
    [[ $collective != allreduce || $transport == tcp ]] || contenders+=(limit)
    local count=${#contenders[@]}
    for ((round = 1; round <= turns; round++)); do
        for ((i = 0; i < count; i++)); do
            contender=${contenders[(round + i - 1) % count]}
            [[ $out != *" $contender "* ]] || continue
            echo "$ranks ranks, $class sizes, round $round of $turns: $contender" >&2
            if ! run_contender "$contender" "$length"; then
                failed=1 out+="$contender "
                note "$ranks ranks, $class sizes: $contender failed in round $round"
                [[ $contender != kolo ]] || exit 1
                continue
            fi
            sed "s/^/$ranks $round /" "$scratch/lines" >>"$raw"
        done
    done
}

describe() {
    local commit cpu
    commit=$(git -C "$here" rev-parse --short=10 HEAD 2>/dev/null) || commit=unknown
    [[ -z $(git -C "$here" status --porcelain -uno 2>/dev/null) ]] || commit+=+changes
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
    cat <<END
#set date $(date -u +%Y-%m-%dT%H:%MZ)
#set machine ${cpu:-$(uname -m)}, $(nproc) CPUs, $(uname -sr)
#set commit $commit
#set load $(cut -d' ' -f1 /proc/loadavg)
#set collective $collective
#set dtype $kolo_dtype
#set place $([[ $place == in ]] && echo in place || echo separate buffers)
#set transport $transport
#set alloc $([[ $alloc == kolo ]] && echo kolo_alloc || echo malloc)
#set rounds $rounds$([[ $quick == 1 || $min -ge 65536 ]] || echo " ($((3 * rounds)) below 64K)")
#set rewrite $(case $rewrite in auto) echo rewritten from 64K up ;; always) echo rewritten ;; *) echo left alone ;; esac)
END
}

describe >>"$raw"
[[ $quick == 0 ]] || note "quick: $rounds rounds of $seconds s, few sizes, settings not scanned, no Gloo: an impression, not a claim"
[[ $kolo_dtype == fp32 ]] || note "the limit is that of fp32 of as many bytes"
for ranks in ${ranks_list//,/ }; do
    declare -A class_sizes=()
    for ((bytes = min; bytes <= max; bytes *= factor)); do
        class=large
        ((bytes > 8388608)) || class=mid
        ((bytes >= 65536)) || class=small
        class_sizes[$class]+=${class_sizes[$class]:+,}$bytes
    done
    for class in small mid large; do
        [[ -z ${class_sizes[$class]:-} ]] || measure_class "$class" "${class_sizes[$class]}"
    done
done
print_results "$raw"
exit "$failed"
