# SPDX-License-Identifier: Apache-2.0
"""
Cases of pods.py whose workers come and go while the job runs: what mpi-operator makes of `kubectl patch` and of pods that are lost.
"""
import os
import re
import shutil
import signal

import pods
from cluster import wait_until
from pods import Case, expect, says

MOST = 4
PROGRAM = ["launcher_trainer", "/usr/local/bin/end"]  # trains until that file is there


def place_program(build):
    shutil.copy2(f"{build}/tests/launcher_trainer", f"{pods.PLACE}/bin")
    if os.path.exists(f"{pods.PLACE}/bin/end"):
        os.unlink(f"{pods.PLACE}/bin/end")


def end_programs():
    with open(f"{pods.PLACE}/bin/end", "w", encoding="utf-8"):
        pass


class Elastic(Case):
    """An MPIJob of at most 4 workers."""

    def __init__(self, build, workers, fewest=1):
        place_program(build)
        self.workers = workers
        super().__init__(build, "mpijob", "--min", str(fewest), "--max", str(MOST), workers=workers, command=PROGRAM)
        self.launcher, self.listed = self.pods[0], []
        self.scale(workers)
        self.launcher.start()

    def make(self, attempt=0):
        """All pods that there may be some day; those of now are made by scale()."""
        job = next(d for d in self.documents if d["kind"] == "MPIJob")
        job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] = MOST
        made = super().make(attempt)
        hosts, mode = made[0].files["/etc/mpi/hostfile"]
        made[0].files["/etc/mpi/hostfile"] = ("".join(hosts.splitlines(keepends=True)[:self.workers]), mode)
        return made

    def list(self):
        """The operator renews the script, and the kubelet the file, in one piece: workers that run, in the order of strings, without slots."""
        text = "#!/bin/sh\n" + "".join(f"echo {name}\n" for name in sorted(f"{pod.hostname}.train.{self.cluster.namespace}.svc" for pod in self.listed))
        self.launcher.files["/etc/mpi/discover_hosts.sh"] = (text, 0o555)
        if self.launcher.process:
            place = f"/proc/{self.launcher.pid}/root/etc/mpi"
            with open(f"{place}/new", "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(f"{place}/new", 0o555)
            os.rename(f"{place}/new", f"{place}/discover_hosts.sh")

    def scale(self, workers):
        """kubectl patch mpijob: the operator deletes the last ones, or makes more. A pod that is deleted runs until it has ended."""
        wanted = self.pods[1:1 + workers]
        for pod in wanted:
            if not pod.runs():
                pod.start()
                self.listed.append(pod)
        self.list()
        for pod in [pod for pod in self.listed if pod not in wanted]:
            self.delete(pod)

    def delete(self, pod):
        expect("an agent ends with 143", pod.terminate(30) == 143, self.pods)
        self.cluster.withdraw(pod)
        self.listed.remove(pod)
        self.list()

    def world(self, size, seconds=60):
        """The last epoch has so many ranks, and all of them are in it."""
        def reached():
            lines = re.findall(r"epoch (\d+): rank \d+ of (\d+),", self.launcher.log())
            last = max((int(epoch) for epoch, _ in lines), default=-1)
            sizes = [int(n) for epoch, n in lines if int(epoch) == last]
            return sizes == [size] * size
        try:
            wait_until(reached, seconds, f"a world of {size}")
        except TimeoutError as error:
            raise AssertionError(f"{error}\n" + "".join(f"---- {p.name}:\n{p.log()}" for p in self.pods if p.process)) from error

    def finish(self, seconds=40):
        end_programs()
        expect("the launcher's code", self.launcher.wait(seconds) == 0, self.pods)
        expect("no step was lost or done twice", "the sum is" not in self.launcher.log(), self.pods)


def comes_and_goes(build, kind):
    """2 workers, 4, 3; then one is deleted, and one is lost: both come again with other addresses."""
    with Elastic(build, 2) as case:
        case.world(2)
        case.scale(4)
        case.world(4)
        case.scale(3)
        case.world(3)
        expect("they left in good order", len(re.findall("has left", case.launcher.log())) == 1, case.pods)
        deleted, lost = case.pods[1], case.pods[2]
        before = deleted.address
        case.delete(deleted)
        case.world(2)
        case.scale(3)
        case.world(3)
        expect("another address", deleted.address != before, case.pods)
        lost.signal(signal.SIGKILL)
        lost.wait(10)
        says([case.launcher], rf"{lost.hostname}.* was lost: its agent has gone", 20)
        case.world(2)
        lost.start()
        case.world(3)
        case.finish()
        for pod in case.listed:
            expect("workers go on", pod.runs(), case.pods)


def at_the_least(build, kind):
    """None may be missing (--min 2 of 2 workers). One that is lost is waited for."""
    with Elastic(build, 2, fewest=2) as case:
        case.world(2)
        lost = case.pods[2]
        lost.signal(signal.SIGKILL)
        lost.wait(10)
        says([case.launcher], rf"{lost.hostname}.* was lost: its agent has gone", 20)
        lost.start()
        case.world(2)
        case.finish()


def comes_again(build, kind):
    """Without a launcher, with KOLO_MIN_RANKS in the pods: the others go on without one that is lost, and take in the one that is made for it."""
    place_program(build)
    with Case(build, kind, environment={"KOLO_MIN_RANKS": "2"}, command=PROGRAM) as case:
        case.start()
        lost = case.pods[2]
        wait_until(lambda: "epoch 0: rank 2 of 3" in lost.log(), 40, "a world")
        lost.signal(signal.SIGKILL)
        lost.wait(10)
        says(case.pods[:1], "epoch 1: rank 0 of 2", 30)
        lost.start()
        says(case.pods[:1], "epoch 2: rank 0 of 3", 60)
        end_programs()
        codes = [pod.wait(30) for pod in case.pods]
        expect(f"codes {codes}", codes == [0, 0, 0], case.pods)
