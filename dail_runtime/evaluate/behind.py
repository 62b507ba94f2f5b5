"""Work done behind the engine's back, so that grading and storing one problem never holds up the sampling of the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

_WAITING_MOST = 16


class Behind:
    """One thread that does jobs in the order they come. Leaving the context waits for all of them, also after an error."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._jobs: deque[Future[None]] = deque()

    def do(self, job: Callable[[], None]) -> None:
        """Queue `job`; waits where too many are queued, and raises what an earlier one raised."""
        while self._jobs and (self._jobs[0].done() or len(self._jobs) >= _WAITING_MOST):
            self._jobs.popleft().result()
        self._jobs.append(self._thread.submit(job))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()
        if kind is None:
            while self._jobs:
                self._jobs.popleft().result()
