"""A stage process that kills itself: `python -m tests.support.killing N TASK --run URI --job DIGEST`.

It is the real stage process, but for one thing: after the N-th write to the store it gets SIGKILL, as from the kernel's
out-of-memory killer. N counts every put, create and put_file of the process, its own attempt record included, which is written at the
start, at the first progress and at the end, and not every ten seconds: a slow machine is to be killed at the same place.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from dail_runtime.stages import run
from dail_runtime.stages.__main__ import main
from dail_runtime.store.file import FileStore

WRITES = ("put", "create", "put_file")


def kill_after(writes: int, kinds: tuple[type[Any], ...] = (FileStore,)) -> None:
    """Make the process die when `writes` writes to stores of these kinds are complete."""
    run.RECORD_EVERY = float("inf")
    lock = threading.Lock()
    inside = threading.local()
    done = 0

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **named: Any) -> Any:
            nonlocal done
            if getattr(inside, "write", False):
                return method(*args, **named)
            inside.write = True
            try:
                result = method(*args, **named)
            finally:
                inside.write = False
            with lock:
                done += 1
                if done >= writes:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return write

    for kind in kinds:
        for name in WRITES:
            setattr(kind, name, counting(getattr(kind, name)))


def _kinds(uri: str) -> tuple[type[Any], ...]:
    if not uri.startswith("s3://"):
        return (FileStore,)
    from dail_runtime.store.s3 import S3Store

    return (S3Store,)


if __name__ == "__main__":
    arguments = sys.argv[2:]
    kill_after(int(sys.argv[1]), _kinds(arguments[arguments.index("--run") + 1]))
    code = main(arguments)
    sys.stderr.flush()
    os._exit(code)
