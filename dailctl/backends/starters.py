"""How stage processes come into being: each from a Python of its own, or forked from one that has the libraries loaded."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

STAGE_COMMAND = (sys.executable, "-P", "-m", "dail_runtime.stages")
"""-P: a torch.py in the user's folder must not be taken for the library."""
WARM_COMMAND = (sys.executable, "-P", "-m", "dail_runtime.stages.warm")


class Child(Protocol):
    """A started stage process, the head of a process group of its own."""

    def wait(self) -> int:
        """Wait until it is gone; returns its exit code, -N for signal N."""
        ...

    def terminate(self) -> None:
        """SIGTERM: save and end. Nothing where it has ended."""
        ...

    def kill(self) -> None:
        """SIGKILL to its whole group. Nothing where it has ended."""
        ...


class Starter(Protocol):
    """Starts stage processes, one at a time."""

    def start(self, arguments: Sequence[str], *, stdout: int, stderr: int) -> Child:
        """A process that does `arguments` (those of `dail_runtime.stages`) and writes to these descriptors."""
        ...

    def close(self) -> None:
        """Free what the starter itself keeps."""
        ...


class Fresh:
    """A new Python for each process: works everywhere, and loads the libraries every time."""

    def __init__(self, environment: Mapping[str, str], inherit: Sequence[int], command: Sequence[str] = STAGE_COMMAND) -> None:
        self._environment, self._inherit, self._command = environment, tuple(inherit), tuple(command)

    def start(self, arguments: Sequence[str], *, stdout: int, stderr: int) -> Child:
        """See Starter."""
        return _Started(_popen([*self._command, *arguments], self._environment, self._inherit, stdout=stdout, stderr=stderr))

    def close(self) -> None:
        """See Starter."""


class _Started:
    """A process that Popen started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._ended = False

    def wait(self) -> int:
        code = self._process.wait()
        # Workers of a killed stage live on, and hold its output open.
        self.kill()
        self._ended = True
        return code

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        if not self._ended:
            _kill_group(self._process.pid)


class Warm:
    """Processes forked from one that loads the libraries once (dail_runtime.stages.warm); it starts with the first of them."""

    def __init__(self, environment: Mapping[str, str], inherit: Sequence[int], command: Sequence[str] = WARM_COMMAND) -> None:
        self._environment, self._inherit, self._command = environment, tuple(inherit), tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def start(self, arguments: Sequence[str], *, stdout: int, stderr: int) -> Child:
        """See Starter."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._begin()
        assert self._process is not None
        assert self._requests is not None
        # Where it has just died, the child finds out.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._requests, [json.dumps(list(arguments)).encode()], [stdout, stderr])
        return _Forked(self._process, self._requests)

    def close(self) -> None:
        """See Starter."""
        if self._requests is not None:
            self._requests.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._requests = None

    def _begin(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _popen(
                [*self._command, str(theirs.fileno())],
                self._environment,
                (*self._inherit, theirs.fileno()),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


class _Forked:
    """A child of the warm process, which tells of its beginning and end."""

    def __init__(self, parent: subprocess.Popen[bytes], replies: socket.socket) -> None:
        self._parent, self._replies = parent, replies
        self._lock = threading.Lock()
        self._forks = False
        self._pid: int | None = None
        self._asked: signal.Signals | None = None
        self._ended = False

    def wait(self) -> int:
        if self._reply().get("loaded"):
            with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._forks = True
                self._replies.send(b"fork")
        pid = self._reply().get("pid")
        with self._lock:
            self._pid = pid
            if pid is not None and self._asked is not None:
                self._signal(pid, self._asked)
        code = self._reply().get("code") if pid is not None else None
        with self._lock:
            if code is None and pid is not None:
                _kill_group(pid)
            # From here on its number may be another process's.
            self._ended = True
        # Without an answer the parent is dead, and its child with it: what ended the one ended both.
        return code if code is not None else (self._parent.wait() or 1)

    def terminate(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        with self._lock:
            if self._ended:
                return
            if not self._forks:
                # Still loading libraries: there is nothing to save.
                self._parent.kill()
            elif self._pid is None:
                # It is being forked, and gets the signal as soon as its number is known.
                self._asked = number
            else:
                self._signal(self._pid, number)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        if number == signal.SIGKILL:
            _kill_group(pid)
        # Also where it does not head its group yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _reply(self) -> dict[str, Any]:
        try:
            message = self._replies.recv(4096)
        except ConnectionResetError:
            message = b""
        return json.loads(message) if message else {}


def starter(environment: Mapping[str, str], inherit: Sequence[int]) -> Starter:
    """What suits this machine: macOS and Windows cannot fork a process that has loaded such libraries."""
    return Warm(environment, inherit) if sys.platform == "linux" else Fresh(environment, inherit)


def _popen(command: Sequence[str], environment: Mapping[str, str], inherit: Sequence[int], *, stdout: int, stderr: int) -> Any:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
        pass_fds=inherit,
        # A group of its own: Ctrl-C in the terminal reaches dailctl alone, which then lets the stage save.
        start_new_session=True,
    )


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
