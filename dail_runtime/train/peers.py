"""How training processes watch over each other: who was asked to stop, who ended and why, who has not been heard of.

Collectives alone are no way to learn of a lost process: NCCL waits ten minutes for it. So a thread of every rank keeps in touch
through the key-value store that the ranks met at, which rank 0 (or torchrun) serves.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

from torch._C._distributed_c10d import Store

from dail_runtime.errors import DailError, TransientError, of_code
from dail_runtime.train.ranks import Place

EVERY = 1.0
"""Seconds between two looks at the store."""
SILENCE = 60.0
"""Seconds without a sign of life after which a rank counts as lost; one whose process ended is noticed at once."""
LEAVING = 5.0
"""Seconds a rank gets to come out of what it is doing, once another one is lost, before its process is ended."""

_STOP, _ENDED, _DONE = "dail/stop", "dail/ended", "dail/done"


class Peers:
    """This rank's view of the others."""

    def __init__(self, store: Store, place: Place, stop: threading.Event, abandon: Callable[[DailError], None]) -> None:
        """
        Args:
            store: A connection of its own to the key-value store.
            place: This process.
            stop: Set here when any rank was asked to stop; when set by this rank's signals, the others are told.
            abandon: Ends this process at once with an error, for a main thread that is stuck waiting for a lost rank.

        Raises:
            TransientError: the store belongs to an earlier start of these ranks, whose end it now learns of.
        """
        self._store, self._place, self._stop, self._abandon = store, place, stop, abandon
        self._lost: DailError | None = None
        self._over = threading.Event()
        self._noticed = threading.Event()
        if store.add(f"dail/joined/{place.rank}", 1) != 1:
            error = TransientError(f"rank {place.rank} was started again while the other ranks still waited for its former self")
            self.tell(error)
            raise error
        # The first sign of life, at once: a rank that stands still right after it has joined is missed like any other.
        store.add(f"dail/alive/{place.rank}", 1)
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def tell(self, error: DailError) -> None:
        """Let every rank know that this one ends, and why. The first to tell is believed."""
        report = {"rank": self._place.rank, "message": str(error), "exit": error.exit_code}
        try:
            if self._store.add(f"{_ENDED}/count", 1) == 1:
                self._store.set(_ENDED, json.dumps(report))
        except RuntimeError:
            # Rank 0 is gone: the others learn it from the same silence.
            return

    def reason(self, patience: float = 3.0) -> DailError | None:
        """Why another rank ended, where one did; waits a little for the news to arrive."""
        self._noticed.wait(patience)
        return self._lost

    def leave(self) -> None:
        """Part in peace: rank 0 says that everything is written, the others wait until it has."""
        if self._place.lead:
            self._store.set(_DONE, "1")
            until = time.monotonic() + LEAVING
            while self._store.add("dail/seen", 0) < self._place.size - 1 and time.monotonic() < until:
                time.sleep(0.05)
        else:
            while not self._store.check([_DONE]):
                if self._lost is not None:
                    raise self._lost
                time.sleep(0.2)
            self._store.add("dail/seen", 1)
        self.close()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join(2 * EVERY)

    def _watch(self) -> None:
        heard: dict[int, tuple[int, float]] = {}
        told = False
        while not self._over.wait(EVERY):
            try:
                self._store.add(f"dail/alive/{self._place.rank}", 1)
                if self._stop.is_set() and not told:
                    self._store.set(_STOP, "1")
                    told = True
                elif self._store.check([_STOP]):
                    self._stop.set()
                if self._place.lead:
                    self._listen(heard)
                if self._store.check([_ENDED]):
                    self._end(_report(self._store.get(_ENDED), self._place))
                    return
            except RuntimeError as err:
                # The store's client raises this when its server is gone.
                if not self._over.is_set():
                    self._end(TransientError(f"rank {self._place.rank} lost the connection to rank 0 ({str(err).splitlines()[0]})"))
                return

    def _listen(self, heard: dict[int, tuple[int, float]]) -> None:
        """Rank 0: notice who has gone silent."""
        now = time.monotonic()
        for rank in range(1, self._place.size):
            count = self._store.add(f"dail/alive/{rank}", 0)
            before, when = heard.get(rank, (-1, now))
            heard[rank] = (count, when if count == before else now)
            # A rank that never joined is still on its way; meeting has a time limit of its own.
            if count == before > 0 and now - when > SILENCE:
                self.tell(TransientError(f"rank {rank} has not been heard of for {SILENCE:.0f} s; its machine may be lost"))

    def _end(self, error: DailError) -> None:
        self._lost = error
        self._noticed.set()
        if not self._over.wait(LEAVING):
            self._abandon(error)


def _report(stored: bytes, place: Place) -> DailError:
    """The error this rank ends with because of another's: the same exit code, so that whoever decides on a retry sees one verdict."""
    report = json.loads(stored)
    if report["rank"] == place.rank:
        return of_code(report["exit"], report["message"])
    return of_code(report["exit"], f"rank {report['rank']} of {place.size} ended: {report['message']}")
