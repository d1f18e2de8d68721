#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The hosts that the other tests here run on: names, addresses, links that can be cut, nothing left.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=tests/cluster/hosts.sh
. "$here/hosts.sh"
hosts_need
trap hosts_down EXIT

# reach <from> <address>: can a connection be made within a second?
reach() {
    on "$1" timeout 1 bash -c "exec 3<>/dev/tcp/$2/7000" 2>/dev/null
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

hosts_up 3
[[ $(on host2 hostname) == host2 ]] || fail "host2 has another name"
on host2 python3 -c '
import socket
listener = socket.create_server(("", 7000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
while True: listener.accept()' &
disown # it ends with its host
for ((i = 0; i < 50; i++)); do reach host1 10.77.0.2 && break; sleep 0.1; done
reach host1 host2 || fail "host1 does not reach host2 by its name"
reach host3 fd77::2 || fail "host3 does not reach host2 by IPv6"
reach host2 127.0.0.1 || fail "host2 does not reach itself"
reach host1 127.0.0.1 && fail "the loopback of host1 is that of host2"

hosts_plug host2 eth1 10.78.0.2/24
hosts_plug host1 eth1 10.78.0.1/24
reach host1 10.78.0.2 || fail "the second cable does not work"
link_down host2
reach host1 10.77.0.2 && fail "the cable of host2 is cut and yet carries"
link_up host2
reach host1 10.77.0.2 || fail "the cable of host2 was mended and does not carry"

folder=$HOSTS_FOLDER holders=("${HOSTS_PID[@]}")
hosts_down
[[ ! -e $folder ]] || fail "$folder is left"
for pid in "${holders[@]}"; do
    [[ ! -e /proc/$pid ]] || fail "process $pid is left"
done
echo passed
