# SPDX-License-Identifier: Apache-2.0
"""
What schemas cannot say: that the parts of a manifest fit each other, and kolo. Each check yields
complaints; what they are called with: the objects, their pods (pods.py), and what kolo knows.
"""

import re

from pods import find, kind_of, words

EXTERNAL_SECRETS = ("kolo-token",)  # which docs/KUBERNETES.md has the user make
RETRIES = 3  # of the whole world
RETRIED = (1, 75, 76, 137, 143)  # another try may help


class Known:
    """What kolo itself says: its variables and exit codes."""

    def __init__(self, variables, exit_codes):
        self.variables = variables
        self.exit_codes = exit_codes


def includes(selector, labels):
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def is_elastic(objects):
    """An MPIJob whose workers come and go."""
    return any("--discover" in words_of_launcher(thing) for thing in find(objects, "MPIJob"))


def words_of_launcher(job):
    return job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]["command"]


def check_elastic(objects, pods, known):
    """The launcher begins with what is there, and no drain takes it, or more workers than may go."""
    for thing in find(objects, "MPIJob") if is_elastic(objects) else []:
        command, replicas = words_of_launcher(thing), thing["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
        slots = thing["spec"].get("slotsPerWorker", 1)
        fewest, most = (int(value_after(command, option)) // slots for option in ("--min", "--max"))
        if not fewest <= replicas <= most:
            yield f"elastic: {replicas} workers are not between --min and --max"
        if value_after(command, "--slots-per-host") != str(slots) or value_after(command, "--discover") != "/etc/mpi/discover_hosts.sh":
            yield "elastic: the launcher does not know which workers there are, or how many ranks each has"
        if int(value_after(command, "--restarts") or 0) != RETRIES:
            yield "elastic: a rank that failed is not started again"
        budgets = {thing["spec"]["selector"]["matchLabels"].get("training.kubeflow.org/job-role"): thing["spec"]["minAvailable"]
                   for thing in find(objects, "PodDisruptionBudget")}
        if budgets != {"launcher": 1, "worker": fewest}:
            yield f"elastic: budgets {budgets} let a drain take the launcher, or too many workers, or none"


def check_selectors(objects, pods, known):
    for kind, path in (
        ("Service", ("spec", "selector")),
        ("NetworkPolicy", ("spec", "podSelector", "matchLabels")),
        ("PodDisruptionBudget", ("spec", "selector", "matchLabels")),
        ("StatefulSet", ("spec", "selector", "matchLabels")),
        ("PodMonitor", ("spec", "selector", "matchLabels")),
    ):
        for thing in find(objects, kind):
            selector = thing
            for part in path:
                selector = selector.get(part, {})
            for one in pods:
                if not includes(selector, one.labels) and not (kind == "PodDisruptionBudget" and is_elastic(objects)):
                    yield f"{kind}: selector {selector} does not find the pods of {one.role}"
    for policy in find(objects, "NetworkPolicy"):
        for way, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(way, []):
                for peer in rule.get(side, []):
                    selector = peer.get("podSelector", {}).get("matchLabels")
                    if selector is not None and not all(includes(selector, one.labels) for one in pods):
                        yield f"NetworkPolicy: {way} does not let the job's own pods"


def check_services(objects, pods, known):
    services = {thing["metadata"]["name"]: thing for thing in find(objects, "Service")}
    for one in pods:
        if kind_of(one.owner) not in ("Job", "StatefulSet"):
            continue
        service = services.get(one.service)
        if service is None:
            yield f"subdomain: there is no Service {one.service}"
        elif service["spec"].get("clusterIP") != "None" or not service["spec"].get("publishNotReadyAddresses"):
            yield f"Service {one.service}: must be headless and publish addresses that are not ready"
    for thing in find(objects, "JobSet"):
        network = thing["spec"].get("network", {})
        if not network.get("enableDNSHostnames") or not network.get("publishNotReadyAddresses"):
            yield "JobSet: network gives pods no names before they are ready"


def value_after(command, option):
    return command[command.index(option) + 1] if option in command[:-1] else None


def expanded(one, text):
    """With the names that controllers write on pods, which are those of the object that owns them."""
    names = {"JOB_NAME": "batch.kubernetes.io/job-name", "JOBSET_NAME": "jobset.sigs.k8s.io/jobset-name"}

    if kind_of(one.owner) == "VolcanoJob":
        names["JOB_NAME"] = "volcano.sh/job-name"

    def value(reference):
        field = one.variables().get(reference.group(1), {}).get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if field == "spec.serviceAccountName":
            return one.spec.get("serviceAccountName", "default")
        known = field == f"metadata.labels['{names.get(reference.group(1))}']"
        return one.owner["metadata"]["name"] if known else reference.group()

    return re.sub(r"\$\((\w+)\)", value, text)


def check_world(objects, pods, known):
    for thing in find(objects, "Job") + [p.owner for p in pods if kind_of(p.owner) == "JobSet"]:
        spec = thing["spec"] if thing["kind"] == "Job" else thing["spec"]["replicatedJobs"][0]["template"]["spec"]
        if spec.get("parallelism") != spec.get("completions") or spec.get("completionMode") != "Indexed":
            yield "parallelism, completions, completionMode: all pods must run at the same time, with an index"
    for one in pods:
        if one.role != "ranks":
            continue
        variables = one.variables()
        per_pod = int(value_after(words(one), "--per-pod") or 0)
        size = variables.get("KOLO_WORLD_SIZE", {}).get("value")
        if one.owner["kind"] == "TrainJob":
            if one.owner["spec"]["trainer"].get("numProcPerNode") != per_pod:
                yield "numProcPerNode is not --per-pod"
        elif size != str(one.count * per_pod):
            yield f"KOLO_WORLD_SIZE {size} is not {one.count} pods of {per_pod} ranks"
        if "JOBSET_PODS_PER_JOB" in variables and variables["JOBSET_PODS_PER_JOB"]["value"] != str(one.count):
            yield "JOBSET_PODS_PER_JOB is not the number of pods"
        ports = {port["name"]: port["containerPort"] for port in one.main().get("ports", [])}
        expected = f"{one.first_host}.{one.service}:{ports.get('rendezvous')}"
        if expanded(one, variables.get("KOLO_RENDEZVOUS", {}).get("value", "")) != expected:
            yield f"KOLO_RENDEZVOUS is not {expected}"
        if "KOLO_JOB" not in variables or "KOLO_TOKEN_FILE" not in variables:
            yield "KOLO_JOB or KOLO_TOKEN_FILE is missing"


def check_launchers(objects, pods, known):
    for thing in find(objects, "MPIJob"):
        spec = thing["spec"]
        launcher, worker = spec["mpiReplicaSpecs"]["Launcher"], spec["mpiReplicaSpecs"]["Worker"]
        command = launcher["template"]["spec"]["containers"][0]["command"]
        slots = spec.get("slotsPerWorker", 1)
        if command[0] == "mpirun":
            if value_after(command, "-np") != str(worker["replicas"] * slots):
                yield "mpirun -np is not the number of slots"
            if value_after(command, "--map-by") != f"ppr:{slots}:node":
                yield "mpirun --map-by is not slotsPerWorker"
        elif command[:2] != ["kolo", "run"]:
            yield "the launcher runs neither mpirun nor kolo run"
        if worker.get("restartPolicy") != "OnFailure":
            yield "restartPolicy of workers: the operator makes no new Pod for one that failed"
        if spec["runPolicy"].get("cleanPodPolicy") not in ("Running", "All"):
            yield "cleanPodPolicy: workers would stay for ever"
        minimum = spec["runPolicy"].get("schedulingPolicy", {}).get("minAvailable")
        if spec.get("launcherCreationPolicy") == "WaitForWorkersReady" and minimum not in (None, worker["replicas"]):
            yield "minAvailable: the launcher is not there before workers are ready"
    for one in pods:
        if one.role != "agent":
            continue
        port = one.main().get("readinessProbe", {}).get("tcpSocket", {}).get("port")
        if port not in ("agent", "ssh"):
            yield "readinessProbe: whoever waits for a launcher is ready when it listens"
    for thing in find(objects, "TrainJob"):
        trainer = thing["spec"].get("trainer", {})
        if "numNodes" not in trainer:
            yield "trainer.numNodes is missing: Trainer would set no variables"
        for runtime in find(objects, "TrainingRuntime"):
            slots = runtime["spec"]["mlPolicy"].get("mpi", trainer).get("numProcPerNode")
            if slots != trainer.get("numProcPerNode"):
                yield "numProcPerNode is not that of the runtime"
        if not any(p.owner is thing for p in pods):
            yield "runtimeRef: there is no such runtime"


def check_volcano(objects, pods, known):
    for thing in find(objects, "VolcanoJob"):
        spec = thing["spec"]
        if spec["minAvailable"] != sum(one.count for one in pods) or spec["schedulerName"] != "volcano":
            yield "minAvailable: not all pods are placed together"
        if "env" not in spec["plugins"] or not {"--publish-not-ready-addresses=true", "--disable-network-policy=true"} <= set(spec["plugins"].get("svc", [])):
            yield "plugins: pods have no number, or no names before they are ready, or no DNS"
        final = {rule["exitCode"] for rule in spec["policies"] if rule["action"] == "TerminateJob"}
        again = {rule["event"] for rule in spec["policies"] if rule["action"] == "RestartJob"}
        if final != {64, 65} or again != {"PodFailed", "PodEvicted"} or spec["maxRetry"] != 1 + RETRIES:  # the last is the end
            yield "policies: it does not begin again when it should"
        if ["exitCode" in rule for rule in spec["policies"]] != [True, True, False, False]:
            yield "policies: the first that fits counts, and exit codes fit first"


def check_volumes(objects, pods, known):
    secrets = [thing["metadata"]["name"] for thing in find(objects, "Secret")]
    for one in pods:
        defined = {volume["name"]: volume for volume in one.spec.get("volumes", [])}
        mounted = {}
        for container in one.containers():
            for mount in container.get("volumeMounts", []):
                mounted[mount["name"]] = mount
        if set(defined) != set(mounted):
            yield f"volumes {sorted(defined)} are not what is mounted, {sorted(mounted)}"
            continue
        for name, volume in defined.items():
            secret = volume.get("secret", {}).get("secretName")
            if secret is not None and secret not in (secrets or EXTERNAL_SECRETS):
                yield f"there is no Secret {secret}"
        paths = {mount["mountPath"]: defined[mount["name"]] for mount in mounted.values()}
        shm = paths.get("/dev/shm", {}).get("emptyDir", {})
        if shm.get("medium") != "Memory" or "sizeLimit" not in shm:
            yield "/dev/shm is not in memory with a limit"
        token = one.variables().get("KOLO_TOKEN_FILE", {}).get("value")
        if token is not None and "secret" not in paths.get(token.rsplit("/", 1)[0], {}):
            yield f"KOLO_TOKEN_FILE {token} is in no Secret that is mounted"


def check_ports(objects, pods, known):
    names = set()
    for one in pods:
        own = [port.get("name") for c in one.containers() for port in c.get("ports", [])]
        names |= set(own)
        if None in own or len(own) != len(set(own)) or any(len(name) > 15 for name in own):
            yield f"ports {own} are not all named, and differently"
        for container in one.containers():
            probe = container.get("readinessProbe", {}).get("tcpSocket", {}).get("port")
            if probe is not None and probe not in own:
                yield f"readinessProbe: there is no port {probe}"
    for thing in find(objects, "Service"):
        for port in thing["spec"].get("ports", []):
            if port.get("targetPort") not in names:
                yield f"Service: there is no port {port.get('targetPort')}"
    for thing in find(objects, "PodMonitor"):
        for endpoint in thing["spec"]["podMetricsEndpoints"]:
            kept = [r["regex"] for r in endpoint.get("relabelings", []) if r.get("action") == "keep"]
            if "port" in endpoint and endpoint["port"] not in names:
                yield f"PodMonitor: there is no port {endpoint['port']}"
            elif {name for name in names if kept and re.fullmatch(kept[0], name)} != {name for name in names if name.startswith("metrics")}:
                yield f"PodMonitor: {kept} are not the ports of metrics"
    for thing in find(objects, "NetworkPolicy"):
        for rule in thing["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                if isinstance(port["port"], str) and port["port"] not in names:
                    yield f"NetworkPolicy: there is no port {port['port']}"


def check_metrics(objects, pods, known):
    """Each rank has a port with a name, from 9700 on, and kolo run or kolo agent the one below; a policy that lets one in lets all."""
    for one in pods:
        ports = {p["name"]: p["containerPort"] for p in one.main().get("ports", []) if p["name"].startswith("metrics")}
        first = int(one.variables().get("KOLO_METRICS_PORT", {}).get("value", 9700))
        if words(one)[:1] == ["mpirun"] and f"KOLO_METRICS_PORT=*:{first}" not in words(one):
            yield "metrics: ranks that sshd starts do not know that they are in pods"
        if words(one)[:1] == ["kolo"] and ports.pop("metrics-kolo", None) != first - 1:
            yield f"metrics: kolo's own port is not there: {ports}"
        ranks = slots_of(one) if one.role != "launcher" or one.owner["spec"].get("runLauncherAsWorker") else 0
        if ports != {f"metrics-{i}" if i else "metrics": first + i for i in range(ranks)}:
            yield f"metrics: {ports} are not the ports of {ranks} ranks"
        for policy in find(objects, "NetworkPolicy"):
            for rule in policy["spec"].get("ingress", []):
                for port in rule.get("ports", []):
                    if port["port"] == 9699 and port.get("endPort") != 9699 + 1024:
                        yield "metrics: the policy does not let all ports"


def check_agents(objects, pods, known):
    """Agents, or sshd, listen where their port says, and the launcher looks for them there."""
    listening = {p["containerPort"] for one in pods for p in one.main().get("ports", []) if p["name"] in ("agent", "ssh")}
    for one in pods:
        command = words(one)
        if command[:2] == ["kolo", "agent"]:
            place = value_after(command, "--listen") or "7701"
        elif command[:1] == ["/usr/sbin/sshd"]:
            place = value_after(command, "-p")
        elif command[:2] == ["kolo", "run"] and one.role == "launcher":
            place = value_after(command[:command.index("--")], "--agent-port") or "7701"
        else:
            continue
        if {int(place)} != listening:
            yield f"agents: {one.role} has port {place}, declared are {listening}"


def check_host_network(objects, pods, known):
    """On the nodes' network names and ports are the nodes'."""
    for one in pods:
        ports = {p["name"]: p["containerPort"] for p in one.main().get("ports", [])}
        if not one.spec.get("hostNetwork"):
            continue
        if one.spec.get("dnsPolicy") != "ClusterFirstWithHostNet":
            yield "hostNetwork: names of pods do not resolve without dnsPolicy ClusterFirstWithHostNet"
        name = one.variables().get("POD_NAME", {}).get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if name != "metadata.name":
            yield "hostNetwork: without POD_NAME a pod has the name of its node"
        if len(set(ports.values())) != len(ports) or not all(20000 <= port < 30000 for port in ports.values()):
            yield f"hostNetwork: {ports} are not ports of its own"


def slots_of(one):
    """Ranks in each pod."""
    spec = one.owner["spec"]
    if "slotsPerWorker" in spec:
        return spec["slotsPerWorker"]
    if "trainer" in spec:
        return spec["trainer"]["numProcPerNode"]
    if one.role == "ranks":
        return int(value_after(words(one), "--per-pod"))
    return sum(port["name"].startswith("metrics") for port in one.main().get("ports", [])) - 1  # agents that wait for whatever comes


def check_images(objects, pods, known):
    for one in pods:
        for container in one.containers():
            image = container.get("image", "")
            if not re.search(r"(:[\w][\w.-]*|@sha256:[0-9a-f]{64})$", image) or image.endswith(":latest"):
                yield f"image {image} is not pinned"
            gpus = "nvidia.com/gpu" in container.get("resources", {}).get("limits", {}) or one.role == "launcher" and any(
                "nvidia.com/gpu" in other.main().get("resources", {}).get("limits", {}) for other in pods)
            if re.match("kolo(-ssh)?:", image) and image.endswith("-cuda") != gpus:
                yield f"image {image} is not that of pods with{'' if gpus else 'out'} GPUs"


def check_variables(objects, pods, known):
    for one in pods:
        for container in one.containers():
            before = set()
            for variable in container.get("env", []):
                name = variable["name"]
                if name.startswith("KOLO_") and name not in known.variables:
                    yield f"{name}: kolo refuses variables that it does not know"
                if name in before:
                    yield f"{name} is set twice"
                for used in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                    if used not in before:
                        yield f"{name} uses {used}, which is not set before it"
                before.add(name)


def check_failures(objects, pods, known):
    for one in pods:
        policy = (one.job_spec or {}).get("podFailurePolicy")
        if one.job_spec is not None and one.role != "agent" and policy is None:
            yield "podFailurePolicy is missing"
        if policy is None:
            continue
        if one.spec.get("restartPolicy") != "Never":
            yield "restartPolicy: podFailurePolicy needs Never"
        containers = [container["name"] for container in one.containers()]
        final = set()
        for rule in policy["rules"]:
            codes = rule.get("onExitCodes", {})
            name = codes.get("containerName")
            if codes and name not in containers:
                yield f"podFailurePolicy: there is no container {name}"
            if codes and rule["action"] != "FailJob":
                # Not even 76 where a peer was lost: what dies by a signal, and what hangs, ends with it in all pods.
                yield f"podFailurePolicy: {rule['action']} of exit codes: what always ends so would begin again until the deadline"
                continue
            for code in codes.get("values", []):
                if code not in known.exit_codes or code in RETRIED:
                    yield f"podFailurePolicy: {code} is no exit code to give up for"
                final.add(code)
        if not {64, 65} <= final:
            yield "podFailurePolicy does not give up for 64 and 65"
        conditions = [c["type"] for r in policy["rules"] if r["action"] == "Ignore" for c in r.get("onPodConditions", [])]
        if "DisruptionTarget" not in conditions:
            yield "podFailurePolicy counts disruptions"


def check_security(objects, pods, known):
    accounts = {thing["metadata"]["name"]: thing for thing in find(objects, "ServiceAccount")}
    for one in pods:
        spec, context = one.spec, one.spec.get("securityContext", {})
        account = accounts.get(spec.get("serviceAccountName"))
        if account is None or account.get("automountServiceAccountToken") is not False:
            yield "the pod has no ServiceAccount without a token"
        if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
            yield "automountServiceAccountToken and enableServiceLinks must be false"
        if not context.get("runAsNonRoot") or not context.get("runAsUser") or context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "the pod may run as root, or without seccomp"
        if not spec.get("terminationGracePeriodSeconds", 0) >= 30:
            yield "terminationGracePeriodSeconds"
        rdma = any(key.startswith("rdma/") for c in spec["containers"] for key in c.get("resources", {}).get("limits", {}))
        for container in one.containers():
            inner = container.get("securityContext", {})
            if inner.get("allowPrivilegeEscalation") is not False or inner.get("readOnlyRootFilesystem") is not True:
                yield f"{container['name']}: may gain privileges, or write its root"
            if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
                yield f"{container['name']}: terminationMessagePolicy leaves no word of one that writes none"
            capabilities = inner.get("capabilities", {})
            if capabilities.get("drop") != ["ALL"] or capabilities.get("add", []) != (["IPC_LOCK"] if rdma else []):
                yield f"{container['name']}: capabilities {capabilities}"


def amount(quantity):
    number, unit = re.fullmatch(r"([0-9.]+)(\w*)", quantity).groups()
    return float(number) * {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}[unit]


def check_memlock(objects, pods, known):
    """Where pods have RDMA, whoever starts ranks is told to look at the memory that they may lock."""
    if not any(key.startswith("rdma/") for one in pods for key in one.main().get("resources", {}).get("limits", {})):
        return
    starters = [one for one in pods if one.role == "launcher"] or pods
    with_ranks = [one for one in pods if one.role != "launcher" or one.owner["spec"].get("runLauncherAsWorker")]
    slots = slots_of(with_ranks[0])
    for one in starters:
        if "KOLO_MEMLOCK" not in one.variables():
            yield "KOLO_MEMLOCK is missing"
            continue
        # docs/RDMA.md: 2 MiB and a page for each rank of other hosts and communicator. A program with a reducer has two of those, and may make some.
        most = int(value_after(words(one), "--max")) if is_elastic(objects) else slots * sum(p.count for p in with_ranks)
        wanted, others = int(one.variables()["KOLO_MEMLOCK"]["value"].removesuffix("M")), most - slots
        if not 2 * 2052 * others <= 1024 * wanted < 4 * 2052 * max(others, 1) + 1024:
            yield f"KOLO_MEMLOCK is {wanted} MiB for {others} ranks of other pods"
        if words(one)[:1] == ["mpirun"] and value_after(words(one), "-x") != "KOLO_MEMLOCK":
            yield "KOLO_MEMLOCK is not passed on by mpirun"


def check_resources(objects, pods, known):
    for one in pods:
        for container in one.containers():
            resources = container.get("resources", {})
            limits = resources.get("limits", {})
            if limits != resources.get("requests") or not {"cpu", "memory"} <= set(limits):
                yield f"{container['name']}: requests are not limits: {resources}"
                continue
            for volume in one.spec.get("volumes", []):
                memory = volume.get("emptyDir", {}) if volume.get("emptyDir", {}).get("medium") == "Memory" else {}
                if (one.role != "launcher" or one.owner["spec"].get("runLauncherAsWorker")) and container is one.main() and "sizeLimit" in memory:
                    if amount(memory["sizeLimit"]) > amount(limits["memory"]):
                        yield "/dev/shm may take more than all of the memory"


def check_ends(objects, pods, known):
    for thing in find(objects, "Job"):
        if not {"ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit"} <= set(thing["spec"]):
            yield "Job: ttl, deadline or backoffLimit is missing"
        # All pods of a world fail, and a Job does when more have failed than this. Worlds, then, until it fails:
        elif thing["spec"]["backoffLimit"] // thing["spec"]["completions"] + 1 != 1 + RETRIES:
            yield f"Job: backoffLimit {thing['spec']['backoffLimit']} does not let the world begin again {RETRIES} times"
    for thing in find(objects, "MPIJob"):
        if not {"ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit"} <= set(thing["spec"]["runPolicy"]):
            yield "MPIJob: ttl, deadline or backoffLimit is missing"
        elif thing["spec"]["runPolicy"]["backoffLimit"] != RETRIES:
            yield f"MPIJob: backoffLimit is not {RETRIES}"
    for thing in find(objects, "JobSet"):
        if thing["spec"].get("failurePolicy", {}).get("maxRestarts") != RETRIES:
            yield f"JobSet: maxRestarts is not {RETRIES}"
    for thing in find(objects, "TrainJob"):
        if "activeDeadlineSeconds" not in thing["spec"]:
            yield "TrainJob: deadline is missing"
    budgets = find(objects, "PodDisruptionBudget")
    if not is_elastic(objects) and (len(budgets) != 1 or budgets[0]["spec"].get("minAvailable") != sum(one.count for one in pods)):
        yield "PodDisruptionBudget: minAvailable is not the number of pods"
    for thing in find(objects, "PodGroup"):
        labelled = [p for p in pods if p.labels.get("scheduling.x-k8s.io/pod-group") == thing["metadata"]["name"]]
        if sum(p.count for p in labelled) != thing["spec"]["minMember"]:
            yield "PodGroup: minMember is not the number of its pods"


def check_order(objects, pods, known):
    """Trainer refuses a TrainJob whose runtime is not there yet."""
    kinds = [thing["kind"] for thing in objects]
    if "TrainJob" in kinds and "TrainingRuntime" in kinds and kinds.index("TrainJob") < kinds.index("TrainingRuntime"):
        yield "order: the TrainJob comes before its TrainingRuntime"


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
