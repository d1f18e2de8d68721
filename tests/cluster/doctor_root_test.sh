#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `kolo doctor` finds each fault planted on three hosts, names it with its remedy, and exits with its code;
# nothing on healthy ones. Hosts are entered by a stand-in for ssh, which can also plant faults in the probe.
set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=tests/cluster/hosts.sh
. "$here/hosts.sh"
hosts_need
trap hosts_down EXIT
failures=0
three=host1:1,host2:1,host3:1

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# The stand-in: reach HOST COMMAND. planted/HOST is read by the shell there first.
make_reach() {
    local name
    mkdir -p planted
    {
        # shellcheck disable=SC2016 # the script expands them
        printf '%s\n' '#!/bin/bash' 'case $1 in'
        for name in host1 host2 host3; do
            echo "$name) process=${HOSTS_PID[$name]};;"
        done
        # shellcheck disable=SC2016
        printf '%s\n' '*) echo "ssh: connect to host $1 port 22: No route to host" >&2; exit 255;;' 'esac'
        # shellcheck disable=SC2016
        echo "exec nsenter --target \$process --net --uts --mount --pid -- bash -c \
'[[ ! -e $PWD/planted/\$0 ]] || . $PWD/planted/\$0; eval \"\$1\"' \"\$1\" \"\$2\""
    } >reach
    chmod +x reach
}

# examine HOSTS: leaves $out, $code.
examine() {
    out=$(timeout -k 5 110 "$BIN_DIR/kolo" doctor --ssh "$PWD/reach" --hosts "$1" 2>&1)
    code=$?
}

# found WHAT CODE PART...: that code, and each part in what was said.
found() {
    local what=$1 wanted=$2 part
    shift 2
    [[ $code == "$wanted" ]] || fail "$what: exit code $code instead of $wanted: $out"
    for part in "$@"; do
        [[ $out == *"$part"* ]] || fail "$what: nothing is said of '$part': $out"
    done
}

# plant HOST COMMANDS: in the shell that becomes the probe there. heal: all of that is gone.
plant() { echo "$2" >"planted/$1"; }
heal() { rm -f planted/*; }

# ---- a host alone: loopback is down, as a network namespace begins; and then nothing else is up
out=$(unshare --net -- "$BIN_DIR/kolo" doctor 2>&1)
code=$?
found "no interface is up" 9 "the loopback interface of host" "remedy: ip link set lo up" \
    "no interface of host $(hostname) but loopback is up" "ip link set IFACE up"
# shellcheck disable=SC2016 # the inner shell expands it
out=$(unshare --net -- bash -c 'ip link set lo up; exec "$0" doctor' "$BIN_DIR/kolo" 2>&1)
code=$?
found "only loopback is up" 9 "no interface of host $(hostname) but loopback is up" "ip link set IFACE up"
[[ $out == *"the loopback interface"* ]] && fail "loopback that is up is found down: $out"
out=$(unshare --net -- "$BIN_DIR/kolo" info)
[[ $out == *"addresses  none: no network interface of this host is up"*"ip link set lo up"* ]] ||
    fail "kolo info without any interface: $out"

out=$(KOLO_NET=nosuch "$BIN_DIR/kolo" doctor 2>&1)
code=$?
found "KOLO_NET names nothing that is there" 9 "KOLO_NET=nosuch" "remedy: on $(hostname) unset KOLO_NET"

hosts_up 3
make_reach

examine $three
found "healthy hosts" 0 "healthy: nothing was found" "round trip"

# ---- one host by two names
sed -i 's/^host3)/host3|elsewhere)/' reach
examine $three,elsewhere:1
found "one host by two names" 23 "host3 and elsewhere are one host, host3" "remedy: name it once"

# ---- a host that is down
examine $three,host4:1
found "a host that is down" 10 "host4" "No route to host" "remedy: it is down"
[[ $out == *"13 unreachable"* ]] && fail "a host that is down makes others unreachable: $out"

# ---- a host whose cable is out: its own words come by another way, and nothing else is said of it
on host2 ip link set eth0 down
examine $three
found "no interface but loopback" 9 "no interface of host host2 but loopback is up" "docker run --network"
[[ $out == *"unreachable"* || $out == *"useless address"* ]] && fail "a host without network: too much is said: $out"
on host2 ip link set lo down
examine $three
found "no interface at all" 9 "the loopback interface of host host2 is down" "no interface of host host2 but"
[[ $out == *"unreachable"* || $out == *"does not answer"* ]] && fail "no interface at all: too much is said: $out"
on host2 bash -c 'ip link set lo up; ip link set eth0 up; ip address replace fd77::2/64 dev eth0'

# ---- another version: the first words of a probe of another kolo, and an older kolo without any
plant host2 'printf "\x0d\0\0\0\x01\x64\0\0\x01\0\0\0\x05\0\0\0""9.9.9"; exit 0'
examine $three
found "another version" 11 "host host2 has kolo 9.9.9" "remedy: install kolo"
# shellcheck disable=SC2016
plant host2 'echo "kolo: there is no command '"'doctor'"': kolo help lists them" >&2; exit 64'
examine $three
found "a kolo without doctor" 11 "host host2 has kolo older"
heal

# ---- another token in the file of the same name
mkdir -p token.host2 token && echo secret-of-the-job-0123456789 >token/file && echo secret-of-another-job >token.host2/file
chmod 600 token/file token.host2/file
KOLO_TOKEN_FILE=$PWD/token/file examine $three
found "the same token" 0
on host2 mount --bind "$PWD/token.host2" "$PWD/token"
KOLO_TOKEN_FILE=$PWD/token/file examine $three
found "another token" 12 "host host2 has another token" "remedy: scp -p"
on host2 umount "$PWD/token"

# ---- a filter that lets no connection from host2 into host3; the other way works
on host3 nft add table inet planted
on host3 nft 'add chain inet planted in { type filter hook input priority 0; }'
on host3 nft 'add rule inet planted in ip saddr 10.77.0.2 tcp flags & (syn|ack) == syn drop'
on host3 nft 'add rule inet planted in ip6 saddr fd77::2 tcp flags & (syn|ack) == syn drop'
examine $three
found "a one-way filter" 13 "host2 cannot reach host3 (though the other way works" "remedy: let TCP pass"
[[ $out == *"host3 cannot reach"* || $out == *"host1 cannot"* ]] && fail "a one-way filter: too much is said: $out"
on host3 nft flush chain inet planted in

# ---- packets of full size vanish on their way to host3
on host3 nft 'add rule inet planted in meta length gt 1300 drop'
examine $three
found "a black hole" 14 "small packets pass from host1 to host3" "ping -M do"
[[ $out == *"13 unreachable"* || $out == *"from host1 to host2 "* || $out == *"from host2 to host1 "* ]] &&
    fail "a black hole: too much is said: $out"
on host3 nft delete table inet planted

# ---- mixed MTU
on host3 ip link set eth0 mtu 1400
examine $three
found "mixed MTU" 15 "host3 (eth0) 1400" "remedy: 'ip link set IFACE mtu 1500'"
on host3 ip link set eth0 mtu 1500

# ---- one of two addresses leads nowhere
on host1 ip -6 route add blackhole fd77::2/128
examine $three
found "a useless address" 16 "host1 reaches host2, but not at [fd77::2]"
on host1 ip -6 route del blackhole fd77::2/128

# ---- a slow link
on host3 tc qdisc add dev eth0 root tbf rate 40mbit burst 32k latency 100ms
examine $three
found "a slow link" 17 "host3 to host1 carries" "remedy: 'ethtool"
[[ $out == *"host1 to host2 carries"* ]] && fail "a slow link: a fast one is named: $out"
on host3 tc qdisc del dev eth0 root

# ---- a clock ahead: a stand-in for one, under the probe of one host
if [[ -n ${SANITIZE:-} ]]; then
    echo "skipped: clock skew (a preloaded library and a sanitizer do not go together)"
else
    "${CC:-cc}" -shared -fPIC -O1 -o clock_ahead.so "$SOURCE_DIR/tests/cluster/doctor/clock_ahead.c" ||
        fail "the clock's stand-in is not built"
    plant host2 "export LD_PRELOAD=$PWD/clock_ahead.so"
    examine $three
    found "clock skew" 18 "the clock of host2 is 7" "ahead of" "remedy: timedatectl"
    [[ $out == *"the clock of host1"* || $out == *"the clock of host3"* ]] &&
        fail "clock skew: a right clock is named: $out"
    heal
fi

# ---- limits
plant host2 'ulimit -l 64'
examine $three
found "memlock" 19 "host host2 lets a process lock 64 KiB" "memlock unlimited"
heal

on host3 mount -t tmpfs -o size=1m planted /dev/shm
examine $three
found "/dev/shm" 20 "host host3 has a /dev/shm of 1.0 MiB" "sizeLimit"
on host3 umount /dev/shm

# ---- processors: a control group's quota where one can be made; more ranks than processors anywhere
group=/sys/fs/cgroup/cpu/kolo-doctor-$$
if mkdir "$group" 2>/dev/null && echo 50000 2>/dev/null >"$group/cpu.cfs_quota_us"; then
    plant host2 "echo \$\$ >$group/tasks 2>/dev/null || echo 0 >$group/tasks"
    examine $three
    found "a quota" 21 "the control group of host host2 grants 0.50 processors" "cpu: \"1\""
    heal
else
    echo "note: no control group can be made here; the quota is tested in launcher/doctor/judge_test"
fi
rmdir "$group" 2>/dev/null
examine host1:1,host2:4000
found "more ranks than processors" 21 "host host2 lets kolo run on" "--hosts host2:"

# ---- several at once: the lowest code, all named
plant host1 'ulimit -l 64'
on host3 mount -t tmpfs -o size=1m planted /dev/shm
examine $three
found "two faults" 19 "memory" "/dev/shm of 1.0 MiB"
on host3 umount /dev/shm
heal

exit $((failures > 0))
