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

pods() {
    "$python" "$SOURCE_DIR/tests/cluster/pods/pods.py" "$BUILD_DIR" "$@"
}
