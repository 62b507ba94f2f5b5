"""A stage in one pod: batch/v1 Job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dailctl.backends.workload import PodKind, Reading
from dailctl.kube.resources import JOB, Object, condition_of

# A Job says why it will end before its last pod is gone. That is early enough to act on.
SUCCESS = ("Complete", "SuccessCriteriaMet")
FAILURE = ("Failed", "FailureTarget")


class BatchJob:
    """See Backend."""

    resource = JOB
    container = None

    def read(self, workload: Object) -> Reading:
        """See Backend."""
        for kind in FAILURE:
            if found := condition_of(workload, kind):
                return Reading("failed", str(found.get("reason", "")), str(found.get("message", "")))
        if any(condition_of(workload, kind) for kind in SUCCESS):
            return Reading("succeeded")
        if workload["spec"].get("suspend"):
            return Reading("queued")
        status = workload.get("status") or {}
        return Reading("running" if status.get("ready") else "pending")

    def deadline(self, workload: Object) -> datetime | None:  # noqa: ARG002
        """See Backend."""
        return None

    def pods(self, workload: Object) -> Sequence[PodKind]:
        """See Backend."""
        spec = workload["spec"]
        return [PodKind(int(spec.get("parallelism", 1)), spec["template"])]
