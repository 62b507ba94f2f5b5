"""Real vLLM servers for tests: started by `python -m dail_runtime.serve`, one core each, with a small cache."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.folders import ports
from tests.support.stage_process import REPOSITORY

START_SECONDS = 1500.0


@dataclass
class VllmServer:
    """A server process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> VllmServer:
        """Wait until it is ready; fails the test where it ends before that."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=60):
                return self
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.5)
        raise AssertionError(f"the server was not ready within {START_SECONDS:.0f} s:\n{self.log.read_text()[-3000:]}")

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to all of its processes where it is SIGKILL, else to the first; returns the exit code."""
        if self.process.poll() is None:
            if how == signal.SIGKILL:
                os.killpg(self.process.pid, how)
            else:
                self.process.send_signal(how)
        code = self.process.wait(900)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return code


def start_server(words: Sequence[str], log: Path, *, port: int | None = None, module: str = "dail_runtime.serve") -> VllmServer:
    """Start a server and do not wait. `words` name what it serves; those after -- go to vLLM."""
    port = port or ports(1)[0]
    own, cut, vllm = (list(words), [], []) if "--" not in words else _cut(list(words))
    command = [sys.executable, "-m", module, *own, "--host", "127.0.0.1", "--port", str(port), *cut, *vllm]
    # An engine inside this process may have left its own settings here.
    own_processes = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_LOGGING_STREAM": "ext://sys.stdout"}
    environment = {**os.environ, **own_processes, "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return VllmServer(f"http://127.0.0.1:{port}", process, log)


@contextlib.contextmanager
def vllm_server(words: Sequence[str], log: Path, **options: str) -> Iterator[VllmServer]:
    """A server that is ready, until the block ends."""
    server = start_server(words, log, **options)
    try:
        yield server.wait()
    finally:
        server.end()


def _cut(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    place = words.index("--")
    return words[:place], ["--"], words[place + 1 :]
