"""One stage process: started, listened to, asked to stop, and gone for certain afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailctl.backends.starters import Starter

READERS_END = 5.0
"""Seconds in which the event reader must reach the end of a dead process's output."""


@dataclass(frozen=True)
class Event:
    """One line of the stage's standard output."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Exited:
    """The process ended; all its events came before this."""

    code: int
    """As subprocess has it: -N for signal N."""


@dataclass(frozen=True)
class Signalled:
    """dailctl itself got a signal."""

    number: int


@dataclass(frozen=True)
class Lost:
    """Another machine took the run over."""


WAKE = 0.5
"""Seconds after which a signal is heard at the latest."""
Inbox = queue.SimpleQueue[Event | Exited | Signalled | Lost]
"""Everything the main loop waits for, in one place: so nothing is polled. Its put() may be called in a signal handler."""


def heard(inbox: Inbox, seconds: float = float("inf")) -> Event | Exited | Signalled | Lost:
    """The next of `inbox`.

    Python calls no handler for a signal that comes just before its main thread begins to wait: so it wakes from time to time.

    Raises:
        queue.Empty: nothing came within so long.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return inbox.get(timeout=max(0.0, min(WAKE, until - time.monotonic())))
        except queue.Empty:
            if time.monotonic() >= until:
                raise


class StageProcess:
    """Has `starter` start a task; its events and its end arrive in `inbox`, its standard error goes to the file `log` as it comes."""

    def __init__(self, starter: Starter, arguments: Sequence[str], inbox: Inbox, log: Path) -> None:
        self._inbox = inbox
        # Both this process and the stage append to the log; O_APPEND keeps their lines whole.
        self._log = log.open("ab", buffering=0)
        events, theirs = os.pipe()
        self._events = os.fdopen(events, "rb")
        try:
            self._child = starter.start(arguments, stdout=theirs, stderr=self._log.fileno())
        except BaseException:
            self._events.close()
            self._log.close()
            raise
        finally:
            os.close(theirs)
        self._reader = threading.Thread(target=self._read, name="events", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name="wait", daemon=True).start()

    def ask_to_stop(self) -> None:
        """SIGTERM: save and end."""
        self._child.terminate()

    def kill(self) -> None:
        """End it and everything it started, at once; nothing where it has ended."""
        self._child.kill()

    def _read(self) -> None:
        with self._events as lines:
            for line in lines:
                try:
                    body = json.loads(line)
                except (RecursionError, ValueError):
                    body = None
                if isinstance(body, dict) and "event" in body:
                    self._note(body)
                    self._inbox.put(Event(body))
                else:
                    self._log.write(line)

    def _note(self, body: dict[str, Any]) -> None:
        # Progress would drown the rest; it is in the store's attempt record.
        if body["event"] != "progress":
            self._log.write((json.dumps(body, ensure_ascii=False) + "\n").encode())

    def _wait(self) -> None:
        code = self._child.wait()
        self._reader.join(READERS_END)
        self._log.close()
        self._inbox.put(Exited(code))


@contextlib.contextmanager
def signals_to(inbox: Inbox) -> Iterator[None]:
    """While this lasts, SIGINT, SIGTERM and SIGHUP arrive in `inbox` instead of ending the process.

    Those that are ignored stay so: that is how `nohup` and a shell's `&` ask for it.
    """
    caught = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda got, _: inbox.put(Signalled(got))) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
