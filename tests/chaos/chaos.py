#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Real faults in real jobs, one after the other: SIGKILL, SIGSTOP and cuts of the network in turn, at random moments
of a job of 4 ranks under `kolo run`. Each must be named by every survivor, with the right rank and the right cause,
in time; kolo run must name it in its last line; nothing may hang, and nothing may be left: no process, no socket,
no file in /dev/shm.

    chaos.py --kills 100 [--seed 1] [--only kill,stop,cable,to,from,link] [--at-once 4] [--log FILE]

The same seed gives the same faults; the moments at which they meet the ranks differ all the same. A line a fault, a
summary at the end; exit code 1 when something was wrong.
"""
import argparse
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import hosts

RANKS = 4
PEER_LOST, NETWORK = 8, 6
LOCAL, CUTS = ("kill", "stop"), ("cable", "to", "from", "link")
TEXTS = {
    "kill": "was killed by signal 9 (SIGKILL)",
    "stop": "is stopped (SIGSTOP), silent for",
    "cable": "was lost with its host, which does not answer any more",
    "to": "was lost with its host, which does not answer any more",
    "from": "was lost with its host, which does not answer any more",
}


class Wrong(Exception):
    pass


def wait_until(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def processes_with(mark):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                if mark in line.read() and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def sockets(job, host):
    """Those of a job's ranks that have names."""
    line = host.command("cat", "/proc/net/unix") if host is not None else ["cat", "/proc/net/unix"]
    listed = subprocess.run(line, capture_output=True, text=True).stdout
    return [name for name in listed.splitlines() if job in name]


class Fault:
    """One job and what befalls it."""

    def __init__(self, chaos, number, kind, rack):
        self.chaos, self.number, self.kind, self.rack = chaos, number, kind, rack
        # Of its own, so that it does not depend on how many are under way at once.
        self.random = random.Random(f"{chaos.seed} {number}")
        self.victim = self.random.randrange(RANKS)
        self.other = (self.victim + 1 + self.random.randrange(RANKS - 1)) % RANKS
        self.delay = self.random.uniform(0.05, 1.5)
        # On hosts of their own, or all on this machine.
        self.apart = kind in CUTS or (rack is not None and self.random.randrange(3) == 0)
        self.transport = "tcp" if self.apart else self.random.choice(("tcp", "shm"))
        self.folder = tempfile.mkdtemp(prefix="kolo-chaos.")
        self.took = None
        self.waited = False

    def describe(self):
        whom = f"rank {self.victim}" if self.kind != "link" else f"ranks {self.victim} and {self.other}"
        where = " between hosts" if self.apart else ""
        return f"fault {self.number}: {self.kind} of {whom}, {self.transport}{where}, {self.delay:.2f} s after the start"

    # ---- the job -----------------------------------------------------------------------------------------

    def start(self):
        chaos = self.chaos
        words = [chaos.kolo, "run", "-n", str(RANKS), "--peer-timeout", str(chaos.peer_timeout), "--transport",
                 self.transport, "--grace", "2"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KOLO_")}
        if self.apart:
            names = ",".join(f"host{i + 1}:1" for i in range(RANKS))
            # In the network of host 0, but where it sees the processes of all, for what is its ssh.
            words = ["nsenter", "--target", str(self.rack.hosts[0].pid), "--net", "--uts", "--", *words, "--hosts",
                     names, "--ssh", self.write_shell(), "--wdir", "/"]
        words += ["--", chaos.rank, self.folder, str(self.random.randrange(1 << 30))]
        self.errors = open(os.path.join(self.folder, "err"), "w+")
        self.run = subprocess.Popen(words, stdout=self.errors, stderr=self.errors, stdin=subprocess.DEVNULL,
                                    env=environment, start_new_session=True)
        if not wait_until(60, lambda: self.run.poll() is not None or all(self.note(r) for r in range(RANKS))):
            raise Wrong("the ranks do not start")
        if self.run.poll() is not None:
            raise Wrong("kolo run ended by itself")

    def write_shell(self):
        """What takes the place of ssh."""
        path = os.path.join(self.folder, "shell")
        with open(path, "w") as file:
            file.write("#!/bin/sh\ncase $1 in\n")
            for host in self.rack.hosts:
                file.write(f"{host.name}) pid={host.pid} ;;\n")
            file.write('esac\nexec nsenter --target $pid --net --uts --mount --pid -- sh -c "$2"\n')
        os.chmod(path, 0o755)
        return path

    def note(self, rank):
        """What the rank has written, by lines."""
        try:
            with open(os.path.join(self.folder, str(rank))) as file:
                return file.read().splitlines()
        except OSError:
            return []

    def pid(self, rank):
        """As seen from here: a host counts its own."""
        inner = int(self.note(rank)[0].split()[1])
        if not self.apart:
            return inner
        for pid in self.rack.hosts[rank + 1].processes():
            with open(f"/proc/{pid}/status") as status:
                if re.search(rf"^NSpid:.*\s{inner}$", status.read(), re.MULTILINE):
                    return pid
        raise Wrong(f"the process of rank {rank} is not found")

    # ---- the fault ---------------------------------------------------------------------------------------

    def strike(self):
        if self.kind == "kill":
            os.kill(self.pid(self.victim), signal.SIGKILL)
        elif self.kind == "stop":
            os.kill(self.pid(self.victim), signal.SIGSTOP)
        elif self.kind == "cable":
            self.rack.cut_cable(self.victim + 1)
        elif self.kind == "to":
            self.rack.cut_to(self.victim + 1)
        elif self.kind == "from":
            self.rack.cut_from(self.victim + 1)
        else:
            self.rack.cut_link(self.victim + 1, self.other + 1)

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
        if not wait_until(chaos.peer_timeout + 40, lambda: self.run.poll() is not None):
            raise Wrong("kolo run does not end")
        survivors = [r for r in range(RANKS) if self.kind == "link" or r != self.victim]
        self.took = max(self.check_survivor(r, began_ns) for r in survivors)
        if not self.waited:
            raise Wrong("no rank says in which operation it was")
        if self.took > chaos.limit:
            raise Wrong(f"the last one noticed after {self.took:.2f} s")
        if self.run.returncode != 76:
            raise Wrong(f"kolo run ended with {self.run.returncode} instead of 76")
        self.errors.seek(0)
        last = self.errors.read().splitlines()[-1]
        self.expect_named(last, "kolo run")
        if not last.startswith("kolo run: ") or "in consequence" not in last:
            raise Wrong(f"the last line is '{last}'")

    def check_nothing_left(self, job):
        mark = self.folder.encode()
        if not wait_until(10, lambda: not processes_with(mark)):
            raise Wrong(f"processes are left: {processes_with(mark)}")
        places = self.rack.hosts if self.apart else [None]
        for host in places:
            if host is not None and not wait_until(10, lambda: not host.processes()):
                raise Wrong(f"processes are left on {host.name}: {host.processes()}")
            if sockets(job, host):
                raise Wrong(f"sockets are left: {sockets(job, host)}")
        left = [name for name in os.listdir("/dev/shm") if job in name]
        if left:
            raise Wrong(f"/dev/shm has {left}")

    def job_id(self):
        with open(f"/proc/{self.pid(0)}/environ", "rb") as file:
            for entry in file.read().split(b"\0"):
                if entry.startswith(b"KOLO_JOB="):
                    return entry[9:].decode()
        raise Wrong("the rank has no job id")

    def end(self):
        """However it went."""
        if hasattr(self, "run") and self.run.poll() is None:
            os.killpg(self.run.pid, signal.SIGKILL)
            self.run.wait()
        if self.rack is not None and self.kind in CUTS:
            self.rack.heal()
        if hasattr(self, "errors"):
            self.errors.close()

    def play(self):
        try:
            self.start()
            job = self.job_id()
            time.sleep(self.delay)
            before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self.strike()
            # A cut takes some commands; a signal may be noticed before kill(2) comes back.
            after_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self.check(after_ns if self.kind in CUTS else before_ns)
            if self.kind in CUTS:
                self.rack.heal()
            self.check_nothing_left(job)
        finally:
            self.end()
        shutil.rmtree(self.folder)


class Chaos:
    def __init__(self, arguments):
        build = os.path.abspath(arguments.build)
        self.kolo = os.path.join(build, "bin", "kolo")
        self.rank = os.path.join(build, "tests", "chaos_rank")
        self.seed, self.kills = arguments.seed, arguments.kills
        self.peer_timeout = arguments.peer_timeout
        self.limit = arguments.limit if arguments.limit is not None else self.peer_timeout + 0.5
        self.kinds = arguments.only.split(",") if arguments.only else None
        self.with_hosts = any(self.kind_of(number) in CUTS for number in range(self.kills))
        self.at_once = max(1, min(arguments.at_once, self.kills))
        self.log = open(arguments.log, "w") if arguments.log else None
        self.lock = threading.Lock()
        self.next, self.wrong, self.times, self.playing = 0, 0, {}, set()

    def say(self, line):
        print(line, flush=True)
        if self.log is not None:
            self.log.write(line + "\n")
            self.log.flush()

    def kind_of(self, number):
        """SIGKILL, SIGSTOP, a cut, in turn; of the cuts one after the other."""
        if self.kinds is not None:
            return self.kinds[number % len(self.kinds)]
        return (*LOCAL, CUTS[number // 3 % len(CUTS)])[number % 3]

    def stop(self, *_):
        """By a signal: no more faults, and those under way end soon, for their jobs do."""
        self.kills = min(self.kills, self.next)
        for fault in list(self.playing):
            if hasattr(fault, "run") and fault.run.poll() is None:
                os.killpg(fault.run.pid, signal.SIGKILL)

    def play_some(self):
        rack = folder = None
        try:
            while True:
                with self.lock:
                    number = self.next
                    self.next += number < self.kills
                if number >= self.kills:
                    return
                kind = self.kind_of(number)
                if self.with_hosts and rack is None:
                    folder = tempfile.mkdtemp(prefix="kolo-chaos.")
                    rack = hosts.Rack(folder, RANKS)
                self.play(Fault(self, number, kind, rack))
        finally:
            if rack is not None:
                rack.end()
                shutil.rmtree(folder)

    def play(self, fault):
        outcome = "ok"
        self.playing.add(fault)
        try:
            fault.play()
        except Wrong as wrong:
            outcome = f"WRONG: {wrong} (its files: {fault.folder})"
        self.playing.discard(fault)
        with self.lock:
            self.wrong += outcome != "ok"
            if fault.took is not None:
                self.times.setdefault(fault.kind, []).append(fault.took)
            took = f"; named by all after {fault.took:.2f} s" if fault.took is not None else ""
            self.say(f"{fault.describe()}{took}: {outcome}")

    def play_all(self):
        began = time.monotonic()
        self.say(f"{self.kills} faults, seed {self.seed}, {RANKS} ranks, KOLO_PEER_TIMEOUT {self.peer_timeout} s, "
                 f"{self.at_once} at once")
        threads = [threading.Thread(target=self.play_some) for _ in range(self.at_once)]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for kind, times in sorted(self.times.items()):
            self.say(f"{kind}: {len(times)} faults, named by all survivors after {min(times):.2f} to {max(times):.2f} s, "
                     f"median {statistics.median(times):.2f} s")
        played = sum(len(times) for times in self.times.values())
        missing = self.kills - played
        self.say(f"{self.kills} faults in {time.monotonic() - began:.0f} s: {self.wrong} wrong"
                 + (f", {missing} not seen by all" if missing > 0 else ""))
        return self.wrong == 0 and missing == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="kinds, by commas: " + ",".join(LOCAL + CUTS))
    parser.add_argument("--at-once", type=int, default=1, help="jobs that run beside each other")
    parser.add_argument("--peer-timeout", type=int, default=5)
    parser.add_argument("--limit", type=float, help="seconds, for all to name it; default: half a second more")
    parser.add_argument("--build", default="build")
    parser.add_argument("--log", help="what is said, in a file as well")
    arguments = parser.parse_args()
    chaos = Chaos(arguments)
    if chaos.with_hosts:
        reason = hosts.permitted()
        if reason is not None:
            print(f"skipped: {reason}")
            sys.exit(77)
    sys.exit(0 if chaos.play_all() else 1)


if __name__ == "__main__":
    main()
