"""The network of the lab's node: a namespace of its own, and one cable from it to this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

NAME = "dail-lab"
CABLE = "dail-lab0"
HOST_ADDRESS = "10.88.1.1"
NODE_ADDRESS = "10.88.1.2"
POD_BRIDGE, POD_GATEWAY, PODS = "lab0", "10.88.0.1", "10.88.0.0/24"
ENTER = ("nsenter", f"--net=/run/netns/{NAME}", "--")
"""Not `ip netns exec`: that mounts another /sys, which hides the control groups."""


def create(services: str) -> None:
    """Makes both. From inside, this machine and the node's own pods and services can be reached, and nothing else."""
    _run("ip", "netns", "add", NAME)
    _run("ip", "link", "add", CABLE, "type", "veth", "peer", "name", "eth0", "netns", NAME)
    _run("ip", "address", "add", f"{HOST_ADDRESS}/30", "dev", CABLE)
    _run("ip", "link", "set", CABLE, "up")
    for words in (
        "ip link set lo up",
        f"ip address add {NODE_ADDRESS}/30 dev eth0",
        "ip link set eth0 up",
        f"ip link add {POD_BRIDGE} type bridge",
        f"ip address add {POD_GATEWAY}/24 dev {POD_BRIDGE}",
        f"ip link set {POD_BRIDGE} up",
        # kube-proxy turns service addresses into those of pods, but only for packets that have some way to go.
        f"ip route add {services} dev {POD_BRIDGE}",
        "ip route add unreachable default metric 1000",
        "sysctl -q -w net.ipv4.ip_forward=1",
    ):
        _run(*ENTER, *words.split())


def remove() -> None:
    """Takes both away; the cable goes with the namespace."""
    for words in (("ip", "link", "delete", CABLE), ("ip", "netns", "delete", NAME)):
        subprocess.run(words, capture_output=True)


def exists() -> bool:
    """Whether the namespace is there."""
    return Path(f"/run/netns/{NAME}").exists()


def _run(*words: str) -> None:
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(words)}: {result.stderr.strip()}")
