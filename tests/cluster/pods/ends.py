# SPDX-License-Identifier: Apache-2.0
"""
Cases of pods.py in which others end pods: a job is suspended and resumed, a pod is evicted, a part of one is killed. What is under way
has time to end, is heard, and leaves nothing behind.
"""
import os
import re
import signal
import time

from cluster import run, space_of, wait_until
from failures import name_of
from mpi import LAUNCHED
from pods import LONG, STEPS, Case, expect, says


# ---- suspended -------------------------------------------------------------------------------------


def start_anew(case):
    """What a controller makes on resume: other pods of the same names, keys and generation, which train to the end."""
    old = case.pods
    case.pods = case.make()
    for before, pod in zip(old, case.pods):
        pod.files, pod.labels, pod.environment = before.files, before.labels, before.environment
        pod.command = [*before.command[:-len(LONG)], *STEPS] if before.command[-len(LONG):] == LONG else before.command
        pod.name += "-resumed"
    return old


def resumed(build, kind):
    """Suspend and resume: no other generation, and the names mean the old addresses too for a while."""
    with Case(build, kind, command=LONG) as case:
        case.start()
        says(case.pods, r"step", 40)
        for pod in case.pods:
            pod.signal(signal.SIGTERM)
        codes = [pod.terminate(15) for pod in case.pods]
        expect(f"codes {codes}", 143 in codes and set(codes) <= {143, 76}, case.pods)
        old = start_anew(case)
        for pod in case.pods[::-1]:
            pod.start(publish=False)
        time.sleep(1)
        for before, pod in zip(old, case.pods):
            case.cluster.publish(pod, [before.address, pod.address])
        case.finish()


def suspended_early(build, kind):
    """Suspended before the world has formed, by whom nobody answers yet; then resumed."""
    with Case(build, kind, command=LONG) as case:
        for pod in case.pods[:-1]:
            pod.start()
        time.sleep(1.5)
        for pod in case.pods[:-1]:
            wait_until(lambda p=pod: p.catches(signal.SIGTERM), 20, f"a handler in {pod.name}")
            pod.signal(signal.SIGTERM)
        codes = [pod.terminate(15) for pod in case.pods[:-1]]
        expect(f"codes {codes}", 143 in codes and set(codes) <= {143, 76}, case.pods)
        start_anew(case)
        case.start()
        case.finish()


def saves(build, kind):
    """SIGTERM reaches ranks, which may take their time and are heard to the end: of a worker that is evicted, or of all pods."""
    busy = ["sh", "-c", "trap 'sleep 1; echo saved by $KOLO_RANK; exit 0' TERM; echo ready; while :; do sleep 0.05; done"]
    for evicted in ("one", "all"):
        with Case(build, kind, workers=2, command=busy) as case:
            case.start()
            log = case.pods[0] if kind in LAUNCHED else case.pods[-1]
            wait_until(lambda: sum(pod.log().count("ready") for pod in case.ranks) == 2, 30, "ranks that run")
            told = case.pods[-1:] if evicted == "one" else case.ranks
            for pod in told:
                pod.signal(signal.SIGTERM)
            codes = [pod.wait(15) for pod in told]
            expect(f"codes {codes}", set(codes) == {143}, case.pods)
            says([log], "saved by 1", 5)


def term_early(build, kind):
    """SIGTERM to kolo run while it still reads who takes part: as process 1 nothing but itself makes it end."""
    with Case(build, kind, workers=1) as case:
        pod = case.pods[0]
        pod.command = ["sh", "-c", "mkfifo /tmp/hosts; (sleep 3; echo localhost slots=1 >/tmp/hosts) & exec kolo run --hostfile /tmp/hosts -- sleep 100"]
        pod.start()
        wait_until(lambda: name_of(pod.pid) == "kolo" and pod.catches(signal.SIGTERM), 10, "kolo run")
        expect("143", pod.terminate(20) == 143, case.pods)


def drained(build, kind):
    """One pod is evicted: SIGTERM to it alone. It ends with 143, the others say whom they miss and are worth another try."""
    with Case(build, kind, command=LONG) as case:
        case.start()
        says(case.pods, r"step", 40)
        victim = case.pods[-1]
        expect("143", victim.terminate(15) == 143, case.pods)
        rest = [pod for pod in case.ranks if pod is not victim]
        codes = [pod.wait(30) for pod in rest]
        expect(f"codes {codes}", set(codes) == {76}, case.pods)
        for pod in rest:
            expect("the last word names the rank and its pod", re.search(rf"rank 2 .*{victim.hostname}", pod.termination()), case.pods)


def processes_in(pod):
    """What runs in a pod, as it sees itself: what has ended and was not reaped is there too."""
    stats = run("nsenter", "--target", str(pod.pid), "--pid", "--mount", "sh", "-c", "cat /proc/[0-9]*/stat", check=False)
    return {int(number): name for number, name in re.findall(r"^(\d+) \((.*)\) ", stats, re.M) if name not in ("sh", "cat")}


def part_killed(build, kind):
    """What serves a job in a worker is killed. Its ranks end, the agent, as process 1, leaves nothing of it behind, and serves the next launcher."""
    with Case(build, kind, command=LONG) as case:
        case.start()
        says(case.pods, r"step", 40)
        victim = case.pods[-1]
        rank = next(pid for pid in filter(str.isdigit, os.listdir("/proc")) if space_of(pid) == space_of(victim.pid) and name_of(pid) == "train_bytes")
        with open(f"/proc/{rank}/stat", encoding="utf-8") as file:
            part = int(file.read().rpartition(") ")[2].split()[1])
        expect("not process 1", part != victim.pid, case.pods)
        os.kill(part, signal.SIGKILL)
        expect("76", case.pods[0].wait(30) == 76, case.pods)
        wait_until(lambda: list(processes_in(victim)) == [1], 10, f"the end of all else in {victim.name}: {processes_in(victim)}")
        case.pods[0].command = [*case.pods[0].command[:-len(LONG)], *STEPS]
        case.pods[0].start()
        case.finish()


# ---- metrics ---------------------------------------------------------------------------------------


def all_metrics(build, kind):
    """Every port of metrics that a manifest names answers while ranks train, and no other rank is hidden."""
    with Case(build, kind, "--per-pod", "2", workers=2, command=LONG) as case:
        case.start()
        says(case.pods, r"step", 40)
        ranks = set()
        for pod in case.pods:
            for name, port in pod.ports.items():
                if name.startswith("metrics"):
                    page = pod.inside("bash", "-c", f"exec 3<>/dev/tcp/{pod.address}/{port} && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3")
                    expect(f"{name} of {pod.name}: {page}", "# TYPE kolo_" in page, case.pods)
                    ranks |= set(re.findall(r'kolo_world_size\{rank="(\d+)"\} 4', page))
        expect(f"all ranks, not {ranks}", ranks == {"0", "1", "2", "3"}, case.pods)
