# SPDX-License-Identifier: Apache-2.0
"""
pod_words.py <manifest> <place>: for each pod of a manifest a file ROLE.INDEX.words, what its container is started with: variables, those that
the controller adds among them, and the command, one word a line. What is mounted in /etc is looked for in <place>.
"""

import re
import sys

import yaml

import pods

LABELS = {
    "batch.kubernetes.io/controller-uid": "2f1c7c1e-uid",
    "batch.kubernetes.io/job-name": "kolo",
    "controller-revision-hash": "kolo-6d5f7c9b8",
    "jobset.sigs.k8s.io/jobset-name": "kolo",
    "jobset.sigs.k8s.io/jobset-uid": "5e0b6d4a-uid",
    "jobset.sigs.k8s.io/replicatedjob-name": "ranks",
    "jobset.sigs.k8s.io/job-index": "0",
    "jobset.sigs.k8s.io/job-global-index": "0",
    "jobset.sigs.k8s.io/restart-attempt": "1",
}


def of_controller(owner, one, index):
    """As the controllers do, by the kind that owns the pod."""
    given = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "HOSTNAME": f"pod-{index}"}
    if owner["kind"] in ("Job", "JobSet", "TrainJob"):
        given["JOB_COMPLETION_INDEX"] = str(index)
    if owner["kind"] == "StatefulSet":
        given["HOSTNAME"] = f"kolo-{index}"
    if owner["kind"] == "TrainJob" and one.role == "ranks":
        given |= {
            "PET_NNODES": str(one.count),
            "PET_NPROC_PER_NODE": str(owner["spec"]["trainer"]["numProcPerNode"]),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": f"{one.first_host}.{one.service}",
            "PET_MASTER_PORT": "29500",
        }
    if owner["kind"] == "MPIJob":
        given["K_MPI_JOB_ROLE"] = "launcher" if one.role == "launcher" else "worker"
    if one.role == "launcher":
        given |= {"OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile", "OMPI_MCA_orte_keep_fqdn_hostnames": "true"}
    return given


def of_manifest(one):
    found = {}
    for variable in one.main().get("env", []):
        value = variable.get("value")
        if value is None:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            if path == "spec.serviceAccountName":
                value = one.spec["serviceAccountName"]
            else:
                value = LABELS[re.fullmatch(r"metadata\.labels\['(.*)'\]", path).group(1)]
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name.group(1)], value)
    return found


def main():
    manifest, place = sys.argv[1:]
    with open(manifest, encoding="utf-8") as file:
        objects = [thing for thing in yaml.safe_load_all(file) if thing]
    for one in pods.of_manifest(objects):
        for index in range(one.count):
            variables = of_controller(one.owner, one, index) | of_manifest(one)
            words = [f"{name}={value}" for name, value in variables.items()] + pods.words(one)
            with open(f"{one.role}.{index}.words", "w", encoding="utf-8") as file:
                file.write("\n".join(words).replace("/etc/kolo/", f"{place}/").replace("/etc/mpi/", f"{place}/mpi/") + "\n")


main()
