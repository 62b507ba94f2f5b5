"""Processes of a lab: recorded in its folder, so that whoever comes later, another process too, can stop and restart them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

START_SECONDS = 900.0
STOP_SECONDS = 10.0
GONE_SECONDS = 120.0
"""In which the kernel has ended what it was told to, on any machine."""
POLL_SECONDS = 0.05


class LabError(RuntimeError):
    """The lab cannot do what was asked; the message says why, in a sentence."""


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: int
    """Field 22 of /proc/PID/stat (proc(5)): clock ticks after boot."""

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The living process of this number; None where there is none, or only a zombie.

        While other threads of it still end, its first thread may be a zombie already: then its ports and files are still open.
        """
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        state, threads = fields[0], int(fields[17])
        return None if state == "Z" and threads <= 1 else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return Process.of(self.pid) == self

    def end(self, how: signal.Signals, seconds: float) -> None:
        """Sends the signal, waits, and kills what stays. Returns when the process is gone."""
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, how)
        if not wait_until(lambda: not self.alive, seconds):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: not self.alive, GONE_SECONDS)


def owned_by(owner: int) -> list[str]:
    """What to run a command with so that the kernel kills it when `owner`, the process that starts it, dies.

    A parent that died before the kernel was told (prctl(2), PR_SET_PDEATHSIG) sends nothing; so the command
    runs only where the parent, asked afterwards, is still the owner.
    """
    if not shutil.which("setpriv"):
        return []
    return ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", f'[ "$PPID" = {owner} ] && exec "$@"', "owned"]


def wait_until(ready: Callable[[], object], seconds: float) -> bool:
    """Whether `ready` came true within that time."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


@dataclass(frozen=True)
class Component:
    """One program of a lab."""

    name: str
    folder: Path
    """NAME.json and NAME.log are written there."""

    @classmethod
    def launch(
        cls, folder: Path, name: str, command: Sequence[object], environment: dict[str, str] | None = None, *, owned: bool = True
    ) -> Component:
        """Starts `command`. Where `owned`, the kernel kills it when the process that started it dies, however that happens."""
        component = cls(name, folder)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"command": [str(word) for word in command], "environment": environment or {}, "owned": owned, "launched": time.time_ns()}
        component._write(record)
        component.start()
        return component

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / f"{self.name}.log"

    @property
    def launched(self) -> int:
        """When it was launched first, in nanoseconds of the epoch."""
        return int(self._read()["launched"])

    @property
    def process(self) -> Process | None:
        """The process, while it runs."""
        process = self._read().get("process")
        found = Process(**process) if process else None
        return found if found and found.alive else None

    def start(self) -> None:
        """Starts it, with the command it was launched with, unless it runs."""
        if self.process:
            return
        record = self._read()
        guard = owned_by(os.getpid()) if record["owned"] else []
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                [*guard, *record["command"]],
                env={**os.environ, **record["environment"]},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        child.returncode = 0  # Reaped by Process.alive, whichever process asks; Popen is not to warn of it.
        process = Process.of(child.pid)
        self._write({**record, "process": process and {"pid": process.pid, "started": process.started}})

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """Ends it with this signal; after `seconds` with SIGKILL."""
        if process := self.process:
            process.end(how, seconds)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self.stop(signal.SIGKILL)

    def wait(self, ready: Callable[[], object], seconds: float = START_SECONDS) -> None:
        """Waits until it is ready; LabError with the end of its log where it ends before or takes too long."""
        wait_until(lambda: self.process is None or ready(), seconds)
        if self.process is None:
            raise LabError(f"{self.name} ended at its start: {self._tail()}")
        if not ready():
            raise LabError(f"{self.name} is not ready after {seconds:.0f} s: {self._tail()}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]

    def _read(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / f"{self.name}.json").read_text()))

    def _write(self, record: dict[str, Any]) -> None:
        partial = self.folder / f".{self.name}.json"
        partial.write_text(json.dumps(record))
        partial.replace(self.folder / f"{self.name}.json")


class Launch(Protocol):
    """How a lab starts one of its programs: name, options, and, as keywords, environment variables."""

    def __call__(self, name: str, *options: object, **environment: str) -> Component:
        """The started component."""


def components(folder: Path) -> list[Component]:
    """The components recorded in `folder`, in the order of their launch."""
    found = [Component(path.stem, folder) for path in folder.glob("[a-z]*.json")]
    return sorted(found, key=lambda component: component.launched)
