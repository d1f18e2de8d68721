# SPDX-License-Identifier: Apache-2.0
"""
The pods that a manifest becomes, as the controllers would make them: what the cross-checks look at.
"""

import copy


class Pods:
    """Pods that are alike: one template, and how many of it."""

    def __init__(self, owner, role, count, template, first_host, service):
        self.owner = owner  # the object that makes them
        self.role = role  # ranks, agent, launcher
        self.count = count
        self.labels = template.get("metadata", {}).get("labels", {})
        if owner.get("kind") == "MPIJob":  # of those that the operator adds, the one that manifests use
            self.labels = {**self.labels, "training.kubeflow.org/job-role": "worker" if role == "agent" else role}
        self.spec = template["spec"]
        self.first_host = first_host  # host name of the pod with rank 0; None: of no meaning
        self.service = service  # the headless Service that gives them names
        self.job_spec = None  # of the Job that makes them, where there is one

    def containers(self):
        return self.spec.get("initContainers", []) + self.spec["containers"]

    def main(self):
        return self.spec["containers"][0]

    def variables(self):
        return {variable["name"]: variable for variable in self.main().get("env", [])}


def kind_of(thing):
    """Volcano's Job is another one."""
    return "VolcanoJob" if thing["apiVersion"].startswith("batch.volcano.sh/") else thing["kind"]


def find(objects, kind):
    return [thing for thing in objects if kind_of(thing) == kind]


def words(pods):
    return pods.main().get("command", [])


def role_of(template):
    command = template["spec"]["containers"][0].get("command", [])
    if command[:2] == ["kolo", "agent"] or command[:1] == ["/usr/sbin/sshd"]:
        return "agent"
    return "ranks" if "--per-pod" in command else "launcher"


def of_job(thing):
    name, spec = thing["metadata"]["name"], thing["spec"]
    pods = Pods(thing, "ranks", spec["completions"], spec["template"], f"{name}-0", spec["template"]["spec"].get("subdomain"))
    pods.job_spec = spec
    return [pods]


def of_volcano(thing):
    name, found = thing["metadata"]["name"], []
    for task in thing["spec"]["tasks"]:
        found.append(Pods(thing, role_of(task["template"]), task["replicas"], task["template"], f"{name}-{task['name']}-0", name))
    return found


def of_statefulset(thing):
    name, spec = thing["metadata"]["name"], thing["spec"]
    return [Pods(thing, role_of(spec["template"]), spec["replicas"], spec["template"], f"{name}-0", spec["serviceName"])]


def of_mpijob(thing):
    name, replicas = thing["metadata"]["name"], thing["spec"]["mpiReplicaSpecs"]
    return [
        Pods(thing, "launcher", replicas["Launcher"]["replicas"], replicas["Launcher"]["template"], None, name),
        Pods(thing, "agent", replicas["Worker"]["replicas"], replicas["Worker"]["template"], None, name),
    ]


def of_jobset(thing, counts=None):
    name, found = thing["metadata"]["name"], []
    service = thing["spec"].get("network", {}).get("subdomain", name)
    for job in thing["spec"]["replicatedJobs"]:
        spec = job["template"]["spec"]
        count = (counts or {}).get(job["name"], spec.get("completions", 1))
        pods = Pods(thing, role_of(spec["template"]), count, spec["template"], f"{name}-{job['name']}-0-0", service)
        pods.job_spec = spec
        found.append(pods)
    return found


def of_trainjob(job, runtime):
    """As Trainer does: what the TrainJob says goes into its runtime's container `node` of the step `trainer`."""
    jobset = copy.deepcopy(runtime["spec"]["template"])
    jobset["metadata"] = job["metadata"]
    trainer = job["spec"].get("trainer", {})
    counts = {}
    for part in jobset["spec"]["replicatedJobs"]:
        labels = part["template"].get("metadata", {}).get("labels", {})
        counts[part["name"]] = 1 if part["name"] == "launcher" else trainer.get("numNodes", 0)
        if labels.get("trainer.kubeflow.org/trainjob-ancestor-step") != "trainer":
            continue
        for container in part["template"]["spec"]["template"]["spec"]["containers"]:
            if container["name"] != "node":
                continue
            container["command"] = trainer.get("command", [])
            container["env"] = container.get("env", []) + trainer.get("env", [])
            if "resourcesPerNode" in trainer:
                container["resources"] = trainer["resourcesPerNode"]
    found = of_jobset(jobset, counts)
    for pods in found:
        pods.owner = job
    return found


def of_manifest(objects):
    found = []
    for thing in find(objects, "Job"):
        found += of_job(thing)
    for thing in find(objects, "VolcanoJob"):
        found += of_volcano(thing)
    for thing in find(objects, "StatefulSet"):
        found += of_statefulset(thing)
    for thing in find(objects, "MPIJob"):
        found += of_mpijob(thing)
    for thing in find(objects, "JobSet"):
        found += of_jobset(thing)
    for thing in find(objects, "TrainJob"):
        wanted = thing["spec"]["runtimeRef"]
        for runtime in find(objects, wanted.get("kind", "ClusterTrainingRuntime")):
            if runtime["metadata"]["name"] == wanted["name"]:
                found += of_trainjob(thing, runtime)
    return found
