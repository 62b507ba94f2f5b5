"""The folders of labs: one each, with its owner written down, so that the next lab to start can remove what a killed test left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import socket
import tempfile
import uuid
from pathlib import Path

from tests.lab.components import Process, components

ROOT = Path(tempfile.gettempdir()) / f"dail-lab-{os.getuid()}"
DETACHED = "detached"


def new_folder(*, owned: bool) -> Path:
    """A folder for a lab that ends with this process, or, where not `owned`, with `dismantle`."""
    ROOT.mkdir(mode=0o700, exist_ok=True)
    sweep()
    folder = ROOT / uuid.uuid4().hex[:8]
    folder.mkdir(mode=0o700)
    claim(folder, owned=owned)
    return folder


def claim(folder: Path, *, owned: bool) -> None:
    """Writes down whose the folder is."""
    mine = Process.of(os.getpid())
    partial = folder / ".owner"
    partial.write_text(json.dumps({"pid": mine.pid, "started": mine.started}) if owned and mine else DETACHED)
    # Whole or not there: another lab may look at this moment.
    partial.replace(folder / "owner")


def abandoned(folder: Path) -> bool:
    """Whether the process that started the lab is gone."""
    try:
        owner = (folder / "owner").read_text()
    except FileNotFoundError:
        return False  # being made at this moment
    return owner != DETACHED and not Process(**json.loads(owner)).alive


def sweep() -> None:
    """Removes every lab whose owner is gone."""
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in ROOT.iterdir():
            if folder.is_dir() and abandoned(folder):
                dismantle(folder)


def dismantle(folder: Path) -> None:
    """Ends the lab's processes, last started first, and removes its folder."""
    for component in reversed(components(folder / "components")):
        component.kill()
    # A folder that is half gone must not be taken for one that is being made.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def ports(count: int) -> list[int]:
    """Free ports of the loopback interface, below those that the kernel hands to outgoing connections: a server that is restarted finds
    its own port free again."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in found:
                    found.append(port)
    return found
