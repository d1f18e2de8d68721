#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Two hosts: network namespaces with addresses and host names of their own, joined by a wire. Ranks
# of torchrun's, Slurm's and Horovod's style meet across it, with a token; real mpirun, which starts
# its daemon on the other host by a command of ours instead of ssh, needs nothing more.
# shellcheck disable=SC2317 # functions are called by name
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launch/common.sh"
[[ $(id -u) == 0 ]] || { echo "skipped: needs root, for namespaces"; exit 77; }

tag=kl$$
cleanup() {
    ip netns del "${tag}a" 2>/dev/null
    ip netns del "${tag}b" 2>/dev/null
    rm -rf "/etc/netns/${tag}a" "/etc/netns/${tag}b"
}
trap cleanup EXIT
for s in a b; do
    # A host's own name means loopback in its /etc/hosts, as Debian has it.
    mkdir -p "/etc/netns/$tag$s"
    other=$([[ $s == a ]] && echo "10.78.0.2 hostb" || echo "10.78.0.1 hosta")
    # "both" is a name with an address of each family, of which one answers.
    printf '127.0.0.1 localhost\n127.0.1.1 host%s\n%s\n10.78.0.1 both\n::1 both\n' "$s" "$other" >"/etc/netns/$tag$s/hosts"
    ip netns add "$tag$s"
done
ip link add "${tag}va" netns "${tag}a" type veth peer name "${tag}vb" netns "${tag}b"
for s in a b; do
    ip -n "$tag$s" addr add "10.78.0.$([[ $s == a ]] && echo 1 || echo 2)/24" dev "${tag}v$s"
    ip -n "$tag$s" link set lo up
    ip -n "$tag$s" link set "${tag}v$s" up
done
carrier() {
    ip -n "${tag}a" link show "${tag}va" | grep -q LOWER_UP
}
wait_until 10 carrier || fail "no carrier"

# on HOST COMMAND...: there, with that host's name.
cat >on <<END
#!/bin/bash
s=\$1; shift
exec ip netns exec "$tag\$s" unshare --uts sh -c 'hostname "\$0"; exec "\$@"' "host\$s" "\$@"
END
chmod +x on

# start_on STYLE COMMAND...: 4 ranks, two on each host, the last first. $host is the name of the first.
start_on() {
    local style=$1 variables
    shift
    pids=()
    rm -f rank[0-9]*
    for r in 3 2 1 0; do
        read -ra variables < <("variables_$style" "$r" 4 $((r % 2)) 2)
        ./on "$([[ $r -lt 2 ]] && echo a || echo b)" env "${variables[@]}" timeout -k 2 60 "$@" >"rank$r" 2>&1 &
        pids[r]=$!
    done
}
variables_torchrun() {
    echo "RANK=$1 WORLD_SIZE=$2 LOCAL_RANK=$3 LOCAL_WORLD_SIZE=$4 MASTER_ADDR=$host MASTER_PORT=$port"
}
variables_horovod() {
    echo "HOROVOD_RANK=$1 HOROVOD_SIZE=$2 HOROVOD_LOCAL_RANK=$3 HOROVOD_LOCAL_SIZE=$4 HOROVOD_GLOO_RENDEZVOUS_ADDR=$host HOROVOD_GLOO_RENDEZVOUS_PORT=$port"
}
variables_kolo() {
    echo "KOLO_RANK=$1 KOLO_WORLD_SIZE=$2 KOLO_RENDEZVOUS=$host:$port"
}
variables_slurm() {
    echo "SLURM_PROCID=$1 SLURM_NTASKS=$2 SLURM_LOCALID=$3 SLURM_JOB_NODELIST=hosta,hostb SLURM_JOB_ID=$port SLURM_STEP_ID=0"
}

# ---- no token, no listening beyond loopback: said at once, by every rank
host=10.78.0.1
start_on torchrun "$member" sum
finish_ranks
expect "no token: codes" "9 9 9 9" "$codes"
for r in 0 1 2 3; do
    expect_text "no token" "the job has no token: set KOLO_TOKEN_FILE" "$(<"rank$r")"
done

# ---- with one: by address, and by a name that is loopback where it is the host's own
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >token
export KOLO_TOKEN_FILE=$PWD/token
for style in torchrun horovod slurm kolo; do
    for host in 10.78.0.1 hosta; do
        start_on "$style" "$member" sum
        finish_ranks
        expect "$style at $host: codes" "0 0 0 0" "$codes"
        [[ $codes == "0 0 0 0" ]] || head -n 5 rank[0-3]
    done
done

# ---- rank 0 and its host's end: named on the other host
host=hosta
start_on torchrun "$member" turn made
started 4
kill_rank 0
finish_ranks
for r in 1 2 3; do
    expect_text "rank 0 was killed" "KOLO_ERR_PEER_LOST" "$(<"rank$r")"
    expect_text "rank 0 was killed" "rank 0 (host hosta, pid" "$(<"rank$r")"
done

# ---- another token, behind a name: as soon as it is sure
echo another-token-0123456789 >other
chmod 600 other
./on a env KOLO_RANK=0 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=10.78.0.1:$port timeout -k 2 60 "$member" sum >rank0 2>&1 &
first=$!
for name in hosta both; do
    ./on b env KOLO_RANK=1 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=$name:$port KOLO_TOKEN_FILE=$PWD/other \
        timeout -k 2 60 "$member" sum >rank1 2>&1
    expect_text "another token at $name" "it has another token" "$(<rank1)"
    [[ $(<rank1) != *"found no rendezvous"* ]] || fail "another token at $name is tried to the deadline: $(<rank1)"
done
kill $first
wait $first
unset KOLO_TOKEN_FILE

# ---- real mpirun: the module tells address and token
cat >agent <<END
#!/bin/bash
# As ssh: [-x] HOST COMMAND...
[[ \$1 != -* ]] || shift
host=\$1; shift
exec $PWD/on "\${host#host}" bash -c "\$*"
END
chmod +x agent
if command -v mpirun.openmpi >/dev/null && [[ -e $BUILD_DIR/lib/libkolo-mpi.so.0 ]]; then
    timeout -k 2 60 ./on a env KOLO_LOG=info mpirun.openmpi --mca plm_rsh_agent "$PWD/agent" \
        --mca oob_tcp_if_include "10.78.0.0/24" --mca btl_tcp_if_include "10.78.0.0/24" --mca btl "tcp,self" --mca pml ob1 \
        --host hosta:2,hostb:2 --oversubscribe --bind-to none -x KOLO_LOG -x KOLO_INIT_TIMEOUT -np 4 \
        "$member" sum >out 2>err
    code=$?
    expect "mpirun on two hosts" "0 4" "$code $(grep -c 'of 4 done' out)"
    expect_text "mpirun on two hosts: rank 0" "by Open MPI (OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE), meeting at 10.78.0.1:" "$(<err)"
    expect "mpirun on two hosts: MPI is compared" 1 "$(grep -c 'info: allreduce of 8 B and of 1024 KiB: .* us by MPI, .* by kolo' err)"
    [[ $code == 0 ]] || head -n 20 err
fi

# ---- real mpiexec of MPICH: its process manager tells
if command -v mpiexec.mpich >/dev/null; then
    timeout -k 2 60 ./on a env KOLO_LOG=info mpiexec.mpich -launcher ssh -launcher-exec "$PWD/agent" -iface "${tag}va" \
        -hosts hosta:2,hostb:2 -n 4 "$member" sum >out 2>err
    code=$?
    expect "mpiexec on two hosts" "0 4" "$code $(grep -c 'of 4 done' out)"
    expect_text "mpiexec on two hosts: rank 0" "by MPICH (PMI_RANK, PMI_SIZE), meeting at 10.78.0.1:" "$(<err)"
    [[ $code == 0 ]] || head -n 20 err
fi

finish
