"""Several ranks as forks of the test process, which has paid for the imports: real gloo between real processes on loopback."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tests.lab.folders import ports

LIMIT = 1200.0
"""Seconds after which ranks that still run are killed, and the test fails."""


def start_ranks(size: int, body: Callable[[int], Any]) -> list[Fork]:
    """Fork `size` processes that have torchrun's environment and call `body(rank)`."""
    (port,) = ports(1)
    variables = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [Fork({**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}, lambda rank=rank: body(rank)) for rank in range(size)]


def run_ranks(size: int, body: Callable[[int], Any]) -> list[Any]:
    """What `body(rank)` returns in each of `size` ranks; fails the test where one of them raises."""
    forks = start_ranks(size, body)
    codes = wait_all(forks)
    assert codes == [0] * size, f"exit codes of the ranks: {codes}"
    return [fork.result() for fork in forks]


def wait_all(forks: Sequence[Fork], limit: float = LIMIT) -> list[int]:
    """The exit codes of all, -9 for SIGKILL."""
    until = time.monotonic() + limit
    while any(fork.code is None for fork in forks):
        if time.monotonic() > until:
            for fork in forks:
                fork.kill(signal.SIGKILL)
        for fork in forks:
            fork.poll()
        time.sleep(0.01)
    return [fork.code or 0 for fork in forks]


class Fork:
    """A child process."""

    def __init__(self, variables: dict[str, str], body: Callable[[], Any]) -> None:
        """`body` runs in the child; what it returns comes back, an exception ends it with 1."""
        self.code: int | None = None
        self.ended_at = 0.0
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                # What the parent left behind is not this process's to take down: its threads are not here.
                gc.freeze()
                os.close(self._read)
                os.environ.update(variables)
                torch.set_num_threads(1)  # a fork has none of the threads of its parent's pools
                made = body()
                with os.fdopen(write, "wb") as pipe:
                    pickle.dump(made, pipe)
                code = 0
            except SystemExit as err:
                code = int(err.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)

    def poll(self) -> None:
        """Notice where it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self.ended_at = os.waitstatus_to_exitcode(status), time.monotonic()

    def kill(self, number: int) -> None:
        """Send it a signal, where it still runs."""
        self.poll()
        if self.code is None:
            os.kill(self.pid, number)

    def result(self) -> Any:
        """What its body returned."""
        with os.fdopen(self._read, "rb") as pipe:
            return pickle.load(pipe)
