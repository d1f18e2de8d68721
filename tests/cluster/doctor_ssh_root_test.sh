#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `kolo doctor` as people start it: on one of the hosts, to the others over a real ssh.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
ssh_need
trap hosts_down EXIT

# examine_from HOST ARGUMENTS: kolo doctor there; leaves $out, $code.
examine_from() {
    local host=$1
    shift
    out=$(cd "$place" && on "$host" timeout -k 5 100 "$kolo" doctor "${SSH[@]}" "$@" 2>&1)
    code=$?
}

hosts_up 3
install_for_all
ssh_up host2

examine_from host1 --hosts host1:1,host2:1
expect "two hosts: exit code" 0 "$code"
expect_text "two hosts" "healthy: nothing was found" "$out"
expect_text "two hosts" "10.77.0.2" "$out"

printf 'host1 slots=1\nhost3 slots=1 # no sshd there\nhost2 slots=1\n' >hostfile
examine_from host1 --hostfile "$PWD/hostfile"
expect "a host without sshd: exit code" 10 "$code"
expect_text "a host without sshd" "host host3: 'ssh " "$out"
expect_text "a host without sshd" "remedy: no sshd listens there" "$out"
[[ $out != *unreachable* ]] || fail "a host without sshd makes others unreachable: $out"

# Nothing of it stays.
for host in host1 host2; do
    wait_until 10 bash -c "! nsenter --target ${HOSTS_PID[$host]} --pid --mount -- pgrep -f 'doctor --probe' >/dev/null" ||
        fail "a probe is left on $host"
done

examine_from host1 --hosts host1 --hostfile hostfile
expect "two lists of hosts" 64 "$code"
examine_from host1 --hosts host1:x
expect "wrong slots" 64 "$code"
finish
