# SPDX-License-Identifier: Apache-2.0
"""
Cases of pods.py in which one job is there twice: its object was deleted and applied again, or its controller has begun the whole
again, and pods of before still run, with the same token, and with the names of the new ones. Those of now must train to the end
without those of before.
"""
import re
import signal

from mpi import LAUNCHED
from pods import LONG, STEPS, Case, expect, says


def begin_again(case):
    """
    Lists of the pods of before, one for each way in which that can be; the case's pods are those of now.

    A Job never begins again as a whole: pods that are made anew belong to those that are there. Nor does an MPIJob; and of one
    TrainJob no two launchers are there. Of each name there is one pod at a time, so that no StatefulSet has pods of two objects;
    but of two revisions, while it is updated.
    """
    before = []
    ways = ["begun"] if case.kind == "statefulset" else ["applied"] if case.kind in ("job", *LAUNCHED) else ["applied", "begun"]
    for way in ways:
        for pod in case.pods:
            pod.name += f"-before-it-was-{way}-again"
        before.append(case.pods)
        if way == "applied":
            case.apply()
        case.pods = case.make(attempt=1 if way == "begun" else 0)
    return before


def start_beside(case, before, refusal="it (is of job|has another token)"):
    """
    The name of the pod that others look for means old ones first, who refuse them, and say it; then the pod of now comes, and the
    name means all of them. Who found the pod of now first would look no further.
    """
    wanted = case.pods[1 if case.kind in LAUNCHED else 0]
    old = [pod for pods in before for pod in pods if pod.hostname == wanted.hostname and pod.address]
    case.cluster.publish(wanted, [pod.address for pod in old])
    for pod in case.pods:
        if pod is not wanted:
            pod.start()
    for pod in old:
        says([pod], rf"refused a connection from .*{refusal}", 30)
    wanted.start(publish=False)
    case.cluster.publish(wanted, [pod.address for pod in [*old, wanted]])


def two_generations(build, kind, *arguments):
    """
    Those of before wait for one more, which does not come. They say who came instead, and end as where one is missing; a launcher,
    which looks for workers by their names, as where they have another token.
    """
    with Case(build, kind, *arguments) as case:
        before = begin_again(case)
        left = [pod for pods in before for pod in (pods[0], pods[1] if kind in LAUNCHED else pods[-1])]
        for pod in left:
            pod.environment["KOLO_INIT_TIMEOUT"] = "15"
            pod.start()
        start_beside(case, before)
        case.finish()
        if kind in LAUNCHED:
            expect("the launcher of before", left[0].wait(40) == 64, left)
            return says(left[:1], "it has another token", 1)
        codes = [pod.wait(40) for pod in left]
        expect(f"codes of before {codes}", set(codes) == {75}, left)
        words = rf"(missing: 1 \(pod {case.pods[1].hostname}|found no rendezvous.*{case.pods[0].hostname}.*does not belong to job)"
        for pod in left:
            expect("who is missing is said", re.search(words, pod.termination()), [pod])
        for pod in left:
            if pod.hostname == case.pods[0].hostname:
                expect("who came instead is said", re.search("refused was: .*it is of job", pod.termination()), [pod])


def one_secret(build, kind):
    """The token of both is that of a Secret which somebody made. The key that the operator makes anew tells them apart all the same."""
    two_generations(build, kind, "--token-secret", "kolo-token")


def old_worker(build, kind):
    """mpirun's ssh is led to a worker of before, which has another key: what ssh says of it, and that a launcher which is made anew gets through."""
    with Case(build, kind) as case:
        old = begin_again(case)[0][1].start(publish=False)
        for pod in case.pods[1:]:
            pod.start()
        case.wait_ready()
        case.cluster.publish(case.pods[1], [old.address])
        code = case.pods[0].start().wait(40)
        expect(f"code {code}", code == 255, case.pods)
        words = rf"{case.pods[1].hostname}\S*: Permission denied \(publickey"
        expect(f"ssh's words in {case.pods[0].termination()}", re.search(words, case.pods[0].termination()), case.pods)
        case.cluster.publish(case.pods[1], [case.pods[1].address])
        case.pods[0].start()
        case.finish()


def two_worlds(build, kind):
    """A whole world of before still trains. It ends when it is told to."""
    with Case(build, kind, command=LONG) as case:
        before = begin_again(case)
        for pod in before[0]:
            pod.start()
        says(before[0], r"step +\d", 40)
        for pod in case.pods:
            if LONG[-1] in pod.command:
                pod.command[-len(LONG):] = STEPS
        start_beside(case, before)
        case.finish()
        expect("those of before train", all(pod.runs() for pod in before[0]), before[0])
        for pod in before[0]:
            pod.signal(signal.SIGTERM)
        codes = [pod.terminate(20) for pod in before[0]]
        expect(f"codes of before {codes}", set(codes) <= {143, 76} and 143 in codes, before[0])


def resumed_beside(build, kind):
    """Suspend and resume make pods of the same generation. Those of before could not be ended, and still train."""
    with Case(build, kind, command=LONG) as case:
        before = case.pods
        case.start()
        says(before, r"step +\d", 40)
        case.pods = case.make()
        for pod, old in zip(case.pods, before):
            pod.name += "-resumed"
            pod.command, pod.environment = [*pod.command[:-len(LONG)], *STEPS], old.environment
        start_beside(case, [before], "its world has formed before")
        case.finish()
        expect("those of before train", all(pod.runs() for pod in before), before)


def begins_again(build, kind):
    """A pod is lost while all train, and each is made anew when it has ended: one after the other, in the same Job."""
    with Case(build, kind, command=LONG) as case:
        case.start()
        says(case.pods, r"step +\d", 40)
        case.pods[-1].signal(signal.SIGKILL)
        expect("killed", case.pods[-1].wait(10) == 137, case.pods)
        for pod in case.pods:
            pod.command[-len(LONG):] = STEPS
        case.pods[-1].start()
        case.restart(40)
        case.finish()
