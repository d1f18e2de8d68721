#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Real faults in real jobs, one after the other: SIGKILL, SIGSTOP and cuts of the network in turn, at random moments
of a job of 4 ranks under `kolo run`. Each must be named by every survivor, with the right rank and the right cause,
in time; kolo run must name it in its last line; nothing may hang, and nothing may be left: no process, no socket,
no file in /dev/shm.

    chaos.py --kills 100 [--seed 1] [--only kill,stop,cable,to,from,link] [--at-once 4] [--log FILE]
    chaos.py --elastic --kills 100 ...     many faults in a job that goes on: see elastic.py

The same seed gives the same faults; the moments at which they meet the ranks differ all the same. A line a fault, a
summary at the end; exit code 1 when something was wrong.
"""
import argparse
import os
import random
import re
import signal
import statistics
import sys
import time

import hosts
from elastic import Elastic
from jobs import CUTS, LOCAL, RANKS, Job, Runner, Wrong, wait_until

PEER_LOST, NETWORK = 8, 6
TEXTS = {
    "kill": "was killed by signal 9 (SIGKILL)",
    "stop": "is stopped (SIGSTOP), silent for",
    "cable": "was lost with its host, which does not answer any more",
    "to": "was lost with its host, which does not answer any more",
    "from": "was lost with its host, which does not answer any more",
}


class Fault(Job):
    """One job and what befalls it."""

    def __init__(self, chaos, number, kind, rack):
        self.chaos, self.number, self.kind = chaos, number, kind
        # Of its own, so that it does not depend on how many are under way at once.
        self.random = random.Random(f"{chaos.seed} {number}")
        self.victim = self.random.randrange(RANKS)
        self.other = (self.victim + 1 + self.random.randrange(RANKS - 1)) % RANKS
        self.delay = self.random.uniform(0.05, 1.5)
        # On hosts of their own, or all on this machine.
        super().__init__(rack, kind in CUTS or (rack is not None and self.random.randrange(3) == 0))
        self.transport = "tcp" if self.apart else self.random.choice(("tcp", "shm"))
        self.took = None
        self.waited = False

    def describe(self):
        whom = f"rank {self.victim}" if self.kind != "link" else f"ranks {self.victim} and {self.other}"
        where = " between hosts" if self.apart else ""
        return f"fault {self.number}: {self.kind} of {whom}, {self.transport}{where}, {self.delay:.2f} s after the start"

    # ---- the job -----------------------------------------------------------------------------------------

    def start(self):
        chaos = self.chaos
        options = [chaos.kolo, "run", "--peer-timeout", str(chaos.peer_timeout), "--transport", self.transport,
                   "--grace", "2"]
        self.launch(options, 1, [chaos.rank, self.folder, str(self.random.randrange(1 << 30))])
        if not wait_until(60, lambda: self.has_ended() or all(self.note(r) for r in range(RANKS))):
            raise Wrong("the ranks do not start")
        if self.has_ended():
            raise Wrong("kolo run ended by itself")

    def note(self, rank):
        return self.lines(str(rank))

    def pid(self, rank):
        """As seen from here: a host counts its own."""
        inner = int(self.note(rank)[0].split()[1])
        if not self.apart:
            return inner
        pid = self.outer_pid(self.rack.hosts[rank + 1], inner)
        if pid is None:
            raise Wrong(f"the process of rank {rank} is not found")
        return pid

    # ---- the fault ---------------------------------------------------------------------------------------

    def strike(self):
        if self.kind == "kill":
            os.kill(self.pid(self.victim), signal.SIGKILL)
        elif self.kind == "stop":
            os.kill(self.pid(self.victim), signal.SIGSTOP)
        else:
            self.rack.cut(self.kind, self.victim + 1, self.other + 1)

    def expect_named(self, text, by):
        if self.kind == "link":
            names = [f"rank {r} (host host{r + 1}" for r in (self.victim, self.other)] + ["between rank"]
        else:
            names = [f"rank {self.victim} (host ", TEXTS[self.kind]]
        for name in names:
            if name not in text:
                raise Wrong(f"{by} does not say '{name}': {text}")

    def check_survivor(self, rank, began_ns):
        lines = self.note(rank)
        if len(lines) < 2 or not lines[1].startswith("failed "):
            raise Wrong(f"rank {rank} has not noticed")
        _, at_ns, status, text = lines[1].split(" ", 3)
        self.expect_named(text, f"rank {rank}")
        self.waited |= re.search(r", in .*#[0-9]+ ", text) is not None
        wanted = NETWORK if self.kind == "link" else PEER_LOST
        if int(status) != wanted:
            raise Wrong(f"rank {rank}: status {status} instead of {wanted}: {text}")
        return (int(at_ns) - began_ns) / 1e9

    def check(self, began_ns):
        chaos = self.chaos
        if not wait_until(chaos.peer_timeout + 40, self.has_ended):
            raise Wrong("kolo run does not end")
        survivors = [r for r in range(RANKS) if self.kind == "link" or r != self.victim]
        self.took = max(self.check_survivor(r, began_ns) for r in survivors)
        if not self.waited:
            raise Wrong("no rank says in which operation it was")
        if self.took > chaos.limit:
            raise Wrong(f"the last one noticed after {self.took:.2f} s")
        if self.run.returncode != 76:
            raise Wrong(f"kolo run ended with {self.run.returncode} instead of 76")
        last = self.last_line()
        self.expect_named(last, "kolo run")
        if not last.startswith("kolo run: ") or "in consequence" not in last:
            raise Wrong(f"the last line is '{last}'")

    def end(self):
        super().end()
        if self.rack is not None and self.kind in CUTS:
            self.rack.heal_all()

    def play(self):
        try:
            self.start()
            job = self.job_id(self.pid(0))
            time.sleep(self.delay)
            before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self.strike()
            # A cut takes some commands; a signal may be noticed before kill(2) comes back.
            after_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self.check(after_ns if self.kind in CUTS else before_ns)
            if self.kind in CUTS:
                self.rack.heal_all()
            self.check_nothing_left(job)
        finally:
            self.end()
        self.forget()


class Chaos(Runner):
    def __init__(self, arguments):
        super().__init__(arguments)
        self.rank = os.path.join(self.programs, "chaos_rank")
        self.limit = arguments.limit if arguments.limit is not None else self.peer_timeout + 0.5
        self.kinds = arguments.only.split(",") if arguments.only else None
        self.with_hosts = any(self.kind_of(number) in CUTS for number in range(self.kills))
        self.times = {}

    def kind_of(self, number):
        """SIGKILL, SIGSTOP, a cut, in turn; of the cuts one after the other."""
        if self.kinds is not None:
            return self.kinds[number % len(self.kinds)]
        return (*LOCAL, CUTS[number // 3 % len(CUTS)])[number % 3]

    def job(self, number, rack):
        return Fault(self, number, self.kind_of(number), rack) if number < self.kills else None

    def note(self, fault, outcome):
        if fault.took is not None:
            self.times.setdefault(fault.kind, []).append(fault.took)
        took = f"; named by all after {fault.took:.2f} s" if fault.took is not None else ""
        self.say(f"{fault.describe()}{took}: {outcome}")

    def play_all(self):
        self.say(f"{self.kills} faults, seed {self.seed}, {RANKS} ranks, KOLO_PEER_TIMEOUT {self.peer_timeout} s, "
                 f"{self.at_once} at once")
        seconds = super().play_all()
        for kind, times in sorted(self.times.items()):
            self.say(f"{kind}: {len(times)} faults, named by all survivors after {min(times):.2f} to {max(times):.2f} s, "
                     f"median {statistics.median(times):.2f} s")
        missing = self.kills - sum(len(times) for times in self.times.values())
        self.say(f"{self.kills} faults in {seconds:.0f} s: {self.wrong} wrong"
                 + (f", {missing} not seen by all" if missing > 0 else ""))
        return self.wrong == 0 and missing == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elastic", action="store_true", help="training that goes on: see elastic.py")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="kinds, by commas: " + ",".join(LOCAL + CUTS))
    parser.add_argument("--at-once", type=int, default=1, help="jobs that run beside each other")
    parser.add_argument("--peer-timeout", type=int, default=5)
    parser.add_argument("--limit", type=float, help="seconds, for all to name it; default: half a second more")
    parser.add_argument("--job", type=int, help="with --elastic: that job of them alone")
    parser.add_argument("--minutes", type=float, default=1e6, help="with --elastic: no job begins after so long")
    parser.add_argument("--build", default="build")
    parser.add_argument("--log", help="what is said, in a file as well")
    arguments = parser.parse_args()
    chaos = Elastic(arguments) if arguments.elastic else Chaos(arguments)
    if chaos.with_hosts:
        reason = hosts.permitted()
        if reason is not None:
            print(f"skipped: {reason}")
            sys.exit(77)
    sys.exit(0 if chaos.play_all() else 1)


if __name__ == "__main__":
    main()
