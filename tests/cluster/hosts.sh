# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Hosts for tests: each is a set of namespaces (network, host name, mounts, processes) with an address on
# a switch that all of them share, as machines in a rack. To be sourced, as root:
#
#   hosts_up 2                     host1 (10.77.0.1, fd77::1) and host2, links of veth pairs
#   on host2 kolo run ...          a command on a host; its code
#   link_down host2; link_up host2 the cable
#   hosts_down                     everything, also what the hosts still run (trap it on EXIT)
#
#      host1 eth0 ---.              the switch: a bridge in a network namespace of its own, so
#      host2 eth0 ----+-- switch    nothing of all this is seen on the machine itself
#      host3 eth0 ---'
#
# /etc/hosts of a host names all of them, unless HOSTS_DNSLESS=1: then only addresses work. Host files of
# /tmp and the source tree are shared by all; boot id and user are the machine's, but the network
# namespace is not, so ranks of two hosts do not share memory.

HOSTS_FOLDER=
declare -A HOSTS_PID=()

# Skips the test for those who are not root. Who is makes hosts: a test that is not run proves nothing.
hosts_need() {
    [[ $(id -u) == 0 ]] || { echo "skipped: needs root, for network namespaces"; exit 77; }
    unshare --net --uts --mount --pid --fork true || { echo "namespaces are not permitted here"; exit 1; }
}

# _hosts_hold <name>: starts the process that keeps the namespaces of a host; its id is in HOSTS_PID.
_hosts_hold() {
    local name=$1 ready=$HOSTS_FOLDER/$1.ready holder
    mkfifo "$ready"
    # The inner shell is process 1 of the host: it takes in orphans, and when it ends, so does all else.
    # shellcheck disable=SC2016 # it expands them itself
    unshare --net --uts --mount --pid --fork --kill-child --mount-proc bash -c '
        hostname "$1" && ip link set lo up && mount --bind "$2" /etc/hosts && echo > "$3"
        while :; do sleep 3600; done' - "$name" "$HOSTS_FOLDER/hosts" "$ready" </dev/null >/dev/null &
    holder=$!
    HOSTS_PID[$name.holder]=$holder
    read -r -t 10 <>"$ready" || { echo "host $name did not start" >&2; return 1; }
    HOSTS_PID[$name]=$(($(<"/proc/$holder/task/$holder/children")))
}

# on <host> <command> [arguments]
on() {
    local name=$1
    shift
    nsenter --target "${HOSTS_PID[$name]}" --net --uts --mount --pid --wd="$PWD" -- "$@"
}

# hosts_up <count>
hosts_up() {
    local count=$1 i
    HOSTS_FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/kolo-hosts.XXXXXX")
    echo "127.0.0.1 localhost" >"$HOSTS_FOLDER/hosts"
    for ((i = 1; i <= count && ${HOSTS_DNSLESS:-0} == 0; i++)); do
        printf '10.77.0.%d host%d\nfd77::%d host%d\n' $i $i $i $i >>"$HOSTS_FOLDER/hosts"
    done
    _hosts_hold switch || return 1
    on switch ip link add rack type bridge && on switch ip link set rack up || return 1
    for ((i = 1; i <= count; i++)); do
        _hosts_hold "host$i" && hosts_plug "host$i" eth0 "10.77.0.$i/24" "fd77::$i/64" || return 1
    done
}

# hosts_plug <host> <interface> <address/prefix>...: one more cable from the switch to a host.
hosts_plug() {
    local name=$1 interface=$2 port=$1.$2 address
    shift 2
    # Seen from outside the hosts' process namespaces, where the ids are known.
    nsenter --target "${HOSTS_PID[switch]}" --net -- ip link add "$port" type veth \
        peer name "$interface" netns "${HOSTS_PID[$name]}" || return 1
    on switch ip link set "$port" master rack && on switch ip link set "$port" up || return 1
    on "$name" bash -c "echo 0 >/proc/sys/net/ipv6/conf/$interface/accept_dad" # usable at once
    for address in "$@"; do
        on "$name" ip address add "$address" dev "$interface" || return 1
    done
    on "$name" ip link set "$interface" up
}

# link_down <host> [interface]: as if the cable were pulled; nothing is told to anybody.
link_down() { on switch ip link set "$1.${2:-eth0}" down; }
link_up() { on switch ip link set "$1.${2:-eth0}" up; }

hosts_down() {
    local name
    for name in "${!HOSTS_PID[@]}"; do
        [[ $name != *.holder ]] || kill -KILL "${HOSTS_PID[$name]}" 2>/dev/null || true
    done
    for name in "${!HOSTS_PID[@]}"; do
        wait "${HOSTS_PID[$name]}" 2>/dev/null || true # that of the holders, which are our children
        while [[ -e /proc/${HOSTS_PID[$name]} ]]; do sleep 0.01; done
    done
    HOSTS_PID=()
    [[ -z $HOSTS_FOLDER ]] || rm -rf "$HOSTS_FOLDER"
    HOSTS_FOLDER=
}
