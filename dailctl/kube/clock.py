"""What time it is at the API server, whose stamps are in the objects; a machine's own clock may be minutes off."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class ServerClock:
    """The server's time, from the `Date` of its answers (RFC 9110, 6.6.1: whole seconds) and the time gone by since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead: float | None = None

    def hear(self, date: str | None) -> None:
        """Learn from an answer's `Date`; one that is missing or no date says nothing."""
        try:
            said = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        with self._lock:
            # Any moment of that second. What was known stays where it fits, so that the clock does not jump with each answer.
            earliest = said - time.monotonic()
            self._ahead = earliest if self._ahead is None else min(max(self._ahead, earliest), earliest + 1)

    def now(self) -> datetime:
        """The server's time; this machine's before any answer."""
        ahead = self._ahead
        return datetime.now(UTC) if ahead is None else datetime.fromtimestamp(ahead + time.monotonic(), UTC)
