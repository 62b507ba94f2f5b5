"""A few grading workers, started when first needed, replaced when they die, time out or have served long."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from dail_runtime.errors import SetupError

Outcome = Literal["same", "different", "timeout", "crash"]

_START_SECONDS = 300.0
# sympy and the parser keep caches; a worker that has served this often makes room, so that no answer meets a memory limit filled by others.
_SERVED_MOST = 2000
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")


class Worker:
    """One worker process. Not for use by two threads at once."""

    def __init__(self, seconds: float, megabytes: int) -> None:
        # The environment is cut down: what handles strangers' text has no business with credentials.
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "dail_runtime.evaluate.grading.worker", str(seconds), str(megabytes)]
        # A session of its own: Ctrl-C and signals to the stage's process group are the stage's to handle.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, start_new_session=True
        )
        # Should the clock run on without CPU time being spent (a stopped process), this ends the wait.
        self._patience = 30 + 20 * seconds
        self._ended = False
        self.served = 0
        try:
            if self._read(_START_SECONDS) is None:
                raise SetupError(
                    "the grading worker does not start; install the extra `dail[runtime]` (math-verify), "
                    "or see why with `python -m dail_runtime.evaluate.grading.worker 5 1024`"
                )
        except BaseException:
            self.close()
            raise

    def ask(self, gold: str, answer: str) -> Outcome:
        """Compare; on `timeout` and `crash` the process is gone."""
        assert self._process.stdin is not None
        self.served += 1
        try:
            self._process.stdin.write(json.dumps({"gold": gold, "answer": answer}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._read(self._patience)
        except BrokenPipeError:
            line, self._ended = None, True
        if line is not None:
            return "same" if json.loads(line)["same"] else "different"
        still_running = self._process.poll() is None and not self._ended
        self.close()
        return "timeout" if still_running or self._process.returncode == -signal.SIGPROF else "crash"

    @property
    def usable(self) -> bool:
        """Whether it may be asked again."""
        return self._process.poll() is None and self.served < _SERVED_MOST

    def close(self) -> None:
        """End the process, however busy it is."""
        if self._ended:
            # Its output has ended: let it end by itself, so that its exit status tells why.
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        else:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self, seconds: float) -> bytes | None:
        """The next line, or None where none comes: the process ended, or the time is up."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        line = self._process.stdout.readline()
        self._ended = not line.endswith(b"\n")
        return None if self._ended else line


class WorkerPool:
    """Compares pairs on up to `workers` processes; safe to call from several threads."""

    def __init__(self, *, workers: int, seconds: float, megabytes: int) -> None:
        self._workers, self._seconds, self._megabytes = workers, seconds, megabytes
        # Places, filled or free: whoever holds one may start a worker in it.
        self._places: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._places.put(None)

    def compare(self, pairs: Iterable[tuple[str, str]]) -> list[Outcome]:
        """The outcome of each (gold, answer), in order.

        Raises:
            SetupError: the worker cannot be started.
        """
        todo = list(pairs)
        if len(todo) < 2 or self._workers == 1:
            return [self._compare(pair) for pair in todo]
        with ThreadPoolExecutor(min(self._workers, len(todo))) as threads:
            return list(threads.map(self._compare, todo))

    def close(self) -> None:
        """End every worker."""
        for _ in range(self._workers):
            worker = self._places.get()
            if worker is not None:
                worker.close()
            self._places.put(None)

    def _compare(self, pair: tuple[str, str]) -> Outcome:
        outcome = self._compare_once(pair)
        # Something else may have killed the worker (a system short of memory does): the answer is to blame if it happens again.
        return self._compare_once(pair) if outcome == "crash" else outcome

    def _compare_once(self, pair: tuple[str, str]) -> Outcome:
        worker = self._places.get()
        try:
            if worker is not None and not worker.usable:
                worker.close()
                worker = None
            worker = worker or Worker(self._seconds, self._megabytes)
            return worker.ask(*pair)
        except BaseException:
            # A reply may be under way that belongs to this question: nobody may read it as the next one's.
            if worker is not None:
                worker.close()
                worker = None
            raise
        finally:
            self._places.put(worker)
