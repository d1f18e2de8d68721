#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Proves README.md's promise on a machine that has nothing: makes a minimal Debian or Ubuntu in a folder,
# clones this repository's HEAD into it, and runs there what a new user types.
#
#     sudo tests/fresh/run.sh                                   Debian 12, ./dev test and ./dev train
#     sudo tests/fresh/run.sh -s jammy -m http://archive.ubuntu.com/ubuntu
#     sudo tests/fresh/run.sh -- './dev test -L fast'           other commands, one an argument
#
# Needs root, debootstrap and git, downloads about 400 MB and takes some 20 minutes: so it is no part of
# ./dev test. Mounts and processes live in namespaces of their own and end with the script.
set -euo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
suite=bookworm
mirror=http://deb.debian.org/debian
base=
while getopts s:m:b: option; do
    case $option in
    s) suite=$OPTARG ;;
    m) mirror=$OPTARG ;;
    b) base=$OPTARG ;; # an existing root made by debootstrap, copied instead of downloaded
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[[ $# == 0 ]] && set -- './dev test' './dev train'

[[ $(id -u) == 0 ]] || { echo "needs root"; exit 77; }
command -v debootstrap >/dev/null || { echo "needs debootstrap (apt-get install debootstrap)"; exit 77; }
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"

if [[ -n $base ]]; then
    cp -a "$base/." "$root"
else
    components=main
    [[ $mirror == *ubuntu* ]] && components=main,universe
    debootstrap --variant=minbase --components="$components" "$suite" "$root" "$mirror"
fi
for tool in gcc cmake ninja; do
    if [[ -e $root/usr/bin/$tool ]]; then
        echo "the new root already has $tool: it proves nothing"
        exit 1
    fi
done
cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
git -c safe.directory="$source_dir" clone --quiet --no-hardlinks "$source_dir" "$root/opt/kolo"

# inside <command>: as root of the new machine, with /proc, /dev and /dev/shm of its own.
inside() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --pid --ipc --fork --kill-child --mount-proc="$root/proc" bash -euc '
        mount --rbind /dev "$1/dev"
        mount -t tmpfs -o mode=1777 shm "$1/dev/shm"
        mount --rbind /sys "$1/sys"
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
            chroot "$1" bash -euc "cd /opt/kolo && $2"' inside "$root" "$1" </dev/null
}

for command in "$@"; do
    echo "==== $suite: $command"
    start=$SECONDS
    inside "$command"
    echo "==== $suite: $command: passed in $((SECONDS - start)) s"
done
