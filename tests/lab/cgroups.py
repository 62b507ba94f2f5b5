"""The control groups of the lab's node, all below one of its own, in hierarchies of version 1 and 2."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

NAME = "dail-lab"
MOUNTS = Path("/proc/self/mounts")


def roots() -> list[Path]:
    """Our group in every hierarchy of this machine."""
    lines = [line.split() for line in MOUNTS.read_text().splitlines()]
    return [Path(line[1]) / NAME for line in lines if line[2] in ("cgroup", "cgroup2")]


def create() -> None:
    """Makes our group, with every controller that there is."""
    for root in roots():
        unified = root.parent / "cgroup.controllers"
        if unified.exists():
            for controller in unified.read_text().split():
                with contextlib.suppress(OSError):
                    (root.parent / "cgroup.subtree_control").write_text(f"+{controller}")
        root.mkdir(exist_ok=True)
        # A new cpuset of version 1 is empty, and nothing can run in it.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (root / name).exists() and not unified.exists():
                (root / name).write_text((root.parent / name).read_text())


def remove(seconds: float = 300.0) -> None:
    """Kills what runs in our group and removes it."""
    end = time.monotonic() + seconds
    while any(root.exists() for root in roots()) and time.monotonic() < end:
        for root in roots():
            for folder, _, _ in os.walk(root, topdown=False):
                with contextlib.suppress(OSError):
                    for pid in (Path(folder) / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        time.sleep(0.05)
