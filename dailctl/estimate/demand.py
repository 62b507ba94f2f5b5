"""What Kubernetes objects ask of a cluster: pods and GPUs, counted from the manifests themselves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

GPU_SUFFIXES = ("/gpu",)
GPU_MARKS = ("/mig-", "gpu.")
"""Extended resources that stand for GPUs: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`, `gpu.intel.com/xe`."""


@dataclass(frozen=True)
class Demand:
    """What one task has at once."""

    objects: int = 0
    pods: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict)
    """Extended resource -> number."""


def demand_of(objects: Iterable[Mapping[str, Any]]) -> Demand:
    """The pods and GPUs of all `objects` (apps/v1 Deployment, batch/v1 Job, kubeflow.org/v1 PyTorchJob, v1 Pod) together."""
    count = pods = 0
    gpus: Counter[str] = Counter()
    for one in objects:
        count += 1
        for replicas, pod in _pods(one):
            pods += replicas
            for container in pod.get("containers", []):
                limits = container.get("resources", {}).get("limits", {})
                gpus.update({name: replicas * int(number) for name, number in limits.items() if is_gpu(name)})
    return Demand(count, pods, dict(gpus))


def is_gpu(resource: str) -> bool:
    """True for the name of an extended resource that stands for GPUs, or for parts of one."""
    return resource.endswith(GPU_SUFFIXES) or any(mark in resource for mark in GPU_MARKS)


def _pods(one: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(replicas, pod spec) of every kind of pod that the object makes."""
    spec = one.get("spec", {})
    match one.get("kind"):
        case "Pod":
            yield 1, spec
        case "Deployment":
            yield spec.get("replicas", 1), spec["template"]["spec"]
        case "Job":
            yield spec.get("parallelism", 1), spec["template"]["spec"]
        case "PyTorchJob":
            for replica in spec["pytorchReplicaSpecs"].values():
                yield replica.get("replicas", 1), replica["template"]["spec"]
