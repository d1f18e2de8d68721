# SPDX-License-Identifier: Apache-2.0
"""
Cases of pods.py in which a job fails, and says why in the words of docs/KUBERNETES.md: one of its pods is missing, is told something
else than the others, is cut off from them, or is killed.
"""
import os
import re
import signal

from cluster import space_of, wait_until
from mpi import LAUNCHED
from pods import LONG, RENDEZVOUS, Case, expect, says


def no_record(build, kind):
    """Pod 0's name never comes into the DNS."""
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6"}) as case:
        for pod in case.pods:
            pod.start(publish=False)
        codes = [pod.wait(40) for pod in case.ranks]
        expect(f"codes {codes}", set(codes) == {255 if kind == "mpijob-ssh" else 75}, case.pods)
        if kind == "mpijob-ssh":  # above all that mpirun says of it, which may be more than a termination message holds
            return says(case.pods[:1], r"Could not resolve hostname train-worker-\d", 1)
        wanted = case.pods[1 if kind in LAUNCHED else 0].hostname
        for pod in case.ranks[:1] if kind in LAUNCHED else case.ranks[1:]:
            expect(f"whose name, in {pod.termination()}", f"cannot resolve '{wanted}" in pod.termination(), case.pods)


def wrong_token(build, kind):
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6"}) as case:
        victim = case.pods[-1]
        for path in victim.files:
            if path.endswith(("/token", "/id_rsa")):
                victim.files[path] = ("another secret, long enough", victim.files[path][1])
        victim.environment["KOLO_INIT_TIMEOUT"] = "9"  # in the end there is nobody any more, which is not what to tell
        case.start()
        codes = [pod.wait(40) for pod in case.ranks]
        if kind in LAUNCHED:
            expect(f"codes {codes}", codes == [64], case.pods)
            return says(case.pods, r"another token", 1)
        expect(f"codes {codes}", codes == [75] * len(codes), case.pods)
        last = victim.termination()
        expect("its last word names the token first", re.search(r"before: .*another token.*Mount one Secret", last) and "NetworkPolicy" not in last, case.pods)
        for pod in case.pods[:-1]:
            expect("the others' too", re.search(r"missing: 2 .*refused was: .*another token", pod.termination()), case.pods)


def one_missing(build, kind):
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6"}) as case:
        for pod in case.pods[-2::-1]:  # a launcher last: Open MPI names the first that it does not reach
            pod.start()
            wait_until(lambda p=pod: kind != "mpijob-ssh" or pod is case.pods[0] or p.listens(p.ready_port), 20, f"{pod.name} ready")
        codes = [pod.wait(40) for pod in case.ranks if pod.process]
        expect(f"codes {codes}", set(codes) == {255 if kind == "mpijob-ssh" else 75}, case.pods)
        for pod in case.pods[:1] if kind in LAUNCHED else case.pods[:-1]:
            expect("the termination message says who", case.pods[-1].hostname in pod.termination(), case.pods)


def world_mismatch(build, kind):
    """A pod of a manifest with another number of ranks. The others wait for the right one, in vain; a launcher has the operator's word against it."""
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6"}) as case:
        if kind in LAUNCHED:
            case.pods[0].environment["KOLO_WORLD_SIZE"] = "5"
            case.start()
            expect("65", case.pods[0].wait(20) == 65, case.pods)
            words = "KOLO_WORLD_SIZE is 5, but the operator's /etc/mpi/hostfile has 3 slots"
            return expect(f"the termination message, {case.pods[0].termination()}", words in case.pods[0].termination(), case.pods)
        case.pods[-1].environment["KOLO_WORLD_SIZE"] = "5"
        case.start()
        address = case.pods[-1].address
        codes = [pod.wait(40) for pod in case.ranks]
        expect(f"codes {codes}", codes == [65] * len(codes), case.pods)
        for pod in case.pods:
            words = rf"rank 2 of a world of 5 \(host {case.pods[-1].hostname} at {address}\) does not fit the world of 3 .* or port of its own"
            expect(f"the termination message, {pod.termination()}", re.search(words, pod.termination()), case.pods)


def port_blocked(build, kind):
    """A NetworkPolicy too many: where pods are looked for, a port is closed to the others: of agents, of sshd, of pod 0's rendezvous."""
    with Case(build, kind, environment={"KOLO_INIT_TIMEOUT": "6"}) as case:
        closed = case.pods[1:] if kind in LAUNCHED else case.pods[:1]
        for pod in closed:
            port = RENDEZVOUS if kind not in LAUNCHED else pod.ready_port
            pod.policy = f"table inet netpol {{ chain in {{ type filter hook input priority 0; iif != lo tcp dport {port} drop; }}; }}"
        case.start()
        codes = [pod.wait(40 if kind != "mpijob-ssh" else 200) for pod in case.ranks]  # ssh tries ten times
        if kind == "mpijob-ssh":
            expect(f"codes {codes}", codes == [255], case.pods)
            return says(case.pods[:1], r"connect to host train-worker-\d\S* port 2222: Connection timed out", 1)
        expect(f"codes {codes}", set(codes) == {75}, case.pods)
        for pod in case.ranks:
            expect(f"a remedy in {pod.termination()}", "NetworkPolicy" in pod.termination(), case.pods)


def wants_8_mib(case):
    """As systems begin with, so that the pods of a test may lock it: the job's own is a page for each connection more."""
    for pod in case.pods:
        if "KOLO_MEMLOCK" in pod.environment:
            pod.environment["KOLO_MEMLOCK"] = "8M"


def little_memlock(build, kind):
    """On a node whose container runtime lets pods lock little memory, RDMA is not even begun with. mpirun's log may be long."""
    more = ("--per-pod", "4") if kind == "mpijob-ssh" else ()
    for with_run in (True, False) if kind == "job" else (True,):
        with Case(build, kind, "--rdma", "rdma/hca", *more, workers=2, environment={"KOLO_INIT_TIMEOUT": "10"}) as case:
            wants_8_mib(case)
            victim = case.pods[-1]
            victim.command = ["prlimit", "--memlock=65536", *victim.command[0 if with_run else victim.command.index("--") + 1:]]
            case.start()
            pod = case.pods[0] if kind in LAUNCHED else victim
            code = pod.wait(40)
            expect(f"code {code}", code == 64 if with_run else code != 0, case.pods)
            words = rf"{victim.hostname} may lock 64 KiB.*KOLO_MEMLOCK"
            expect(f"words in {pod.termination()}", re.search(words, pod.termination()), case.pods)
    with Case(build, kind, "--rdma", "rdma/hca", workers=2) as case:
        wants_8_mib(case)
        for pod in case.pods:
            pod.command = ["prlimit", "--memlock=8388608", *pod.command]
        case.start()
        case.finish()


def killed(build, kind):
    """As the kernel does when a container has more memory than its limit: SIGKILL to a rank."""
    with Case(build, kind, command=LONG) as case:
        case.start()
        wait_until(lambda: any("step" in p.log() for p in case.pods), 40, "the first step")
        victim = case.pods[-1]
        pids = [int(p) for p in os.listdir("/proc") if p.isdigit() and
                space_of(p) == space_of(victim.pid) and name_of(p) == "train_bytes"]
        expect("a rank to kill", pids, case.pods)
        os.kill(pids[0], signal.SIGKILL)
        codes = [pod.wait(30) for pod in case.ranks]
        if kind == "mpijob-ssh":
            expect(f"codes {codes}", codes == [137], case.pods)
            last = case.ranks[0].termination()
            return expect(f"mpirun's word in {last}", re.search(rf"{victim.hostname}\S* exited on\s+signal 9 \(Killed\)", last), case.pods)
        expect(f"codes {codes}", set(codes) == {76}, case.pods)
        says(case.pods, r"SIGKILL", 1)
        expect("the termination message", any("SIGKILL" in p.termination() for p in case.pods), case.pods)
        for pod in case.pods[:-1] if kind not in LAUNCHED else []:
            expect("which peer was lost", f"rank 2 (host {victim.hostname}" in pod.termination() and
                   pod.termination().count("rank 2") == 1, case.pods)


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return None


def small_shm(build, kind):
    """/dev/shm of 64 KiB is none of kolo's business: its memory has no name there. kolo doctor says what else it is too small for."""
    with Case(build, kind, "--per-pod", "2", workers=2) as case:
        for pod in case.pods:
            pod.shm = "64k"
        case.start()
        case.finish()
        pod = case.pods[0]
        pod.command = ["kolo", "doctor"]
        expect("code 20", pod.start().wait(30) == 20, [pod])
        expect("its words", re.search(rf"host {pod.hostname} has a /dev/shm of 0\.1 MiB.*medium: Memory", pod.log(), re.S), [pod])
