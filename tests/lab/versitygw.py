"""A real S3 server, versitygw, built from its Go module and run on a loopback port over a folder.

`python -m tests.lab.versitygw` builds it ahead of the tests and prints where it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

MODULE = Path(__file__).parent / "go" / "versitygw"
PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
ACCESS_KEY = "labkey"
SECRET_KEY = "labsecret-not-secret"
REGION = "us-east-1"
START_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    endpoint: str
    """`http://127.0.0.1:PORT`."""
    folder: Path
    """Each sub-folder is a bucket, each file an object."""

    def environment(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}


def have_go() -> bool:
    """Whether the server can be had: it is built already, or Go is here to build it."""
    return _binary().exists() or shutil.which("go") is not None


def build() -> Path:
    """The server's binary; built once per user and version (a few minutes), however many processes ask."""
    binary = _binary()
    if binary.exists():
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (binary.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            print(f"building versitygw into {binary.parent} (a few minutes, once)", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
                made = Path(scratch) / binary.name
                command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", str(made), PACKAGE]
                subprocess.run(command, cwd=MODULE, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
                made.rename(binary)
    return binary


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server over `folder`, until the block ends."""
    data, log = folder / "buckets", folder / "versitygw.log"
    data.mkdir(parents=True)
    for _ in range(3):
        port = _free_port()
        # The flags come in this order: the gateway's own, the back end, the back end's own, its folder.
        command = [str(build()), "--port", f"127.0.0.1:{port}", "--region", REGION, "--keep-alive", "posix", *_metadata(folder), str(data)]
        environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        with log.open("ab") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
            try:
                if _answers(process, port):
                    yield Server(f"http://127.0.0.1:{port}", data)
                    return
            finally:
                process.terminate()
    raise RuntimeError(f"versitygw does not start: {log.read_text()[-2000:]}")


def _binary() -> Path:
    pins = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    return user_cache_path("dail") / "lab" / hashlib.sha256(pins).hexdigest()[:16] / "versitygw"


def _metadata(folder: Path) -> list[str]:
    """Options that put the objects' metadata into files where the file system has no extended attributes."""
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.dail", b"1")
    except (AttributeError, OSError):
        sidecar = folder / "metadata"
        sidecar.mkdir(exist_ok=True)
        return ["--sidecar", str(sidecar)]
    return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    print(build())
