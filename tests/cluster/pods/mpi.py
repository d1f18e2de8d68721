# SPDX-License-Identifier: Apache-2.0
"""
The kinds in which a launcher starts ranks in workers that wait, other than an MPIJob with agents: an MPIJob of
mpirun and sshd, and a TrainJob of the mpi policy. Sources: those of controllers.py.
"""
import copy
import secrets
import shutil
import subprocess
import tempfile

import controllers

# An image for sshd has this user (docs/KUBERNETES.md); ssh asks for its name and home.
USER = "mpiuser:x:65532:65532::/home/mpiuser:/bin/sh\n"


def key_pair(folder, mode):
    """As both operators make it: ECDSA on P-521, in files that are named after RSA."""
    if shutil.which("ssh-keygen") is None:  # agents do not read it
        return {f"{folder}/{name}": (secrets.token_urlsafe(96), mode) for name in ("id_rsa", "id_rsa.pub", "authorized_keys")}
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-C", "", "-f", f"{place}/key"],
                       stdin=subprocess.DEVNULL, check=True)
        with open(f"{place}/key", encoding="ascii") as key, open(f"{place}/key.pub", encoding="ascii") as public:
            private, public = key.read(), public.read()
    return {f"{folder}/id_rsa": (private, mode), f"{folder}/id_rsa.pub": (public, mode), f"{folder}/authorized_keys": (public, mode)}


def mpijob_ssh(cluster, documents, attempt=0):
    """As mpijob, with keys by which sshd lets people in, and what the image has for it."""
    pods = controllers.mpijob(cluster, documents, attempt)
    keys = key_pair(controllers.by_kind(documents, "MPIJob")["spec"]["sshAuthMountPath"], 0o640)
    for pod in pods:
        pod.files.update(keys)
        if cluster.image is None:
            with open("/etc/passwd", encoding="utf-8") as passwd:
                pod.files["/etc/passwd"] = (passwd.read() + USER, 0o644)
            pod.environment.setdefault("HOME", "/home/mpiuser")
    return pods


def trainjob_mpi(cluster, documents, attempt=0):
    """Trainer makes a JobSet of the runtime's template; only the launcher's container `node` has the hostfile."""
    train, runtime = controllers.by_kind(documents, "TrainJob"), controllers.by_kind(documents, "TrainingRuntime")
    name, trainer, mpi = train["metadata"]["name"], train["spec"]["trainer"], runtime["spec"]["mlPolicy"]["mpi"]
    slots = trainer.get("numProcPerNode", mpi.get("numProcPerNode", 1))
    hostfile = "".join(f"{name}-node-0-{i}.{name} slots={slots}\n" for i in range(trainer["numNodes"]))
    spec = copy.deepcopy(runtime["spec"]["template"]["spec"])
    for replicated in spec["replicatedJobs"]:
        job = replicated["template"]["spec"]
        job["parallelism"] = job["completions"] = trainer["numNodes"] if replicated["name"] == "node" else 1
        if replicated["template"].get("metadata", {}).get("labels", {}).get("trainer.kubeflow.org/trainjob-ancestor-step") == "trainer":
            container = job["template"]["spec"]["containers"][0]
            container["command"] = trainer["command"]
            container["env"] = [*container.get("env", []), *trainer.get("env", []),
                                {"name": "OMPI_MCA_orte_default_hostfile", "value": "/etc/mpi/hostfile"},
                                {"name": "OMPI_MCA_orte_keep_fqdn_hostnames", "value": "true"},
                                {"name": "OMPI_MCA_orte_set_default_slots", "value": str(slots)},
                                {"name": "OMPI_MCA_plm_rsh_args", "value": "-o ConnectionAttempts=10"}]
    pods = controllers.jobset(cluster, documents, attempt, controllers.jobset_of(train, spec))
    keys = key_pair(mpi["sshAuthMountPath"], 0o640)
    for pod in pods:
        pod.files.update(keys)
        if pod.hostname == f"{name}-launcher-0-0":
            pod.files["/etc/mpi/hostfile"] = (hostfile, 0o444)
    return sorted(pods, key=lambda pod: "-launcher-" not in pod.hostname)  # the launcher first


controllers.KINDS.update({"mpijob-ssh": mpijob_ssh, "trainjob-mpi": trainjob_mpi})
LAUNCHED = ("mpijob", "mpijob-ssh", "trainjob-mpi")
