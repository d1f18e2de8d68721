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
        KOLO_WORLD_SIZE="$size" KOLO_RENDEZVOUS=train-0.train:7700 KOLO_JOB="$job" KOLO_TOKEN=secret \
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
on host2 pkill -KILL -f hello_allreduce # the pod goes, and comes again elsewhere
wait $second
gone() { grep -q "rank 1 .* has gone before the world formed" pod0.host1; }
wait_until 10 gone || fail "nobody saw the pod go: $(<pod0.host1)"
pod host3 1 3 "$hello" &
second=$!
pod host2 2 3 "$hello" &
third=$!
done_at $first host1 0 3 "restarted"
done_at $second host3 1 3 "restarted"
done_at $third host2 2 3 "restarted"

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

# ---- IPv6 alone
for host in host1 host2; do on "$host" ip -4 addr flush dev eth0; done
records "fd77::1 train-0.train"
both "IPv6 alone"

finish
