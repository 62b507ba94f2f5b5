"""A process that loads the libraries once and forks each task's process from itself: `python -m dail_runtime.stages.warm SOCKET`.

Loading torch and transformers costs seconds; a job has a dozen tasks. A forked process starts at once, and is as much on its own as
any other: own memory, own process group, gone when it ends. Forking is sound only while there is one thread and no device in use,
so this process loads modules and does nothing else; all work is in its children. Linux only.

SOCKET is the number of an inherited Unix socket that keeps messages apart (SOCK_SEQPACKET). A request is a JSON list, the arguments
of `dail_runtime.stages`, and with it come the descriptors of the child's standard output and standard error. The replies are
`{"loaded": true}`, after which it waits for one more message, `{"pid": N}` once the child is forked and `{"code": N}` once it and its
process group are gone (-N for signal N): so whoever asks knows for certain whether there is a child when it wants to end one. The end of
the requests ends this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from dail_runtime.stages.__main__ import main

# The worker threads of numpy's matrix library would be there before the first fork; stages multiply with torch.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

LARGEST = 1 << 16
"""Bytes of one request at most."""
LIBRARIES = ("transformers.generation.utils", "transformers.models.auto.modeling_auto", "peft")
"""What stages import only when they are at work, and what takes long."""
_PR_SET_PDEATHSIG = 1


def load(arguments: Sequence[str]) -> None:
    """Import what the task named by the first argument will, so that it and all later ones have it."""
    stage = arguments[0].split("/")[0]
    importlib.import_module(f"dail_runtime.stages.{stage}")
    if "transformers" in sys.modules:
        for library in LIBRARIES:
            importlib.import_module(library)


def serve(requests: socket.socket, run: Callable[[list[str]], int], load: Callable[[Sequence[str]], None]) -> None:
    """Answer requests until they end.

    Args:
        requests: The socket.
        run: Called in the child with the arguments; returns its exit code.
        load: Called before the fork with the arguments. What it raises is left to the child, which will meet it again and report it.
    """
    # A killed dailctl takes this process along; the child then gets SIGTERM, and saves.
    _follow_parent(signal.SIGKILL)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 2)
        if not message:
            return
        arguments: list[str] = json.loads(message)
        output, talk = descriptors
        # What the imports print belongs into the task's log.
        os.dup2(talk, 1)
        os.dup2(talk, 2)
        with contextlib.suppress(Exception):
            load(arguments)
        # Objects that the garbage collector never visits stay in pages that parent and children share.
        gc.collect()
        gc.freeze()
        _tell(requests, loaded=True)
        if not requests.recv(LARGEST):
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            requests.close()
            _be_the_child(parent, output, run, arguments)
        for descriptor in descriptors:
            os.close(descriptor)
        _tell(requests, pid=pid)
        _tell(requests, code=_wait(pid))


def _be_the_child(parent: int, output: int, run: Callable[[list[str]], int], arguments: list[str]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _follow_parent(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        os.dup2(output, 1)
        os.close(output)
        random.seed()
        code = run(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # Not sys.exit: nothing of the parent's may run here, and no lingering thread keeps a finished stage alive.
        os._exit(code)


def _follow_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _wait(pid: int) -> int:
    """The exit code of the child, after ending everything it left behind in its process group."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    # Not reaped yet, so that its number still means its group alone.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _tell(requests: socket.socket, **reply: int) -> None:
    # A reader that is gone has no use for the rest; the end of the requests comes next.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        requests.sendall(json.dumps(reply).encode())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        serve(inherited, main, load)
