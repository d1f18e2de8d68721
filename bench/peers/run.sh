#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh - run one peer's benchmark of a collective.  Debian 12, as root (it installs
# packages and makes network namespaces; nothing is left behind but packages).
#
#   ./run.sh PEER TRANSPORT RANKS [SIZES]
#   ./run.sh limits
#   ./run.sh ideal RANKS [SIZES]     the allreduce this machine allows (ideal.c)
#   ./run.sh socket_ring RANKS [SIZES] what a ring of plain sockets carries (socket_ring.c; bytes only)
#   ./run.sh sockets [SIZES]         TCP each way over loopback, plain and with TLS (sockets.c)
#
#   PEER       openmpi | mpich | gloo
#   TRANSPORT  shm   peer's defaults inside one machine    (openmpi, mpich)
#              small, mid, large
#                    shared memory, settings that looked best in one noisy
#                    scan (always compare with shm and ucx) for messages of up to
#                    32 KiB / up to 8 MiB / above          (openmpi, mpich)
#              ucx   shared memory through UCX             (openmpi)
#              tcp   loopback                              (all)
#              tcp2  loopback, tuned: segmented ring for messages of 1 MiB and
#                    more (openmpi); bcube, unpinned (gloo)
#              netns each half of the ranks in its own network namespace, the
#                    two joined by a veth pair             (mpich, gloo)
#              hosts each half of the ranks on a host of its own, which the caller made:
#                    host1 with 10.77.0.1 on eth0, host2 with 10.77.0.2     (all)
#              hosts2 the same, tuned as tcp2              (openmpi)
#   SIZES      comma separated bytes, k and m allowed; default 4 .. 256m
#
# Environment:
#   PLACE=in|out   DTYPE=f32|f16|bf16   SECS=0.5 (per size)   PIN=1|0
#   COLLECTIVE=allreduce|reduce_scatter|allgather|broadcast|alltoall (gloo: the first only)
#   REWRITE=1    rewrite the buffer before every timed operation, as training
#                does: use it for every comparison of 64 KiB and more
#   LIST=file    instead of SIZES: a blocking allreduce for each of its lines, which are
#                bytes, timed together; one line of output
#   EXTRA="..."    more arguments: for mpirun (openmpi), the benchmark (others)
#   ENTER=file   for hosts: a program that runs a command on a host (ENTER host1 COMMAND...);
#                ENTER.rsh does so for mpirun, as ssh would
#   BUILD=dir      where to put the binaries (default ./build beside this file)
#
# Output, one line per size; the first seven fields are stable:
#   peer transport ranks bytes time_us algbw_GBps busbw_GBps \
#        place dtype min_us iters check
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/build}
place=${PLACE:-in} dtype=${DTYPE:-f32} secs=${SECS:-0.5}
read -ra extra <<<"${EXTRA:-}"

need=()
for p in gcc g++ openmpi-bin libopenmpi-dev mpich libmpich-dev libgloo-dev iproute2; do
    dpkg -s "$p" >/dev/null 2>&1 || need+=("$p")
done
if [ ${#need[@]} -gt 0 ]; then
    { apt-get update && apt-get install -y --no-install-recommends "${need[@]}"; } >&2
fi

mkdir -p "$build"
stale() { [ ! -x "$build/$1" ] || [ "$here/$2" -nt "$build/$1" ]; }
if stale ar_openmpi collective_mpi.c; then
    mpicc.openmpi -O3 -march=native -o "$build/ar_openmpi" "$here/collective_mpi.c"
fi
if stale ar_mpich collective_mpi.c; then
    mpicc.mpich -O3 -march=native -o "$build/ar_mpich" "$here/collective_mpi.c"
fi
if stale ar_gloo allreduce_gloo.cc; then
    g++ -O3 -march=native -std=c++14 -o "$build/ar_gloo" "$here/allreduce_gloo.cc" -lgloo -lpthread
fi
if stale ideal ideal.c; then
    gcc -O3 -march=native -pthread -o "$build/ideal" "$here/ideal.c"
fi
if stale sockets sockets.c; then
    gcc -O3 -march=native -o "$build/sockets" "$here/sockets.c" -lssl -lcrypto
fi
if stale socket_ring socket_ring.c; then
    gcc -O3 -march=native -o "$build/socket_ring" "$here/socket_ring.c"
fi
if stale membw membw.c; then
    gcc -O2 -pthread -o "$build/membw" "$here/membw.c"
fi

tmp=$(mktemp -d)
tag=ar$$
cleanup() {
    rm -rf "$tmp"
    ip netns del "${tag}a" 2>/dev/null || true
    ip netns del "${tag}b" 2>/dev/null || true
}
trap cleanup EXIT

make_netns() {                        # two namespaces, one veth pair
    ip netns add "${tag}a"
    ip netns add "${tag}b"
    ip link add "${tag}va" netns "${tag}a" type veth peer name "${tag}vb" netns "${tag}b"
    for s in a b; do
        ip -n "$tag$s" addr add "10.77.0.$([ $s = a ] && echo 1 || echo 2)/24" dev "${tag}v$s"
        ip -n "$tag$s" link set lo up
        ip -n "$tag$s" link set "${tag}v$s" up
    done
    for s in a b; do                  # the kernel raises the carrier lazily
        until ip -n "$tag$s" link show "${tag}v$s" | grep -q "LOWER_UP.*state.UP"; do
            sleep 0.1
        done
    done
}

peer=${1:?peer}
if [ "$peer" = limits ]; then
    "$build/membw" all
    for ranks in 2 4; do
        "$build/ideal" -n "$ranks"
        "$build/ideal" -n "$ranks" -R
    done
    make_netns
    ip netns exec "${tag}b" "$build/membw" tcpserve 10.77.0.2 5001 &
    ip netns exec "${tag}a" "$build/membw" tcpclient 10.77.0.2 5001 veth
    wait $!
    exit
fi
if [ "$peer" = sockets ]; then
    "$build/sockets" -t "$secs" -s "${2:-64k,1m,16m,64m}"
    exit
fi
if [ "$peer" = ideal ]; then
    a=(-n "${2:?ranks}" -t "$secs" -p "$place")
    [ -z "${3:-}" ] || a+=(-s "$3")
    [ "${REWRITE:-0}" = 0 ] || a+=(-R)
    # What a message costs between two CPUs now: on a virtual machine it may change by the minute.
    "$build/membw" -r 3 lat
    "$build/ideal" "${a[@]}"
    exit
fi
if [ "$peer" = socket_ring ]; then
    a=(-n "${2:?ranks}" -t "$secs")
    [ -z "${3:-}" ] || a+=(-s "$3")
    [ "${REWRITE:-0}" = 0 ] || a+=(-R)
    "$build/socket_ring" "${a[@]}" "${extra[@]}"
    exit
fi
transport=${2:?transport} ranks=${3:?ranks}
sizes=${4:-4,64,1k,8k,64k,256k,1m,4m,16m,64m,256m}
collective=${COLLECTIVE:-allreduce}
common=(-p "$place" -d "$dtype" -s "$sizes" -t "$secs" -l "$peer" -x "$transport")
[ "${PIN:-1}" = 1 ] || common+=(-P)
[ "${REWRITE:-0}" = 0 ] || common+=(-R)
[ -z "${LIST:-}" ] || common+=(-L "$LIST")
if [ "$peer" != gloo ]; then
    common+=(-c "$collective")
elif [ "$collective" != allreduce ]; then
    echo "run.sh: $collective: this benchmark of Gloo has allreduce only" >&2
    exit 2
fi
half=$(((ranks + 1) / 2))

case $peer-$transport in
openmpi-*)
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    a=(--oversubscribe --bind-to none -n "$ranks")
    # Open MPI spins; with more ranks than CPUs it must yield instead.
    [ "$ranks" -le "$(nproc)" ] || a+=(--mca mpi_yield_when_idle 1)
    alg=(--mca coll_tuned_use_dynamic_rules 1 --mca coll_tuned_allreduce_algorithm)
    seg=(--mca coll_tuned_allreduce_algorithm_segmentsize)
    copy2=(--mca btl_vader_single_copy_mechanism none --mca btl_vader_max_send_size 262144)
    case "$transport" in
    shm)   ;;
    small) a+=("${alg[@]}" 3 --mca btl_vader_eager_limit 32768) ;;
    mid)   a+=("${copy2[@]}") ;;
    large) a+=("${alg[@]}" 5 "${seg[@]}" 262144 "${copy2[@]}") ;;
    tcp)   a+=(--mca pml ob1 --mca btl "tcp,self" --mca btl_tcp_if_include lo) ;;
    tcp2)  a+=(--mca pml ob1 --mca btl "tcp,self" --mca btl_tcp_if_include lo
              "${alg[@]}" 5 "${seg[@]}" 1048576) ;;
    hosts|hosts2)
           a+=(--host "10.77.0.1:$half,10.77.0.2:$half" --mca plm_rsh_agent "$ENTER.rsh"
              --mca oob_tcp_if_include eth0 --mca pml ob1 --mca btl "tcp,vader,self"
              --mca btl_tcp_if_include eth0)
           [ "$transport" = hosts ] || a+=("${alg[@]}" 5 "${seg[@]}" 1048576) ;;
    ucx)   a+=(--mca pml ucx --mca pml_ucx_tls any --mca pml_ucx_devices any) ;;
    *) echo "no such transport for $peer: $transport" >&2; exit 2 ;;
    esac
    pre=()
    case "$transport" in hosts*)
        pre=("$ENTER" host1)
        # The CPUs are one machine's: a rank's is that of its number, not of its number on its host.
        # shellcheck disable=SC2016 # for the rank's shell
        extra+=(bash -c 'BENCH_CPU=$OMPI_COMM_WORLD_RANK exec "$@"' -) ;;
    esac
    "${pre[@]}" mpirun.openmpi "${a[@]}" "${extra[@]}" "$build/ar_openmpi" "${common[@]}"
    ;;
mpich-*)
    case "$transport" in
    shm)   ;;
    small) export MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM=recursive_doubling ;;
    mid|large) export MPIR_CVAR_CH4_SHM_POSIX_IQUEUE_CELL_SIZE=131072 ;;
    tcp)   export MPIR_CVAR_NOLOCAL=1 UCX_TLS=tcp,self UCX_NET_DEVICES=lo ;;
    netns) export MPIR_CVAR_NOLOCAL=1 UCX_TLS=tcp,self BENCH_TAG=$tag
           make_netns
           # Every rank goes to the namespace of its half, and to its own CPU.
           cat >"$tmp/wrap" <<'W'
#!/bin/bash
half=$1; shift
s=a; [ "$PMI_RANK" -lt "$half" ] || s=b
export BENCH_CPU=$PMI_RANK UCX_NET_DEVICES=${BENCH_TAG}v$s
exec ip netns exec "$BENCH_TAG$s" "$@"
W
           chmod +x "$tmp/wrap" ;;
    hosts) export MPIR_CVAR_NOLOCAL=1 UCX_TLS=tcp,self UCX_NET_DEVICES=eth0
           cat >"$tmp/wrap" <<'W'
#!/bin/bash
half=$1; shift
host=host1; [ "$PMI_RANK" -lt "$half" ] || host=host2
export BENCH_CPU=$PMI_RANK
exec "$ENTER" "$host" "$@"
W
           chmod +x "$tmp/wrap" ;;
    *) echo "no such transport for $peer: $transport" >&2; exit 2 ;;
    esac
    pre=()
    case "$transport" in netns|hosts) pre=("$tmp/wrap" "$half") ;; esac
    mpiexec.mpich -n "$ranks" "${pre[@]}" "$build/ar_mpich" "${common[@]}" "${extra[@]}"
    ;;
gloo-tcp|gloo-tcp2|gloo-netns|gloo-hosts)
    [ "$transport" != netns ] || make_netns
    [ "$transport" != tcp2 ] || common+=(-A bcube -P)
    pids=()
    for ((r = ranks - 1; r >= 0; r--)); do
        a=(-r "$r" -w "$ranks" -S "$tmp" "${common[@]}" "${extra[@]}") pre=()
        if [ "$transport" = netns ]; then
            s=a; [ $r -lt $half ] || s=b
            pre=(ip netns exec "$tag$s")
            a+=(-i "${tag}v$s")
        elif [ "$transport" = hosts ]; then
            pre=("$ENTER" "host$((r < half ? 1 : 2))")
            a+=(-i eth0)
        fi
        "${pre[@]}" "$build/ar_gloo" "${a[@]}" &
        pids+=($!)
    done
    wait "${pids[@]}"
    ;;
*) echo "no such peer/transport: $peer $transport" >&2; exit 2 ;;
esac
