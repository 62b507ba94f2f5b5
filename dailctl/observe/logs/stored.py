"""Logs that were brought to the run's store before its pods went."""

from __future__ import annotations

from collections.abc import Iterator

from dail_runtime.store import Store, open_store
from dailctl.observe.logs.choose import Wanted, archived
from dailctl.observe.logs.lines import readable
from dailctl.observe.seen import CONDUCTOR
from dailctl.render.record import RunRecord


def stored_logs(record: RunRecord, task: str, wanted: Wanted) -> list[tuple[str, bytes]]:
    """(name, content) of the archived logs that are meant; [] where there are none.

    Raises:
        StoreError, TransientError: the store refuses, or does not answer.
    """
    root = open_store(record.run_uri, endpoint=record.endpoint, region=record.region)
    if task == CONDUCTOR:
        return _conductor(root, record, previous=wanted.previous)
    folder = f"logs/{task}/{record.name}/"
    keys = [info.key.removeprefix(folder) for info in root.list(folder)]
    return [(key, root.get(f"{folder}{key}")) for key in archived(keys, wanted.replica, wanted.attempt, previous=wanted.previous)]


def shown_lines(content: bytes, wanted: Wanted) -> Iterator[str]:
    """What to show of an archived log."""
    # Not splitlines: that takes a progress bar's carriage returns for ends of lines.
    lines = content.decode(errors="replace").removesuffix("\n").split("\n")
    for line in lines if wanted.tail is None else lines[len(lines) - min(wanted.tail, len(lines)) :]:
        yield readable(line, raw=wanted.raw)


def _conductor(root: Store, record: RunRecord, *, previous: bool) -> list[tuple[str, bytes]]:
    folder = f"logs/{CONDUCTOR}/{record.name}/"
    keys = sorted(info.key for info in root.list(folder))
    chosen = keys[-2:-1] if previous else keys[-1:]
    return [(key.removeprefix(folder), root.get(key)) for key in chosen]
