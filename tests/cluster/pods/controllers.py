# SPDX-License-Identifier: Apache-2.0
"""
From manifests to pods, as the controllers of Kubernetes, JobSet, Kubeflow Trainer and the MPI
operator do it: names, host names, labels, variables and files. Sources: docs/KUBERNETES.md.
"""
import copy
import re
import secrets
import subprocess

import yaml

from cluster import Pod


def render(kolo, *arguments):
    text = subprocess.run([kolo, "k8s", "render", *arguments], check=True, capture_output=True, text=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def by_kind(documents, kind):
    return next(d for d in documents if d["kind"] == kind)


# ---- one pod ---------------------------------------------------------------------------------------


def environment_of(container, extra, fields):
    """`env`, and what the controller adds behind it; later ones see earlier ones as $(NAME)."""
    result = {}
    for entry in [*container.get("env", []), *extra]:
        value = entry.get("value", "")
        if "valueFrom" in entry:
            value = fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        result[entry["name"]] = re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)",
                                       lambda m: result.get(m.group(1), m.group(0)), value)
    return result


def size_of(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]i)?", text).groups()
    return f"{number}{(unit or '')[:1].lower()}"


def make_pod(cluster, documents, template, *, name, hostname, subdomain, labels=None, annotations=None, extra=(), files=None):
    spec = template["spec"]
    container = spec["containers"][0]
    labels = {**template.get("metadata", {}).get("labels", {}), **(labels or {})}
    fields = {f"metadata.labels['{k}']": v for k, v in labels.items()}
    fields.update({f"metadata.annotations['{k}']": v for k, v in (annotations or {}).items()})
    fields.update({"metadata.name": name, "metadata.namespace": cluster.namespace, "spec.serviceAccountName": spec.get("serviceAccountName", "default")})
    volumes = {v["name"]: v for v in spec.get("volumes", [])}
    pod_files, folders, shm = dict(files or {}), [], "64m"
    for mount in container.get("volumeMounts", []):
        volume, path = volumes[mount["name"]], mount["mountPath"]
        if path == "/dev/shm":
            shm = size_of(volume["emptyDir"]["sizeLimit"])
        elif "emptyDir" in volume:
            folders.append(path)
        elif "secret" in volume:
            secret = next(d for d in documents
                          if d["kind"] == "Secret" and d["metadata"]["name"] == volume["secret"]["secretName"])
            for key, value in secret["stringData"].items():
                pod_files[f"{path}/{key}"] = (value, volume["secret"].get("defaultMode", 0o644))
    ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
    probe = container.get("readinessProbe", {}).get("tcpSocket", {}).get("port")
    pod = Pod(cluster, name, hostname=hostname, subdomain=subdomain, ports=ports, ready_port=ports.get(probe, probe),
              command=[*container.get("command", []), *container.get("args", [])],
              environment=environment_of(container, extra, fields), files=pod_files, folders=folders, shm=shm,
              last_word_from_log=container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
              user=spec.get("securityContext", {}).get("runAsUser", 0), labels=labels, annotations=annotations)
    pod.node = f"node-of-{name}" if spec.get("hostNetwork") else None
    return pod


# ---- kinds -----------------------------------------------------------------------------------------
# attempt: how often the controller has begun the whole again. Documents that are applied again are
# other ones: copies of what was rendered, which get other UIDs.


def uid_of(document):
    """The API server gives one to each object, once."""
    return document["metadata"].setdefault("uid", f"{secrets.randbits(32):08x}-0000-4000-8000-{secrets.randbits(48):012x}")


def chance():
    """What names that nobody gave end in."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))


def made_by_job(hostname):
    """The name of a Job's pod: its host name is only the beginning of it, and of that 58 characters at most."""
    return f"{hostname}-"[:58] + chance()


def indexed(cluster, documents, job, name, subdomain, labels=None):
    """The pods of an Indexed Job; those which others make of a template have labels that count as annotations too."""
    uid = uid_of(job)
    return [make_pod(cluster, documents, job["spec"]["template"], name=made_by_job(f"{name}-{i}"), hostname=f"{name}-{i}",
                     subdomain=job["spec"]["template"]["spec"].get("subdomain", subdomain),
                     labels={"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
                             "batch.kubernetes.io/job-completion-index": str(i), **(labels or {})},
                     annotations={"batch.kubernetes.io/job-completion-index": str(i), **(labels or {})},
                     extra=[{"name": "JOB_COMPLETION_INDEX", "value": str(i)}])
            for i in range(job["spec"]["completions"])]


def job(cluster, documents, attempt=0):
    """A Job never begins again as a whole: pods that are made anew are of the same one."""
    document = by_kind(documents, "Job")
    return indexed(cluster, documents, document, document["metadata"]["name"], None)


def jobset(cluster, documents, attempt=0, document=None):
    """A restart makes new Jobs."""
    document = document or by_kind(documents, "JobSet")
    spec, name, uid = document["spec"], document["metadata"]["name"], uid_of(document)
    subdomain = spec.get("network", {}).get("subdomain", name)
    pods, number = [], 0
    for replicated in spec["replicatedJobs"]:
        for index in range(replicated.get("replicas", 1)):
            prefix = "jobset.sigs.k8s.io/"
            labels = {prefix + "jobset-name": name, prefix + "jobset-uid": uid, prefix + "replicatedjob-name": replicated["name"],
                      prefix + "replicatedjob-replicas": str(replicated.get("replicas", 1)),
                      prefix + "job-index": str(index), prefix + "job-global-index": str(number),
                      prefix + "restart-attempt": str(attempt)}
            job = {"metadata": {}, "spec": replicated["template"]["spec"]}
            pods += indexed(cluster, documents, job, f"{name}-{replicated['name']}-{index}", subdomain, labels)
            number += 1
    return pods


def trainjob(cluster, documents, attempt=0):
    """The torch policy: Trainer makes a JobSet of the runtime's template."""
    train, runtime = by_kind(documents, "TrainJob"), by_kind(documents, "TrainingRuntime")
    name, trainer = train["metadata"]["name"], train["spec"]["trainer"]
    spec = copy.deepcopy(runtime["spec"]["template"]["spec"])
    port = "29500"
    for replicated in spec["replicatedJobs"]:
        job_spec = replicated["template"]["spec"]
        job_spec["parallelism"] = job_spec["completions"] = trainer["numNodes"]
        container = job_spec["template"]["spec"]["containers"][0]
        container["command"] = trainer["command"]
        container["env"] = [*container.get("env", []), *trainer.get("env", []),
                            {"name": "PET_NNODES", "value": str(trainer["numNodes"])},
                            {"name": "PET_NPROC_PER_NODE", "value": str(trainer.get("numProcPerNode", "auto"))},
                            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {
                                "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}},
                            {"name": "PET_MASTER_ADDR", "value": f"{name}-node-0-0.{name}"},
                            {"name": "PET_MASTER_PORT", "value": port}]
    return jobset(cluster, documents, attempt, jobset_of(train, spec))


def jobset_of(train, spec):
    """There is one for each TrainJob, as long as that is there."""
    return {"metadata": {"name": train["metadata"]["name"], "uid": uid_of(train)}, "spec": spec}


def volcano(cluster, documents, attempt=0):
    """With its plugins env and svc. The version counts up when all begin again, and begins with another Job of the name."""
    document = by_kind(documents, "Job")
    name, pods = document["metadata"]["name"], []
    hosts = {f"VC_{task['name'].upper()}": [f"{name}-{task['name']}-{i}.{name}" for i in range(task["replicas"])]
             for task in document["spec"]["tasks"]}
    lists = [{"name": f"{key}_HOSTS", "value": ",".join(value)} for key, value in hosts.items()] + \
        [{"name": f"{key}_NUM", "value": str(len(value))} for key, value in hosts.items()]
    for task in document["spec"]["tasks"]:
        for i in range(task["replicas"]):
            host = f"{name}-{task['name']}-{i}"
            pods.append(make_pod(cluster, documents, task["template"], name=host, hostname=host, subdomain=name,
                                 labels={"volcano.sh/job-name": name, "volcano.sh/task-spec": task["name"]},
                                 annotations={"volcano.sh/job-name": name, "volcano.sh/task-spec": task["name"], "volcano.sh/job-version": str(attempt),
                                              "scheduling.k8s.io/group-name": f"{name}-{uid_of(document)}"},
                                 extra=[{"name": "VK_TASK_INDEX", "value": str(i)}, {"name": "VC_TASK_INDEX", "value": str(i)}, *lists]))
    return pods


def statefulset(cluster, documents, attempt=0):
    document = by_kind(documents, "StatefulSet")
    name, spec = document["metadata"]["name"], document["spec"]
    revision = f"{name}-{5000000000 + attempt:x}"
    return [make_pod(cluster, documents, spec["template"], name=f"{name}-{i}", hostname=f"{name}-{i}",
                     subdomain=spec["serviceName"],
                     labels={"controller-revision-hash": revision,
                             "statefulset.kubernetes.io/pod-name": f"{name}-{i}", "apps.kubernetes.io/pod-index": str(i)})
            for i in range(spec["replicas"])]


def mpijob(cluster, documents, attempt=0):
    """The launcher first, then the workers."""
    document = by_kind(documents, "MPIJob")
    name, spec = document["metadata"]["name"], document["spec"]
    replicas, slots = spec["mpiReplicaSpecs"], spec.get("slotsPerWorker", 1)
    folder = spec.get("sshAuthMountPath", "/root/.ssh")
    key = "-----BEGIN EC PRIVATE KEY-----\n" + secrets.token_urlsafe(96) + "\n-----END EC PRIVATE KEY-----\n"
    ssh = {f"{folder}/id_rsa": (key, 0o600), f"{folder}/id_rsa.pub": ("ecdsa-sha2-nistp521 AAAA\n", 0o644),
           f"{folder}/authorized_keys": ("ecdsa-sha2-nistp521 AAAA\n", 0o644)}
    as_worker = spec.get("runLauncherAsWorker", False)
    suffix = f"{name}.{cluster.namespace}.svc"
    hosts = ([f"{name}-launcher.{suffix}"] if as_worker else []) + \
        [f"{name}-worker-{i}.{suffix}" for i in range(replicas["Worker"]["replicas"])]
    hostfile = "".join(f"{host} slots={slots}\n" for host in hosts)
    pods = []
    for role, count in (("launcher", 1), ("worker", replicas["Worker"]["replicas"])):
        for i in range(count):
            host = f"{name}-launcher" if role == "launcher" else f"{name}-worker-{i}"
            extra = [{"name": "K_MPI_JOB_ROLE", "value": role}]
            files = dict(ssh)
            if role == "launcher":
                extra += [{"name": "OMPI_MCA_orte_default_hostfile", "value": "/etc/mpi/hostfile"},
                          {"name": "OMPI_MCA_orte_keep_fqdn_hostnames", "value": "true"},
                          {"name": "OMPI_MCA_orte_set_default_slots", "value": str(slots)},
                          {"name": "OMPI_MCA_plm_rsh_args", "value": "-o ConnectionAttempts=10"}]
                files["/etc/mpi/hostfile"] = (hostfile, 0o444)
                files["/etc/mpi/discover_hosts.sh"] = (
                    "#!/bin/sh\n" + "".join(f"echo {h}\n" for h in sorted(hosts)), 0o555)
            pods.append(make_pod(cluster, documents, replicas[role.capitalize()]["template"], hostname=host,
                                 name=made_by_job(host) if role == "launcher" else host,  # of a Job; workers are Pods of the operator
                                 subdomain=name, extra=extra, files=files,
                                 labels={"training.kubeflow.org/job-name": name, "training.kubeflow.org/job-role": role,
                                         "training.kubeflow.org/replica-index": str(i + (role == "worker" and as_worker))}))
    return pods


KINDS = {"job": job, "jobset": jobset, "trainjob": trainjob, "statefulset": statefulset, "volcano": volcano, "mpijob": mpijob}
