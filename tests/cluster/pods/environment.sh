# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For tests of pods: skips where pods cannot be made. `pods CASE...` tries them.
set -euo pipefail
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"
[[ $(id -u) == 0 ]] || skip "needs root, for namespaces"
unshare --net --uts --mount --pid --ipc --fork true 2>/dev/null || skip "namespaces are not permitted here"
command -v dnsmasq >/dev/null || skip "no DNS server (apt-get install dnsmasq-base)"
need_python yaml

# For an MPIJob of mpirun and sshd.
need_ssh() {
    local command
    for command in ssh ssh-keygen /usr/sbin/sshd; do
        command -v "$command" >/dev/null || skip "needs $command (apt-get install openssh-server)"
    done
    [[ $(mpirun --version 2>/dev/null) == *"Open MPI"* ]] || skip "needs Open MPI's mpirun (apt-get install openmpi-bin)"
    compgen -G "$BUILD_DIR/lib/libkolo-mpi.so*" >/dev/null || skip "kolo was built without Open MPI"
}

# Two cases at a time, for they wait more than they do, and have networks of their own.
pods() {
    local even=() odd=() odd_one status=0
    if [[ $1 == --image ]]; then # which is unpacked once
        even=("$@") && shift $#
    fi
    while (($#)); do
        even+=("$1")
        (($# == 1)) || odd+=("$2")
        shift $(($# == 1 ? 1 : 2))
    done
    if ((${#odd[@]})); then
        "$python" "$SOURCE_DIR/tests/cluster/pods/pods.py" "$BUILD_DIR" "${odd[@]}" &
        odd_one=$!
    fi
    "$python" "$SOURCE_DIR/tests/cluster/pods/pods.py" "$BUILD_DIR" "${even[@]}" || status=1
    [[ -z ${odd_one-} ]] || wait "$odd_one" || status=1
    return $status
}
