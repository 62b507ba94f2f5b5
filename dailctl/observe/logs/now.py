"""A log as it is now: of the pods that a task has, else from the archive."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from dail_runtime.errors import StoreError, UsageError
from dailctl.kube import Client, NotFound
from dailctl.kube.resources import POD, Object, name_of
from dailctl.observe.logs.choose import EVERY, Wanted, chosen_pods, chosen_task, container_state, containers
from dailctl.observe.logs.lines import readable, unstamped
from dailctl.observe.logs.stored import shown_lines, stored_logs
from dailctl.observe.runs import Held
from dailctl.observe.seen import CONDUCTOR
from dailctl.render.names import conductor_of, tasks_of


def log_once(client: Client, held: Held, wanted: Wanted, tell: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """(pod, line) of what there is now: of the pods that are meant, else of the archive; `tell` hears what could not be done.

    Raises:
        UsageError: there is no such log.
        ApiError: the user may not list pods.
        StoreError, TransientError: the archive cannot be read.
    """
    task = chosen_task(held, wanted.stage)
    found = _pods_logs(client, held, task, wanted) if wanted.attempt is None else []
    for pod, content in found:
        for line in content.removesuffix(b"\n").split(b"\n") if content else ():
            yield pod, readable(unstamped(line)[1], raw=wanted.raw)
    if found:
        return
    try:
        stored = stored_logs(held.record, task, wanted)
    except StoreError as err:
        raise StoreError(f"no pod of {task} has a log now, and the archive cannot be read: {err}") from None
    if not stored:
        raise UsageError(_no_log(held, task, wanted))
    if wanted.since is not None:
        tell("archived logs have no times; --since is passed over")
    for name, content in stored:
        for shown in shown_lines(content, wanted):
            yield name, shown


def _pods_logs(client: Client, held: Held, task: str, wanted: Wanted) -> list[tuple[str, bytes]]:
    """(pod, lines with their times) of the pods that are meant; [] where none of them has written anything yet."""
    chosen = chosen_pods(_pods(client, held, task), wanted.replica)
    if wanted.replica is None:
        # Pods of one Job follow each other: the newest is meant, or with `previous` the one before, unless the newest was restarted.
        chosen = _one_of(chosen, previous=wanted.previous)
    found = []
    options: dict[str, Any] = {"tail": wanted.tail, "since": wanted.since, "timestamps": True, "namespace": held.namespace}
    for pod in chosen:
        for container in containers(pod)[: None if wanted.replica == EVERY else 1]:
            state, restarts = container_state(pod, container)
            earlier = wanted.previous and restarts > 0
            if state == "waiting" and not earlier:
                continue
            # The pod may go at any moment; the archive has its log then.
            with contextlib.suppress(NotFound):
                found.append((name_of(pod), client.log(name_of(pod), container, previous=earlier, **options)))
    return found


def _no_log(held: Held, task: str, wanted: Wanted) -> str:
    which = f"attempt {wanted.attempt} of " if wanted.attempt is not None else "what came before of " if wanted.previous else ""
    replica = f", replica {wanted.replica}" if wanted.replica is not None else ""
    status = None if task == CONDUCTOR else held.status.task(task)
    why = "" if status is None else f" ({status.state}{f': {status.message}' if status.message else ''})"
    return f"there is no log of {which}{task}{replica}{why}; -f waits for one"


def _one_of(pods: list[Object], *, previous: bool) -> list[Object]:
    if not previous or not pods or any(container_state(pods[-1], name)[1] for name in containers(pods[-1])):
        return pods[-1:]
    return pods[-2:-1]


def _pods(client: Client, held: Held, task: str) -> list[Object]:
    labels = conductor_of(held.name) if task == CONDUCTOR else tasks_of(held.name, held.record.task(task).slug)
    return client.select(POD, namespace=held.namespace, labels=labels)
