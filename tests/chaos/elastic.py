# SPDX-License-Identifier: Apache-2.0
"""
Faults in training that goes on: jobs of 4 ranks that learn (programs/chaos_trainer.c) under `kolo run --min 1
--restarts`, each struck several times: by SIGKILL, SIGSTOP and cuts of the network in turn, one rank or several at
once, when all are there again or at any moment of a renewal before that. After each wave training goes on, with 4 ranks
again. At the end all have the same parameters, to the bit those of a run that nobody disturbed, and nothing is left.
"""
import os
import random
import signal
import statistics
import subprocess
import threading
import time

from jobs import CUTS, LOCAL, RANKS, Job, Wrong, wait_until, Runner

FAULTS_PER_JOB = 6
AGENT_PORT = "7701"
PAUSE_US = 4000  # about what a step takes besides
RECOVER_S = 120  # a rank is started again after 1 s, 2 s, 4 s, ... and a lost host comes again after 43 s
SLOTS = 2        # of a host: when two are lost there is room for all


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Process:
    """One of the job's, by what it has written."""

    def __init__(self, name, lines):
        self.name, self.place = name, int(name.split(".")[0])
        _, pid, self.host = lines[0].split(" ")
        self.pid = int(pid)
        self.entered, self.good = [], []  # (ns, epoch, rank, size, step)
        self.done = self.failed = None
        for line in lines[1:]:
            word, rest = line.split(" ", 1)
            if word == "in":
                self.entered.append(tuple(map(int, rest.split(" "))))
            elif word == "good":
                self.good.append(tuple(map(int, rest.split(" "))))
            elif word == "done":
                self.done = rest.split(" ", 1)[1]
            else:
                self.failed = rest.split(" ", 2)[2]


class Wave:
    """Faults that come together. settled: once all are there again; else `delay` seconds after the one before."""

    def __init__(self, draw, kinds):
        self.settled = draw.randrange(2) == 0
        self.delay = draw.uniform(0, 0.6) if self.settled else draw.uniform(0, 3)
        self.kinds = kinds
        self.offsets = [0] + sorted(draw.uniform(0, 0.3) for _ in kinds[1:])
        self.picks = [draw.randrange(1 << 30) for _ in kinds]

    def describe(self):
        return "+".join(self.kinds)


class Training(Job):
    def __init__(self, chaos, number, kinds, rack):
        self.chaos, self.number, self.faults = chaos, number, len(kinds)
        self.random = random.Random(f"elastic {chaos.seed} {number}")
        super().__init__(rack, any(kind in CUTS for kind in kinds))
        self.transport = ("tcp", "auto" if self.apart else "shm")[number // 2 % 2]
        self.struck, self.touched = set(), set()
        self.cut_hosts, self.once_cut, self.healing = set(), set(), []
        self.job, self.agents, self.has_lost_the_state = None, [], False
        self.times, self.whole_times, self.alone, self.steps, self.loss = {}, {}, None, 0, ""
        self.waves = []
        while kinds:
            count = min(len(kinds), self.random.choice((1, 1, 1, 2, 2, 3)))
            self.waves.append(Wave(self.random, kinds[:count]))
            kinds = kinds[count:]

    def describe(self):
        where = " between hosts" if self.apart else ""
        waves = ", ".join(wave.describe() + ("" if wave.settled else " (meanwhile)") for wave in self.waves)
        return f"job {self.number}: {self.transport}{where}: {waves}"

    # ---- what is there -----------------------------------------------------------------------------------

    def processes(self):
        found = []
        for name in os.listdir(self.folder):
            lines = self.lines(name) if name[0].isdigit() else []
            if lines:
                found.append(Process(name, lines))
        return sorted(found, key=lambda process: process.name)

    def epoch(self):
        return max((good[1] for process in self.processes() for good in process.good), default=-1)

    def unhurt(self):
        return [p for p in self.processes()
                if p.name not in self.struck and p.done is None and p.failed is None and self.here(p) is not None]

    def is_whole(self, after_epoch):
        """All ranks have taken a step in an epoch after that one, and none of them has been struck."""
        epoch = self.epoch()
        members = [p for p in self.unhurt() for good in p.good if good[1] == epoch and good[3] == RANKS]
        return epoch > after_epoch and len(members) == RANKS

    def goes_on_ns(self, after_epoch):
        """When a rank that was not struck took its first step after that epoch; None: it has not."""
        times = [good[0] for p in self.processes() if p.name not in self.struck for good in p.good if good[1] > after_epoch]
        return min(times, default=None)

    def wait(self, seconds, condition, what):
        if not wait_until(seconds, lambda: self.has_ended() or condition(), 0.1):
            raise Wrong(f"{what} within {seconds} s")
        if self.has_ended() and not condition():
            raise Wrong(f"kolo run ended with {self.run.returncode}: {self.last_line()}")

    # ---- faults ------------------------------------------------------------------------------------------

    def start(self):
        chaos = self.chaos
        options = [chaos.kolo, "run", "--min", "1", "--restarts", "1000", "--peer-timeout", str(chaos.peer_timeout),
                   "--transport", self.transport, "--grace", "1"]
        if self.apart:
            options += ["--max", str(RANKS)]
        program = [os.path.join(chaos.programs, "chaos_trainer"), self.folder, "0", str(PAUSE_US)]
        self.launch(options, SLOTS, program)
        self.wait(60, lambda: self.is_whole(-1), "the ranks do not start")
        self.job = self.job_id(self.here(self.processes()[0]))

    def way_to_hosts(self, environment):
        """Agents that wait there: what is cut off is cut off from kolo run as well."""
        environment["KOLO_TOKEN_FILE"] = os.path.join(self.folder, "token")
        with open(os.open(environment["KOLO_TOKEN_FILE"], os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(f"{self.random.getrandbits(128):032x}\n")
        with open(os.path.join(self.folder, "agents"), "w") as log:
            for host in self.rack.hosts[1:]:
                self.agents.append(subprocess.Popen(host.command(self.chaos.kolo, "agent"), env=environment,
                                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return ["--agent-port", AGENT_PORT]

    def here(self, process):
        """Its id, as seen from here; None: it has ended."""
        if not self.apart:
            return process.pid if os.path.exists(f"/proc/{process.pid}") else None
        return self.outer_pid(self.rack.hosts[int(process.host[4:])], process.pid)

    def candidates(self, kind):
        """Who may be struck: somebody who has the state is left, is not just getting it, and is none of two between which
        nothing passes, who may be expelled."""
        unhurt = self.unhurt()
        epoch = self.epoch()
        holders = [p for p in unhurt if any(good[1] == epoch for good in p.good) and p.host not in self.cut_hosts]
        if kind in LOCAL:
            # Nobody misses who is stopped before it has reached the rendezvous.
            return [p for p in unhurt if any(other is not p for other in holders) and (kind == "kill" or p.entered)]
        whole = {p.host for p in unhurt} - self.cut_hosts
        among = [p for p in unhurt if p.host in whole]
        if kind == "link":
            return among if len(whole) > 1 else []
        return [p for p in among if any(other.host != p.host for other in holders)]

    def strike(self, kind, pick):
        """Returns whom."""
        among = []

        def found():  # looked at once: the next moment there may be others, or none
            among[:] = self.candidates(kind)
            return among

        # Cuts that last may leave all ranks on two hosts, of which one is at an end of such a cut.
        if not wait_until(20, lambda: self.has_ended() or found(), 0.1) and self.is_whole(-1):
            self.heal(set(self.cut_hosts))
        self.wait(RECOVER_S, found, f"nobody is left to be struck ({kind})")
        victim = among[pick % len(among)]
        if kind in CUTS:
            self.cut(kind, victim, pick)
            return victim
        pid = self.here(victim)
        if pid is not None:
            os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        self.struck.add(victim.name)
        return victim

    def cut(self, kind, victim, pick):
        """For longer than KOLO_PEER_TIMEOUT; or for good, where three hosts are left."""
        whole = sorted({p.host for p in self.candidates("link")} - {victim.host})
        others = whole if kind == "link" else []
        other = others[pick % len(others)] if others else victim.host
        i, k = int(victim.host[4:]), int(other[4:])
        hit = [p for p in self.unhurt() if p.host in (victim.host, other)]
        # Nobody misses who had not reached the rendezvous when it was cut off, and gets there later.
        self.struck |= {p.name for p in hit if p.entered and kind != "link"}
        self.touched |= {p.name for p in hit}
        self.rack.cut(kind, i, k)
        ends = {victim.host, other}
        self.cut_hosts |= ends
        self.once_cut |= ends
        if len(self.cut_hosts) > 1 + (kind == "link") or pick % 3 > 0:
            timer = threading.Timer(self.chaos.peer_timeout + 1 + pick % 20 / 10, self.heal, (ends,))
            self.healing.append(timer)
            timer.start()

    def heal(self, ends):
        for host in ends:
            self.rack.heal(int(host[4:]))
        self.cut_hosts -= ends

    def wait_for_all(self, before):
        self.wait(RECOVER_S, lambda: self.is_whole(before), f"not all are there again after epoch {before}")
        if self.alone is not None:
            kind, at_ns, epoch = self.alone
            whole_ns = {}  # by epoch
            for process in self.processes():
                for ns, number, _, size, _ in process.good:
                    if number > epoch and size == RANKS:
                        whole_ns.setdefault(number, []).append(ns)
            last_ns = min(max(times) for times in whole_ns.values() if len(times) == RANKS)
            self.whole_times.setdefault(kind, []).append((last_ns - at_ns) / 1e9)

    def is_noticed(self, before):
        """A link: many algorithms send nothing between some two ranks, which are then not missed."""
        return wait_until(3 * self.chaos.peer_timeout, lambda: self.has_ended() or self.goes_on_ns(before) is not None, 0.1)

    def play_wave(self, wave, before):
        if wave.settled:
            self.wait_for_all(before)
        self.alone = None
        time.sleep(wave.delay)
        before = self.epoch()
        at_ns = now_ns()
        for i, kind in enumerate(wave.kinds):
            time.sleep(wave.offsets[i] - wave.offsets[i - 1] if i > 0 else 0)
            victim = self.strike(kind, wave.picks[i])
        if set(wave.kinds) == {"link"} and not self.is_noticed(before):
            return before - 1
        self.wait(RECOVER_S, lambda: self.goes_on_ns(before) is not None, f"after {wave.describe()} nobody goes on")
        if len(wave.kinds) == 1 and any(good[1] == before for good in victim.good):
            self.times.setdefault(wave.kinds[0], []).append((self.goes_on_ns(before) - at_ns) / 1e9)
            self.alone = (wave.kinds[0], at_ns, before)
        return before

    # ---- the end -----------------------------------------------------------------------------------------

    def check_agreement(self):
        epochs = {}
        for process in self.processes():
            for _, epoch, rank, size, step in process.entered:
                epochs.setdefault(epoch, []).append((rank, size, step))
        for epoch, members in epochs.items():
            if len({member[0] for member in members}) != len(members) or len({m[1:] for m in members}) != 1:
                raise Wrong(f"epoch {epoch} is not the same to all (rank, size, step): {sorted(members)}")

    def check_processes(self):
        """One that is started on a host just before that is known to be cut off may fail as well."""
        for process in self.processes():
            spared = process.name in self.struck | self.touched or process.host in self.once_cut
            if process.failed is not None and not spared:
                raise Wrong(f"place {process.place} (pid {process.pid}) was not struck, and failed: {process.failed}")

    def end_agents(self):
        """One that was cut off finds out within 30 s that nobody is there, and ends its ranks itself."""
        for host in self.rack.hosts[1:]:
            if not wait_until(45, lambda: len(host.processes()) == 1):
                raise Wrong(f"on {host.name} its agent should be left alone: {host.processes()}")
        self.signal_agents(signal.SIGTERM)

    def signal_agents(self, number):
        """With all that they have started, if they do not end it themselves."""
        for host in self.rack.hosts[1:] if self.agents else []:
            for pid in host.processes():
                os.kill(pid, number)
        for agent in self.agents:
            agent.wait()

    def check_result(self):
        ends = {p.done for p in self.processes() if p.done is not None}
        if len([p for p in self.processes() if p.done is not None]) != RANKS or len(ends) != 1:
            raise Wrong(f"the ranks end with (steps, loss, digest): {ends}")
        steps, self.loss, digest = ends.pop().split(" ")
        self.steps = int(steps)
        quiet = os.path.join(self.folder, "undisturbed")
        os.mkdir(quiet)
        words = [self.chaos.kolo, "run", "-n", str(RANKS), "--", os.path.join(self.chaos.programs, "chaos_trainer"), quiet,
                 steps, "0"]
        if subprocess.run(words, capture_output=True).returncode != 0:
            raise Wrong("the undisturbed run fails")
        for name in os.listdir(quiet):
            with open(os.path.join(quiet, name)) as file:
                last = file.read().splitlines()[-1].split(" ")
            if last[2:] != [steps, self.loss, digest]:
                raise Wrong(f"undisturbed, {steps} steps come to {last[3:]} instead of {self.loss} {digest}")

    def may_lose_the_state(self):
        """All were struck that had it, while the only one that was left, a step behind, got it from them: the job fails,
        as it should."""
        left = [p for p in self.processes() if p.good and p.name not in self.struck]
        return (self.has_ended() and self.run.returncode != 0 and len(left) == 1 and left[0].failed is not None
                and "nobody that is left has the whole state" in left[0].failed)

    def play(self):
        try:
            self.play_waves()
        except Wrong:
            self.has_lost_the_state = self.may_lose_the_state()
            if not self.has_lost_the_state:
                raise
        finally:
            for timer in self.healing:
                timer.cancel()
                timer.join()
            self.end()
            if self.apart:
                self.rack.heal_all()
            self.signal_agents(signal.SIGKILL)
        self.forget()

    def play_waves(self):
        before = -1
        self.start()
        for wave in self.waves:
            before = self.play_wave(wave, before)
        if "link" in self.waves[-1].kinds:
            self.is_noticed(self.epoch())
        self.wait_for_all(before)
        with open(os.path.join(self.folder, "end"), "w"):
            pass
        if not wait_until(60, self.has_ended):
            raise Wrong("kolo run does not end")
        if self.run.returncode != 0:
            raise Wrong(f"kolo run ended with {self.run.returncode}: {self.last_line()}")
        self.check_processes()
        self.check_agreement()
        self.check_result()
        if self.apart:
            self.rack.heal_all()
            self.end_agents()
        self.check_nothing_left(self.job, 20)


class Elastic(Runner):
    def __init__(self, arguments):
        super().__init__(arguments)
        self.only = arguments.only
        self.kinds = arguments.only.split(",") if arguments.only else None
        self.alone = arguments.job
        self.jobs = (self.kills + FAULTS_PER_JOB - 1) // FAULTS_PER_JOB
        self.at_once = min(self.at_once, self.jobs)
        self.with_hosts = any(kind in CUTS for number in range(self.jobs) for kind in self.kinds_of(number))
        self.played, self.steps, self.times, self.whole_times = 0, 0, {}, {}
        self.begun, self.until = 0, time.monotonic() + 60 * arguments.minutes

    def kinds_of(self, number):
        """Every other job is between hosts, and has all the cuts: a third of all faults."""
        first = number * FAULTS_PER_JOB
        count = min(FAULTS_PER_JOB, self.kills - first)
        if self.kinds is not None:
            return [self.kinds[(first + i) % len(self.kinds)] for i in range(count)]
        if number % 2 == 0:
            return [LOCAL[i % 2] for i in range(count)]
        cuts = [CUTS[(number // 2 + i) % len(CUTS)] for i in range(4)]
        return [cuts[0], LOCAL[0], cuts[1], cuts[2], LOCAL[1], cuts[3]][:count]

    def job(self, number, rack):
        if self.alone is not None and self.next == 0:
            self.next = number = self.alone
        if number >= self.jobs or (self.alone is not None and number > self.alone) or time.monotonic() > self.until:
            return None
        job = Training(self, number, self.kinds_of(number), rack)
        self.begun += job.faults
        return job

    def note(self, job, outcome):
        self.played += job.faults if outcome == "ok" else 0
        self.steps += job.steps
        for of_all, of_job in ((self.times, job.times), (self.whole_times, job.whole_times)):
            for kind, times in of_job.items():
                of_all.setdefault(kind, []).extend(times)
        goes_on = "".join(f"; after {kind} it goes on in " + ", ".join(f"{seconds:.2f}" for seconds in times) + " s"
                          for kind, times in sorted(job.times.items()))
        ends = f"; {job.steps} steps, loss {float(job.loss):.6f}" if job.loss else ""
        if job.has_lost_the_state:
            ends = "; all were struck that had the state, while the last one got it"
        self.say(f"{job.describe()}{goes_on}{ends}: {outcome}")
        if outcome != "ok":
            only = f" --only {self.only}" if self.only else ""
            self.say(f"once more: ./dev chaos --elastic --kills {self.kills} --seed {self.seed} --job {job.number}{only} "
                     f"--peer-timeout {self.peer_timeout}")

    def play_all(self):
        self.say(f"elastic: {self.kills} faults in {self.jobs} jobs, seed {self.seed}, {RANKS} ranks, KOLO_PEER_TIMEOUT "
                 f"{self.peer_timeout} s, {self.at_once} at once")
        seconds = super().play_all()
        for what, all_times in (("the next good step", self.times), ("one of all four again", self.whole_times)):
            for kind, times in sorted(all_times.items()):
                self.say(f"{kind} of one rank of 4: {len(times)} times, {what} after {min(times):.2f} to {max(times):.2f} s, "
                         f"median {statistics.median(times):.2f} s")
        self.say(f"{self.played} of {self.begun} faults in {seconds:.0f} s, {self.steps} steps: {self.wrong} jobs wrong")
        return self.wrong == 0 and self.played == self.begun
