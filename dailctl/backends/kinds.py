"""The backends by kind of object. Another (TrainJob of Kubeflow Trainer v2) is one more module and one more entry."""

from __future__ import annotations

from collections.abc import Iterable

from dailctl.backends.batch_job import BatchJob
from dailctl.backends.pytorch_job import PyTorchJob
from dailctl.backends.workload import Backend
from dailctl.kube.resources import Object

BACKENDS: tuple[Backend, ...] = (BatchJob(), PyTorchJob())


def backend_of(obj: Object) -> Backend | None:
    """The backend whose kind `obj` is; None where it is no workload (a Service, a Deployment of servers)."""
    kind = (obj["apiVersion"], obj["kind"])
    return next((one for one in BACKENDS if (one.resource.api_version, one.resource.kind) == kind), None)


def workload_among(objects: Iterable[Object]) -> tuple[Object, Backend] | None:
    """The workload among a task's objects: there is one at most."""
    for obj in objects:
        backend = backend_of(obj)
        if backend is not None:
            return obj, backend
    return None
