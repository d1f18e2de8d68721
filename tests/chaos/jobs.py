# SPDX-License-Identifier: Apache-2.0
"""
What chaos.py and elastic.py have in common: a job of real ranks under `kolo run`, on this machine or with a rank on each of
some hosts (hosts.py), how to find its processes, and what it must not leave behind.
"""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import hosts

RANKS = 4
LOCAL, CUTS = ("kill", "stop"), ("cable", "to", "from", "link")


class Wrong(Exception):
    pass


def wait_until(seconds, condition, pause=0.02):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
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


class Job:
    """One kolo run. rack: its hosts, if apart says that ranks are on hosts of their own."""

    def __init__(self, rack, apart):
        self.rack, self.apart = rack, apart
        self.folder = tempfile.mkdtemp(prefix="kolo-chaos.")
        self.run = self.errors = None

    def launch(self, options, slots, program):
        words = [*options, "-n", str(RANKS)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KOLO_")}
        if self.apart:
            names = ",".join(f"{self.rack.address(i + 1)}:{slots}" for i in range(RANKS))
            # In the network of host 0, but where it sees the processes of all, for what is its ssh.
            words = ["nsenter", "--target", str(self.rack.hosts[0].pid), "--net", "--uts", "--", *words, "--hosts",
                     names, "--map-by", "node", "--wdir", "/", *self.way_to_hosts(environment)]
        self.errors = open(os.path.join(self.folder, "err"), "w+")
        self.run = subprocess.Popen([*words, "--", *program], stdout=self.errors, stderr=self.errors,
                                    stdin=subprocess.DEVNULL, env=environment, start_new_session=True)

    def way_to_hosts(self, _):
        """Options for kolo run; beside the network, so that it hears of processes on hosts that are cut off."""
        return ["--ssh", self.write_shell()]

    def write_shell(self):
        """What takes the place of ssh."""
        path = os.path.join(self.folder, "shell")
        with open(path, "w") as file:
            file.write("#!/bin/sh\ncase $1 in\n")
            for i, host in enumerate(self.rack.hosts):
                file.write(f"{self.rack.address(i)}) pid={host.pid} ;;\n")
            file.write('esac\nexec nsenter --target $pid --net --uts --mount --pid -- sh -c "$2"\n')
        os.chmod(path, 0o755)
        return path

    def lines(self, name):
        """What a rank has written there, but for a line that is not whole."""
        try:
            with open(os.path.join(self.folder, name)) as file:
                return [line[:-1] for line in file if line.endswith("\n")]
        except OSError:
            return []

    def has_ended(self):
        return self.run.poll() is not None

    def last_line(self):
        self.errors.seek(0)
        lines = self.errors.read().splitlines()
        return lines[-1] if lines else ""

    def outer_pid(self, host, inner):
        """As seen from here: a host counts its own. None: it is not there any more."""
        for pid in host.processes():
            try:
                with open(f"/proc/{pid}/status") as status:
                    if re.search(rf"^NSpid:.*\s{inner}$", status.read(), re.MULTILINE):
                        return pid
            except OSError:
                pass
        return None

    def job_id(self, pid):
        with open(f"/proc/{pid}/environ", "rb") as file:
            for entry in file.read().split(b"\0"):
                if entry.startswith(b"KOLO_JOB="):
                    return entry[9:].decode()
        raise Wrong("the rank has no job id")

    def check_nothing_left(self, job, seconds=10):
        mark = self.folder.encode()
        if not wait_until(seconds, lambda: not processes_with(mark)):
            raise Wrong(f"processes are left: {processes_with(mark)}")
        for host in self.rack.hosts if self.apart else [None]:
            if host is not None and not wait_until(seconds, lambda: not host.processes()):
                raise Wrong(f"processes are left on {host.name}: {host.processes()}")
            if sockets(job, host):
                raise Wrong(f"sockets are left: {sockets(job, host)}")
        left = [name for name in os.listdir("/dev/shm") if job in name]
        if left:
            raise Wrong(f"/dev/shm has {left}")

    def kill(self):
        """At once, however it stands: its guard and its agents end the rest."""
        if self.run is not None and self.run.poll() is None:
            os.killpg(self.run.pid, signal.SIGKILL)

    def end(self):
        self.kill()
        if self.run is not None:
            self.run.wait()
        if self.errors is not None:
            self.errors.close()

    def forget(self):
        shutil.rmtree(self.folder)


class Runner:
    """Plays jobs, several at once, each thread on hosts of its own. What a job is: job(number, rack), or None when
    there are no more."""

    def __init__(self, arguments):
        build = os.path.abspath(arguments.build)
        self.kolo = os.path.join(build, "bin", "kolo")
        self.programs = os.path.join(build, "tests")
        self.seed, self.kills = arguments.seed, arguments.kills
        self.peer_timeout = arguments.peer_timeout
        self.at_once = max(1, min(arguments.at_once, self.kills))
        self.log = open(arguments.log, "w") if arguments.log else None
        self.lock = threading.Lock()
        self.with_hosts, self.stopping = False, False
        self.next, self.wrong, self.playing = 0, 0, set()

    def say(self, line):
        print(line, flush=True)
        if self.log is not None:
            self.log.write(line + "\n")
            self.log.flush()

    def stop(self, *_):
        """By a signal: no more jobs, and those under way end soon."""
        self.stopping = True
        for job in list(self.playing):
            job.kill()

    def play_some(self):
        rack = folder = None
        try:
            if self.with_hosts:
                folder = tempfile.mkdtemp(prefix="kolo-chaos.")
                rack = hosts.Rack(folder, RANKS)
            while not self.stopping:
                with self.lock:
                    job = self.job(self.next, rack)
                    self.next += 1
                if job is None:
                    return
                self.play(job)
        finally:
            if rack is not None:
                rack.end()
            if folder is not None:
                shutil.rmtree(folder)

    def play(self, job):
        outcome = "ok"
        self.playing.add(job)
        try:
            job.play()
        except Wrong as wrong:
            outcome = f"WRONG: {wrong} (its files: {job.folder})"
        self.playing.discard(job)
        with self.lock:
            self.wrong += outcome != "ok"
            self.note(job, outcome)

    def play_all(self):
        """Seconds that it took."""
        began = time.monotonic()
        threads = [threading.Thread(target=self.play_some) for _ in range(self.at_once)]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - began
