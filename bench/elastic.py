#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""elastic.py: how long a job of four ranks stands still when one of them is killed.

    bench/elastic.py [BUILD] [ROUNDS]

train_bytes trains a small model, one rank gets SIGKILL; the time is that until the first step of the next epoch is reported:
with three ranks (shrink), and with four again, the fourth being started anew (grow: kolo run waits a second before it does).
Then, how long three of them stand still while the fourth is taken in and gets so much state from them.
"""
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "build")
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
TRAIN = ["--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--batch", "8", "--threads", "1", "--held-out-bytes", "2048",
         "--steps", "1000000", "--log-every", "1"]


def wait_for(path, pattern, seconds):
    """When the file's text first has the pattern; None: not within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open(path, encoding="utf-8", errors="replace") as file:
            if re.search(pattern, file.read(), re.S):
                return time.monotonic()
        time.sleep(0.005)
    return None


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return [int(child) for child in file.read().split()]


def ranks_of(pid):
    for child in children(pid):
        with open(f"/proc/{child}/comm", encoding="utf-8") as file:
            if file.read().strip() == "train_bytes":
                yield child
        yield from ranks_of(child)


def once(transport, restarts, epoch):
    with tempfile.NamedTemporaryFile() as log:
        command = [f"{BUILD}/bin/kolo", "run", "-n", "4", "--min", "2", *restarts, "--transport", transport, "--", f"{BUILD}/bin/train_bytes", *TRAIN,
                   "/usr/share/common-licenses"]
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as job:
            try:
                wait_for(log.name, r"step 100 ", 30)
                victim = list(ranks_of(job.pid))[-1]
                began = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                ended = wait_for(log.name, rf"epoch {epoch} of .*\n[^\n]* step ", 30)
            finally:
                job.terminate()
                job.wait(30)
    return None if ended is None else ended - began


def take_in(transport, state_bytes):
    """ms that rank 0 of launcher_state, in tests/, waited for the newcomer."""
    command = [f"{BUILD}/bin/kolo", "run", "-n", "4", "--min", "3", "--restarts", "1", "--transport", transport, "--",
               f"{BUILD}/tests/launcher_state", str(state_bytes)]
    job = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    found = re.search(r"epoch 2, 4 ranks: stood still for ([0-9.]+) ms", job.stdout)
    return float(found.group(1)) / 1000 if found else None


def main():
    for what, restarts, epoch in (("shrink", [], 1), ("grow", ["--restarts", "9"], 2)):
        for transport in ("shm", "tcp"):
            times = [once(transport, restarts, epoch) for _ in range(ROUNDS)]
            if None in times:
                sys.exit(f"{what} over {transport}: a job did not go on within 30 s")
            print(f"{what:6} {transport}  median {statistics.median(times) * 1000:7.1f} ms [{min(times) * 1000:.1f} {max(times) * 1000:.1f}]")


    for transport in ("shm", "tcp"):
        rounds = [[take_in(transport, size) for size in (4096, 100 << 20)] for _ in range(ROUNDS)]
        for size, times in zip(("4 KiB", "100 MiB"), zip(*rounds)):
            if None in times:
                sys.exit(f"newcomer over {transport}: it did not come")
            print(f"newcomer, {size:7} {transport}  median {statistics.median(times) * 1000:7.1f} ms [{min(times) * 1000:.1f} {max(times) * 1000:.1f}]")


if __name__ == "__main__":
    main()
