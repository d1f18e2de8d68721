#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# compare_tcp.sh: allreduce over TCP beside its peers and beside plain sockets, within one machine and
# between two hosts, each figure against its goal. As compare.sh, which calls this for --tcp: contenders
# in turns, another one first in each round, ratios of medians with their spread over rounds. Hosts are
# network namespaces, the same for all contenders (tests/cluster/hosts.sh), which is why this is for root.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kolo=$here/../build/bin/kolo
peers_script=$here/peers/run.sh
parts=loopback2,loopback4,hosts2,hosts4,tls rounds=5 seconds=0.1 classes=small,middle,large raw='' table='' quick=0
run_limit=30

usage() {
    cat <<'END'
usage: compare.sh --tcp [option...]

  -p, --parts LIST    of these, each measured by itself (all):
                      loopback2  2 ranks over loopback; from 64K beside plain sockets, one each way
                      loopback4  4 ranks over loopback, beside a ring of plain sockets
                      hosts2     2 hosts of 1 rank, over veth; from 64K beside plain sockets
                      hosts4     2 hosts of 2 ranks
                      tls        2 ranks over loopback with KOLO_ENCRYPT=1, beside sockets with TLS
  -s, --sizes LIST    small (4 to 1K) and middle (8K to 32K), inputs left alone; large (64K to 64M),
                      rewritten (small,middle,large)
  -r, --rounds N      at least 5 (5)
  -t, --seconds S     timed work per size and round (0.1)
  -q, --quick         a first impression in under 3 minutes: 2 rounds, few sizes
  -o, --output FILE   add every measurement to FILE; of what is in it twice, the later counts
  --table FILE        measure nothing: the table of a file that -o wrote
  -k FILE             the kolo program (build/bin/kolo)

As root. Exit code: 0; 1 something failed or was wrong, the rest is reported; 64 these arguments make
no sense. A goal that is missed is in the table, and no failure.
END
}

fail() {
    echo "compare.sh: $*" >&2
    exit 64
}

while (($#)); do
    case $1 in
    --tcp) ;;
    -q | --quick) quick=1 rounds=2 seconds=0.03 ;;
    -h | --help) usage && exit ;;
    -*)
        (($# > 1)) || fail "$1: say a value after it (--tcp --help lists the options)"
        case $1 in
        -p | --parts) parts=$2 ;;
        -s | --sizes) classes=$2 ;;
        -r | --rounds) rounds=$2 ;;
        -t | --seconds) seconds=$2 ;;
        -o | --output) raw=$2 ;;
        --table) table=$2 ;;
        -k) kolo=$2 ;;
        *) fail "unknown option $1 with --tcp (--tcp --help lists them)" ;;
        esac
        shift
        ;;
    *) fail "'$1': with --tcp the peers are fixed" ;;
    esac
    shift
done

if [[ -n $table ]]; then
    [[ -r $table ]] || fail "--table $table: no such file"
    exec awk -f "$here/peers/tcp_table.awk" "$table"
fi
for part in ${parts//,/ }; do
    [[ $part =~ ^(loopback2|loopback4|hosts2|hosts4|tls)$ ]] ||
        fail "--parts $part: say loopback2, loopback4, hosts2, hosts4 or tls, or several with commas"
done
[[ ,$classes, =~ ^(,small|,middle|,large)+,$ ]] || fail "--sizes $classes: say small, middle or large, or several with commas"
[[ $rounds =~ ^[0-9]+$ && $rounds -ge $((quick ? 2 : 5)) ]] || fail "--rounds $rounds: say 5 or more; fewer show no spread"
[[ $seconds =~ ^[0-9]*\.?[0-9]+$ ]] || fail "--seconds $seconds: say a number such as 0.1"
[[ -x $kolo ]] || fail "no program $kolo: build it (./dev build), or say where it is with -k"
[[ $(id -u) == 0 ]] || fail "--tcp makes hosts of network namespaces: run it as root"

# ---- hosts ----------------------------------------------------------------------------------

# shellcheck source=tests/cluster/hosts.sh
. "$here/../tests/cluster/hosts.sh"
scratch=$(mktemp -d)
ENTER=$scratch/enter # <host> <command> [arguments]: for peers/run.sh, which starts ranks one by one
export ENTER
# Not what bash says of children that were killed.
trap 'hosts_down 2>/dev/null; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
: "${raw:=$scratch/raw}"
: >>"$raw"
failed=0

# Ranks enter the network and the name of a host and keep the machine's processes and files: all
# libraries take them for ranks of another host then, and what starts them needs nothing there.
make_hosts() {
    [[ -z $HOSTS_FOLDER ]] || return 0
    hosts_need
    hosts_up 2 || { echo "compare.sh: could not make two hosts" >&2; exit 1; }
    cat >"$ENTER" <<END
#!/bin/bash
case \$1 in host1) pid=${HOSTS_PID[host1]} ;; host2) pid=${HOSTS_PID[host2]} ;; *) exit 64 ;; esac
shift
exec nsenter --target "\$pid" --net --uts -- "\$@"
END
    # What Open MPI takes for ssh: an address, and a command for a shell.
    cat >"$ENTER.rsh" <<END
#!/bin/bash
host=host\${1##*.}
shift
exec "$ENTER" "\$host" bash -c "\$*"
END
    chmod +x "$ENTER" "$ENTER.rsh"
}

# ---- contenders: each prints "bytes microseconds" ---------------------------------------------

# One rank of a job by hand. With more ranks than CPUs it runs where the system wants, as the peers' do:
# bound by number, the two ranks that talk across hosts would share a CPU.
run_rank() { # <rank> <argument of kolo bench>...
    local r=$1 bound=()
    shift
    ((ranks > $(nproc))) || bound=(taskset -c "$r")
    KOLO_RANK=$r KOLO_WORLD_SIZE=$ranks KOLO_RENDEZVOUS=10.77.0.1:$port KOLO_TOKEN=$token timeout "$run_limit" \
        "$ENTER" "host$((1 + r * 2 / ranks))" "${bound[@]}" "$kolo" bench "$@"
}

run_kolo() {
    local encrypt=$1 r pids=() pid code=0 transport=tcp
    local options=(allreduce --seconds "$seconds" --min "${sizes%%,*}" --max "${sizes##*,}" --factor "$factor"
        --in-place --format csv)
    [[ $rewritten == 0 ]] || options+=(--rewrite)
    if [[ $part != hosts* ]]; then
        local bind=auto
        ((ranks >= $(nproc))) || bind=core # as in compare.sh
        KOLO_ENCRYPT=$encrypt KOLO_BIND=$bind timeout "$run_limit" \
            "$kolo" bench "${options[@]}" -n "$ranks" --transport "$transport" >"$scratch/csv" || code=1
    else
        port=$((20000 + RANDOM % 10000)) token=$(od -An -tx8 -N32 /dev/urandom | tr -d ' \n')
        for ((r = ranks - 1; r >= 0; r--)); do
            # auto: ranks of one host share memory, as they would in earnest
            if ((r == 0)); then run_rank $r "${options[@]}" >"$scratch/csv" & else run_rank $r "${options[@]}" >/dev/null & fi
            pids+=($!)
        done
        for pid in "${pids[@]}"; do wait "$pid" || code=1; done
    fi
    [[ $code == 0 ]] || return 1
    awk -F, 'NR > 1 { print $4, $8; if ($12 != 0) bad = 1 } END { exit bad }' "$scratch/csv"
}

run_peer() { # <peer:setting>
    PLACE=in SECS=$seconds REWRITE=$rewritten timeout "$run_limit" \
        "$peers_script" "${1%%:*}" "${1#*:}" "$ranks" "$sizes" |
        awk '$NF != "ok" { print "wrong result: " $0 >"/dev/stderr"; bad = 1 } { print $4, $5 } END { exit bad }'
}

# Reno, as kolo between near hosts: BBR paces by timers, which is slower here. Four lengths of pieces are
# tried there, each for the time it is given.
run_limit_of_sockets() {
    local where='-C reno' length
    length=$(awk -v s="$seconds" 'BEGIN { print s / 3 }')
    [[ $part != hosts* ]] ||
        where+=" -N 10.77.0.1@/proc/${HOSTS_PID[host1]}/ns/net,10.77.0.2@/proc/${HOSTS_PID[host2]}/ns/net"
    SECS=$length REWRITE=$rewritten EXTRA=$where timeout "$run_limit" "$peers_script" socket_ring "$ranks" "$sizes" |
        awk '{ print $4, $5 }'
}

run_limit_of_tls() {
    SECS=$seconds timeout "$run_limit" "$peers_script" sockets "$sizes" |
        awk '{ print ($2 == "sockets_tls" ? "limit" : "plain"), $4, $5 }'
}

# run_contender <name>: lines "contender bytes microseconds" in $scratch/lines
run_contender() {
    case $1 in
    kolo) run_kolo 0 | sed 's/^/kolo /' ;;
    kolo:encrypted) run_kolo 1 | sed 's/^/kolo /' ;;
    limit) run_limit_of_sockets | sed 's/^/limit /' ;;
    limit:tls) run_limit_of_tls ;;
    *) run_peer "$1" | sed "s/^/$1 /" ;;
    esac >"$scratch/lines" 2>"$scratch/errors" && [[ -s $scratch/lines ]]
}

# ---- parts ----------------------------------------------------------------------------------

measure() { # <contender>...
    local contenders=("$@") round i contender count=$#
    for ((round = 1; round <= rounds; round++)); do
        for ((i = 0; i < count; i++)); do
            contender=${contenders[(round + i - 1) % count]}
            echo "$part, $class sizes, round $round of $rounds: $contender" >&2
            if ! run_contender "$contender"; then
                failed=1
                echo "compare.sh: $part, $class sizes: $contender failed in round $round" >&2
                tail -n 5 "$scratch/errors" >&2
                echo "#note $part, $class sizes: $contender failed in round $round" >>"$raw"
                continue
            fi
            sed "s/^/$part $round /" "$scratch/lines" >>"$raw"
        done
    done
}

measure_part() {
    part=$1 ranks=2
    local contenders=(kolo)
    [[ $part != *4 ]] || ranks=4
    for class in ${classes//,/ }; do
        case $class in
        small)
            sizes=4,64,1024 factor=16 rewritten=0
            [[ $quick == 0 ]] || sizes=4,1024 factor=256
            ;;
        middle)
            sizes=8192,16384,32768 factor=2 rewritten=0
            [[ $quick == 0 ]] || sizes=8192
            ;;
        large)
            sizes=65536,262144,1048576,4194304,16777216,67108864 factor=4 rewritten=1
            [[ $quick == 0 ]] || sizes=65536,1048576,16777216 factor=16
            ;;
        esac
        case $part in
        loopback*) contenders=(kolo openmpi:tcp openmpi:tcp2 mpich:tcp gloo:tcp) ;;
        hosts*)
            make_hosts
            contenders=(kolo openmpi:hosts openmpi:hosts2 mpich:hosts gloo:hosts)
            ;;
        tls)
            [[ $class == large ]] || continue
            contenders=(kolo:encrypted limit:tls)
            ;;
        esac
        # Its ranks spin and do not yield: where they outnumber the CPUs they take hundreds of times as long.
        if ((ranks > $(nproc))); then
            local kept=() contender
            for contender in "${contenders[@]}"; do
                [[ $contender == mpich* ]] || kept+=("$contender")
            done
            contenders=("${kept[@]}")
            grep -q "^#note $part: MPICH" "$raw" || echo "#note $part: MPICH left out, it spins, and there are more ranks than CPUs" >>"$raw"
        fi
        [[ $class != large || $part == hosts4 || $part == tls ]] || contenders+=(limit)
        measure "${contenders[@]}"
    done
}

describe() {
    local commit cpu kernel
    commit=$(git -C "$here" rev-parse --short=10 HEAD 2>/dev/null) || commit=unknown
    [[ -z $(git -C "$here" status --porcelain -uno 2>/dev/null) ]] || commit+=+changes
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
    kernel=$(uname -r)
    cat <<END
#set date $(date -u +%Y-%m-%dT%H:%MZ)
#set machine ${cpu:-$(uname -m)}, $(nproc) CPUs, $(uname -s) ${kernel%%-*}, congestion control $(cat /proc/sys/net/ipv4/tcp_congestion_control)
#set commit $commit
#set load $(cut -d' ' -f1 /proc/loadavg)
#set rounds $rounds of $seconds s
END
    [[ $quick == 0 ]] || echo "#note quick: few sizes, $rounds rounds of $seconds s: an impression, not a claim"
}

describe >>"$raw"
for part in ${parts//,/ }; do
    measure_part "$part"
done
awk -f "$here/peers/tcp_table.awk" "$raw"
exit "$failed"
