"""What pods say about themselves: why one does not start, how its containers ended, when it held its node. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dailctl.kube.resources import Object, condition_of, name_of

GRACE = 60.0
"""Seconds in which a pod that misses something (a Secret, a volume) may still get it: GitOps tools apply in their own order."""
_FINAL_PULL = re.compile(
    r"not found|manifest unknown|unauthorized|authentication required|denied|forbidden|\b40[134]\b|no basic auth|invalid reference", re.I
)
_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable")
_SET_UP = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
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
    if (pod.get("status") or {}).get("phase") not in (None, "Pending", "Running"):
        return None
    if deleted := pod["metadata"].get("deletionTimestamp"):
        late = (now - parse_time(deleted)).total_seconds() - GRACE
        if late > 0:
            node = (pod.get("spec") or {}).get("nodeName", "its node")
            sentence = f"pod {name_of(pod)} does not end: node {node} does not answer; delete the node, or the pod with --force"
            return Trouble(sentence, False)
        return None
    for status in _statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if found := _waiting_trouble(pod, status, waiting, now):
            return found
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return Trouble(f"no node takes pod {name_of(pod)} ({_sentence(one.get('message', 'not scheduled'))})", False)
    return None


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


def said_error(text: str) -> dict[str, Any] | None:
    """The stage's own last word, an event line `{"event": "error", ...}`, in the end of a log."""
    for line in reversed(text.splitlines()):
        if '"event"' in line and '"error"' in line:
            try:
                found = json.loads(line[line.index("{") :])
            except ValueError:
                continue
            if isinstance(found, dict) and found.get("event") == "error":
                return found
    return None


def last_line(text: str) -> str:
    """The last line that says anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def parse_time(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text)


def _statuses(pod: Object) -> Iterable[Object]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _waiting_trouble(pod: Object, status: Object, waiting: Object, now: datetime) -> Trouble | None:
    reason, said = str(waiting.get("reason", "")), _sentence(waiting.get("message", ""))
    if reason in _PULL:
        final = reason in ("InvalidImageName", "ErrImageNeverPull") or bool(_FINAL_PULL.search(said))
        sentence = (
            f"the image {status.get('image')} cannot be pulled ({said or reason}); check its name, its tag and cluster.secrets.imagePull"
        )
        return Trouble(sentence, final)
    if reason in _SET_UP:
        age = (now - parse_time(pod["metadata"]["creationTimestamp"])).total_seconds()
        return Trouble(f"container {status['name']} of pod {name_of(pod)} cannot start ({said or reason})", age > GRACE)
    return None


def _sentence(text: Any) -> str:
    """A controller's message in one line of bearable length."""
    line = " ".join(str(text).split()).rstrip(".")
    return line if len(line) <= 300 else f"{line[:297]}..."
