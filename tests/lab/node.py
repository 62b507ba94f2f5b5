"""A whole real node: kubelet, containerd, kube-proxy, CoreDNS and an S3 server around the control plane, in a network namespace of its own.

Needs root. One a machine: a lock decides who has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import binaries, cgroups, control_plane, folders, images, kubelet, network, versitygw
from tests.lab.binaries import program
from tests.lab.components import GONE_SECONDS, Component, LabError, Launch, Process, components
from tests.lab.control_plane import ControlPlane, Place

HOME = Path("/var/lib/dail-lab")
FOLDER = HOME / "node"
IMAGES = HOME / "images"
"""containerd's store. It stays: importing an image of some gigabytes takes minutes."""
LOCK = Path("/run/lock/dail-lab-node")
TOOL_IMAGE = "localhost/podtool:1"
"""An image of the lab's own (go/podtool)."""
PROGRAMS = ("runc", "iptables", "ip", "nsenter", "sysctl")
PORTS = {"api": 6443, "etcd": 2379, "etcd-peer": 2380, "webhook": 9443, "operator-metrics": 18080, "operator-health": 18081, "s3": 7070}


@dataclass(frozen=True)
class Node(ControlPlane):
    """A control plane with one real node."""

    @property
    def s3(self) -> versitygw.Server:
        """The S3 server; its endpoint is the same from this machine and from pods."""
        return versitygw.Server(f"http://{network.NODE_ADDRESS}:{PORTS['s3']}", self.folder / "s3" / "buckets")

    def load(self, archive: Path, name: str) -> None:
        """Imports an OCI archive's image as NAME (`localhost/...:TAG`); quick where it is there already."""
        images.import_archive(archive, name, self.ctr)

    def ctr(self, *words: object) -> str:
        """Standard output of a ctr command on the node's containerd."""
        command = [program("ctr"), f"--address={self.folder}/containerd.sock", "--namespace=k8s.io", *words]
        result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if result.returncode:
            raise LabError(f"ctr {' '.join(map(str, words))}: {result.stderr.strip()}")
        return result.stdout


def missing() -> str:
    """Why this machine cannot run a node, in a sentence; empty where it can."""
    if os.geteuid() != 0:
        return "a whole node needs root; run the tests as root"
    if absent := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"a whole node needs {', '.join(absent)}; run tools/test-needs as root"
    if not Path("/usr/lib/cni/bridge").exists():
        return "a whole node needs /usr/lib/cni/bridge; install containernetworking-plugins"
    trial = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    if trial.returncode or not cgroups.roots():
        return f"a whole node needs namespaces and control groups: {trial.stderr.strip() or 'no cgroup file system is mounted'}"
    return binaries.missing(binaries.NODE)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Waits until no other process uses the machine's node."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def running() -> Iterator[Node]:
    """The machine's node, for this process alone until the block ends: the one that `up` left here, else a new one."""
    with locked():
        if is_up():
            yield Node.attach(FOLDER)
            return
        try:
            yield up(owned=True)
        finally:
            down()


def is_up() -> bool:
    """Whether a node is here whose components all run and which belongs to no process."""
    return (FOLDER / "owner").exists() and not folders.abandoned(FOLDER) and all(one.process for one in components(FOLDER / "components"))


def up(*, owned: bool) -> Node:
    """Removes what an earlier node left, starts a new one and returns when pods can run. The caller holds the lock."""
    down()
    FOLDER.mkdir(parents=True, mode=0o700)
    folders.claim(FOLDER, owned=owned)
    IMAGES.mkdir(exist_ok=True)
    network.create(control_plane.SERVICES)
    cgroups.create()
    control_plane.up(FOLDER, owned=owned, place=Place(network.NODE_ADDRESS, network.ENTER, PORTS))
    node = Node.attach(FOLDER)

    def launch(name: str, *options: object, **environment: str) -> Component:
        return Component.launch(FOLDER / "components", name, [*network.ENTER, program(name), *options], environment, owned=owned)

    _start_s3(node, launch)
    containerd = launch("containerd", f"--config={kubelet.containerd_config(FOLDER, IMAGES, TOOL_IMAGE)}", PATH=_path())
    containerd.wait(lambda: _answers(FOLDER / "containerd.sock"))
    _forget_containers(node)
    node.load(images.single_program(program("podtool"), FOLDER / "podtool.tar"), TOOL_IMAGE)
    kubelet.start(node, launch)
    return node


def down() -> None:
    """Ends the node, whoever started it, and removes all of it but the images: processes, pods, mounts, network, control groups."""
    for component in reversed(components(FOLDER / "components")):
        component.kill()
    cgroups.remove()
    _end_shims()
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([one for one in mounts if Path(one).is_relative_to(HOME)]):
        subprocess.run(["umount", "--lazy", mount], capture_output=True)
    network.remove()
    shutil.rmtree(FOLDER, ignore_errors=True)
    kubelet.remove_traces(FOLDER)


def _start_s3(node: Node, launch: Launch) -> None:
    folder = node.folder / "s3"
    options, environment = versitygw.options(folder, network.NODE_ADDRESS, PORTS["s3"])
    launch("versitygw", *options, **environment).wait(lambda: versitygw.answers(network.NODE_ADDRESS, PORTS["s3"]))


def _forget_containers(node: Node) -> None:
    """Containers of an earlier node are in containerd's store still, with their disks."""
    for name in node.ctr("containers", "ls", "--quiet").split():
        node.ctr("containers", "rm", name)


def _end_shims() -> None:
    """The processes between containerd and containers outlive containerd on purpose."""
    mark = f"{FOLDER}/containerd.sock".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in (words := path.read_bytes()) and b"containerd-shim" in words and (shim := Process.of(int(path.parent.name))):
                shim.end(signal.SIGKILL, GONE_SECONDS)


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return True
    return False


def _path() -> str:
    return f"{program('containerd-shim-runc-v2').parent}:{os.environ.get('PATH', '')}"
