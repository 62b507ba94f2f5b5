"""Logs of a run's pods, brought to the store before the pods go: `logs/<task>/<run>/attempt-<n>/<pod>.<container>.log`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from dail_runtime.errors import DailError
from dail_runtime.store import Store
from dailctl.conductor.pods import is_over
from dailctl.kube import ApiError, Client
from dailctl.kube.resources import Object, name_of, uid_of

MOST_BYTES = 8 << 20
"""Of one container's log, its last; they stay in memory for a moment, and the conductor has little."""
SECONDS = 20.0
"""So long the end of a task waits for its logs: the pods hold GPUs meanwhile."""
AT_ONCE = 3


class Archive:
    """The logs of one run. Never in the way: a log that cannot be had is told of and left out."""

    def __init__(self, client: Client, store: Store, run: str) -> None:
        self._client, self._store, self._run = client, store, run
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="logs")
        self._taken: dict[tuple[str, str, int, bool], Future[str | None]] = {}

    def take(self, task: str, attempt: int, pods: Iterable[Object], *, every: bool) -> list[Future[str | None]]:
        """Begin to fetch the logs of containers that ended; with `every`, those of the others, too, as far as they are.

        A log is fetched once: what a restarted container wrote before, and what a pod wrote until it was over.
        """
        begun = []
        for pod in pods:
            for status in (pod.get("status") or {}).get("containerStatuses") or ():
                container, restarts = str(status["name"]), int(status.get("restartCount", 0))
                place = f"logs/{task}/{self._run}/attempt-{attempt}/{name_of(pod)}.{container}"
                if restarts:
                    begun.append(self._begin(pod, container, restarts - 1, True, f"{place}.restart-{restarts - 1}.log"))
                state = status.get("state") or {}
                if ("terminated" in state and is_over(pod)) or (every and ("running" in state or "terminated" in state)):
                    begun.append(self._begin(pod, container, restarts, is_over(pod), f"{place}.log"))
        return begun

    def finish(self, begun: list[Future[str | None]]) -> list[str]:
        """Wait for these, for a while; returns a sentence for each log that could not be had."""
        done, late = wait(begun, SECONDS)
        said = [one.result() for one in done]
        return [*(one for one in said if one), *(["logs of the last pods did not arrive in time and are not kept"] if late else ())]

    def forget(self, uids: set[str]) -> None:
        """Pods that are gone need no more bookkeeping; `uids` are those that are still there."""
        self._taken = {key: future for key, future in self._taken.items() if key[0] in uids}

    def _begin(self, pod: Object, container: str, restart: int, whole: bool, key: str) -> Future[str | None]:
        mark = (uid_of(pod), container, restart, whole)
        if mark not in self._taken:
            self._taken[mark] = self._pool.submit(self._fetch, name_of(pod), container, ".restart-" in key, key)
        return self._taken[mark]

    def _fetch(self, pod: str, container: str, previous: bool, key: str) -> str | None:
        try:
            text = self._client.log(pod, container, previous=previous, keep=MOST_BYTES)
        except ApiError as err:
            return None if previous else f"the log of pod {pod} is not kept: {err}"
        except DailError as err:
            return f"the log of pod {pod} is not kept: {err}"
        with contextlib.suppress(DailError):
            self._store.put(key, text)
            return None
        return f"the log of pod {pod} is not kept: the store did not take {key}"
