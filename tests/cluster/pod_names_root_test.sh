#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Pods that look for each other by name, where names come late, are stale, or mean another job; pods that
# go and come again; kolo run as process 1 of a container.
# shellcheck disable=SC2016,SC2317 # the ranks' shell expands them; functions are called by name
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
trap hosts_down EXIT
HOSTS_DNSLESS=1 hosts_up 3
install_for_all
hello=$place/bin/hello_allreduce
names=$HOSTS_FOLDER/hosts
resolver=$HOSTS_FOLDER/resolv.conf
echo "nameserver 127.0.0.1" >"$resolver" # nobody: the resolver says at once that it does not know
# A /dev of its own, as containers have it.
for host in host1 host2 host3; do
    on "$host" bash -c '
        mount --bind "$1" /etc/resolv.conf && mkdir "$2" && mount -t tmpfs none "$2" && cd "$2" || exit 1
        for node in null zero full random urandom tty; do touch $node && mount --bind /dev/$node $node; done
        mkdir shm && ln -s /proc/self/fd fd && touch termination-log && mount --rbind . /dev' \
        - "$resolver" "$HOSTS_FOLDER/$host.dev" || fail "no /dev for $host"
done
records() {
    echo "127.0.0.1 localhost" >"$names"
    printf '%s\n' "$@" >>"$names"
}
# pod HOST INDEX SIZE COMMAND...: as in an Indexed Job called train; output in podINDEX.HOST.
seconds=40 job=6f1c
pod() {
    local host=$1 index=$2 size=$3
    shift 3
    (cd "$place" && on "$host" env KUBERNETES_SERVICE_HOST=10.96.0.1 JOB_COMPLETION_INDEX="$index" HOSTNAME="train-$index" \
        KOLO_WORLD_SIZE="$size" KOLO_RENDEZVOUS=train-0.train:7700 KOLO_JOB="$job" KOLO_TOKEN=the-secret-of-this-test \
        KOLO_INIT_TIMEOUT=$seconds KOLO_TIMEOUT=20 timeout -k 5 60 "$@") >"pod$index.$host" 2>&1
}
# done_at PID HOST INDEX SIZE WHAT
done_at() {
    wait "$1" || fail "$5: pod $3: code $?: $(<"pod$3.$2")"
    expect "$5: pod $3" "rank $3 of $4: the sum of all ranks is $(($4 * ($4 - 1) / 2))" "$(grep 'rank .* of ' "pod$3.$2")"
}
# both WHAT: two pods that are to meet
both() {
    pod host2 1 2 "$hello" &
    local second=$!
    pod host1 0 2 "$hello" &
    local first=$!
    ${during:-true}
    done_at $first host1 0 2 "$1"
    done_at $second host2 1 2 "$1"
}

# ---- names
come_late() {
    sleep 2 # both look for it meanwhile
    records "10.77.0.1 train-0.train"
}
records
during=come_late both "a late record"
records "10.77.0.9 train-0.train" "10.77.0.1 train-0.train" # of a pod that is gone
both "a stale record"
records "fd77::1 train-0.train"
both "an IPv6 record"
# Another generation of the job still holds what the stale record means.
records "10.77.0.3 train-0.train"
job=old pod host3 0 2 "$hello" &
old=$!
listening() { on host3 bash -c 'grep -qi :1E14 /proc/net/tcp'; }
wait_until 10 listening || fail "the old generation does not listen"
come_right() {
    sleep 1
    records "10.77.0.3 train-0.train" "10.77.0.1 train-0.train"
}
during=come_right both "another generation answers"
job=old pod host2 1 2 "$hello" && done_at $old host3 0 2 "the old generation"

# ---- what is said in the end
seconds=3
alone() {
    pod host2 1 2 "$hello" && fail "$1: code 0"
    expect_text "$1" "$2" "$(<pod1.host2)"
    expect_text "$1" "$3" "$(<pod1.host2)"
}
records
alone "no record" "cannot resolve 'train-0.train'" "headless Service"
records "10.77.0.1 train-0.train"
alone "nobody listens" "Connection refused" "rank 0 does not listen"
link_down host1
alone "no way" "train-0.train:7700 (10.77.0.1:7700)" "NetworkPolicy"
link_up host1
pod host1 0 3 "$hello" && fail "missing pods: code 0"
expect_text "missing pods" "pod train-1.train" "$(<pod0.host1)"
expect_text "missing pods" "pod train-2.train" "$(<pod0.host1)"
if command -v python3 >/dev/null; then
    printf 'nameserver 10.77.0.3\noptions timeout:30\n' >"$resolver" # longer than a pod may take here
    on host3 python3 -c 'import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("10.77.0.3", 53)); time.sleep(100)' &
    bound() { on host3 bash -c 'grep -q :0035 /proc/net/udp'; }
    wait_until 10 bound || fail "no DNS server"
    records
    alone "a silent DNS server" "no DNS server has answered" "headless Service"
    [[ $(<pod1.host2) != *Terminated* ]] || fail "a silent DNS server held it"
    echo "nameserver 127.0.0.1" >"$resolver"
fi

# ---- pods that come again
seconds=40
records "10.77.0.1 train-0.train"
pod host1 0 3 "$hello" &
first=$!
pod host2 1 3 "$hello" &
second=$!
joined() { [[ $(on host1 ss -Htn state established "sport = :7700" | wc -l) -ge $1 ]]; }
wait_until 10 joined 2 || fail "two pods did not join"
sleep 0.5
pod host3 1 3 "$hello" && fail "two pods of one index: code 0"
expect_text "two pods of one index" "two pods are rank 1 at once" "$(<pod1.host3)"
expect_text "two pods of one index" "at 10.77.0.2:" "$(<pod1.host3)"
expect_text "two pods of one index" "at 10.77.0.3:" "$(<pod1.host3)"
# The pod's node vanishes; the next pod of that index is there before anybody knows, and waits.
link_down host2
pod host3 1 3 "$hello" &
third=$!
gone() { grep -q "rank 1 .* has gone before the world formed" pod0.host1; }
wait_until 20 gone || fail "nobody saw the pod go: $(<pod0.host1)"
on host2 pkill -KILL -f hello_allreduce
wait $second
link_up host2
# That one is killed, and comes again where the first one was.
sleep 1
on host3 pkill -KILL -f hello_allreduce
wait $third
gone_twice() { [[ $(grep -c "rank 1 .* has gone before the world formed" pod0.host1) == 2 ]]; }
wait_until 10 gone_twice || fail "nobody saw the second pod go: $(<pod0.host1)"
pod host2 1 3 "$hello" &
second=$!
pod host3 2 3 "$hello" &
third=$!
done_at $first host1 0 3 "restarted"
done_at $second host2 1 3 "restarted"
done_at $third host3 2 3 "restarted"

# ---- kolo run as process 1
contain=(unshare --pid --fork --mount-proc --kill-child)
pod host2 1 4 "${contain[@]}" "$kolo" run --per-pod 2 -- "$hello" &
second=$!
pod host1 0 4 "${contain[@]}" "$kolo" run --per-pod 2 -- "$hello" || fail "in containers: $(<pod0.host1)"
wait $second || fail "in containers: $(<pod1.host2)"
pod host1 0 1 "${contain[@]}" "$kolo" run -- bash -c '
    (setsid sleep 0.2 & setsid sleep 0.3 &) # orphans: process 1 is their parent now
    sleep 0.8
    for process in /proc/[0-9]*; do grep -h "^State:.*zombie" "$process/status" 2>/dev/null; done
    echo pid $(ps -o ppid= -p $$)'
expect "orphans are reaped" "pid 1" "$(sed 's/  */ /g' pod0.host1)"
pod host1 0 1 "${contain[@]}" bash -c 'exec "$0" run -- bash -c "trap \"echo saved; exit 0\" TERM; touch ready; while :; do sleep 0.05; done"' "$kolo" &
first=$!
wait_until 10 test -e "$place/ready" || fail "it did not start"
on host1 pkill -TERM -f "$kolo run"
wait $first
expect "SIGTERM" "143 saved" "$? $(tail -n 1 pod0.host1)"
pod host1 0 1 "${contain[@]}" "$kolo" run -- sh -c 'exit 7'
expect "termination log: code" 7 "$?"
expect_text "termination log" "kolo run: rank 0 (host host1, pid " "$(on host1 cat /dev/termination-log)"

# ---- an MPIJob without ssh: what the operator mounts is all there is; a worker comes late
records "10.77.0.1 train-launcher.train.ns.svc" "10.77.0.2 train-worker-0.train.ns.svc" "10.77.0.3 train-worker-1.train.ns.svc"
for home in job other; do
    mkdir -p "$place/$home/.ssh"
    head -c 1000 /dev/urandom | base64 >"$place/$home/.ssh/id_rsa"
done
printf '%s slots=2\n' train-launcher.train.ns.svc train-worker-0.train.ns.svc train-worker-1.train.ns.svc >"$place/hostfile"
worker() { # HOST HOME
    on "$1" env KUBERNETES_SERVICE_HOST=10.96.0.1 K_MPI_JOB_ROLE=worker HOME="$place/$2" "$kolo" agent </dev/null >"$1.agent" 2>&1 &
}
launcher() { # ARGUMENTS
    (cd "$place" && on host1 env KUBERNETES_SERVICE_HOST=10.96.0.1 K_MPI_JOB_ROLE=launcher JOB_COMPLETION_INDEX=0 HOME="$place/job" \
        POD_NAME=train-launcher OMPI_MCA_orte_default_hostfile="$place/hostfile" KOLO_INIT_TIMEOUT=$seconds \
        timeout -k 5 60 "$kolo" run "$@") >out 2>err
}
worker host2 job
launcher --no-prefix -x LD_LIBRARY_PATH="$place/lib" -- "$hello" &
first=$!
sleep 1
worker host3 job
late=$!
wait $first
expect "MPIJob: code" 0 "$?"
expect "MPIJob: ranks" 6 "$(grep -c 'of 6: the sum of all ranks is 15' out)"
launcher -- sh -c 'exit $((KOLO_RANK == 5 ? 9 : 0))'
expect "MPIJob: the job's code" 9 "$?"
on host3 pkill -TERM -f "$kolo agent"
wait $late
expect "an agent's SIGTERM" 143 "$?"
worker host3 other
seconds=3
launcher -- true
expect "MPIJob: another job's key" 64 "$?"
expect_text "MPIJob: another job's key" "it has another token" "$(<err)"
seconds=40

# ---- IPv6 alone
for host in host1 host2; do on "$host" ip -4 addr flush dev eth0; done
records "fd77::1 train-0.train"
both "IPv6 alone"

finish
