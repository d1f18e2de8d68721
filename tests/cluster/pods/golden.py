# SPDX-License-Identifier: Apache-2.0
"""
Writes down what each pod of each kind gets, for comparison with golden/KIND.txt: a change of what a controller gives, or
of what the harness believes that it gives, is seen. Usage: golden.py KOLO FOLDER. Needs neither root nor a cluster.

What is secret or drawn by chance is not shown. What the kubelet adds to every pod (/etc/hosts, /etc/resolv.conf, HOSTNAME,
KUBERNETES_SERVICE_*) is in cluster.py.
"""
import re
import sys
import types

import controllers
import mpi

# Read in the sources of these.
VERSIONS = {
    "job": "Kubernetes 1.32 and 1.36", "statefulset": "Kubernetes 1.32 and 1.36", "jobset": "JobSet 0.12", "volcano": "Volcano (VC_TASK_INDEX and VC_<TASK>_HOSTS of its plugins env and svc)",
    "trainjob": "Kubeflow Trainer 2.3, policy torch", "trainjob-mpi": "Kubeflow Trainer 2.3, policy mpi",
    "mpijob": "mpi-operator 0.8.2 (v2beta1)", "mpijob-ssh": "mpi-operator 0.8.2 (v2beta1)",
}
UID = re.compile(r"[0-9a-f]{8}-0000-4000-8000-[0-9a-f]{12}")


def section(title, pairs):
    if pairs:
        yield f"  {title}"
        yield from (f"    {UID.sub('UID', line)}" for line in pairs)


def describe(pod):
    yield f"pod {pod.name}"
    yield f"  {pod.fqdn}, user {pod.user}"
    yield from section("command", [" ".join(pod.command)])
    yield from section("labels", [f"{k}: {v}" for k, v in sorted(pod.labels.items())])
    yield from section("annotations", [f"{k}: {v}" for k, v in sorted(pod.annotations.items())])
    yield from section("environment", [f"{k}={v}" for k, v in sorted(pod.environment.items())])
    for path, (text, mode) in sorted(pod.files.items()):
        yield f"  file {path} {mode:04o}"
        if path.startswith("/etc/mpi/"):
            yield from (f"    {line}" for line in text.splitlines())
    yield f"  folders {' '.join(sorted(pod.folders))}; /dev/shm {pod.shm}"
    yield f"  last word: {'what it wrote, else the end of its log' if pod.last_word_from_log else 'what it wrote'}"
    ports = ", ".join(f"{name} {number}" for name, number in sorted(pod.ports.items()))
    yield f"  ports {ports or 'none'}; ready when it listens at {pod.ready_port or 'none'}"


def main():
    kolo, folder = sys.argv[1:]
    mpi.key_pair = lambda where, mode: {f"{where}/{name}": ("", mode) for name in ("id_rsa", "id_rsa.pub", "authorized_keys")}
    controllers.chance = lambda: "xxxxx"
    nowhere = types.SimpleNamespace(namespace="lab", domain="cluster.local", image="any")
    for kind, make in controllers.KINDS.items():
        documents = controllers.render(kolo, kind, "--name", "train", "--workers", "2", "--per-pod", "2", "--image", "kolo:test", "--", "./train")
        with open(f"{folder}/{kind}.txt", "w", encoding="utf-8") as file:
            print(f"# {VERSIONS[kind]}", file=file)
            for pod in make(nowhere, documents, 0):
                print("\n".join(describe(pod)), file=file)


main()
