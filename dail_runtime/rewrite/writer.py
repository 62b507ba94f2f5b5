"""Writes objects from a few threads, so that the time a store takes to answer does not hold up the model."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from dail_runtime.store import ObjectInfo, Store

_THREADS = 8
_WAITING_MOST = 64


class Writer:
    """Puts objects in no particular order. Leaving the context waits for all of them, also after an error."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(_THREADS)
        self._puts: deque[Future[ObjectInfo]] = deque()

    def put(self, key: str, data: bytes) -> None:
        """Queue one object; waits where too many are queued, and raises what an earlier one raised."""
        while self._puts and (self._puts[0].done() or len(self._puts) >= _WAITING_MOST):
            self._puts.popleft().result()
        self._puts.append(self._threads.submit(self._store.put, key, data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown()
        if kind is None:
            while self._puts:
                self._puts.popleft().result()
