# SPDX-License-Identifier: Apache-2.0
"""
A cluster without Kubernetes: pods as processes in namespaces of their own, and a DNS server.

A pod has its own network (address, interface), host name, process ids (its command is process 1),
mounts (/etc/hosts, /etc/resolv.conf, /dev/shm, /tmp, secrets, a read-only root), user and
environment, as the kubelet would give them. Its other files are those of an image (image.py), or,
which needs none, the machine's with kolo in /usr/local. Nothing leaves the namespaces, and nothing
outlives close().

What is not here: a scheduler, a network plug-in, NetworkPolicies, cgroup limits.
"""
import ipaddress
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import image as images

DNS = "10.244.0.2"
BAD_DNS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bad_dns.py")

# Runs as root in the pod's new namespaces, and becomes its command. $1: the pod's folder.
ENTER = r"""
set -e
pod=$1 place=$2; shift 2
mount --make-rprivate /
echo ready >"$pod/ready"
read -r _ <"$pod/go"
hostname "$(<"$pod/hostname")"
for top in etc home; do
    mkdir -p "$pod/$top" "$pod/$top.work"
    mount -t overlay overlay -o "lowerdir=/$top,upperdir=$pod/$top,workdir=$pod/$top.work" "/$top"
done
for folder in bin lib etc share; do
    [[ ! -d $place/$folder ]] || mount --bind "$place/$folder" "/usr/local/$folder"
done
cp "$place/ld.so.cache" /etc/ld.so.cache
mkdir "$pod/dev"
mount -t tmpfs -o mode=755 dev "$pod/dev"
for device in null zero full random urandom tty; do
    touch "$pod/dev/$device"
    mount --bind "/dev/$device" "$pod/dev/$device"
done
mkdir "$pod/dev/shm" "$pod/dev/pts"
touch "$pod/dev/termination-log"
mount --bind "$pod/termination-log" "$pod/dev/termination-log"
mount -t tmpfs -o "mode=1777,size=$(<"$pod/shm")" shm "$pod/dev/shm"
ln -s /proc/self/fd "$pod/dev/fd"
mount --move "$pod/dev" /dev
while read -r folder; do mount -t tmpfs -o mode=1777 tmp "$folder"; done <"$pod/folders"
mapfile -d '' -t command <"$pod/command"
mapfile -d '' -t environment <"$pod/environment"
user=$(<"$pod/user")
mount -t tmpfs -o mode=1777 tmp /tmp
mount -o remount,bind,ro /
cd /
exec env -i "${environment[@]}" setpriv --reuid "$user" --regid "$user" --clear-groups \
    --no-new-privs --bounding-set=-all --inh-caps=-all "${command[@]}"
"""


def run(*command, check=True):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def child_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return int(file.read().split()[0])
    except (OSError, IndexError):
        return 0


def space_of(pid):
    """The namespace of process ids that a process is in."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _end(text, count):
    return text.encode()[-count:].decode(errors="replace")


class Pod:
    """What a controller wants to run; start() may be called again, as after a restart."""

    def __init__(self, cluster, name, *, hostname=None, subdomain=None, command=(), environment=None,
                 files=None, folders=(), user=65532, shm="64m", labels=None, annotations=None, ports=None, ready_port=None,
                 last_word_from_log=False):
        self.cluster, self.name = cluster, name
        self.hostname, self.subdomain = hostname or name, subdomain
        self.command, self.environment = list(command), dict(environment or {})
        self.files = dict(files or {})  # path below /etc or /home -> (bytes, mode)
        self.folders, self.user, self.shm = list(folders), user, shm
        self.labels, self.annotations = dict(labels or {}), dict(annotations or {})
        self.ports, self.ready_port = dict(ports or {}), ready_port  # of the readiness probe
        self.last_word_from_log = last_word_from_log  # terminationMessagePolicy: FallbackToLogsOnError
        self.process = self.address = self.node = None  # node: its host name, with hostNetwork
        self.beside = None  # with hostNetwork: a pod that runs on the same node
        self.policy = None  # what a NetworkPolicy becomes in its network: rules of nftables, there before its container
        self.restarts = -1

    @property
    def fqdn(self):
        return f"{self.hostname}.{self.subdomain}.{self.cluster.namespace}.svc.{self.cluster.domain}"

    def start(self, publish=True):
        """A new container of this pod, with a new address; in the DNS, unless said otherwise."""
        cluster = self.cluster
        self.restarts += 1
        self.killed = False
        self.address = cluster.next_address()
        if self.beside:
            self.address = self.beside.address
        folder = self.folder = os.path.join(cluster.folder, f"{self.name}.{cluster.used}")
        os.makedirs(folder)
        self.log_path = os.path.join(folder, "log")
        # The kubelet's.
        hostname = self.node or self.hostname
        hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n"
        hosts += f"{self.address}\t" + (f"{self.fqdn}\t" if self.subdomain else "") + self.hostname + "\n"
        if self.node:  # the node's own file
            hosts = f"127.0.0.1\tlocalhost\n127.0.1.1\t{self.node}\n"
        resolv = (f"search {cluster.namespace}.svc.{cluster.domain} svc.{cluster.domain} {cluster.domain}\n"
                  f"nameserver {DNS}\noptions ndots:5 timeout:1 attempts:1\n")
        files = {"/etc/hosts": (hosts, 0o644), "/etc/resolv.conf": (resolv, 0o644), **self.files}
        for path, (text, mode) in files.items():
            self._write(path.lstrip("/"), text, mode)
        # The image's, the kubelet's, the manifest's.
        environment = cluster.image.environment if cluster.image else {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/"}
        environment = {**environment, "HOSTNAME": hostname,
                       "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443",
                       **cluster.extra_environment, **self.environment}
        self._write("termination-log", "", 0o666)
        for fifo in ("ready", "go"):
            os.mkfifo(os.path.join(folder, fifo))
        if cluster.image:
            self._start_image(hostname, environment, files)
        else:
            self._start_machine(hostname, environment)
        cluster.started.append(self.process)
        cluster.containers.append(self.process)
        with open(os.path.join(folder, "ready")) as ready:
            ready.read()
        if not cluster.image:
            self._remember(child_of(self.process.pid))
        if not self.beside:
            cluster.plug(self, self.process.pid if cluster.image else self.pid)
        if publish:
            cluster.publish(self)
        with open(os.path.join(folder, "go"), "w") as go:
            go.write("\n")
        if cluster.image:
            wait_until(lambda: self._read("pid") or not self.runs(), 20, f"a container of {self.name}")
            if not self._read("pid"):
                raise RuntimeError(f"no container of {self.name}: {self.log()}")
            self._remember(int(self._read("pid")))
        return self

    def _remember(self, pid):
        """The container's process 1, by which close() ends it."""
        self.pid = pid
        try:
            # Held open until close(): the number of a namespace that is gone may be another one's at once.
            space = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY)
        except FileNotFoundError:
            return  # it has ended already
        self.cluster.first_processes.append(pid)
        self.cluster.spaces[os.readlink(f"/proc/self/fd/{space}")] = space

    def _start_image(self, hostname, environment, files):
        images.write_bundle(self.folder, self.cluster.image, hostname=hostname, command=self.command, environment=environment,
                            user=self.user, files=files, folders=self.folders, shm=self.shm)
        self._enter("--mount", "bash", "-c", images.ENTER, "pod", self.folder, self.cluster.image.root)

    def _start_machine(self, hostname, environment):
        self._write("hostname", hostname, 0o644)
        self._write("shm", str(self.shm), 0o644)
        self._write("user", str(self.user), 0o644)
        self._write("folders", "".join(f"{f}\n" for f in self.folders if f != "/tmp"), 0o644)
        self._write("command", "".join(f"{word}\0" for word in self.command), 0o644)
        self._write("environment", "".join(f"{k}={v}\0" for k, v in environment.items()), 0o644)
        self._enter("--uts", "--mount", "--pid", "--ipc", "--fork", "--kill-child",
                    "--mount-proc", "bash", "-c", ENTER, "pod", self.folder, self.cluster.place)

    def _enter(self, *command):
        """In the namespaces that the command's first words name, beside a network: its own, or with hostNetwork the node's."""
        network = ["nsenter", "--target", str(self.beside.pid), "--net", "unshare"] if self.beside else ["unshare", "--net"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([*network, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def _read(self, name):
        try:
            with open(os.path.join(self.folder, name)) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _write(self, path, text, mode):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        if path.startswith(os.path.join(self.folder, "home")) or "/etc/kolo" in path:
            os.chown(path, 0, self.user)  # fsGroup, whose members may read all volumes
            os.chmod(path, mode | 0o440)

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def termination(self):
        """The message in the pod's status: the last 4096 bytes of the file; or, if it is empty and the container failed, of its log."""
        written = self._read("termination-log")
        if written or not self.last_word_from_log or self.runs() or self.wait(1) == 0:
            return _end(written, 4096)
        return _end("".join(self.log().splitlines(keepends=True)[-80:]), 2048)

    def wait(self, seconds):
        """The container's exit code, as the kubelet reports it."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"pod {self.name} has not ended within {seconds} s; its log:\n{self.log()}")
        return 137 if self.killed else code if code >= 0 else 128 - code

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        if self.runs():
            try:
                os.kill(self.pid, number)
                self.killed |= number == signal.SIGKILL
            except ProcessLookupError:
                pass  # it has just ended

    def catches(self, number):
        """Whether its process 1 waits for that signal, which until then is lost on it, as on every process 1."""
        try:
            with open(f"/proc/{self.pid}/status") as file:
                masks = re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)", file.read(), re.M)
        except OSError:
            return False
        return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)

    def terminate(self, grace):
        """As the kubelet does it. Returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
        return self.wait(10)

    def inside(self, *command):
        """Runs something in the pod's network, as root of the machine."""
        return run("nsenter", "--target", str(self.pid), "--net", *command)

    def listens(self, port):
        """What a tcpSocket probe finds."""
        return subprocess.run(["nsenter", "--target", str(self.pid), "--net", "bash", "-c",
                               f"exec 3<>/dev/tcp/{self.address}/{port}"], stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode == 0


class Cluster:
    def __init__(self, place, *, namespace="lab", domain="cluster.local", environment=None, image=None):
        self.image = image  # or, if None, `place`: kolo for the machine's own files
        self.place, self.namespace, self.domain = place, namespace, domain
        self.extra_environment = dict(environment or {})
        self.folder = tempfile.mkdtemp(prefix="kolo-pods.")
        os.chmod(self.folder, 0o755)
        self.started, self.containers, self.records, self.used = [], [], {}, 0
        self.first_processes, self.spaces = [], {}  # name of a namespace of process ids -> descriptor
        self.dns = self.dns_pid = None
        self.switch = self._hold()
        self._net(self.switch, "ip", "link", "set", "lo", "up")
        # An address of its own: else it takes another one as ports come, and pods look for it at the old one.
        self._net(self.switch, "ip", "link", "add", "node", "address", "02:00:00:00:00:01", "type", "bridge")
        self._net(self.switch, "ip", "address", "add", f"{DNS}/16", "dev", "node")
        self._net(self.switch, "ip", "link", "set", "node", "up")
        self.start_dns()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _hold(self):
        process = subprocess.Popen(["unshare", "--net", "--fork", "--kill-child", "sleep", "infinity"],
                                   stdin=subprocess.DEVNULL)
        self.started.append(process)
        wait_until(lambda: child_of(process.pid), 10, "a network namespace")
        child = child_of(process.pid)
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{child}/ns/net") != own, 10, "a network namespace")
        return child

    @staticmethod
    def _net(pid, *command):
        return run("nsenter", "--target", str(pid), "--net", *command)

    def next_address(self):
        self.used += 1
        return str(ipaddress.ip_address("10.244.1.0") + self.used)

    def plug(self, pod, pid):
        port = f"p{self.used}"
        self._net(self.switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._net(self.switch, "ip", "link", "set", port, "master", "node", "up")
        self._net(pid, "ip", "link", "set", "lo", "up")
        self._net(pid, "ip", "address", "add", f"{pod.address}/16", "dev", "eth0")
        if pod.policy:
            self._net(pid, "nft", pod.policy)
        self._net(pid, "ip", "link", "set", "eth0", "up")

    # ---- names ---------------------------------------------------------------------------------

    def start_dns(self, *options):
        """All that has no record does not exist (NXDOMAIN), unless options say otherwise."""
        self._write_records()
        names = options or (f"--local=/{self.domain}/", "--address=/#/", f"--addn-hosts={self.folder}/records")
        self.dns = subprocess.Popen(
            ["nsenter", "--target", str(self.switch), "--net", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
             "--no-resolv", "--no-hosts", f"--listen-address={DNS}", "--bind-interfaces", *names,
             "--user=root", "--pid-file", "--log-facility=/dev/null"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started.append(self.dns)
        wait_until(self._dns_listens, 10, "the DNS server")

    def fail_names(self, code):
        """The DNS server answers everything with this code, because its upstream does; None: no longer."""
        self.stop_dns()
        if code is None:
            return self.start_dns()
        upstream = subprocess.Popen(["nsenter", "--target", str(self.switch), "--net", sys.executable, BAD_DNS, DNS, "5353", str(code)],
                                    stdin=subprocess.DEVNULL)
        self.started.append(upstream)
        self.start_dns(f"--server={DNS}#5353", "--no-negcache")
        wait_until(lambda: self.ask("anybody") == str(code), 10, f"answers of code {code}")

    def ask(self, name):
        """The code of the DNS server's answer to that name."""
        return self._net(self.switch, sys.executable, BAD_DNS, DNS, "53", "ask", name).strip()

    def _dns_listens(self):
        with open(f"/proc/{self.switch}/net/udp") as file:
            return ":0035 " in file.read()

    def stop_dns(self):
        self.dns.kill()
        self.dns.wait()

    def publish(self, pod, addresses=None):
        """The pod's record of the headless Service; addresses: instead of its own."""
        if pod.subdomain:
            self.records[pod.fqdn] = addresses or [pod.address]
            self._reload()

    def withdraw(self, pod):
        self.records.pop(pod.fqdn, None)
        self._reload()

    def _write_records(self):
        with open(f"{self.folder}/records", "w") as file:
            for name, addresses in self.records.items():
                for address in addresses:
                    file.write(f"{address} {name}\n")

    def _reload(self):
        self._write_records()
        if self.dns.poll() is None:
            self.dns.send_signal(signal.SIGHUP)

    # ---- the end -------------------------------------------------------------------------------

    def close(self):
        # A pod's first process takes all others with it. Not by --kill-child: who changes its user forgets that.
        for pid in self.first_processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.containers:  # who reap them; whoever inherits them may take seconds for it
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                pass  # one that got no container
        for process in reversed(self.started):
            if process.poll() is None:
                process.kill()
        for process in self.started:
            process.wait()
        wait_until(lambda: not any(space_of(p) in self.spaces for p in os.listdir("/proc") if p.isdigit()), 5,
                   "the end of all processes of the pods")
        for descriptor in self.spaces.values():
            os.close(descriptor)
        for _ in range(100):
            try:
                shutil.rmtree(self.folder)
                break
            except OSError:
                time.sleep(0.05)  # the last mounts go with their namespaces


def install(build, more=None):
    """kolo as `image`: bin and lib that every user may read; and what lies in the folder `more`, such as another MPI than the machine's."""
    place = tempfile.mkdtemp(prefix="kolo-image.")
    for folder in ("bin", "lib", "etc", "share") if more else ():
        shutil.copytree(f"{more}/{folder}", f"{place}/{folder}", symlinks=True)
    os.makedirs(f"{place}/bin", exist_ok=True)
    os.makedirs(f"{place}/lib", exist_ok=True)
    for name in ("kolo", "hello_allreduce", "train_bytes"):
        shutil.copy2(f"{build}/bin/{name}", f"{place}/bin")
    for name in os.listdir(f"{build}/lib"):
        if name.startswith("libkolo") and ".so" in name:
            shutil.copy2(f"{build}/lib/{name}", f"{place}/lib", follow_symlinks=False)
    # The image's ldconfig; what it keeps elsewhere is none of the machine's.
    run("unshare", "--mount", "sh", "-ec", f"mount -t tmpfs cache /var/cache; mount --bind {place}/lib /usr/local/lib; ldconfig -X -C {place}/ld.so.cache")
    run("chmod", "-R", "a+rX", place)
    return place


def shuffled(pods, seed):
    pods = list(pods)
    random.Random(seed).shuffle(pods)
    return pods
