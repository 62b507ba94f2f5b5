"""What pods say about themselves: whether they are at work, and when they held their node. Pure."""

from __future__ import annotations

from datetime import datetime

from dailctl.explain.objects import containers_of, status_of, time_of
from dailctl.kube.resources import Object, condition_of


def is_ready(pod: Object) -> bool:
    """Whether it serves, or at least runs."""
    return condition_of(pod, "Ready") is not None


def is_over(pod: Object) -> bool:
    """Whether all its containers have ended for good."""
    return status_of(pod).get("phase") in ("Succeeded", "Failed")


def ended_well(pod: Object) -> bool:
    """Whether all its containers have ended with exit code 0."""
    return status_of(pod).get("phase") == "Succeeded"


def restarts_of(pod: Object) -> int:
    """How often its containers were started again."""
    return sum(int(status.get("restartCount", 0)) for _, status in containers_of(pod))


def held(pod: Object, now: datetime) -> tuple[datetime, datetime] | None:
    """From when to when the pod took room on a node; None where it never did."""
    placed = time_of((condition_of(pod, "PodScheduled") or {}).get("lastTransitionTime"))
    if placed is None:
        return None
    ends = [time_of((status.get("state") or {}).get("terminated", {}).get("finishedAt")) for _, status in containers_of(pod)]
    return placed, max((end for end in ends if end is not None), default=now) if is_over(pod) else now
