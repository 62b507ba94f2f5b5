"""Distributed training: kubeflow.org/v1 PyTorchJob, one master and its workers, run by Kubeflow's training operator.

Of an elastic group the operator starts a replica again that was killed (exit codes of 128 and above). Every other end of a replica,
and any of a group that is not elastic, ends the PyTorchJob, and the conductor applies the whole of it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from dailctl.backends.workload import PodKind, Reading
from dailctl.kube.resources import PYTORCH_JOB, Object, condition_of

CONTAINER = "pytorch"
"""The operator takes exit codes from the container of this name alone."""


class PyTorchJob:
    """See Backend."""

    resource = PYTORCH_JOB
    container = CONTAINER

    def read(self, workload: Object) -> Reading:
        """See Backend."""
        if found := condition_of(workload, "Failed"):
            return Reading("failed", str(found.get("reason", "")), str(found.get("message", "")))
        if condition_of(workload, "Succeeded"):
            return Reading("succeeded")
        if (workload["spec"].get("runPolicy") or {}).get("suspend"):
            return Reading("queued")
        if not (workload.get("status") or {}).get("conditions"):
            return Reading("pending", message="the training operator has not taken it up yet")
        return Reading("running" if condition_of(workload, "Running") else "pending")

    def deadline(self, workload: Object) -> datetime | None:
        """See Backend. The operator looks at activeDeadlineSeconds only when something else happens, and in training nothing does."""
        seconds = (workload["spec"].get("runPolicy") or {}).get("activeDeadlineSeconds")
        began = (workload.get("status") or {}).get("startTime")
        return datetime.fromisoformat(began) + timedelta(seconds=seconds) if began and seconds is not None else None

    def pods(self, workload: Object) -> Sequence[PodKind]:
        """See Backend."""
        replicas = workload["spec"]["pytorchReplicaSpecs"]
        return [PodKind(int(one.get("replicas", 1)), one["template"]) for _, one in sorted(replicas.items())]
