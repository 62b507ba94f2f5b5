"""The rank processes of one machine: started together, ended together, and the exit code of the one that is to blame."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dail_runtime.errors import Interrupted

TOGETHER = 60.0
"""Seconds that ranks get to end by themselves once one has failed: rank 0 then has the reason on record."""
WAKE = 0.5
"""Seconds after which a signal is heard at the latest: Python calls no handler for one that comes just before its main thread begins to
wait."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class _Ended:
    """A process ended."""

    number: int
    code: int


@dataclass(frozen=True)
class _Signal:
    """This process got a signal."""

    number: int


def run_ranks(command: Sequence[str], environments: Sequence[Mapping[str, str]], *, grace: float) -> int:
    """Run `command` once per environment and wait for all; returns the exit code of the first that failed, else 0.

    Lines that the first process writes to standard output go to this one's; of error events only that of the process to blame.
    SIGTERM and SIGINT are handed on as SIGTERM; whoever lives `grace` seconds later is killed. A code of 128 + N means signal N.
    """
    inbox: queue.SimpleQueue[_Ended | _Signal] = queue.SimpleQueue()
    with _signals_to(inbox):
        ranks = [_Rank(number, command, {**_threads(len(environments)), **one}, inbox) for number, one in enumerate(environments)]
        try:
            code, blamed = _until_all_ended(ranks, inbox, grace)
        finally:
            for rank in ranks:
                rank.kill()
        for rank in ranks:
            rank.reader.join(5)
    if code:
        _report(ranks[blamed], code)
    return code


class _Rank:
    """One process."""

    def __init__(
        self, number: int, command: Sequence[str], environment: Mapping[str, str], inbox: queue.SimpleQueue[_Ended | _Signal]
    ) -> None:
        self.number, self.name = number, environment["RANK"]
        self.error: dict[str, Any] | None = None
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            preexec_fn=functools.partial(_end_with_parent, os.getpid()) if sys.platform == "linux" else None,
        )
        self._inbox = inbox
        self.reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Begin to read what it says and to wait for its end."""
        self.reader.start()
        threading.Thread(target=self._wait, daemon=True).start()

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()

    def kill(self) -> None:
        """SIGKILL, where it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(RecursionError, ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "error":
                    self.error = event
                    continue
            if self.number == 0:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()

    def _wait(self) -> None:
        self._inbox.put(_Ended(self.number, self.process.wait()))


def _until_all_ended(ranks: Sequence[_Rank], inbox: queue.SimpleQueue[_Ended | _Signal], grace: float) -> tuple[int, int]:
    """(exit code, number of the process it is from)."""
    for rank in ranks:
        rank.start()
    left = {rank.number for rank in ranks}
    code = blamed = 0
    stopping = False
    deadline: float | None = None
    while left:
        try:
            item = inbox.get(timeout=WAKE)
        except queue.Empty:
            if deadline is not None and time.monotonic() >= deadline:
                for number in left:
                    ranks[number].kill()
                deadline = None
            continue
        if isinstance(item, _Signal):
            if not stopping:
                stopping, deadline = True, time.monotonic() + grace
                for number in left:
                    ranks[number].ask_to_stop()
            continue
        left.discard(item.number)
        ended = item.code if item.code >= 0 else 128 - item.code
        # A rank that was stopped with the others is to blame for nothing, unless there is nobody else.
        if ended and (not code or (code == Interrupted.exit_code and ended != code)):
            code, blamed = ended, item.number
        if ended not in (0, Interrupted.exit_code) and not stopping and deadline is None:
            deadline = time.monotonic() + TOGETHER
    return code, blamed


def _report(rank: _Rank, code: int) -> None:
    """The one error event: the rank's own, or what there is to say about a rank that could say nothing."""
    event = rank.error
    if event is None:
        how = f"was killed by {signal.Signals(code - 128).name}" if code > 128 else f"ended with exit code {code}"
        why = ", most likely because memory ran out" if code == 128 + signal.SIGKILL else ""
        event = {"event": "error", "kind": "RankFailed", "message": f"rank {rank.name} {how}{why}; its log says more", "exit": code}
    print(json.dumps(event, ensure_ascii=False), flush=True)


@contextlib.contextmanager
def _signals_to(inbox: queue.SimpleQueue[_Ended | _Signal]) -> Iterator[None]:
    caught = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda got, _: inbox.put(_Signal(got))) for number in caught]
    try:
        yield
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)


def _threads(processes: int) -> dict[str, str]:
    """The cores, shared out, where nobody decided: every process would otherwise start a thread for each core."""
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes))}


def _end_with_parent(launcher: int) -> None:
    """SIGTERM when the launcher dies, however it dies: ranks nobody waits for must not go on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher:
        # It died before the kernel was told.
        os._exit(1)
