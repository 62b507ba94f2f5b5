"""From a line of a pod's log to what a person reads: a stage's events (JSON, one a line) become sentences, all else stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from dailctl import output
from dailctl.progress import figures_told, number_told

QUIET = timedelta(seconds=10)
"""Between two progress lines. A stage tells of its progress five times a second."""
SHARE = 0.1
"""So much of the whole is worth a line, too: archived logs have no times."""
_STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?")


def unstamped(line: bytes) -> tuple[str, str]:
    """(time, text) of a line that the API gave with its time; the time is '' where it has none."""
    found = _STAMPED.match(line)
    text = line[found.end() :] if found else line
    return (found.group(1).decode() if found else ""), text.decode(errors="replace")


class Reader:
    """Reads the lines of one container in order."""

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw
        self._shown: tuple[datetime | None, float] | None = None

    def read(self, text: str, stamp: str = "") -> str | None:
        """What to show of a line; None where it says nothing new. Control characters are written out, whatever a process printed."""
        if self._raw:
            return text
        event = _event(text)
        # A progress bar that was redrawn in place: its last state is the line.
        shown = text.rstrip("\r").rpartition("\r")[2] if event is None else self._told(event, stamp)
        return None if shown is None else output.printable(shown)

    def _told(self, event: Mapping[str, Any], stamp: str) -> str | None:
        match event.get("event"):
            case "start":
                return f"{event.get('task')}: attempt {event.get('attempt')} started"
            case "say":
                return str(event.get("sentence"))
            case "skipped":
                return "done before"
            case "done":
                return f"done in {output.duration(float(event.get('seconds') or 0.0))}"
            case "error":
                return f"error: {event.get('message')} (exit code {event.get('exit')})"
            case "progress":
                return self._progress(event, stamp)
        return json.dumps(event, ensure_ascii=False)

    def _progress(self, event: Mapping[str, Any], stamp: str) -> str | None:
        try:
            done, total = float(event["done"]), float(event["total"])
            when = datetime.fromisoformat(stamp) if stamp else None
            figures = {str(name): float(value) for name, value in (event.get("figures") or {}).items()}
        except (KeyError, TypeError, ValueError):
            return json.dumps(event, ensure_ascii=False)
        if self._shown is not None and done < total:
            before, at = self._shown
            late = when is not None and before is not None and when - before >= QUIET
            if not late and (when is not None or abs(done - at) < SHARE * total):
                return None
        self._shown = when, done
        return ", ".join([f"{number_told(done)}/{number_told(total)} {event.get('unit', '')}".rstrip(), *figures_told(figures)])


def _event(text: str) -> Mapping[str, Any] | None:
    if not text.startswith('{"event"'):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
