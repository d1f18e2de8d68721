# SPDX-License-Identifier: Apache-2.0
"""
Mistakes, one at a time, that each must be found: a manifest's path, what becomes of it, and a word of the complaint. Where a kind
has no such path the mistake is not made; each must be made in at least one.
"""

from pods import kind_of

REMOVE = object()
ORDER = object()  # the object comes first


def pod(rest):
    """The same part of the pods of each kind."""
    return [
        ("Job", f"spec/template/{rest}"),
        ("StatefulSet", f"spec/template/{rest}"),
        ("JobSet", f"spec/replicatedJobs/0/template/spec/template/{rest}"),
        ("TrainingRuntime", f"spec/template/spec/replicatedJobs/0/template/spec/template/{rest}"),
        ("VolcanoJob", f"spec/tasks/0/template/{rest}"),
        ("MPIJob", f"spec/mpiReplicaSpecs/Worker/template/{rest}"),
        ("MPIJob", f"spec/mpiReplicaSpecs/Launcher/template/{rest}"),
    ]


def job(rest):
    return [
        ("Job", f"spec/{rest}"),
        ("JobSet", f"spec/replicatedJobs/0/template/spec/{rest}"),
        ("TrainingRuntime", f"spec/template/spec/replicatedJobs/0/template/spec/{rest}"),
    ]


CONTAINER = "spec/containers/0"

# (name, places, value: what becomes of it; REMOVE: nothing; a function of the old value, a word of the complaint)
MUTATIONS = [
    # Typos, which only closed schemas find.
    ("typo in a pod", pod("spec/hostNetwerk"), True, "hostNetwerk"),
    ("typo in a container", pod(f"{CONTAINER}/imagePullpolicy"), "Always", "imagePullpolicy"),
    ("typo in a volume", pod("spec/volumes/0/emptyDir/sizelimit"), "1Gi", "sizelimit"),
    ("typo in metadata", pod("metadata/lables"), {}, "lables"),
    ("typo in a Job", job("backofLimit"), 3, "backofLimit"),
    ("typo in an MPIJob", [("MPIJob", "spec/slotPerWorker")], 1, "slotPerWorker"),
    ("typo in a JobSet", [("JobSet", "spec/network/publishNotReadyAdresses")], True, "publishNotReadyAdresses"),
    ("typo in a TrainJob", [("TrainJob", "spec/trainer/numNode")], 2, "numNode"),
    ("typo in a TrainingRuntime", [("TrainingRuntime", "spec/mlPolicy/torsch")], {}, "torsch"),
    ("typo in a Service", [("Service", "spec/clusterIp")], "None", "clusterIp"),
    ("typo in a NetworkPolicy", [("NetworkPolicy", "spec/podselector")], {}, "podselector"),
    ("typo in a budget", [("PodDisruptionBudget", "spec/minAvailible")], 1, "minAvailible"),
    ("typo in a PodMonitor", [("PodMonitor", "spec/podMetricsEndpoints/0/prot")], "metrics", "prot"),
    ("typo in a PodGroup", [("PodGroup", "spec/minMembers")], 2, "minMembers"),
    ("wrong word", [("MPIJob", "spec/mpiImplementation")], "OpenMPI5", "OpenMPI5"),
    ("wrong type", job("backoffLimit"), "three", "three"),
    ("required field", [("JobSet", "spec/replicatedJobs/0/name")], REMOVE, "'name' is a required"),
    ("other version", [("MPIJob", "apiVersion")], "kubeflow.org/v1", "apiVersion"),
    # What does not fit.
    ("subdomain", [("Job", "spec/template/spec/subdomain")], "kolo-ranks", "subdomain"),
    ("serviceName", [("StatefulSet", "spec/serviceName")], "other", "there is no Service other"),
    ("subdomain of a JobSet", [("JobSet", "spec/network/subdomain")], "other", "KOLO_RENDEZVOUS"),
    ("name of the job", pod(f"{CONTAINER}/env/name=JOB_NAME/valueFrom/fieldRef/fieldPath"), "metadata.name", "KOLO_RENDEZVOUS"),
    ("not headless", [("Service", "spec/clusterIP")], REMOVE, "headless"),
    ("not published", [("Service", "spec/publishNotReadyAddresses")], False, "headless"),
    ("names when ready", [("JobSet", "spec/network/publishNotReadyAddresses")], REMOVE, "before they are ready"),
    ("selector of the Service", [("Service", "spec/selector/app.kubernetes.io~instance")], "other", "does not find"),
    ("selector of the policy", [("NetworkPolicy", "spec/podSelector/matchLabels/app.kubernetes.io~instance")], "other", "does not find"),
    ("empty selector", [("PodDisruptionBudget", "spec/selector/matchLabels")], {}, "does not find"),
    ("selector of the budget", [("PodDisruptionBudget", "spec/selector/matchLabels/app.kubernetes.io~name")], "colo", "does not find"),
    ("selector of the set", [("StatefulSet", "spec/selector/matchLabels/app.kubernetes.io~name")], "colo", "does not find"),
    ("selector of the monitor", [("PodMonitor", "spec/selector/matchLabels/app.kubernetes.io~name")], "colo", "does not find"),
    ("labels of pods", pod("metadata/labels/app.kubernetes.io~instance"), "other", "does not find"),
    ("peers of the policy", [("NetworkPolicy", "spec/ingress/0/from/0/podSelector/matchLabels/app.kubernetes.io~name")], "x", "own pods"),
    ("completions", job("completions"), lambda n: n + 1, "completions"),
    ("not indexed", job("completionMode")[:2], "NonIndexed", "completionMode"),
    ("world size", pod(f"{CONTAINER}/env/name=KOLO_WORLD_SIZE/value"), "3", "KOLO_WORLD_SIZE 3"),
    ("ranks of a pod", [(k, p) for k, p in pod(f"{CONTAINER}/command/3") if k in ("Job", "JobSet")], "5", "KOLO_WORLD_SIZE"),
    ("pods of a job", pod(f"{CONTAINER}/env/name=JOBSET_PODS_PER_JOB/value"), "7", "JOBSET_PODS_PER_JOB"),
    ("rendezvous", pod(f"{CONTAINER}/env/name=KOLO_RENDEZVOUS/value"), "kolo-1.kolo:7700", "KOLO_RENDEZVOUS"),
    ("rendezvous of Trainer", [("TrainJob", "spec/trainer/env/1/value")], "kolo-node-0.kolo:7700", "KOLO_RENDEZVOUS"),
    ("port of the rendezvous", [("Job", f"spec/template/{CONTAINER}/ports/0/containerPort")], 7007, "KOLO_RENDEZVOUS"),
    ("no job", pod(f"{CONTAINER}/env/name=KOLO_JOB/name"), "JOB", "KOLO_JOB"),
    ("slots", [("MPIJob", "spec/slotsPerWorker")], lambda n: n + 1, "mpirun"),
    ("numNodes", [("TrainJob", "spec/trainer/numNodes")], REMOVE, "numNodes"),
    ("numProcPerNode", [("TrainJob", "spec/trainer/numProcPerNode")], 5, "numProcPerNode"),
    ("runtimeRef", [("TrainJob", "spec/runtimeRef/name")], "other", "runtimeRef"),
    ("order", [("TrainJob", "kind")], ORDER, "comes before"),
    ("failed workers", [("MPIJob", "spec/mpiReplicaSpecs/Worker/restartPolicy")], "Never", "restartPolicy of workers"),
    ("gang with a launcher", [("MPIJob", "spec/runPolicy/schedulingPolicy/minAvailable")], 3, "minAvailable"),
    ("workers that stay", [("MPIJob", "spec/runPolicy/cleanPodPolicy")], "None", "cleanPodPolicy"),
    ("readiness", [("MPIJob", f"spec/mpiReplicaSpecs/Worker/template/{CONTAINER}/readinessProbe")], REMOVE, "readinessProbe"),
    ("port of a probe", [("StatefulSet", f"spec/template/{CONTAINER}/ports/0/name")], "agents", "there is no port agent"),
    ("port of the monitor", [("PodMonitor", "spec/podMetricsEndpoints/0/port")], "metric", "there is no port metric"),
    ("ports of metrics", [("PodMonitor", "spec/podMetricsEndpoints/0/relabelings/0/regex")], "metrics", "ports of metrics"),
    ("port of a rank", [(k, p) for k, p in pod(f"{CONTAINER}/ports/-1") if k != "TrainingRuntime"], REMOVE, "metrics"),
    ("metrics of mpirun", [("MPIJob", f"spec/mpiReplicaSpecs/Launcher/template/{CONTAINER}/command/8")], "KOLO_METRICS_PORT=9700", "sshd starts"),
    ("ports of a policy", [("NetworkPolicy", "spec/ingress/0/ports/0/endPort")], 9700, "all ports"),
    ("names on the host", pod("spec/dnsPolicy"), lambda _: "ClusterFirst", "ClusterFirstWithHostNet"),
    ("name of the node", pod(f"{CONTAINER}/env/name=POD_NAME/valueFrom/fieldRef/fieldPath"), "spec.nodeName", "name of its node"),
    ("port of the agents", [("MPIJob", f"spec/mpiReplicaSpecs/Worker/template/{CONTAINER}/ports/0/containerPort")], lambda port: port + 1, "agents"),
    ("port of a policy", [("NetworkPolicy", "spec/ingress/0/ports/0/port")], "metric", "there is no port metric"),
    ("port of the Service", [("Service", "spec/ports/0/targetPort")], "other", "there is no port other"),
    ("ports of one name", [(k, p) for k, p in pod(f"{CONTAINER}/ports/0/name") if k != "TrainingRuntime"], "metrics", "ports"),
    ("volume", pod("spec/volumes/0/name"), "memory", "volumes"),
    ("mount", pod(f"{CONTAINER}/volumeMounts/0"), REMOVE, "volumes"),
    ("disk for shm", pod("spec/volumes/0/emptyDir/medium"), REMOVE, "/dev/shm"),
    ("shm without limit", pod("spec/volumes/0/emptyDir/sizeLimit"), REMOVE, "/dev/shm"),
    ("large shm", [("Job", "spec/template/spec/volumes/0/emptyDir/sizeLimit")], "64Gi", "more than all"),
    ("secret", pod("spec/volumes/2/secret/secretName"), "token", "there is no Secret token"),
    ("token elsewhere", pod(f"{CONTAINER}/env/name=KOLO_TOKEN_FILE/value"), "/etc/token", "no Secret that is mounted"),
    ("latest", pod(f"{CONTAINER}/image"), "kolo:latest", "not pinned"),
    ("no tag", pod(f"{CONTAINER}/image"), "registry:5000/kolo", "not pinned"),
    ("unknown variable", pod(f"{CONTAINER}/env/0/name"), "KOLO_WORLDSIZE", "does not know"),
    ("variable set later", pod(f"{CONTAINER}/env/name=JOBSET_NAME/name"), "SET_NAME", "not set before"),
    ("unknown exit code", job("podFailurePolicy/rules/0/onExitCodes/values/0"), 66, "66 is no exit code"),
    ("lost peers ignored", job("podFailurePolicy/rules"), lambda rules: [
        *rules, {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [76]}}], "Ignore of exit codes"),
    ("exit code to retry", job("podFailurePolicy/rules/0/onExitCodes/values/0"), 76, "76 is no exit code"),
    ("container of a rule", job("podFailurePolicy/rules/0/onExitCodes/containerName"), "main", "no container main"),
    ("disruptions count", job("podFailurePolicy/rules/-1"), REMOVE, "disruptions"),
    ("no failure policy", job("podFailurePolicy"), REMOVE, "podFailurePolicy is missing"),
    ("restarts", job("template/spec/restartPolicy"), "OnFailure", "needs Never"),
    ("root", pod("spec/securityContext/runAsNonRoot"), False, "as root"),
    ("seccomp", pod("spec/securityContext/seccompProfile"), REMOVE, "seccomp"),
    ("privileges", pod(f"{CONTAINER}/securityContext/allowPrivilegeEscalation"), True, "privileges"),
    ("writable root", pod(f"{CONTAINER}/securityContext/readOnlyRootFilesystem"), False, "write its root"),
    ("capabilities", pod(f"{CONTAINER}/securityContext/capabilities/add"), ["SYS_ADMIN"], "capabilities"),
    ("service links", pod("spec/enableServiceLinks"), REMOVE, "enableServiceLinks"),
    ("account", pod("spec/serviceAccountName"), "default", "ServiceAccount"),
    ("token of the account", [("ServiceAccount", "automountServiceAccountToken")], REMOVE, "ServiceAccount"),
    ("grace", pod("spec/terminationGracePeriodSeconds"), 5, "terminationGracePeriodSeconds"),
    ("last word", pod(f"{CONTAINER}/terminationMessagePolicy"), "File", "leaves no word"),
    ("requests", pod(f"{CONTAINER}/resources/requests/cpu"), "250m", "requests are not limits"),
    ("no memory limit", [("TrainJob", "spec/trainer/resourcesPerNode/limits/memory")], REMOVE, "requests are not limits"),
    ("deadline", [("Job", "spec/activeDeadlineSeconds"), ("MPIJob", "spec/runPolicy/activeDeadlineSeconds"), ("TrainJob", "spec/activeDeadlineSeconds")], REMOVE, "deadline"),
    ("memory to lock", pod(f"{CONTAINER}/env/name=KOLO_MEMLOCK/name"), "MEMLOCK", "KOLO_MEMLOCK"),
    ("little memory to lock", pod(f"{CONTAINER}/env/name=KOLO_MEMLOCK/value"), "3M", "KOLO_MEMLOCK is 3 MiB"),
    ("image without CUDA", pod(f"{CONTAINER}/image"), lambda image: image.removesuffix("-cuda") if image.endswith("-cuda") else image + "-cuda", "GPUs"),
    ("secret that changes", [("Secret", "immutable")], REMOVE, "below pods that run"),
    ("secret of nobody", [("Secret", "metadata/name")], "other", "no pod mounts it"),
    ("worlds of Volcano", [("VolcanoJob", "spec/maxRetry")], lambda n: n - 1, "begin again"),
    ("fewer worlds", [("Job", "spec/backoffLimit"), ("MPIJob", "spec/runPolicy/backoffLimit"), ("JobSet", "spec/failurePolicy/maxRestarts")], lambda n: n - 1, "3"),
    ("more worlds", [("Job", "spec/backoffLimit")], lambda n: n + 2, "begin again"),
    ("budget", [("PodDisruptionBudget", "spec/minAvailable")], 1, "minAvailable"),
    ("gang of Volcano", [("VolcanoJob", "spec/minAvailable")], 1, "minAvailable"),
    ("typo in a Volcano Job", [("VolcanoJob", "spec/tasks/0/replica")], 2, "replica"),
    ("plugins of Volcano", [("VolcanoJob", "spec/plugins/svc")], [], "plugins"),
    ("order of Volcano's policies", [("VolcanoJob", "spec/policies")], lambda rules: rules[::-1], "first that fits"),
    ("policies of Volcano", [("VolcanoJob", "spec/policies/0")], REMOVE, "policies"),
    ("gang", [("PodGroup", "spec/minMember")], 3, "minMember"),
    # What may be left out by the schemas, but not by a job that is to work (needs.py).
    ("no ingress", [("NetworkPolicy", "spec/ingress")], REMOVE, "ingress does not let"),
    ("no egress", [("NetworkPolicy", "spec/egress")], REMOVE, "egress does not let"),
    ("some ports only", [("NetworkPolicy", "spec/ingress/0/ports")], [{"port": 7700}], "ingress does not let"),
    ("no DNS", [("NetworkPolicy", "spec/egress/1")], REMOVE, "no DNS by UDP"),
    ("no DNS by TCP", [("NetworkPolicy", "spec/egress/1/ports/1")], REMOVE, "no DNS by TCP at 53"),
    ("no DNS of OpenShift", [("NetworkPolicy", "spec/egress/1/ports/2")], REMOVE, "no DNS by UDP at 5353"),
    ("one way", [("NetworkPolicy", "spec/policyTypes")], ["Egress"], "only"),
    ("open to all", [("NetworkPolicy", "spec/ingress/0/from")], REMOVE, "lets everybody"),
    ("all jobs of kolo", [("PodDisruptionBudget", "spec/selector/matchLabels/app.kubernetes.io~instance")], REMOVE, "other jobs too"),
    ("metrics of all jobs", [("PodMonitor", "spec/selector/matchLabels/app.kubernetes.io~instance")], REMOVE, "other jobs too"),
    ("peers of all jobs", [("NetworkPolicy", "spec/egress/0/to/0/podSelector/matchLabels/app.kubernetes.io~instance")], REMOVE, "other jobs too"),
    ("policy for all jobs", [("NetworkPolicy", "spec/podSelector/matchLabels/app.kubernetes.io~instance")], REMOVE, "other jobs too"),
    ("command without run", [("Job", f"spec/template/{CONTAINER}/command/1"), ("TrainJob", "spec/trainer/command/1")], REMOVE, "command ["),
    ("program without a mark", [("Job", f"spec/template/{CONTAINER}/command/4")], REMOVE, "command ["),
    ("one generation", pod(f"{CONTAINER}/env/name=KOLO_JOB"), {"name": "KOLO_JOB", "value": "kolo"}, "the same after a restart"),
    ("no group of files", pod("spec/securityContext/fsGroup"), REMOVE, "without fsGroup"),
    ("another group of files", pod("spec/securityContext/fsGroup"), 1000, "without fsGroup"),
    ("volume of nothing", pod("spec/volumes/1/emptyDir"), REMOVE, "no source"),
    ("secret for all", pod("spec/volumes/2/secret/defaultMode"), REMOVE, "everybody may read it"),
    ("secret without a name", pod("spec/volumes/2/secret/secretName"), REMOVE, "no name"),
    ("token nowhere", pod(f"{CONTAINER}/env/name=KOLO_TOKEN_FILE/value"), REMOVE, "KOLO_TOKEN_FILE has no value"),
    ("key elsewhere", [("MPIJob", "spec/sshAuthMountPath"), ("TrainingRuntime", "spec/mlPolicy/mpi/sshAuthMountPath")], REMOVE, "sshAuthMountPath"),
    ("no ttl", [("JobSet", "spec/ttlSecondsAfterFinished"), ("VolcanoJob", "spec/ttlSecondsAfterFinished")], REMOVE, "no ttl"),
    ("no rules", [("JobSet", "spec/failurePolicy/rules"), ("TrainingRuntime", "spec/template/spec/failurePolicy/rules")], REMOVE, "tried again"),
    ("no restarts", [("TrainingRuntime", "spec/template/spec/failurePolicy/maxRestarts")], REMOVE, "maxRestarts"),
    ("pods made anew alone", [(k, p) for k, p in job("backoffLimit") if k != "Job"], REMOVE, "made anew alone"),
    ("no deadline of a JobSet", [("JobSet", "spec/replicatedJobs/0/template/spec/activeDeadlineSeconds")], REMOVE, "no deadline"),
    ("no policy of Trainer", [("TrainingRuntime", "spec/mlPolicy/torch"), ("TrainingRuntime", "spec/mlPolicy/mpi")], REMOVE, "not told of each other"),
    ("agents for ever", [("TrainingRuntime", "spec/template/spec/successPolicy/targetReplicatedJobs")], REMOVE, "go on for ever"),
    ("names when ready, of Trainer", [("TrainingRuntime", "spec/template/spec/network")], REMOVE, "before they are ready"),
    ("launcher at once", [("MPIJob", "spec/launcherCreationPolicy")], REMOVE, "waits for nobody"),
    ("elastic, too many workers", [("MPIJob", "spec/mpiReplicaSpecs/Worker/replicas")], 9, "between --min and --max"),
    ("elastic, other slots", [("MPIJob", f"spec/mpiReplicaSpecs/Launcher/template/{CONTAINER}/command/9")], "2", "how many ranks each has"),
    ("elastic, no restarts", [("MPIJob", f"spec/mpiReplicaSpecs/Launcher/template/{CONTAINER}/command/7")], "0", "started again"),
    ("elastic, a drain takes the launcher", [("PodDisruptionBudget", "spec/selector/matchLabels/training.kubeflow.org~job-role")], "worker", "take the launcher"),
    ("pods that cannot start", [("PodDisruptionBudget", "spec/unhealthyPodEvictionPolicy")], REMOVE, "drained"),
]


def _step(thing, part):
    if isinstance(thing, list):
        if "=" in part:
            key, value = part.split("=")
            return next((i for i, item in enumerate(thing) if item.get(key) == value), None)
        return int(part)
    return part.replace("~", "/")


def apply(objects, places, value):
    """Makes the mistake in the objects, at the first place that they have. False: they have none."""
    for kind, path in places:
        for thing in objects:
            if kind_of(thing) != kind:
                continue
            *way, last = path.split("/")
            try:
                for part in way:
                    thing = thing[_step(thing, part)]
                key = _step(thing, last)
                exists = key in thing if isinstance(thing, dict) else -len(thing) <= key < len(thing)
            except (KeyError, IndexError, TypeError):
                continue
            if value is REMOVE or callable(value):
                if not exists:
                    continue
            if value is ORDER:
                objects.sort(key=lambda thing: thing["kind"] != kind)
                return True
            if value is REMOVE:
                del thing[key]
            elif exists or isinstance(thing, dict):
                thing[key] = value(thing[key]) if callable(value) else value
            else:
                continue
            return True
    return False
