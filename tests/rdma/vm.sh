#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# vm.sh: runs one command in a throwaway virtual machine that has RDMA devices.
#
# Why: libibverbs needs kernel drivers that containers and most CI machines lack. This boots Debian's kernel in
# QEMU on top of this machine's own files, so that a program built here runs unchanged, beside two Soft-RoCE
# devices, rxe0 and rxe1, at the two ends of a veth pair. Packets never leave the virtual machine.
#
#   here    main -> qemu        9p: / read-only, shares read-write; virtio-serial: standard output and error
#   inside  boot_init -> switch_root -> guest_init -> COMMAND -> status file, reboot (which ends qemu)
# Much of it runs inside, where nobody here calls it from (SC2317), with words that are meant to be split (SC2086).
# shellcheck disable=SC2317,SC2086
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

usage='usage: vm.sh [--memory MiB] [--cpus N] [--timeout S] [--share DIR]... -- COMMAND [ARG...]

Runs COMMAND as root in a virtual machine, in this directory and environment, and exits with its status.
This directory and each --share DIR are this machine'\''s own, writable. /tmp, /var/tmp, /run and /dev/shm are
empty and in memory; everything else is read-only. Standard input is empty.
Exit status 124: timed out; 125: the virtual machine failed. Defaults: 2048 MiB, all CPUs up to 4, 300 s.
With --prepare instead of a command: downloads what the first run would, boots nothing.
RDMA_VM_ACCEL=kvm|tcg skips the choice of accelerator; RDMA_VM_KERNEL=PACKAGE takes another Debian kernel.'

# What boot_init loads, besides dependencies (crc32: rxe asks for it at run time). Left out if the package lacks it: siw.
modules=(virtio_pci virtio_console 9pnet_virtio 9p veth dummy sch_netem crc32_generic ib_uverbs rdma_ucm rdma_rxe siw)

main() {
    local memory=2048 cpus timeout=300 shares=("$PWD")
    cpus=$(($(nproc) < 4 ? $(nproc) : 4))
    while (($#)) && [[ $1 != -- ]]; do
        [[ $1 != --help ]] || { echo "$usage"; exit 0; }
        [[ $1 != --prepare ]] || { prepare; exit 0; }
        (($# > 1)) || fail "no value after '$1' (see --help)"
        case $1 in
            --memory) memory=$2 ;;
            --cpus) cpus=$2 ;;
            --timeout) timeout=$2 ;;
            --share) shares+=("$(realpath -e -- "$2" 2>/dev/null)") || fail "no such directory: $2" ;;
            *) fail "unknown option '$1' (see --help)" ;;
        esac
        shift 2
    done
    (($# > 1)) || fail "no command (see --help)"
    shift

    prepare
    scratch=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    run_machine "$@"
}

prepare() {
    install_packages
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/rdma-vm
    boot=$cache/${RDMA_VM_KERNEL:-linux-image-amd64}-$(declare -p modules | cat - <(declare -f boot_init) | md5sum | head -c 8)
    [[ -d $boot ]] || build_boot_files
}

fail() { printf 'vm.sh: %s\n' "$*" >&2; exit 125; }

clean_up() {
    [[ ! ${machine:-} ]] || kill "$machine" 2>/dev/null || true
    wait || true
    rm -rf "${scratch:?}"
}

install_packages() {
    local missing=() need
    for need in qemu-system-x86_64=qemu-system-x86 busybox=busybox-static cpio=cpio modprobe=kmod xz=xz-utils \
                zstd=zstd ip=iproute2 ibv_devinfo=ibverbs-utils ib_write_bw=perftest; do
        command -v "${need%=*}" >/dev/null || missing+=("${need#*=}")
    done
    compgen -G '/usr/lib/*/libibverbs/librxe-*' >/dev/null || missing+=(ibverbs-providers)
    ((${#missing[@]})) || return 0
    echo "vm.sh: installing ${missing[*]}" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
        &>/dev/null || fail "apt-get cannot install: ${missing[*]}"
}

# Fills $boot: vmlinux, initramfs. The kernel is unpacked, not installed, and decompressed here because an
# emulated processor takes seconds to do it. Built aside and renamed, so that two builds can race.
build_boot_files() {
    local work package version
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$work"; trap - RETURN' RETURN
    package=${RDMA_VM_KERNEL:-$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" {print $2; exit}')}
    (cd "$work" && apt-get download "$package" &>/dev/null) || fail "apt-get cannot download: ${package:-linux-image-amd64}"
    dpkg-deb -x "$work"/*.deb "$work/kernel"
    version=$(ls "$work/kernel/lib/modules")
    depmod -b "$work/kernel" "$version"

    # The x86 boot header says where the compressed kernel lies: sectors of set-up code, then offset and length.
    payload() { od -An -v -t "u$2" -j "$1" -N "$2" "$work/kernel/boot/vmlinuz-$version" | tr -d ' '; }
    mkdir -p "$work/boot" "$work/root/bin" "$work/root/modules"
    tail -c +$(((($(payload 497 1) + 1) * 512) + $(payload 584 4) + 1)) "$work/kernel/boot/vmlinuz-$version" |
        head -c $(($(payload 588 4) - 4)) >"$work/payload" || true      # the last four bytes are the size
    { xz -dc "$work/payload" || zstd -dc "$work/payload"; } >"$work/boot/vmlinux" 2>/dev/null || fail "cannot unpack $package"

    modprobe -d "$work/kernel" -S "$version" -a --show-depends "${modules[@]}" 2>/dev/null |
        awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$work/order" || true
    local number=100 file
    while read -r file; do                                      # numbered in the order of loading
        number=$((number + 1))
        if [[ $file == *.xz ]]; then xz -dc "$file"; else cat "$file"; fi >"$work/root/modules/$number"
    done <"$work/order"
    cp "$(command -v busybox)" "$work/root/bin/busybox"
    { echo '#!/bin/busybox sh'; declare -f boot_init; echo boot_init; } >"$work/root/init"
    chmod +x "$work/root/init"
    (cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/boot/initramfs"
    mv -T "$work/boot" "$boot" 2>/dev/null || [[ -d $boot ]] || fail "cannot write $boot"
}

# Inside, from the initramfs, in busybox's shell: mounts this machine's files and continues in guest_init.
boot_init() {
    /bin/busybox mkdir -p /dev /proc /sys /root
    /bin/busybox --install -s /bin
    mount -t devtmpfs dev /dev
    mount -t proc proc /proc
    for module in /modules/*; do insmod "$module"; done
    if grep -q rdma_vm_probe /proc/cmdline; then
        echo rdma_vm_ready >/dev/ttyS0
        reboot -f
    fi
    nine='trans=virtio,version=9p2000.L,msize=512000'
    mount -t 9p -o "$nine,ro,cache=loose" root /root || reboot -f
    mount --move /dev /root/dev
    mount --move /proc /root/proc
    mount -t sysfs sys /root/sys
    mkdir -p /root/dev/shm /root/dev/pts
    mount -t devpts devpts /root/dev/pts
    for directory in /tmp /var/tmp /run /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "/root$directory"; done
    mkdir /root/run/rdma-vm
    mount -t 9p -o "$nine,cache=none" scratch /root/run/rdma-vm || reboot -f
    number=0
    while read -r directory; do
        mkdir -p "/root$directory"
        mount -t 9p -o "$nine,cache=mmap" "share$number" "/root$directory" || reboot -f
        number=$((number + 1))
    done </root/run/rdma-vm/shares
    exec switch_root /root /bin/bash /run/rdma-vm/init
}

# Inside, as process 1, in bash: makes the devices, runs the command, reports its status.
guest_init() {
    local out err pid status=0
    mkfifo /run/out /run/err            # a port can be opened only once, so one cat owns each
    cat /run/out >/dev/vport*p1 & out=$!
    cat /run/err >/dev/vport*p2 & err=$!
    (
        exec </dev/null >/run/out 2>/run/err
        set -e
        make_devices
        ulimit -l unlimited
        # shellcheck source=/dev/null
        source /run/rdma-vm/command
        cd "$PWD"
        exec "${command[@]}"
    ) || status=$?
    for pid in /proc/[0-9]*; do         # what the command left behind would keep the pipes open
        pid=${pid#/proc/}
        [[ " $$ $out $err " == *" $pid "* ]] || kill -KILL "$pid"
    done 2>/dev/null
    wait
    echo "$status" >/run/rdma-vm/status
    echo b >/proc/sysrq-trigger
}

# Inside: veth0 (10.99.0.1, rxe0) <-> veth1 (10.99.0.2, rxe1). Both stay in the first network namespace, where rxe was seen
# to work. Linux would deliver between two addresses of its own without using the cable; asking the
# table of local addresses last, and for what leaves through veth0 or veth1 its own table first, makes it use it.
make_devices() {
    local end other
    ip link set lo up
    ip link add veth0 address 02:00:00:00:00:00 mtu 4200 type veth peer name veth1 address 02:00:00:00:00:01 mtu 4200
    ip rule add pref 100 lookup local
    ip rule del pref 0
    for end in 0 1; do
        other=$((1 - end))
        echo 1 >/proc/sys/net/ipv4/conf/veth$end/accept_local
        echo 1 >/proc/sys/net/ipv6/conf/veth$end/disable_ipv6
        ip address add 10.99.0.$((end + 1))/24 dev veth$end
        ip link set veth$end up
        ip neighbour replace 10.99.0.$((other + 1)) lladdr 02:00:00:00:00:0$other dev veth$end nud permanent
        ip route add 10.99.0.0/24 dev veth$end table 1$end
        ip rule add pref 1$end to 10.99.0.$((other + 1)) oif veth$end lookup 1$end
    done
    for end in 0 1; do rdma link add rxe$end type rxe netdev veth$end; done
}

# boot SECONDS ACCELERATOR KERNEL_ARGUMENT QEMU_ARGUMENT...: becomes qemu. Not -M microvm: under TCG 2 of 32 boots hung there,
# at least one of them while the kernel calibrated its clock.
# no_timer_check: on a busy machine an emulated timer ticks too late for the kernel, which then takes it for broken.
boot() {
    local processor=max,-erms,-fsrm # which, emulated, copy a byte at a time
    [[ $2 != kvm ]] || processor=host
    exec timeout --kill-after=5 "$1" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
        -M q35 -accel "$2" -cpu "$processor" -kernel "$boot/vmlinux" -initrd "$boot/initramfs" \
        -append "console=ttyS0 loglevel=4 reboot=t panic=-1 nokaslr mitigations=off no_timer_check random.trust_cpu=on $3" \
        -serial "file:$scratch/console" "${@:4}" </dev/null &>"$scratch/qemu"
}

# KVM if the kernel boots under it: /dev/kvm can exist and yet not run an unmodified guest. Tried once, then remembered.
choose_accelerator() {
    [[ -w /dev/kvm ]] || { echo tcg; return; }
    if [[ ! -e $boot/accelerator ]]; then
        (boot 5 kvm rdma_vm_probe -m 512) || true
        if grep -q rdma_vm_ready "$scratch/console"; then echo kvm; else echo tcg; fi >"$boot/accelerator"
    fi
    cat "$boot/accelerator"
}

run_machine() {
    local command=("$@") arguments=() number accelerator status=0
    accelerator=${RDMA_VM_ACCEL:-$(choose_accelerator)}
    { export -p; declare -p PWD command; } >"$scratch/command"
    { declare -f guest_init make_devices; echo guest_init; } >"$scratch/init"
    printf '%s\n' "${shares[@]}" >"$scratch/shares"

    share() {
        arguments+=(-fsdev "local,id=$1,path=${2//,/,,},security_model=none,multidevs=remap,readonly=$3"
                    -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
    }
    share root / on
    share scratch "$scratch" off
    for number in "${!shares[@]}"; do share "share$number" "${shares[number]}" off; done
    mkfifo "$scratch/out" "$scratch/err"
    cat "$scratch/out" &
    cat "$scratch/err" >&2 &
    boot "$timeout" "$accelerator" "" -m "$memory" -smp "$cpus" "${arguments[@]}" -device virtio-serial-pci \
        -chardev "file,id=out,path=$scratch/out" -device virtserialport,chardev=out,nr=1 \
        -chardev "file,id=err,path=$scratch/err" -device virtserialport,chardev=err,nr=2 & machine=$!
    wait "$machine" || status=$?
    machine=
    ((status != 124)) || { echo "vm.sh: timed out after $timeout s" >&2; exit 124; }
    [[ -s $scratch/status ]] || fail "the virtual machine failed: $(cat "$scratch/qemu" "$scratch/console" 2>/dev/null | tail -n 1)"
    exit "$(cat "$scratch/status")"
}

main "$@"
