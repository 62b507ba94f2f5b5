"""A real S3 server, versitygw, on a loopback port over a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import folders
from tests.lab.binaries import program

ACCESS_KEY = "labkey"
SECRET_KEY = "labsecret-not-secret"
REGION = "us-east-1"
START_SECONDS = 300.0


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


@contextlib.contextmanager
def running(folder: Path, address: str = "127.0.0.1", port: int | None = None) -> Iterator[Server]:
    """A server over `folder` on an address of this machine (on a free port where none is given), until the block ends.

    Raises RuntimeError, with what it said, where it does not start.
    """
    log = folder / "versitygw.log"
    for _ in range(3):
        chosen = port or folders.ports(1)[0]
        words, environment = options(folder, address, chosen)
        with (
            log.open("ab") as output,
            subprocess.Popen([program("versitygw"), *words], env={**os.environ, **environment}, stdout=output, stderr=output) as process,
        ):
            try:
                if _starts(process, address, chosen):
                    yield Server(f"http://{address}:{chosen}", folder / "buckets")
                    return
            finally:
                process.terminate()
    said = [line for line in log.read_text().splitlines() if line.strip()]
    raise RuntimeError(f"versitygw does not start on {address}: {said[-1] if said else 'it says nothing'}")


def options(folder: Path, address: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Options and environment of a server over `folder`/buckets."""
    data = folder / "buckets"
    data.mkdir(parents=True, exist_ok=True)
    # The flags come in this order: the gateway's own, the back end, the back end's own, its folder.
    words = ["--port", f"{address}:{port}", "--region", REGION, "--keep-alive", "posix", *_metadata(folder), str(data)]
    return words, {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}


def answers(address: str, port: int) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


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


def _starts(process: subprocess.Popen[bytes], address: str, port: int) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if answers(address, port):
            return True
        time.sleep(0.05)
    return False
