"""What pods say about themselves: why one does not start, how its containers ended, when it held its node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dailctl.explain import Seen, why_waiting
from dailctl.kube.resources import Object, condition_of, name_of

_DISRUPTED = ("Evicted", "Preempting", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity", "UnexpectedAdmissionError")


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not run."""

    sentence: str
    final: bool
    """Whether waiting will not help."""


@dataclass(frozen=True)
class Ending:
    """How a container of a pod ended."""

    pod: str
    container: str
    code: int
    reason: str
    """The kubelet's word: `Error`, `OOMKilled`."""
    message: str
    """The last lines it wrote."""
    finished: datetime
    restarts: int


def trouble_of(pod: Object, now: datetime) -> Trouble | None:
    """Why the pod has not started; None where it has, or where it is about to."""
    cause = why_waiting(pod, Seen(pods=(pod,)), now)
    return Trouble(cause.told, cause.final) if cause is not None else None


def endings(pod: Object) -> Iterator[Ending]:
    """How containers of the pod ended, those that were started again since included."""
    for status in _statuses(pod):
        for place in ("state", "lastState"):
            ended = (status.get(place) or {}).get("terminated")
            if ended:
                yield Ending(
                    pod=name_of(pod),
                    container=str(status["name"]),
                    code=int(ended.get("exitCode", 0)),
                    reason=str(ended.get("reason", "")),
                    message=str(ended.get("message", "")),
                    finished=parse_time(ended.get("finishedAt")) if ended.get("finishedAt") else datetime.fromtimestamp(0, UTC),
                    restarts=int(status.get("restartCount", 0)),
                )


def disrupted(pod: Object) -> str | None:
    """What took the pod away, where it did not end by itself: preemption, eviction, a drained or lost node."""
    target = condition_of(pod, "DisruptionTarget")
    status = pod.get("status") or {}
    if target:
        return f"{target.get('reason', 'disrupted')} ({_sentence(target.get('message', 'the node needed the room'))})"
    if status.get("phase") == "Failed" and status.get("reason") in _DISRUPTED:
        return f"{status['reason']} ({_sentence(status.get('message', 'the node needed the room'))})"
    return None


def is_ready(pod: Object) -> bool:
    """Whether it serves, or at least runs."""
    return condition_of(pod, "Ready") is not None


def is_over(pod: Object) -> bool:
    """Whether all its containers have ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def restarts_of(pod: Object) -> int:
    """How often its containers were started again."""
    return sum(int(one.get("restartCount", 0)) for one in _statuses(pod))


def held(pod: Object, now: datetime) -> tuple[datetime, datetime] | None:
    """From when to when the pod took room on a node; None where it never did."""
    placed = condition_of(pod, "PodScheduled")
    if placed is None or not placed.get("lastTransitionTime"):
        return None
    ends = [one.finished for one in endings(pod)] if is_over(pod) else []
    return parse_time(placed["lastTransitionTime"]), max(ends, default=now)


def requests(pod: Object) -> dict[str, int]:
    """Extended resources (GPUs) that the pod holds, by name."""
    found: dict[str, int] = {}
    for container in (pod.get("spec") or {}).get("containers") or ():
        asked = (container.get("resources") or {}).get("limits") or {}
        for name, amount in asked.items():
            if "/" in name and str(amount).isdigit():
                found[name] = found.get(name, 0) + int(amount)
    return found


def parse_time(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text)


def _statuses(pod: Object) -> Iterable[Object]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _sentence(text: Any) -> str:
    """A controller's message in one line of bearable length."""
    line = " ".join(str(text).split()).rstrip(".")
    return line if len(line) <= 300 else f"{line[:297]}..."
