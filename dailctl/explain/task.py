"""All causes of one task: from everything that the cluster has of it, the most telling first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from dail_runtime.spec.kubernetes import QUEUE_LABEL
from dailctl import output
from dailctl.explain import table
from dailctl.explain.cause import Cause
from dailctl.explain.containers import not_ready, not_started
from dailctl.explain.endings import USER_ERRORS, ended_cause, ends_of, taken_away, too_late
from dailctl.explain.objects import about, conditions_of, latest, spec_of, status_of, time_of
from dailctl.explain.queues import queued, workload_of
from dailctl.explain.refusals import refused
from dailctl.explain.scheduling import unscheduled
from dailctl.kube.resources import Object, label_of, name_of, shown

SILENCE = 60.0
"""Seconds after which an object that no controller has taken up is worth a word."""


@dataclass(frozen=True)
class Seen:
    """What the cluster has of a task. Whatever the user may not read is left out, and the explanation knows less."""

    objects: tuple[Object, ...] = ()
    """Its Jobs, PyTorchJobs, Deployments and ReplicaSets."""
    pods: tuple[Object, ...] = ()
    events: tuple[Object, ...] = ()
    """Of the namespace; those about other objects do no harm."""
    nodes: tuple[Object, ...] | None = None
    """The cluster's nodes; None: not readable."""
    claims: tuple[Object, ...] = ()
    """The namespace's PersistentVolumeClaims."""
    workloads: tuple[Object, ...] = ()
    """Kueue's Workloads of the namespace."""


def explain(seen: Seen, now: datetime | None = None) -> list[Cause]:
    """Why a task does not run or ended without a result; nothing where it runs well. Each cause once."""
    moment = now or datetime.now(UTC)
    found = [cause for obj in seen.objects for cause in _of_object(obj, seen, moment)]
    found += [cause for pod in seen.pods if (cause := of_pod(pod, seen, moment))]
    # What cannot get better by waiting explains the rest; a pod that only lost its peers explains least.
    found.sort(key=lambda cause: (not cause.final, cause.name == table.STOPPED.name, cause.name == table.STARTING.name))
    return list({(cause.name, cause.told): cause for cause in found}.values())


def of_pod(pod: Object, seen: Seen, now: datetime | None = None) -> Cause | None:
    """Why one pod does not run, or how it failed; None where all is well with it."""
    moment = now or datetime.now(UTC)
    if pod["metadata"].get("deletionTimestamp"):
        return why_waiting(pod, seen, moment)
    phase = status_of(pod).get("phase")
    if phase == "Succeeded":
        return None
    if away := taken_away(pod):
        return away
    ends = ends_of(pod)
    if ends:
        # A fault of the job itself explains the others.
        return ended_cause(min(ends, key=lambda one: one.code not in USER_ERRORS), seen.events)
    if phase == "Failed":
        return None
    return why_waiting(pod, seen, moment) or not_ready(pod, seen.events, moment)


def why_waiting(pod: Object, seen: Seen, now: datetime) -> Cause | None:
    """Why a pod has not started, or does not go; None where it runs, has ended, or is about to start."""
    if (deleted := time_of(pod["metadata"].get("deletionTimestamp"))) is not None:
        return _leaving(pod, now, deleted)
    if status_of(pod).get("phase") in ("Succeeded", "Failed"):
        return None
    return _volume(pod, seen) or _scaling(pod, seen) or unscheduled(pod, seen.nodes) or not_started(pod, seen.events, now)


def _of_object(obj: Object, seen: Seen, now: datetime) -> Iterable[Cause]:
    owner, mine = shown(obj), about(obj, seen.events)
    failed = conditions_of(obj).get("Failed", {})
    if failed.get("status") == "True" and (late := too_late(owner, str(failed.get("reason", "")), str(failed.get("message", "")))):
        yield late
    elif failed.get("status") == "True" and not seen.pods:
        yield table.PODS_GONE.of(owner, owner=owner, said=failed.get("message") or failed.get("reason") or "no reason is given")
    replicas = conditions_of(obj).get("ReplicaFailure", {})
    message = replicas.get("message") if replicas.get("status") == "True" else None
    refusal = latest(mine, "FailedCreate", "FailedCreatePod", "FailedCreateService")
    made = latest(mine, "SuccessfulCreate", "SuccessfulCreatePod")
    if message is None and refusal is not None and not (made is not None and mine.index(made) < mine.index(refusal)):
        message = refusal.get("message")
    if message is not None:
        yield refused(str(message), owner)
    suspended = spec_of(obj).get("suspend") or (spec_of(obj).get("runPolicy") or {}).get("suspend")
    if suspended and (queue := label_of(obj, QUEUE_LABEL)):
        workload = workload_of(obj, seen.workloads)
        known = queued(workload, owner) if workload is not None else None
        yield known or table.QUEUE.of(owner, owner=owner, queue=queue, said="Kueue has not looked at it yet")
    elif obj.get("kind") == "PyTorchJob" and not status_of(obj).get("conditions"):
        since = time_of(obj["metadata"].get("creationTimestamp")) or now
        if (silent := (now - since).total_seconds()) > SILENCE:
            yield table.OPERATOR_SILENT.of(owner, owner=owner, since=output.duration(silent))


def _volume(pod: Object, seen: Seen) -> Cause | None:
    """Where the scheduler only says that a claim is unbound, the claim's own events say why."""
    condition = conditions_of(pod).get("PodScheduled", {})
    if "unbound" not in str(condition.get("message", "")):
        return None
    names = {(one.get("persistentVolumeClaim") or {}).get("claimName") for one in spec_of(pod).get("volumes") or ()}
    for claim in seen.claims:
        if name_of(claim) in names and status_of(claim).get("phase") != "Bound":
            said = latest(about(claim, seen.events), "FailedBinding", "ProvisioningFailed", "WaitForFirstConsumer", "ExternalProvisioning")
            reason = said.get("message", "") if said is not None else "no volume is bound to it"
            return table.VOLUME_UNBOUND.of(shown(pod), pod=name_of(pod), claim=name_of(claim), said=reason)
    return None


def _scaling(pod: Object, seen: Seen) -> Cause | None:
    """Where an autoscaler has said last that a node is on its way (Cluster Autoscaler, Karpenter)."""
    if conditions_of(pod).get("PodScheduled", {}).get("status") != "False":
        return None
    said = latest(about(pod, seen.events), "TriggeredScaleUp", "NotTriggerScaleUp", "Nominated")
    if said is None or said["reason"] == "NotTriggerScaleUp":
        return None
    return table.SCALING_UP.of(shown(pod), pod=name_of(pod), said=said.get("message", ""))


def _leaving(pod: Object, now: datetime, deleted: datetime) -> Cause | None:
    """deletionTimestamp is when the pod should be gone: its grace period is in it."""
    if (now - deleted).total_seconds() < SILENCE:
        return None
    return table.NODE_SILENT.of(shown(pod), pod=name_of(pod), node=spec_of(pod).get("nodeName", "?"))
