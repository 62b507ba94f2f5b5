"""Why a queue keeps a workload waiting: Kueue's Workload object (kueue.x-k8s.io, KEP 77)."""

from __future__ import annotations

from typing import Any

from dailctl.explain import table
from dailctl.explain.cause import Cause
from dailctl.explain.objects import conditions_of, spec_of, status_of
from dailctl.kube.resources import Object, name_of

CLOSED = ("inactive", "stopped", "doesn't exist", "does not exist", "not found")
NEVER = ("maximum capacity", "unavailable in ClusterQueue")
"""What Kueue says of a request that no admission can ever meet."""


def queued(workload: Object, owner: str) -> Cause | None:
    """Why `owner` (`job.batch/x`), which this Workload stands for, has not been admitted; None where it has."""
    conditions, queue = conditions_of(workload), str(spec_of(workload).get("queueName", "?"))
    if conditions.get("Admitted", {}).get("status") == "True" or conditions.get("Finished", {}).get("status") == "True":
        return None
    evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
    said = reserved.get("message") or "it has not been looked at yet"
    facts: dict[str, Any] = {"owner": owner, "queue": queue}
    if spec_of(workload).get("active") is False:
        return table.QUEUE_DEACTIVATED.of(owner, **facts, said=evicted.get("message") or said)
    if reserved.get("status") == "True":
        return table.QUEUE.of(owner, **facts, said=_checks(workload) or said)
    if any(words in str(said) for words in NEVER) and "more needed" not in str(said):
        return table.QUEUE_TOO_SMALL.of(owner, **facts, said=said)
    if any(word in str(said) for word in CLOSED) or reserved.get("reason") in ("Inadmissible", "Misconfigured"):
        return table.QUEUE_CLOSED.of(owner, **facts, said=said)
    if evicted.get("status") == "True":
        return table.QUEUE_EVICTED.of(owner, **facts, said=evicted.get("message") or evicted.get("reason") or "")
    return table.QUEUE.of(owner, **facts, said=said)


def _checks(workload: Object) -> str:
    """What the admission checks wait for, once quota is reserved: `provisioning: not enough resources`."""
    waiting = [one for one in status_of(workload).get("admissionChecks") or () if one.get("state") != "Ready"]
    return "; ".join(f"{one.get('name')}: {one.get('message') or one.get('state')}" for one in waiting)


def workload_of(owner: Object, workloads: tuple[Object, ...]) -> Object | None:
    """The Workload that stands for a Job or PyTorchJob."""
    uid = owner["metadata"].get("uid")
    for one in workloads:
        for reference in one["metadata"].get("ownerReferences") or ():
            if reference.get("uid") == uid or (uid is None and reference.get("name") == name_of(owner)):
                return one
    return None
