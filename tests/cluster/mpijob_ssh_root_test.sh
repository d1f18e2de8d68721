#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The classic way of an MPIJob: commands and variables of the manifest that `kolo k8s render mpijob-ssh` prints, as the user that it names, on a
# read-only root, with the key pair, the hostfile and the variables that mpi-operator gives. sshd and mpirun are real.
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"
hosts_need
ssh_need
[[ $(mpirun --version 2>/dev/null) == *"Open MPI"* ]] || skip "needs Open MPI's mpirun"
need_python yaml
trap hosts_down EXIT
hosts_up 3
install_for_all
cp -P "$BIN_DIR"/../lib/libkolo-mpi.so* "$place/lib" 2>/dev/null || skip "kolo was built without Open MPI"
program=$place/bin/program
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s\n' "$place/lib" "$place/bin/hello_allreduce" >"$program"
chmod 755 "$program"

# ---- what the operator gives
mkdir -p "$place/mpi" "$place/key"
ssh-keygen -q -t rsa -N '' -f "$place/key/id_rsa" </dev/null
cp "$place/key/id_rsa.pub" "$place/key/authorized_keys"
chown -R 0:65532 "$place/key" && chmod 640 "$place"/key/* # a mounted Secret, with fsGroup
cp /etc/passwd "$place/passwd"
echo "mpiuser:x:65532:65532::/home/mpiuser:/bin/sh" >>"$place/passwd"
for host in host1 host2 host3; do
    # shellcheck disable=SC2016 # the host's shell expands them
    on "$host" bash -ec '
        mount -t tmpfs tmpfs /home && mkdir -p /home/mpiuser/.ssh && cp -a "$1"/key/* /home/mpiuser/.ssh
        mount --bind "$1/passwd" /etc/passwd
        mount --bind /tmp /tmp && mount -o remount,bind,ro /home && mount -o remount,bind,ro /' - "$place" ||
        fail "cannot make a pod of $host"
done

# ---- what the manifest says, one word a line
"$kolo" k8s render mpijob-ssh --name kolo --workers 2 -- "$program" >manifest.yaml
"$python" - "$place" <<'END'
import sys
import yaml
with open("manifest.yaml", encoding="utf-8") as file:
    spec = list(yaml.safe_load_all(file))[-1]["spec"]["mpiReplicaSpecs"]
for role in ("Launcher", "Worker"):
    container = spec[role]["template"]["spec"]["containers"][0]
    # /etc is read-only here, and has no mpi.
    words = [f"{v['name']}={v['value']}" for v in container.get("env", [])] + container["command"]
    with open(f"{role}.words", "w", encoding="utf-8") as file:
        file.write("\n".join(words).replace("/etc/mpi/", f"{sys.argv[1]}/mpi/") + "\n")
END
mapfile -t worker <Worker.words
mapfile -t launcher <Launcher.words
pod=(setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs
    env -i PATH=/usr/bin:/bin HOME=/home/mpiuser)

# launch: the launcher's pod; its code and output are in $code and $out.
launch() {
    (cd / && on host1 timeout -k 5 60 "${pod[@]}" K_MPI_JOB_ROLE=launcher OMPI_MCA_orte_keep_fqdn_hostnames=true \
        OMPI_MCA_orte_default_hostfile="$place/mpi/hostfile" OMPI_MCA_plm_rsh_args="-o ConnectionAttempts=10" "${launcher[@]}") >out 2>&1 </dev/null
    code=$?
    out=$(<out)
}

for host in host2 host3; do
    (cd / && exec nsenter --target "${HOSTS_PID[$host]}" --net --uts --mount --pid -- "${pod[@]}" K_MPI_JOB_ROLE=worker "${worker[@]}") \
        >"$host.log" 2>&1 </dev/null &
    # As the probe of readiness does.
    wait_until 10 on host1 bash -c "exec 3<>/dev/tcp/$host/2222" 2>/dev/null || fail "sshd of $host: $(<"$host.log")"
done

printf 'host2 slots=1\nhost3 slots=1\n' >"$place/mpi/hostfile"
launch
expect "two workers: code" 0 "$code"
expect "two workers: ranks" 2 "$(grep -c "of 2" <<<"$out")"
[[ $failures == 0 ]] || echo "$out" "$(<host2.log)"

# ---- fewer hosts than the job has: no smaller world
printf 'host2 slots=2\n' >"$place/mpi/hostfile"
launch
[[ $code != 0 ]] || fail "on one host of two it runs: $out"
expect_text "on one host of two" "ppr" "$out"
finish
