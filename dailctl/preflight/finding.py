"""What a check found, and the pods that checks are about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dail_runtime.errors import ClusterError
from dailctl.backends.kinds import backend_of
from dailctl.kube.resources import Object

GET_OPERATOR = "install the Kubeflow training operator 1.9, or ask an administrator of the cluster to"


@dataclass(frozen=True)
class Finding:
    """One sentence about what would go wrong."""

    check: str
    """`rights`, `api`, `objects`, `nodes`, `secrets`, `storage`."""
    sentence: str
    final: bool = True
    """Whether it stops a submit; else it is a warning."""
    exit_code: int = ClusterError.exit_code
    """Of a command that it stops."""


@dataclass(frozen=True)
class Pods:
    """Pods of one kind that an object will start."""

    owner: Object
    count: int
    together: bool
    """Whether none of them is of use without all the others (training)."""
    template: Object
    """A core/v1 PodTemplateSpec."""


def pods_of(objects: Iterable[Object]) -> Iterator[Pods]:
    """Every kind of pod that the objects start."""
    for one in objects:
        backend = backend_of(one)
        if backend is not None:
            yield from (Pods(one, kind.count, backend.container is not None, kind.template) for kind in backend.pods(one))
        elif one["kind"] == "Deployment":
            yield Pods(one, int(one["spec"].get("replicas", 1)), False, one["spec"]["template"])
