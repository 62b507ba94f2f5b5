"""Distributed training: kubeflow.org/v1 PyTorchJob, one master and its workers, run by Kubeflow's training operator.

With restartPolicy ExitCode the operator starts a replica again after exit codes of 128 and above (killed, preempted) and takes
every lower one as final. dail's own passing faults (65, 75) are below: the conductor then applies the whole PyTorchJob anew.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    def pods(self, workload: Object) -> Sequence[PodKind]:
        """See Backend."""
        replicas = workload["spec"]["pytorchReplicaSpecs"]
        return [PodKind(int(one.get("replicas", 1)), one["template"]) for _, one in sorted(replicas.items())]
