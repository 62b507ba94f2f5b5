"""Where the file store keeps digests: `.dail/NAME.sha256` beside the file NAME, one hex digest a line, newest last.

The file only grows while writers may be between "record the digest" and "rename the content", so that whichever content
a reader finds, its digest is there. It is cut to the newest one under the folder's lock.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dail_runtime.store import disk
from dail_runtime.store.keys import RESERVED

KEPT = 8
"""With more digests than this, the old ones are forgotten."""

_DIGEST = re.compile(rb"^[0-9a-f]{64}$", re.MULTILINE)


def hidden_folder(path: Path) -> Path:
    """Where the digest and the unfinished writes of `path` are."""
    return path.parent / RESERVED


def read_digests(path: Path) -> set[str]:
    """Every digest that the content of `path` may have; none for a file that the store did not write."""
    try:
        return {line.decode() for line in _DIGEST.findall(_file_of(path).read_bytes())}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def add_digest(path: Path, digest: str) -> int:
    """Records that `path` may have content with this digest from now on; gives how many digests it may have."""
    fd = os.open(_file_of(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    with os.fdopen(fd, "r+b", buffering=0) as file:
        digests = set(_DIGEST.findall(file.read()))
        if digest.encode() in digests:
            return len(digests)
        # The line break in front ends a line that a full disk has cut.
        disk.write_all(fd, f"\n{digest}\n".encode())
        if digests:
            # A first digest that a power cut takes leaves content unchecked; older digests alone would refute it.
            os.fsync(fd)
        return len(digests) + 1


def forget_old_digests(path: Path, digest: str) -> None:
    """Keeps `digest` alone. Only under the folder's lock: no other writer may be between its record and its rename."""
    temp, fd = disk.open_temp(hidden_folder(path))
    try:
        disk.write_chunks(fd, [f"{digest}\n".encode()])
        temp.replace(_file_of(path))
    finally:
        os.close(fd)
        temp.unlink(missing_ok=True)


def drop_digests(path: Path) -> None:
    """Forgets all digests of `path`; no error where there are none."""
    _file_of(path).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Holds the writers' lock of a hidden folder; yields False where the file system has no locks (old digests stay then)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield disk.lock(fd, wait=True)
    finally:
        os.close(fd)


def _file_of(path: Path) -> Path:
    return hidden_folder(path) / f"{path.name}.sha256"
