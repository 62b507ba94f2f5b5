"""Simulated nodes: Node objects that KWOK keeps ready, with the room that a test wants them to have."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAGES = Path(__file__).with_name("simulated_nodes.yaml")
GROUP_LABEL = "lab.dail.dev/nodes"
EXIT_CODE = "lab.dail.dev/exit-code"
"""The annotation that ends a pod on a played node: every container with this code, the pod Succeeded (0) or Failed."""
REASON = "lab.dail.dev/reason"
"""Beside EXIT_CODE: the reason in the containers' status, such as OOMKilled."""


@dataclass(frozen=True)
class Shape:
    """What a simulated node has."""

    gpus: int = 8
    resource: str = "nvidia.com/gpu"
    cpu: str = "96"
    memory: str = "1Ti"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    played: bool = True
    """Pods become ready and run until EXIT_CODE ends them. Otherwise they are only bound to the node: the test writes their status."""


def nodes(count: int, shape: Shape) -> tuple[str, list[dict[str, Any]]]:
    """The group that a new set of nodes shares as the value of GROUP_LABEL, and their objects."""
    group = f"{'sim' if shape.played else 'idle'}-{uuid.uuid4().hex[:6]}"
    room = {"cpu": shape.cpu, "memory": shape.memory, "pods": "110", "ephemeral-storage": "1Ti"}
    if shape.gpus:
        room[shape.resource] = str(shape.gpus)
    return group, [_node(f"{group}-{number}", group, room, shape) for number in range(count)]


def _node(name: str, group: str, room: Mapping[str, str], shape: Shape) -> dict[str, Any]:
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", GROUP_LABEL: group}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**own, **shape.labels}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "spec": {"taints": list(shape.taints)},
        "status": {"capacity": room, "allocatable": room},
    }
