"""Free memory of this machine or container, and what running out of it is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dail_runtime.errors import SetupError

_CGROUP = Path("/sys/fs/cgroup")
_FULL = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of main memory that this process can still take: of the machine, or of its container where that allows less."""
    try:
        meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(meminfo["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        # Not Linux: nobody says what is free, half of it is a guess.
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        # What the kernel caches of files counts as used, but is given back on demand.
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return max(0, min(free, limit - used + int(stat.get("inactive_file", 0))))
    except (OSError, ValueError):
        return free


def readable(size: int) -> str:
    """A size in bytes for people: '27 MB', '1.4 GB'."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


@contextmanager
def out_of_memory_says(what: str) -> Iterator[None]:
    """Turn running out of memory inside into a SetupError that says `what` to change."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as err:
        raise SetupError(f"memory ran out; {what}") from err
    except RuntimeError as err:
        # The CPU's allocator has no exception of its own, nor have CUDA's libraries, which allocate beside PyTorch.
        if not any(one in str(err) for one in _FULL):
            raise
        raise SetupError(f"memory ran out; {what}") from err
