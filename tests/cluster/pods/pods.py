# SPDX-License-Identifier: Apache-2.0
"""
Tries jobs as pods. Usage: pods.py BUILD_FOLDER [--image ARCHIVE] CASE...
Each case is a function; those of one kind take it behind a colon ("runs:job"). Here are jobs that run; failures.py has those that
fail, faults.py faults of what is around the pods, generations.py pods of before.
"""
import atexit
import copy
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

from cluster import Cluster, Pod, install, shuffled, wait_until
from controllers import KINDS, render
from image import Image
from mpi import LAUNCHED

STEPS = ["train_bytes", "--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--batch", "8", "--threads", "1",
         "--held-out-bytes", "2048", "--steps", "5", "/usr/share/common-licenses"]
LONG = [*STEPS[:-3], "--steps", "100000", STEPS[-1]]
RENDEZVOUS, AGENT, METRICS = 7700, 7701, 9700


def expect(what, condition, pods=()):
    if not condition:
        logs = "".join(f"---- {p.name}:\n{p.log()}" for p in pods if p.process)
        raise AssertionError(f"{what}\n{logs}")


def says(pods, words, seconds):
    wait_until(lambda: any(re.search(words, p.log()) for p in pods if p.process), seconds,
               f"'{words}' in a log; logs: " + "".join(p.log() for p in pods if p.process))


class Case:
    """A cluster with one job of a kind."""

    def __init__(self, build, kind, *arguments, workers=3, command=STEPS, environment=None, **cluster):
        self.kind, self.kolo = kind, f"{build}/bin/kolo"
        self.arguments = [kind, "--name", "train", "--workers", str(workers), "--image", "kolo:test", *arguments, "--", *command]
        self.cluster = Cluster(PLACE, environment={"KOLO_INIT_TIMEOUT": "30", "KOLO_TIMEOUT": "30", **(environment or {})},
                               image=IMAGE, **cluster)
        self.apply()
        self.pods = self.make()

    def apply(self):
        """As kubectl does it: other objects, of the same names and with the same token, where there were some."""
        self.manifest = getattr(self, "manifest", None) or [*render(self.kolo, *self.arguments), {
            "kind": "Secret", "metadata": {"name": "kolo-token"}, "stringData": {"token": "what somebody made for all jobs"}}]
        self.documents = copy.deepcopy(self.manifest)

    def make(self, attempt=0):
        return KINDS[self.kind](self.cluster, self.documents, attempt)

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        words = [pod.termination() for pod in self.pods if pod.process and not pod.runs()]
        self.cluster.close()
        for text in words if failure is None else ():
            expect(f"a last word is cut: {text}", not re.search(r"\w\.\.\.", text))

    @property
    def ranks(self):
        """The pods that end by themselves; workers of an MPIJob go on."""
        return self.pods[:1] if self.kind in LAUNCHED else self.pods

    def start(self, seed=1):
        """In any order; but mpirun waits for nobody, so its pod comes when the others are ready, as the manifest wants it."""
        last = self.pods[:1] if self.kind == "mpijob-ssh" else []
        for pod in shuffled([p for p in self.pods if p not in last], seed):
            pod.start()
        if last:
            self.wait_ready()
            last[0].start()

    def wait_ready(self):
        """launcherCreationPolicy: WaitForWorkersReady, by the workers' own probe."""
        for pod in self.pods[1:]:
            wait_until(lambda p=pod: p.listens(p.ready_port), 20, f"{pod.name} ready")

    def restart(self, seconds):
        """As the controllers do: a pod that ended with a code worth another try is made anew."""
        deadline = time.monotonic() + seconds
        while any(p.runs() or p.process.poll() not in (None, 0) for p in self.ranks):
            expect("in time", time.monotonic() < deadline, self.pods)
            for pod in self.ranks:
                if not pod.runs() and pod.wait(1) in (75, 76, 137) and pod.restarts < 3:
                    pod.start()
            time.sleep(0.1)

    def finish(self, seconds=40):
        codes = [pod.wait(seconds) for pod in self.ranks]
        expect(f"codes {codes}", codes == [0] * len(codes), self.pods)
        logs = "".join(pod.log() for pod in self.ranks)
        expect("trained to the end", re.search(r"step +5\b", logs) or "bits per byte" in logs, self.pods)


# ---- jobs that run -------------------------------------------------------------------------------


def runs(build, kind):
    """Pods in any order, on a cluster with a domain of its own."""
    with Case(build, kind, domain="mesh.example") as case:
        case.start()
        case.finish()
        for pod in case.pods[1:] if kind in LAUNCHED else []:
            expect("a worker goes on", pod.runs(), case.pods)
            expect("an agent ends with 143", pod.terminate(10) == 143 or kind == "mpijob-ssh", case.pods)


def direct(build, kind):
    """The program itself is the container's command, without kolo run."""
    with Case(build, kind) as case:
        for pod in case.pods:
            pod.command = pod.command[pod.command.index("--") + 1:]
        case.start()
        case.finish()


def late(build, kind):
    """The first pod comes last, and no name is in the DNS before it."""
    with Case(build, kind) as case:
        for pod in case.pods[1:]:
            pod.start()
        time.sleep(3)
        case.pods[0].start(publish=False)
        time.sleep(2)
        case.cluster.publish(case.pods[0])
        case.finish()


def dns_down(build, kind):
    """Nobody answers to questions for names at first."""
    with Case(build, kind) as case:
        case.cluster.stop_dns()
        for pod in case.pods:
            pod.start()
        time.sleep(3)
        case.cluster.start_dns()
        case.finish()


def last_worker_late(build, kind):
    with Case(build, kind) as case:
        for pod in case.pods[:-1]:
            pod.start()
        says(case.pods[:1], "waits for", 30)
        case.pods[-1].start()
        case.finish()


def comes_back(build, kind):
    """A pod restarts while the world forms, with another address; the old one is in the DNS too."""
    with Case(build, kind) as case:
        early = case.pods[1:-1] if kind == "mpijob-ssh" else case.pods[:-1]
        for pod in early:
            pod.start()
        first = case.pods[1]
        time.sleep(1.5)
        old = first.address
        first.signal(signal.SIGKILL)
        first.wait(10)
        first.start(publish=False)
        case.cluster.publish(first, [old, first.address])
        time.sleep(1)
        case.pods[-1].start()
        if case.pods[0] not in early:
            case.wait_ready()
            case.pods[0].start()
        case.finish()


def rank_0_comes_back(build, kind):
    """The pod that holds the rendezvous is lost while the world forms: all begin anew."""
    with Case(build, kind) as case:
        for pod in case.pods[:-1]:
            pod.start()
        time.sleep(1.5)
        case.pods[0].signal(signal.SIGKILL)
        expect("killed", case.pods[0].wait(10) == 137, case.pods)
        case.pods[-1].start()
        case.restart(40)
        case.finish()


def suspended(build, kind):
    """Suspend: SIGTERM to all, code 143. Resume: new pods, another generation."""
    with Case(build, kind, command=LONG) as case:
        case.start()
        wait_until(lambda: any("step" in p.log() for p in case.pods), 40, "the first step")
        for pod in case.pods:
            pod.signal(signal.SIGTERM)
        codes = [pod.terminate(15) for pod in case.pods]
        if kind == "mpijob-ssh":  # sshd ends with 0, which a controller that deletes its pod does not look at
            expect(f"mpirun's code {codes[0]}", codes[0] != 0, case.pods)
        else:
            expect(f"codes {codes}", all(code in (143, 76) for code in codes) and 143 in codes, case.pods)
        case.arguments[-len(STEPS):] = STEPS
        case.documents = render(case.kolo, *case.arguments)
        case.pods = case.make(attempt=1)
        case.start(seed=2)
        case.finish()


def per_pod(build, kind):
    """Two ranks in each pod, which share memory; pods do not."""
    with Case(build, kind, "--per-pod", "2", workers=2) as case:
        case.start()
        case.finish()


def as_worker(build, kind):
    """runLauncherAsWorker: the launcher has ranks of its own, and stands first in the hostfile."""
    with Case(build, kind, workers=2) as case:
        next(d for d in case.documents if d["kind"] == "MPIJob")["spec"]["runLauncherAsWorker"] = True
        case.pods = case.make()
        case.start()
        case.finish()


def openmpi_5(build, kind):
    """The pods' MPI is the one that the test brought, in the launcher and in what ranks load."""
    look = "mpirun --version; cat /proc/$PPID/comm; ldd /usr/local/lib/libkolo-mpi.so.0 | grep libmpi; echo $PMIX_RANK of $OMPI_COMM_WORLD_SIZE"
    with Case(build, kind, workers=2, command=["sh", "-c", look]) as case:
        case.start()
        expect("code", case.pods[0].wait(40) == 0, case.pods)
        for words in (r"\(Open MPI\) 5\.", "prted", r"libmpi.so.40 => /usr/local/lib/libmpi.so.40", "0 of 2", "1 of 2"):
            expect(words, re.search(words, case.pods[0].log()), case.pods)


def host_network(build, kind):
    """Pods with their nodes' names, at ports that follow from the job's name; the launcher of an MPIJob has ranks too."""
    more = ["--run-launcher-as-worker"] if kind == "mpijob" else []
    with Case(build, kind, "--host-network", *more) as case:
        for pod in case.pods:
            expect("a node's", pod.node, case.pods)
        case.start()
        case.finish()


def ready_first(build, kind):
    """launcherCreationPolicy: WaitForWorkersReady. Ready means that the agent listens."""
    with Case(build, kind) as case:
        right, case.pods[1].command = case.pods[1].command, ["sleep", "60"]
        for pod in case.pods[1:]:
            pod.start()
        wait_until(lambda: case.pods[2].listens(case.pods[2].ready_port), 10, f"{case.pods[2].name} ready")
        expect("nobody listens, so it is not ready", not case.pods[1].listens(case.pods[1].ready_port), case.pods)
        case.pods[1].signal(signal.SIGKILL)
        case.pods[1].wait(10)
        case.pods[1].command = right
        case.pods[1].start()
        case.wait_ready()
        for _ in range(20):  # as the kubelet goes on asking
            expect("ready", all(pod.listens(pod.ready_port) for pod in case.pods[1:]), case.pods)
        case.pods[0].start()
        case.finish()
        for pod in case.pods[1:] if kind != "mpijob-ssh" else []:
            expect("probes are not worth a word", pod.log().count("\n") == 1, case.pods)


def launchers_metrics(build, kind):
    """The launcher and the agents answer Prometheus beside the ranks, also when there are none."""
    def value(pod, name):
        text = pod.inside("python3", "-c", "import urllib.request as u;"
                          f"print(u.urlopen('http://{pod.address}:9699/metrics', timeout=5).read().decode())")
        return int(re.search(rf'^kolo_launcher_{name}{{role="[a-z]+"}} (\d+)$', text, re.M).group(1))
    with Case(build, kind, workers=2, command=LONG) as case:
        launcher, *workers = case.pods
        for pod in workers:
            pod.start()
            wait_until(lambda p=pod: p.listens(AGENT), 10, f"{pod.name} ready")
            expect("nothing yet", (value(pod, "connections"), value(pod, "ranks")) == (0, 0), case.pods)
        launcher.start()
        says([launcher], "step", 40)
        expect("the launcher's", (value(launcher, "connections"), value(launcher, "ranks")) == (2, 2), case.pods)
        for pod in workers:
            expect("an agent's", (value(pod, "connections"), value(pod, "ranks")) == (1, 1), case.pods)
        launcher.terminate(20)
        for pod in workers:
            wait_until(lambda p=pod: (value(p, "connections"), value(p, "ranks")) == (0, 0), 20, "the end of the job")
            expect("one was started", value(pod, "ranks_started_total") == 1, case.pods)


# ---- an image --------------------------------------------------------------------------------------


def entrypoint(build, kind):
    """The image by itself, with no word of a manifest about user or command; it has the name that manifests give it."""
    manifest = str(render(f"{build}/bin/kolo", kind, "--name", "train", "--workers", "1", "--", "true"))
    wanted = "docker.io/library/" + re.search(r"'image': '([^']+)'", manifest).group(1)
    expect(f"name {IMAGE.name}", IMAGE.name == wanted)
    expect(f"user {IMAGE.user}", IMAGE.user == 65532)
    for arguments, words in (((), "kolo run"), (("info",), "transports shm, tcp, rdma"), (("run", "-n", "2", "--", "hello_allreduce"), "rank 1 of 2")):
        with Cluster(PLACE, image=IMAGE) as cluster:
            pod = Pod(cluster, "alone", command=IMAGE.command(*arguments), user=IMAGE.user).start()
            expect(f"code of {pod.command}", pod.wait(30) == 0, [pod])
            expect(f"'{words}' of {pod.command}", words in pod.log(), [pod])


def trains(build, _):
    """train_bytes without a path: on the text in the image, as the manifests of k8s/ have it."""
    with Cluster(PLACE, image=IMAGE) as cluster:
        command = IMAGE.command("run", "-n", "2", "--", *STEPS[:-1])
        pod = Pod(cluster, "alone", command=command, user=IMAGE.user, folders=["/tmp"]).start()
        expect("code", pod.wait(60) == 0, [pod])
        expect("trained to the end", "bits per byte" in pod.log(), [pod])


def confined(build, kind):
    """What a pod of a manifest may not: the restricted level, looked at from inside."""
    look = "grep -E '^(Uid|Gid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; touch /root-is-writable /usr/x /etc/x; touch /tmp/x && echo tmp; cat /proc/1/comm"
    with Case(build, kind, workers=1, command=["sh", "-c", look]) as case:
        pod = case.pods[0].start()
        pod.wait(20)
        for words in (r"Uid:\s+65532\s+65532", r"Gid:\s+65532\s+65532", r"CapEff:\s+0+\n", r"CapBnd:\s+0+\n", r"NoNewPrivs:\s+1", r"Seccomp:\s+2",
                      r"/root-is-writable': Read-only file system", r"/usr/x': Read-only", r"/etc/x': Read-only", r"tmp\n", r"kolo\n"):
            expect(words, re.search(words, pod.log()), case.pods)


def metrics(build, kind):
    """The image has what shows the numbers of a rank to Prometheus."""
    with Case(build, kind, workers=2, command=LONG) as case:
        case.start()
        pod = case.pods[0]
        wait_until(lambda: pod.listens(METRICS) or not pod.runs(), 20, "port of metrics")
        page = pod.inside("bash", "-c", f"exec 3<>/dev/tcp/{pod.address}/{METRICS} && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3")
        expect(f"a page of metrics, not {page}", "# TYPE kolo_" in page, case.pods)


# ---- figures ---------------------------------------------------------------------------------------


def start_up(build, kind, pods):
    """Seconds from the moment when the last pod's container runs until the first step is done."""
    with Case(build, kind, workers=pods, environment={"KOLO_INIT_TIMEOUT": "120"},
              command=[*STEPS[:-3], "--log-every", "1", *STEPS[-3:]]) as case:
        case.start()
        begin = time.monotonic()
        wait_until(lambda: re.search(r"^(\[0\] )?\s*(step\s+)?1\b.*(loss|bits)", case.ranks[0].log(), re.M) or
                   any(re.search(r"step +\d", p.log()) for p in case.ranks), 120, "the first step")
        seconds = time.monotonic() - begin
        case.finish(120)
        return seconds


def table(build, kind):
    """Start-up times of a kind, or of every kind, at 2, 8 and 32 pods: medians of three."""
    print(f"{'kind':12} {'2 pods':>8} {'8 pods':>8} {'32 pods':>8}   seconds until the first step")
    for kind in [kind] if kind else KINDS:
        row = [sorted(start_up(build, kind, pods) for _ in range(3))[1] for pods in (2, 8, 32)]
        print(f"{kind:12} " + " ".join(f"{seconds:8.2f}" for seconds in row), flush=True)


def tenfold(build, kind):
    """Ten runs in a row."""
    for run in range(10):
        with Case(build, kind) as case:
            case.start(seed=run)
            case.finish()


# ---- all -------------------------------------------------------------------------------------------


def main():
    global PLACE, IMAGE
    build, words, failed = sys.argv[1], sys.argv[2:], 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clusters are closed on the way
    PLACE = install(build, os.environ.get("PODS_MORE"))
    atexit.register(shutil.rmtree, PLACE)
    IMAGE = None
    if words[:1] == ["--image"]:
        folder = tempfile.mkdtemp(prefix="kolo-image.")
        atexit.register(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        IMAGE, words = Image(words[1], folder), words[2:]
    for word in words:
        name, _, kind = word.partition(":")
        begin = time.monotonic()
        try:
            next(vars(module)[name] for module in (sys.modules["pods"], elastic, ends, failures, faults, generations) if name in vars(module))(build, kind)
            print(f"{word}: passed in {time.monotonic() - begin:.1f} s", flush=True)
        except Exception:  # every case has its say
            failed += 1
            print(f"FAILED: {word}\n{traceback.format_exc()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.modules["pods"] = sys.modules["__main__"]  # this one, not another copy
    import elastic
    import ends
    import failures
    import faults
    import generations
    sys.exit(main())
