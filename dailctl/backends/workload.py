"""What brings a task to its result on a cluster: one object that starts pods. Each kind of it is a backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from dailctl.kube.resources import Object, Resource


@dataclass(frozen=True)
class Reading:
    """What a workload says of itself."""

    state: Literal["queued", "pending", "running", "succeeded", "failed"]
    """`queued`: suspended until a queue admits it; `pending`: admitted, but no process of it runs."""
    reason: str = ""
    """Its controller's word for a failure: `BackoffLimitExceeded`."""
    message: str = ""
    """Its controller's sentence."""


@dataclass(frozen=True)
class PodKind:
    """Pods of one template."""

    count: int
    template: Object
    """A core/v1 PodTemplateSpec."""


class Backend(Protocol):
    """A kind of workload."""

    @property
    def resource(self) -> Resource:
        """Where the API keeps it."""
        ...

    @property
    def container(self) -> str | None:
        """The container in which the stage runs; None: the pod's first."""
        ...

    def read(self, workload: Object) -> Reading:
        """How far it is."""
        ...

    def deadline(self, workload: Object) -> datetime | None:
        """When it must have ended, where its controller does not see to that."""
        ...

    def pods(self, workload: Object) -> Sequence[PodKind]:
        """What it starts."""
        ...
