# SPDX-License-Identifier: Apache-2.0
"""
What a manifest must have for its job to work, though its schema lets it be left out: without it the API server says nothing, and
pods wait, or stay, or let others in. Each check yields complaints, as those of crosschecks.py do.
"""

import re

from crosschecks import RETRIES, is_elastic
from pods import find, kind_of, words

HOME = "/home/mpiuser"  # of the images' user; where kolo looks for the job's key
# What is another one after each restart of the world.
GENERATIONS = {
    "Job": ("batch.kubernetes.io/controller-uid",),
    "JobSet": ("jobset.sigs.k8s.io/restart-attempt",),
    "TrainJob": ("batch.kubernetes.io/controller-uid", "jobset.sigs.k8s.io/restart-attempt"),
    "VolcanoJob": ("volcano.sh/job-version",),
    "StatefulSet": ("controller-revision-hash",),
}


def selectors_of(objects):
    """Those that must mean this job and no other one, with whose they are."""
    for thing in [thing for kind in ("Service", "StatefulSet", "PodDisruptionBudget", "PodMonitor") for thing in find(objects, kind)]:
        selector = thing["spec"].get("selector", {})
        yield thing["kind"], selector.get("matchLabels", selector)
    for thing in find(objects, "NetworkPolicy"):
        yield "NetworkPolicy", thing["spec"]["podSelector"].get("matchLabels", {})
        for rule in thing["spec"].get("ingress", []) + thing["spec"].get("egress", []):
            for peer in rule.get("from", []) + rule.get("to", []):
                if "podSelector" in peer:
                    yield "NetworkPolicy", peer["podSelector"].get("matchLabels", {})


def check_selectors(objects, pods, known):
    for kind, selector in selectors_of(objects):
        if not {"app.kubernetes.io/name", "app.kubernetes.io/instance"} <= set(selector):
            yield f"{kind}: selector {selector} means other jobs too"


def lets(policies, way, side, fits):
    return any(fits(rule) for thing in policies for rule in thing["spec"].get(way, []) if way.capitalize() in thing["spec"].get("policyTypes", []))


def check_policy(objects, pods, known):
    """Pods reach each other at all ports and the DNS; nobody else is let in, and they are let nowhere else, unless a policy says so."""
    policies = find(objects, "NetworkPolicy")

    def is_peers(side):
        return lambda rule: "ports" not in rule and any("podSelector" in peer and "namespaceSelector" not in peer for peer in rule.get(side, []))

    def is_dns(protocol, number):
        return lambda rule: not rule.get("to") and any(p.get("protocol", "TCP") == protocol and p.get("port") == number for p in rule.get("ports", []))

    types = {kind for thing in policies for kind in thing["spec"].get("policyTypes", [])}
    if types != {"Ingress", "Egress"}:
        yield f"NetworkPolicy: of the types {sorted(types)} only"
    for way, side in (("ingress", "from"), ("egress", "to")):
        if not lets(policies, way, side, is_peers(side)):
            yield f"NetworkPolicy: {way} does not let the job's pods at all ports"
    for number in (53, 5353):  # of a pod of OpenShift's DNS, to which its Service's 53 leads: policies see where a connection ends
        for protocol in ("UDP", "TCP"):
            if not lets(policies, "egress", "to", is_dns(protocol, number)):
                yield f"NetworkPolicy: no DNS by {protocol} at {number}"
    for thing in policies:
        for way, side in (("ingress", "from"), ("egress", "to")):
            for rule in thing["spec"].get(way, []):
                if not rule.get(side) and not rule.get("ports"):
                    yield f"NetworkPolicy: {way} lets everybody"


def check_commands(objects, pods, known):
    for one in pods:
        command = words(one)
        if command[:1] == ["kolo"] and command[1:2] not in (["run"], ["agent"]) or command[:2] == ["kolo", "run"] and "--" not in command[:-1]:
            yield f"command {command}"


def fields_behind(one, name, seen=()):
    """The fields of the pod that a variable's value is made of."""
    variable = one.variables().get(name, {})
    path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
    found = [path] if path else []
    for used in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
        if used not in seen:
            found += fields_behind(one, used, (*seen, name))
    return found


def check_generations(objects, pods, known):
    for one in pods:
        if one.role != "ranks":
            continue
        fields = fields_behind(one, "KOLO_JOB")
        if not any(f"['{label}']" in field for label in GENERATIONS[kind_of(one.owner)] for field in fields):
            yield f"KOLO_JOB is the same after a restart: {fields}"


def check_secrets(objects, pods, known):
    """Files that are root's are read by their group: fsGroup is that."""
    for one in pods:
        context = one.spec.get("securityContext", {})
        if not context.get("fsGroup") or context.get("fsGroup") != context.get("runAsGroup"):
            yield "securityContext: without fsGroup, which is runAsGroup too, nobody but root reads Secrets"
        for volume in one.spec.get("volumes", []):
            sources = set(volume) - {"name"}
            if len(sources) != 1:
                yield f"volume {volume['name']} has no source, or several"
            if "secret" in volume and ("secretName" not in volume["secret"] or volume["secret"].get("defaultMode", 0o644) & 0o007):
                yield f"volume {volume['name']}: everybody may read it, or it has no name"
        for variable in one.variables().values():
            if not variable.get("value") and "valueFrom" not in variable:
                yield f"{variable['name']} has no value"
    mounted = {volume.get("secret", {}).get("secretName") for one in pods for volume in one.spec.get("volumes", [])}
    for thing in find(objects, "Secret"):
        if thing["metadata"]["name"] not in mounted:
            yield f"Secret {thing['metadata']['name']}: no pod mounts it"
        if not thing.get("immutable"):
            yield f"Secret {thing['metadata']['name']}: a token that changes below pods that run differs from that of pods made anew"
    for thing in find(objects, "MPIJob") + find(objects, "TrainingRuntime"):
        spec = thing["spec"].get("mlPolicy", {}).get("mpi") or thing["spec"]
        if (thing["kind"] == "MPIJob" or spec is not thing["spec"]) and spec.get("sshAuthMountPath") != f"{HOME}/.ssh":
            yield "sshAuthMountPath: kolo does not look for the key there"


def check_attempts(objects, pods, known):
    """One failed pod ends the attempt of all; what no other attempt helps is not tried again; and all ends some day."""
    for thing in find(objects, "JobSet") + find(objects, "VolcanoJob"):
        if "ttlSecondsAfterFinished" not in thing["spec"]:
            yield f"{thing['kind']}: no ttl"
    for thing in find(objects, "JobSet") + [t["spec"]["template"] for t in find(objects, "TrainingRuntime")]:
        rules = thing["spec"].get("failurePolicy", {}).get("rules", [])
        if not any(r["action"] == "FailJobSet" and "PodFailurePolicy" in r.get("onJobFailureReasons", []) for r in rules):
            yield "failurePolicy: 64 and 65 are tried again"
        if thing["spec"].get("failurePolicy", {}).get("maxRestarts") != RETRIES:
            yield f"failurePolicy: maxRestarts is not {RETRIES}"
        for job in thing["spec"]["replicatedJobs"]:
            spec = job["template"]["spec"]
            is_agent = spec["template"]["spec"].get("restartPolicy") == "OnFailure"
            if not is_agent and spec.get("backoffLimit") != 0:
                yield f"backoffLimit: pods of {job['name']} are made anew alone"
            if thing.get("kind") == "JobSet" and "activeDeadlineSeconds" not in spec:
                yield "JobSet: no deadline"
    for thing in find(objects, "TrainingRuntime"):
        names = [job["name"] for job in thing["spec"]["template"]["spec"]["replicatedJobs"]]
        policy, success = thing["spec"]["mlPolicy"], thing["spec"]["template"]["spec"].get("successPolicy", {})
        if ("mpi" in policy) != ("launcher" in names) or ("torch" in policy) != ("launcher" not in names):
            yield "mlPolicy: pods are not told of each other"
        if "launcher" in names and success.get("targetReplicatedJobs") != ["launcher"]:
            yield "successPolicy: agents go on for ever, and so would the job"
        if not thing["spec"]["template"]["spec"].get("network", {}).get("publishNotReadyAddresses"):
            yield "TrainingRuntime: network gives pods no names before they are ready"
    for thing in find(objects, "MPIJob"):
        wanted = "AtStartup" if is_elastic(objects) else "WaitForWorkersReady"  # kolo run waits for whom it needs
        if thing["spec"].get("launcherCreationPolicy") != wanted:
            yield "launcherCreationPolicy: mpirun waits for nobody"
    for thing in find(objects, "PodDisruptionBudget"):
        if thing["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield "unhealthyPodEvictionPolicy: a pod that cannot start keeps its node from being drained"


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
