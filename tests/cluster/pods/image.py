# SPDX-License-Identifier: Apache-2.0
"""
Pods of an image: an OCI archive, unpacked, whose containers crun makes as a node does.

The rest of a pod (names, files, network) is cluster.py's; here is what a node's runtime adds to
make a container of the image that a namespace "restricted" accepts: a root of its own that is
read-only, no capabilities, no new privileges, the seccomp profile of the runtime.
"""
import json
import os
import platform
import subprocess
import tarfile

# Podman's and CRI-O's RuntimeDefault; containerd's is much the same.
SECCOMP = "/usr/share/containers/seccomp.json"

# Runs as root in the pod's new network. $1: the pod's folder, $2: the image's root.
ENTER = r"""
set -e
pod=$1 root=$2
mount --make-rprivate /
mkdir "$pod/upper" "$pod/work" "$pod/rootfs"
mount -t tmpfs cgroup /sys/fs/cgroup # crun refuses some machines' even where it is to use none
mount -t overlay overlay -o "lowerdir=$root,upperdir=$pod/upper,workdir=$pod/work" "$pod/rootfs"
echo ready >"$pod/ready"
read -r _ <"$pod/go"
exec crun --root "$pod/crun" --cgroup-manager=disabled run --no-new-keyring --bundle "$pod" --pid-file "$pod/pid" pod
"""

MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
          "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


class Image:
    def __init__(self, archive, folder):
        self.root = os.path.join(folder, "root")
        os.mkdir(self.root)
        subprocess.run(["tar", "-C", folder, "-xf", archive], check=True)

        def blob(digest):
            return os.path.join(folder, "blobs", *digest.split(":"))

        with open(f"{folder}/index.json", encoding="utf-8") as file:
            index = json.load(file)
        self.name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        with open(blob(index["manifests"][0]["digest"]), encoding="utf-8") as file:
            manifest = json.load(file)
        with open(blob(manifest["config"]["digest"]), encoding="utf-8") as file:
            self.config = json.load(file)["config"]
        for layer in manifest["layers"]:
            self._apply(blob(layer["digest"]))

    def _apply(self, layer):
        """What a layer deletes is in it as a file .wh.NAME, or .wh..wh..opq for all of a folder."""
        with tarfile.open(layer) as tar:
            deleted = [name for name in tar.getnames() if os.path.basename(name).startswith(".wh.")]
        for name in deleted:
            folder, name = os.path.split(os.path.join(self.root, name))
            gone = f"{folder}/{name[4:]}" if name != ".wh..wh..opq" else None
            for path in [gone] if gone else [f"{folder}/{n}" for n in os.listdir(folder)] if os.path.isdir(folder) else []:
                subprocess.run(["rm", "-rf", path], check=True)
        subprocess.run(["tar", "-C", self.root, "-xf", layer, "--numeric-owner", "--exclude=.wh.*"], check=True)

    @property
    def user(self):
        return int(self.config.get("User", "0").split(":")[0] or 0)

    @property
    def environment(self):
        return dict(entry.split("=", 1) for entry in self.config.get("Env", []))

    def command(self, *arguments):
        """What a container runs whose manifest gives `args` only, or nothing."""
        return [*self.config.get("Entrypoint", []), *(arguments or self.config.get("Cmd", []))]


def seccomp():
    """The profile for a container without capabilities, in the runtime's form."""
    with open(SECCOMP, encoding="utf-8") as file:
        profile = json.load(file)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    native = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[machine]
    architectures = [native, *next(a["subArchitectures"] for a in profile["archMap"] if a["architecture"] == native)]
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if includes.get("caps") or machine not in includes.get("arches", [machine]) or machine in excludes.get("arches", []):
            continue
        rules.append({key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key) is not None})
    return {"defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"],
            "architectures": architectures, "syscalls": rules}


def write_bundle(folder, image, *, hostname, command, environment, user, files, folders, shm):
    """config.json of a pod. files: paths in the container, of what lies under the same path in the pod's folder."""
    def bind(path, *options):
        return {"destination": path, "type": "bind", "source": f"{folder}{path}" if "/dev/" not in path else f"{folder}/{os.path.basename(path)}",
                "options": ["bind", "rprivate", *options]}

    def fs(kind, path, *options):
        return {"destination": path, "type": kind, "source": kind, "options": ["nosuid", *options]}

    # The kubelet mounts hosts and resolv.conf as files, volumes as folders.
    volumes = sorted({path if os.path.dirname(path) == "/etc" else os.path.dirname(path) for path in files})
    mounts = [fs("proc", "/proc", "noexec", "nodev"), fs("tmpfs", "/dev", "strictatime", "mode=755", "size=65536k"),
              fs("devpts", "/dev/pts", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
              fs("tmpfs", "/dev/shm", "noexec", "nodev", "mode=1777", f"size={shm}"), fs("mqueue", "/dev/mqueue", "noexec", "nodev"),
              fs("sysfs", "/sys", "noexec", "nodev", "ro"), bind("/dev/termination-log", "rw"),
              *(fs("tmpfs", path, "nodev", "mode=0777") for path in folders), *(bind(path, "ro") for path in volumes)]
    config = {
        "ociVersion": "1.0.2", "hostname": hostname, "root": {"path": "rootfs", "readonly": True}, "mounts": mounts,
        "process": {"terminal": False, "cwd": "/", "user": {"uid": user, "gid": user}, "args": list(command),
                    "env": [f"{k}={v}" for k, v in environment.items()], "noNewPrivileges": True,
                    "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")}},
        # The network is the one that crun is in.
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")], "seccomp": seccomp(),
                  "maskedPaths": MASKED, "readonlyPaths": READ_ONLY}}
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
