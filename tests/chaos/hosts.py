# SPDX-License-Identifier: Apache-2.0
"""
Hosts for chaos.py: namespaces (network, name, processes) with an address on a switch that all share, as
tests/cluster/hosts.sh makes them for the shell, and ways to cut what is between them.
"""
import os
import shutil
import subprocess


def permitted():
    """Why hosts cannot be made here; None: they can."""
    for command in ("ip", "nft", "unshare", "nsenter"):
        if shutil.which(command) is None:
            return f"needs {command}"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    held = subprocess.run(["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"], capture_output=True)
    return None if held.returncode == 0 else "namespaces are not permitted here"


class Host:
    def __init__(self, name, names_file):
        self.name = name
        script = 'hostname "$1" && ip link set lo up && mount --bind "$2" /etc/hosts && echo ready; exec sleep infinity'
        self.holder = subprocess.Popen(["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child",
                                        "--mount-proc", "bash", "-c", script, "-", name, names_file],
                                       stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "ready\n":
            raise RuntimeError(f"host {name} did not start")
        with open(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children") as children:
            self.pid = int(children.read().split()[0])

    def command(self, *words):
        return ["nsenter", "--target", str(self.pid), "--net", "--uts", "--mount", "--pid", "--"] + list(words)

    def run(self, *words):
        subprocess.run(self.command(*words), check=True, capture_output=True)

    def processes(self):
        """Ids, as seen from outside, of all but the one that holds the host."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    state = stat.read().rpartition(")")[2].split()[0]
                if int(pid) != self.pid and state != "Z" and os.readlink(f"/proc/{pid}/ns/pid") == space:
                    found.append(int(pid))
            except OSError:
                pass
        return found

    def end(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Rack:
    """Host 0, where kolo run is, and hosts 1 to count, with a rank each. address(i) is its place on the switch."""

    def __init__(self, folder, count):
        names = os.path.join(folder, "hosts")
        with open(names, "w") as file:
            file.write("127.0.0.1 localhost\n")
            for i in range(count + 1):
                file.write(f"{self.address(i)} host{i}\n")
        self.switch = Host("switch", names)
        self.hosts = []
        self.switch.run("ip", "link", "add", "rack", "type", "bridge")
        self.switch.run("ip", "link", "set", "rack", "up")
        for i in range(count + 1):
            self.hosts.append(Host(f"host{i}", names))
            self._plug(i)

    @staticmethod
    def address(i):
        return f"10.78.0.{i + 1}"

    def _plug(self, i):
        host, port = self.hosts[i], f"host{i}.eth0"
        subprocess.run(["nsenter", "--target", str(self.switch.pid), "--net", "--", "ip", "link", "add", port, "type",
                        "veth", "peer", "name", "eth0", "netns", str(host.pid)], check=True, capture_output=True)
        self.switch.run("ip", "link", "set", port, "master", "rack")
        self.switch.run("ip", "link", "set", port, "up")
        host.run("ip", "address", "add", f"{self.address(i)}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    def _drop(self, *cuts):
        """Each is (host, hook, match). All at once, as far as that goes."""
        running = []
        for i, hook, match in cuts:
            rules = (f"add table ip chaos; add chain ip chaos {hook} {{ type filter hook {hook} priority 0 ; }}; "
                     f"add rule ip chaos {hook} {match} drop")
            running.append(subprocess.Popen(self.hosts[i].command("nft", rules), stdout=subprocess.DEVNULL))
        if any(one.wait() != 0 for one in running):
            raise RuntimeError("nft cannot drop packets here")

    def cut_cable(self, i):
        self.switch.run("ip", "link", "set", f"host{i}.eth0", "down")

    def cut_to(self, i):
        """Nothing reaches it any more; what it sends arrives."""
        self._drop((i, "input", "iif eth0"))

    def cut_from(self, i):
        self._drop((i, "output", "oif eth0"))

    def cut_link(self, i, k):
        """Between these two only."""
        self._drop((i, "input", f"ip saddr {self.address(k)}"), (k, "input", f"ip saddr {self.address(i)}"))

    def cut(self, kind, i, k):
        """What chaos.py calls so. k: the other end of a link."""
        if kind == "link":
            self.cut_link(i, k)
        else:
            {"cable": self.cut_cable, "to": self.cut_to, "from": self.cut_from}[kind](i)

    def heal(self, i):
        """Whatever was cut at this host."""
        self.switch.run("ip", "link", "set", f"host{i}.eth0", "up")
        subprocess.run(self.hosts[i].command("nft", "delete", "table", "ip", "chaos"), capture_output=True)

    def heal_all(self):
        for i in range(len(self.hosts)):
            self.heal(i)

    def end(self):
        for host in self.hosts + [self.switch]:
            host.end()
