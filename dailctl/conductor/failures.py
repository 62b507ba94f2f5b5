"""Why an attempt failed, and whether another one may help. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dail_runtime.errors import ClusterError, IntegrityError, Interrupted, TransientError
from dail_runtime.stages.jobs import Attempt
from dailctl.backends.workload import Reading
from dailctl.explain import table
from dailctl.explain.cause import Cause, Kind
from dailctl.explain.endings import FINAL_CODES, Ended, ended_cause, ends_of, taken_away, too_late
from dailctl.kube.resources import Object, shown

MEMORY_RETRIES = 1
"""A stage that resumes may get past the peak that killed it; twice is no accident."""
DISRUPTIONS = 50
"""So often an attempt may be preempted, evicted or lose its node. It is not the job's fault, but it should end some day."""
PAUSES = (5, 20, 60, 180)
"""Seconds before the attempts that follow passing faults."""
UNEXPECTED = 1


@dataclass(frozen=True)
class Failure:
    """How an attempt ended without a result."""

    kind: Kind
    sentence: str
    exit_code: int


def classify(workload: Object, reading: Reading, pods: Sequence[Object], recorded: Attempt | None, taken: str | None) -> Failure:
    """Why a workload failed: the cause (dailctl/explain) that explains the others.

    Args:
        workload: the one that failed.
        reading: what its controller says.
        pods: the task's pods as far as they are still there.
        recorded: the attempt's own record in the store, where the stage could still write one.
        taken: what took a pod of this attempt away, where that was seen before.
    """
    if late := too_late(shown(workload), reading.reason, reading.message):
        return _failure(late, ClusterError.exit_code)
    # Times are whole seconds. A process that lost its peer ends "unexpectedly" in the same one as the peer that was killed.
    ends = sorted((one for pod in pods for one in ends_of(pod)), key=lambda one: (one.code == UNEXPECTED, one.finished))
    found = [failure_of(one, recorded) for one in ends]
    # A fault that will come again explains the others, which often only lost their peer.
    for kind in ("final", "memory"):
        for failure in found:
            if failure.kind == kind and failure.exit_code != UNEXPECTED:
                return failure
    away = taken or taken_from(pods)
    if away is not None:
        return Failure("disrupted", away, Interrupted.exit_code)
    if found:
        return found[0]
    if recorded is not None and recorded.state == "interrupted":
        return Failure("disrupted", "its pods were asked to stop, and saved", Interrupted.exit_code)
    said = reading.message or reading.reason or "no reason is given"
    return _failure(table.PODS_GONE.of(shown(workload), owner=shown(workload), said=said), TransientError.exit_code)


def past_deadline(workload: Object, deadline: datetime | None, now: datetime) -> Failure | None:
    """That a workload is at work for longer than it may, where that is so."""
    if deadline is None or now < deadline:
        return None
    said = f"it should have ended at {deadline.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return _failure(table.DEADLINE.of(shown(workload), owner=shown(workload), said=said), ClusterError.exit_code)


def failure_of(ended: Ended, recorded: Attempt | None = None) -> Failure:
    """What the end of one container means."""
    own = recorded.error if recorded is not None and recorded.exit_code == ended.code else None
    return _failure(ended_cause(ended, recorded=own), ended.code)


def taken_from(pods: Sequence[Object]) -> str | None:
    """What took one of the pods away, where one did not end by itself: preemption, eviction, a drained or lost node."""
    return next((cause.sentence for pod in pods if (cause := taken_away(pod))), None)


def _failure(cause: Cause, code: int) -> Failure:
    kind: Kind = "final" if code in FINAL_CODES else cause.kind
    # A stage says itself what to do. Of a fault that passes, the remedy is to try again, which is done.
    brief = cause.name == table.USER_ERROR.name or kind in ("passing", "disrupted")
    return Failure(kind, cause.sentence if brief else cause.told, code)


def lost_result() -> Failure:
    """The workload succeeded, and the store has no result."""
    sentence = "the stage ended well, yet the store does not have its result; check that nothing removes objects below the run's root"
    return Failure("passing", sentence, IntegrityError.exit_code)


def may_retry(kind: Kind, times: int, attempts: int) -> bool:
    """Whether another attempt is due after the `times`-th failure of this kind, where a task may have `attempts`."""
    match kind:
        case "final":
            return False
        case "memory":
            return times <= MEMORY_RETRIES
        case "passing":
            return times < attempts
        case "disrupted":
            return times <= DISRUPTIONS


def pause_before_retry(kind: Kind, times: int) -> timedelta:
    """How long to wait before the next attempt."""
    if kind == "disrupted":
        return timedelta(seconds=1)
    return timedelta(seconds=PAUSES[min(times, len(PAUSES)) - 1])
