"""What a task's pods held of the cluster, from what the API says of them while they are there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dail_runtime.stages.usage import Usage
from dailctl.conductor.pods import held
from dailctl.explain.objects import extended_of
from dailctl.kube.resources import Object, uid_of

Span = tuple[datetime, datetime, dict[str, int]]
"""From when to when a pod held which extended resources."""


class Meter:
    """Follows the pods of one attempt. Pods that are gone keep what was last seen of them."""

    def __init__(self) -> None:
        self._spans: dict[str, Span] = {}

    def see(self, pods: Iterable[Object], now: datetime) -> None:
        """Take note of these pods as they are now."""
        for pod in pods:
            if (span := held(pod, now)) is not None:
                self._spans[uid_of(pod)] = (*span, extended_of(pod))

    def usage(self) -> Usage | None:
        """All of it; None where no pod was ever on a node."""
        spans = list(self._spans.values())
        if not spans:
            return None
        seconds: dict[str, float] = {}
        for begin, end, gpus in spans:
            for name, count in gpus.items():
                seconds[name] = seconds.get(name, 0.0) + count * max(0.0, (end - begin).total_seconds())
        most = {name: _most([(begin, end, gpus.get(name, 0)) for begin, end, gpus in spans]) for name in seconds}
        return Usage(
            pods=_most([(begin, end, 1) for begin, end, _ in spans]),
            gpus=most,
            seconds=(max(end for _, end, _ in spans) - min(begin for begin, _, _ in spans)).total_seconds(),
            gpu_seconds=seconds,
        )


def _most(spans: list[tuple[datetime, datetime, int]]) -> int:
    """The largest sum at any moment: it is reached when one of them begins."""
    return max((sum(n for begin, end, n in spans if begin <= moment < end or begin == moment) for moment, _, _ in spans), default=0)
