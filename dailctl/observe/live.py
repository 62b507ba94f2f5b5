"""Tables that follow a cluster: one list, then a watch each. On a terminal the table is redrawn in place, elsewhere a line is printed
for what changed, as kubectl does."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from dail_runtime.errors import TransientError, UsageError
from dailctl import output
from dailctl.backends.process import WAKE
from dailctl.conductor.status import summary_of
from dailctl.kube import Client, Forbidden, Refusals
from dailctl.kube.cache import Cache
from dailctl.kube.client import ALL
from dailctl.kube.resources import CONFIG_MAP, EVENT, label_of, name_of, uid_of
from dailctl.observe.describe import event_view, is_about, task_view
from dailctl.observe.model import EventView, RunView, TaskView, View
from dailctl.observe.runs import RECORDS, Held, Read, held_of, views_of
from dailctl.observe.tables import event_table, run_table, task_table
from dailctl.progress import Eta
from dailctl.render.names import JOB_LABEL

FIRST_LIST = 15.0
"""Seconds in which the first list must arrive."""
REDRAW = 1.0
"""Seconds between two looks at a terminal's table: ages and ETAs move even when nothing else does."""
LAST = 5
"""Events below a run's table."""
SETTLE = 0.2
"""Seconds in which changes are gathered before they are shown."""


Row = TypeVar("Row", bound=View)


class Screen(Protocol):
    """Where a table goes."""

    def show(
        self, rows: Sequence[Row], table: Callable[[Sequence[Row], int | None], str], above: str = "", below: Sequence[str] = ()
    ) -> None:
        """Show the table of `rows`, which `table` makes for a width, with a line above it and some below."""
        ...


class Lines:
    """Not a terminal: the rows and lines that are new since the last time, and the table's head once."""

    def __init__(self) -> None:
        self._rows: list[View] = []
        self._lines: set[str] = set()
        self._begun = False

    def show(
        self, rows: Sequence[Row], table: Callable[[Sequence[Row], int | None], str], above: str = "", below: Sequence[str] = ()
    ) -> None:
        """See Screen."""
        new = [row for row in rows if row not in self._rows]
        self._rows = list(rows)
        text = table(new, None).splitlines() if new or not self._begun else [""]
        lines = [*(text if not self._begun else text[1:]), *(line for line in (above, *below) if line and line not in self._lines)]
        self._begun = True
        self._lines |= {above, *below}
        if lines:
            output.data(output.printable("\n".join(lines)))


class Redrawn:
    """A terminal: everything in place."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def show(
        self, rows: Sequence[Row], table: Callable[[Sequence[Row], int | None], str], above: str = "", below: Sequence[str] = ()
    ) -> None:
        """See Screen."""
        from rich.text import Text

        width = output.width_of(sys.stdout)
        lines = [*([above] if above else []), *table(rows, width).splitlines(), *below]
        self._live.update(Text(output.printable("\n".join(line[:width] for line in lines)), no_wrap=True), refresh=True)


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """A place for a table, until the block ends; the last table stays on the terminal."""
    if not output.is_terminal(sys.stdout):
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(no_color=True, highlight=False), auto_refresh=False) as live:
        yield Redrawn(live)


def watch_runs(client: Client, *, namespace: str | None, labels: str, names: Sequence[str], wide: bool) -> None:
    """Show runs as they change, until Ctrl-C.

    Raises:
        ClusterError: the user may not list or watch them, or not any more.
        TransientError: the API server does not answer at first.
    """
    selector = f"{RECORDS},{labels}" if labels else RECORDS
    table = functools.partial(_run_table, wide=wide, namespaces=namespace == ALL)
    read: Read = {}
    refusals = Refusals(client.ready)
    with _cache(client, CONFIG_MAP, labels=selector, namespace=namespace, metadata_only=True) as (cache, changed), screen() as place:
        while True:
            refusals.judge(cache.refused)
            chosen = [one for one in cache.objects() if not names or name_of(one) in names or label_of(one, JOB_LABEL) in names]
            place.show(views_of(client, chosen, read), table)
            _pause(changed, place)


def watch_run(client: Client, held: Held) -> Held:
    """Show the tasks of a run and what its conductor says until the run has ended; returns its last state.

    Events are left out where the user may not list them.

    Raises:
        UsageError: the run was deleted.
        ClusterError: the user may not list or watch records, or not any more.
        TransientError: the API server does not answer at first.
    """
    etas: dict[str, Eta] = {}
    refusals = Refusals(client.ready)
    about = f"involvedObject.uid={held.uid}"
    with (
        _cache(client, CONFIG_MAP, fields=f"metadata.name={held.name}", namespace=held.namespace) as (records, changed),
        _cache(client, EVENT, fields=about, namespace=held.namespace, needed=False) as (events, _),
        screen() as place,
    ):
        while True:
            refusals.judge(records.refused)
            obj = records.get(held.name)
            if obj is None or uid_of(obj) != held.uid:
                raise UsageError(f"run {held.name} was deleted; submit it again to start anew, results that were finished are kept")
            held = held_of(obj)
            said = sorted((event_view(one) for one in events.objects()), key=lambda one: one.last)
            table = functools.partial(_task_table, left=_left(held, etas))
            place.show([task_view(task) for task in held.status.tasks], table, state_line(held), [event_line(one) for one in said[-LAST:]])
            if held.status.ended:
                return held
            _pause(changed, place)


def watch_events(client: Client, held: Held, *, fields: str) -> None:
    """Print the events of a run as they come, until Ctrl-C."""
    shown: set[tuple[str, str, str, int]] = set()
    head, refusals = True, Refusals(client.ready)
    with _cache(client, EVENT, fields=fields, namespace=held.namespace) as (cache, changed):
        while True:
            refusals.judge(cache.refused)
            found = sorted((event_view(one) for one in cache.objects() if is_about(one, held.record)), key=lambda one: one.last)
            new = [one for one in found if (one.object, one.reason, one.message, one.count) not in shown]
            shown |= {(one.object, one.reason, one.message, one.count) for one in new}
            if new:
                lines = event_table(new, width=output.width_of(sys.stdout)).splitlines()
                output.data("\n".join(lines if head else lines[1:]))
                head = False
            _await(changed)
            changed.clear()


def state_line(held: Held) -> str:
    """`aime-qwen-1a2b3c4d: running, 3/9 tasks done: rewrite/tuned: no node has nvidia.com/gpu free ...`."""
    summary = summary_of(held.status)
    state = f"{held.name}: {summary.state}, {summary.done}/{summary.total} tasks done"
    return f"{state}: {summary.message}" if summary.message else state


def event_line(event: EventView) -> str:
    """`07:12:09 TaskStarted: train/nll: attempt 1`."""
    return f"{event.last.strftime('%H:%M:%S')} {event.reason}: {event.message}"


def _run_table(rows: Sequence[RunView], width: int | None, *, wide: bool, namespaces: bool) -> str:
    return run_table(rows, wide=wide, namespaces=namespaces, width=width)


def _task_table(rows: Sequence[TaskView], width: int | None, *, left: dict[str, float]) -> str:
    return task_table(rows, width=width, left=left)


def _left(held: Held, etas: dict[str, Eta]) -> dict[str, float]:
    """Seconds left of the tasks that run, from how they got on since this began to watch."""
    found = {}
    for task in held.status.tasks:
        if task.state == "running" and task.progress.total:
            left = etas.setdefault(f"{task.name} {task.attempts}", Eta()).left(task.progress.done, task.progress.total)
            if left is not None:
                found[task.name] = left
    return found


def _pause(changed: threading.Event, place: Screen) -> None:
    """Until something changes, and a moment more for what changes with it; a terminal is redrawn each second."""
    if not isinstance(place, Redrawn):
        _await(changed)
    if changed.wait(REDRAW):
        threading.Event().wait(SETTLE)
    changed.clear()


def _await(changed: threading.Event) -> None:
    """Until something changes. Ctrl-C that comes just before a wait begins is heard by Python only when it wakes."""
    while not changed.wait(WAKE):
        pass


@contextlib.contextmanager
def _cache(client: Client, resource: Any, *, needed: bool = True, **chosen: Any) -> Iterator[tuple[Cache, threading.Event]]:
    changed = threading.Event()
    cache = Cache(client, resource, changed.set, **chosen)
    cache.start()
    try:
        try:
            if not cache.wait(FIRST_LIST):
                raise TransientError(f"the API server does not list {resource.shown}; try again later")
        except Forbidden as err:
            if needed:
                raise
            output.warn(str(err))
        changed.clear()
        yield cache, changed
    finally:
        cache.stop()
