"""How far an evaluation is and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dail_runtime.stages.base import Progress


class Meter:
    """Counts tokens and reports progress; stops the work where the stage was asked to stop."""

    def __init__(self, progress: Progress, check_stop: Callable[[], None]) -> None:
        self._progress = progress
        self.check_stop = check_stop
        self.tokens = 0
        """Tokens of the responses that came back."""
        self.seconds = 0.0
        """Time that generating them took."""
        self._before = self._done = self._total = 0
        self._unit, self._each, self._start, self._tokens = "", 1, 0.0, 0

    @contextmanager
    def generating(self, *, done: int, total: int, unit: str, each: int) -> Iterator[None]:
        """The time in which an engine generates: `done` of `total` units are there already, and a unit takes `each` responses."""
        self._before = self._done = done
        self._total, self._unit, self._each, self._tokens = total, unit, each, 0
        self._start = time.monotonic()
        try:
            yield
        finally:
            self.tokens += self._tokens
            self.seconds += time.monotonic() - self._start

    def add(self, tokens: int) -> None:
        """One more unit is done; its responses have so many tokens."""
        self._done += 1
        self._tokens += tokens
        self._update(self._done, self._tokens)

    def tick(self, responses: int, tokens: int) -> None:
        """For the engine to call while it generates (see `engine.Tick`)."""
        self.check_stop()
        self._update(max(self._done, min(self._before + responses / self._each, self._total)), tokens)

    def _update(self, done: float, tokens: int) -> None:
        self._progress.update(done, self._total, self._unit, tokens_per_s=tokens / max(time.monotonic() - self._start, 1e-9))
