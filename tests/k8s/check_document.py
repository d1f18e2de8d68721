# SPDX-License-Identifier: Apache-2.0
"""
The messages that docs/KUBERNETES.md promises ("what you see") are messages that kolo has: each one's words, without numbers and names, stand in this order in
one text of the sources. Those of others are listed here. And its commands show whole logs.
"""

import errno
import os
import re
import sys

SOURCE = os.environ["SOURCE_DIR"]
OTHERS = ("ContainerCreating", "MountVolume.SetUp", "ErrImagePull", "ImagePullBackOff", "FailedScheduling", "OOMKilled", "PodSecurity", "Cannot evict pod",
          "more processes than the ppr", "specified trainingRuntime", "Could not resolve hostname", "connect to host", "unable to complete a TCP connection",
          "ORTE has lost communication", "closed by remote host")
SYSTEM = [os.strerror(number) for number in errno.errorcode]
NAMES = ("kolo doctor", "kolo run", "enableServiceLinks: false")  # code that is no message


def texts():
    """Every string of the C sources, adjacent ones joined, as words."""
    for layer in ("base", "collectives", "runtime", "launcher"):
        for folder, _, files in os.walk(f"{SOURCE}/{layer}"):
            for name in files:
                if not name.endswith((".c", ".h")):
                    continue
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    code = file.read()
                for literal in re.findall(r'(?:"(?:[^"\\\n]|\\.)*"\s*)+', code):
                    yield words("".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', literal)))


def words(text):
    text = re.sub(r"%[-.*0-9lhz]*[a-z]", " ", text)
    return [word for word in re.findall(r"[A-Za-z_/][\w/'-]*", text) if not re.search(r"\d", word)]


def stands_in(wanted, text):
    rest = iter(text)
    return all(word in rest for word in wanted)


def promised():
    with open(f"{SOURCE}/docs/KUBERNETES.md", encoding="utf-8") as file:
        table = file.read().split("## What went wrong")[1]
    for row in re.findall(r"^\| (?!what|---)(.*) \|$", table, re.M):
        for message in re.findall(r"`([^`]+)`", row.split(" | ")[1]):
            if message not in NAMES and not any(other in message for other in OTHERS):
                yield message


def cut_logs():
    with open(f"{SOURCE}/docs/KUBERNETES.md", encoding="utf-8") as file:
        for command in re.findall(r"kubectl [^`|\n]*\blogs [^`|\n]*", file.read()):
            if " -l " in command and "--tail" not in command:
                yield command


def main():
    known = list(texts())
    missing, count = [], 0
    for message in promised():
        # Names of hosts and the like end in digits, or stand in quotes or brackets; a path may be one that kolo was told.
        bare = re.sub(r"'[^']*'|\([^)]*\)|(?<= )/[\w/]+", " ", message)
        for part in re.split(r"\.\.\.|: ", bare):  # what follows a colon is often another's text
            if part in SYSTEM:
                continue
            wanted = words(part)
            if len(wanted) < 2:
                continue
            count += 1
            if not any(stands_in(wanted, text) for text in known):
                missing.append(part.strip())
    for part in missing:
        print(f"docs/KUBERNETES.md promises a message that kolo does not have: {part}")
    if count < 12 or any(stands_in(words("a message that nobody ever wrote anywhere"), text) for text in known):
        print(f"the check itself is wrong: {count} messages")
        missing.append("")
    for command in cut_logs():
        print(f"kubectl shows ten lines of what a selector finds, without --tail: {command}")
        missing.append(command)
    sys.exit(1 if missing else 0)


main()
