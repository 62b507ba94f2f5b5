"""From a line of a pod's log to what a person reads: a stage's events (JSON, one a line) become sentences, all else stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dailctl import output
from dailctl.progress import figures_told, number_told

_STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?")


def unstamped(line: bytes) -> tuple[str, str]:
    """(time, text) of a line that the API gave with its time; the time is '' where it has none."""
    found = _STAMPED.match(line)
    text = line[found.end() :] if found else line
    return (found.group(1).decode() if found else ""), text.decode(errors="replace")


def unseen(lines: Iterable[tuple[str, str]], last: str) -> Iterator[tuple[str, str]]:
    """The (time, text) of a log that is read anew, without those up to the time `last`, which were seen before.

    Only its beginning is compared: a node whose clock is set back writes times that were there already.
    """
    seen = bool(last)
    for stamp, text in lines:
        seen = seen and bool(stamp) and stamp <= last
        if not seen:
            yield stamp, text


def readable(text: str, *, raw: bool = False) -> str:
    """What to show of a line; as it is where `raw`. Else control characters are written out, whatever a process printed."""
    if raw:
        return text
    event = _event(text)
    # A progress bar that was redrawn in place: its last state is the line.
    shown = text.rstrip("\r").rpartition("\r")[2] if event is None else _told(event)
    return output.printable(shown.replace("\n", " "))


def _told(event: Mapping[str, Any]) -> str:
    try:
        return _sentence(event)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        # Not from dail's own code: any process may print what looks like an event.
        return json.dumps(event, ensure_ascii=False)


def _sentence(event: Mapping[str, Any]) -> str:
    match event.get("event"):
        case "start":
            return f"{event['task']}: attempt {event['attempt']} started"
        case "say":
            return str(event["sentence"])
        case "skipped":
            return "done before"
        case "done":
            return f"done in {output.duration(float(event.get('seconds') or 0.0))}"
        case "error":
            return f"error: {event['message']} (exit code {event['exit']})"
        case "progress":
            figures = {str(name): float(value) for name, value in (event.get("figures") or {}).items()}
            told = f"{number_told(float(event['done']))}/{number_told(float(event['total']))} {event.get('unit', '')}".rstrip()
            return ", ".join([told, *figures_told(figures)])
    return json.dumps(event, ensure_ascii=False)


def _event(text: str) -> Mapping[str, Any] | None:
    if not text.startswith('{"event"'):
        return None
    try:
        found = json.loads(text)
    except (RecursionError, ValueError):
        return None
    return found if isinstance(found, dict) else None
