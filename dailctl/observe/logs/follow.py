"""Follows the logs of a run from pod to pod and attempt to attempt: waits while there is none, takes a broken connection up again."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from dail_runtime.errors import DailError, TransientError, UsageError
from dailctl.explain import explain
from dailctl.kube import ApiError, Client, Forbidden, Refusals
from dailctl.kube.cache import Cache
from dailctl.kube.resources import CONFIG_MAP, POD, Object, name_of, uid_of
from dailctl.observe.logs.choose import EVERY, Wanted, chosen_pods, chosen_task, container_state, containers
from dailctl.observe.logs.lines import readable, unseen, unstamped
from dailctl.observe.logs.stored import shown_lines, stored_logs
from dailctl.observe.runs import Held, held_of
from dailctl.observe.seen import CONDUCTOR, Gathered, gather
from dailctl.render.names import RUN_LABEL

FIRST_LIST = 15.0
LOOK = 1.0
"""Seconds between two looks where nothing was heard."""
AGAIN = 1.0
"""Seconds before a connection that broke off is taken up again."""
EXPLAIN_EVERY = 10.0
"""Seconds between two looks for why a pod does not start."""

Show = Callable[[str, str], None]
"""Takes (pod, line)."""
Tell = Callable[[str], None]
"""Takes a sentence for the person, about what is waited for."""


class Follower:
    """Follows one run."""

    def __init__(self, client: Client, held: Held, wanted: Wanted, show: Show, tell: Tell) -> None:
        self._client, self._held, self._wanted, self._show, self._tell = client, held, wanted, show, tell
        self._changed = threading.Event()
        self._lines: queue.Queue[tuple[str, str]] = queue.Queue(maxsize=10_000)
        self._read: set[tuple[str, str, int]] = set()
        """Containers, by pod uid and restart, that are being read or were."""
        self._streams: list[threading.Thread] = []
        self._tasks: set[str] = set()
        """Tasks of which something was read."""
        self._refused: ApiError | None = None
        self._allowed = False
        """Whether a line was ever read."""
        self._told = ""
        self._explained = float("-inf")

    def run(self) -> Held:
        """Show lines until the task that is meant, or the whole run, has ended; returns the run's last state.

        Raises:
            UsageError: the run was deleted, or has no such task.
            ApiError: the user may not read logs.
            TransientError: the API server does not answer at first.
        """
        space = self._held.namespace
        records = Cache(self._client, CONFIG_MAP, self._changed.set, fields=f"metadata.name={self._held.name}", namespace=space)
        pods = Cache(self._client, POD, self._changed.set, labels=f"{RUN_LABEL}={self._held.name}", namespace=space)
        try:
            for cache in (records, pods):
                cache.start()
            for cache in (records, pods):
                if not cache.wait(FIRST_LIST):
                    raise TransientError(f"the API server does not list {cache.resource.shown}; try again later")
            while True:
                obj = records.get(self._held.name)
                if obj is None or uid_of(obj) != self._held.uid:
                    self._drain()
                    raise UsageError(f"run {self._held.name} was deleted; its archived logs are kept in its store")
                self._held = held_of(obj)
                if self._refused is not None:
                    raise self._refused
                if self._step(pods.objects()):
                    return self._held
                self._pump()
        finally:
            records.stop()
            pods.stop()

    def _step(self, pods: list[Object]) -> bool:
        """Begin to read what can be read; whether everything is over."""
        task = chosen_task(self._held, self._wanted.stage)
        begun = self._begin(self._of_task(task, pods))
        if begun:
            self._tasks.add(task)
        if any(thread.is_alive() for thread in self._streams):
            return False
        self._drain()
        for name in self._over():
            if name not in self._tasks:
                # It came and went between two looks.
                self._tasks.add(name)
                self._from_store(name)
        if self._ended(task, pods):
            return True
        if not begun:
            self._say_why(task)
        return False

    def _ended(self, task: str, pods: list[Object]) -> bool:
        status = self._held.status
        if self._wanted.stage is None:
            return status.ended
        if task == CONDUCTOR:
            return status.ended and not self._of_task(task, pods)
        state = status.task(task).state
        return state in ("done", "failed") or status.ended

    def _over(self) -> list[str]:
        """Tasks that have ended since this began to follow, where the whole run is followed; else the one that is meant."""
        ended = [task.name for task in self._held.status.tasks if task.state in ("done", "failed") and task.attempts]
        if self._wanted.stage is not None:
            task = chosen_task(self._held, self._wanted.stage)
            return [task] if task in ended or (task == CONDUCTOR and self._held.status.ended) else []
        begun = [one.name for one in self._held.status.tasks if one.name in self._tasks]
        names = [one.name for one in self._held.status.tasks]
        first = names.index(begun[0]) if begun else names.index(ended[-1]) if ended else len(names)
        return [name for name in ended if names.index(name) >= first]

    def _of_task(self, task: str, pods: list[Object]) -> list[Object]:
        found = Gathered(slugs={one.slug: one.name for one in self._held.record.tasks})
        mine = [pod for pod in pods if found.task_of(pod) == task]
        return chosen_pods(mine, self._wanted.replica)

    def _begin(self, pods: list[Object]) -> bool:
        """Start reading containers that run or have ended and were not read yet; whether any is there at all."""
        found = False
        for pod in pods:
            for container in containers(pod)[: None if self._wanted.replica == EVERY else 1]:
                state, restarts = container_state(pod, container)
                if state == "waiting":
                    continue
                found = True
                mark = (uid_of(pod), container, restarts)
                if mark in self._read:
                    continue
                self._read.add(mark)
                self._told = ""
                thread = threading.Thread(target=self._stream, args=(pod, container, restarts), name=f"log {name_of(pod)}", daemon=True)
                self._streams.append(thread)
                thread.start()
        self._streams = [thread for thread in self._streams if thread.is_alive()] or self._streams[-1:]
        return found

    def _stream(self, pod: Object, container: str, restarts: int) -> None:
        """Read a container to its end, through connections that break off."""
        last, since, tail = "", self._wanted.since, self._wanted.tail
        refusals = Refusals(self._client.ready)
        while True:
            try:
                lines = self._client.follow_log(name_of(pod), container, since=since, tail=tail, namespace=self._held.namespace)
                for stamp, text in unseen(map(unstamped, lines), last):
                    last, self._allowed = stamp or last, True
                    refusals.over()
                    self._lines.put((name_of(pod), readable(text, raw=self._wanted.raw)))
            except TransientError:
                time.sleep(AGAIN)
            except Forbidden as err:
                if refusals.stay() or not self._allowed:
                    self._refused = err
                    self._changed.set()
                    return
            except ApiError:
                # The pod is gone, or its log is not there yet.
                pass
            since, tail = last or since, None
            if self._is_over(pod, container, restarts):
                self._changed.set()
                return
            time.sleep(AGAIN)

    def _is_over(self, pod: Object, container: str, restarts: int) -> bool:
        """Whether this life of the container has ended, and so its log."""
        try:
            now = self._client.find(POD, name_of(pod), namespace=self._held.namespace)
        except DailError:
            return False
        if now is None or uid_of(now) != uid_of(pod):
            return True
        state, lives = container_state(now, container)
        return state != "running" or lives > restarts

    def _from_store(self, task: str) -> None:
        try:
            for name, content in stored_logs(self._held.record, task, self._wanted):
                for line in shown_lines(content, self._wanted):
                    self._show(name, line)
        except DailError as err:
            self._tell(f"the log of {task} cannot be read from the store: {err}")

    def _say_why(self, task: str) -> None:
        """Why nothing can be read yet, once for each reason."""
        if time.monotonic() - self._explained < EXPLAIN_EVERY:
            return
        self._explained = time.monotonic()
        try:
            causes = explain(gather(self._client, self._held).seen(task), self._client.now())
        except DailError:
            return
        status = None if task == CONDUCTOR else self._held.status.task(task)
        why = causes[0].told if causes else (status.message if status is not None and status.message else "it has not started yet")
        if why != self._told:
            self._told = why
            self._tell(f"waiting for {task}: {why}")

    def _pump(self) -> None:
        """Show lines as they come until something changes."""
        end = time.monotonic() + LOOK
        while not self._changed.is_set() and (left := end - time.monotonic()) > 0:
            try:
                self._show(*self._lines.get(timeout=min(left, 0.1)))
            except queue.Empty:
                continue
        self._changed.clear()
        self._drain()

    def _drain(self) -> None:
        while True:
            try:
                self._show(*self._lines.get_nowait())
            except queue.Empty:
                return
