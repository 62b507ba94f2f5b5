"""The laptop's side of a run on a cluster: dailctl as a person types it, also when its process is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.stage_process import REPOSITORY

SUBMIT_SECONDS = 180.0


@dataclass(frozen=True)
class Laptop:
    """Who submits a job, and to where."""

    kubeconfig: Path
    namespace: str
    environment: Mapping[str, str]
    """Credentials and address of the storage."""
    job: Path
    settings: tuple[str, ...]
    """Settings of the job, as `--set` takes them."""

    def submit(self, *words: str) -> list[str]:
        """The command that submits the job."""
        where = ["--namespace", self.namespace, "--kubeconfig", str(self.kubeconfig)]
        return ["submit", "-f", str(self.job), *(word for one in self.settings for word in ("--set", one)), *where, *words]

    def run(self, *words: str | Path, timeout: float = 300) -> str:
        """Standard output of `dailctl WORDS`; AssertionError with what it said where it fails."""
        done = subprocess.run(
            self._command(*words), env=self._environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"dailctl {words[0]} ended with {done.returncode}: {done.stderr[-4000:]}"
        return done.stdout

    def submit_and_die(self, submitted: Callable[[], bool], folder: Path) -> str:
        """Submits with --wait and kills that process (SIGKILL) once `submitted` says that the run is there: what it had printed."""
        talk = folder / "submit.txt"
        with talk.open("w") as output:
            process = subprocess.Popen(
                self._command(*self.submit("--wait", "--yes")),
                env=self._environment(),
                cwd=REPOSITORY,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            end = time.monotonic() + SUBMIT_SECONDS
            while not submitted():
                ended = process.poll()
                assert ended is None, f"dailctl submit ended with {ended} before the run was there:\n{talk.read_text()}"
                assert time.monotonic() < end, f"dailctl submit did not get done:\n{talk.read_text()}"
                time.sleep(0.2)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return talk.read_text()

    def _command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "dailctl", *map(str, words)]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}
