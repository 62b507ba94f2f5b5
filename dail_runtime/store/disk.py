"""Safe steps on a disk: whole-or-nothing files, names that survive a power cut, operating-system errors as sentences."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from dail_runtime.errors import DailError, StoreError, TransientError

CHUNK = 1 << 20
"""Bytes read and written at once."""

TEMP_SUFFIX = ".part"
QUIET_SECONDS = 60.0
"""A temporary file without a lock is left alone until nobody wrote to it for this long."""
LOST_SECONDS = 24 * 3600.0
"""The same, where the file system has no locks that could tell whether the writer lives."""

_FOLDER_TRIES = 20
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_PASSING = {
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH),
}


@contextlib.contextmanager
def disk_errors(place: object) -> Iterator[None]:
    """Turns an OSError in the block into a StoreError or TransientError about `place`."""
    try:
        yield
    except OSError as err:
        raise disk_error(err, place) from err


def disk_error(err: OSError, place: object) -> DailError:
    """One sentence for `err`: where, what, remedy."""
    if err.errno in _FULL:
        return StoreError(
            f"{place} cannot be written: the disk or the quota is full; what was there is unchanged; free space or choose another place"
        )
    if err.errno == errno.EFBIG:
        return StoreError(f"{place} is larger than this file system allows a file to be; choose another place")
    if err.errno in _FORBIDDEN:
        return StoreError(f"{place}: no permission ({_reason(err)}); give this user the right to it or choose another place")
    if err.errno == errno.ENAMETOOLONG:
        return StoreError(f"{place}: the path is longer than this file system allows; use a shorter folder or shorter names")
    if err.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
        return StoreError(f"{place}: a file and a folder cannot have the same name ({_reason(err)}); remove the one that is in the way")
    if err.errno == errno.ENOENT:
        return StoreError(f"{place}: no such file or folder; check the path")
    if err.errno == errno.ELOOP:
        return StoreError(f"{place}: symbolic links that lead in a circle; remove them")
    if err.errno in _PASSING:
        return TransientError(f"{place}: {_reason(err)}, which may pass; try again")
    return StoreError(f"{place}: {_reason(err)}; check the disk")


def _reason(err: OSError) -> str:
    return (err.strerror or str(err)).lower()


def write_chunks(fd: int, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Writes all of `chunks` and makes them durable; gives size and sha256."""
    size, sha = 0, hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
        size += len(chunk)
        write_all(fd, chunk)
    os.fsync(fd)
    return size, sha.hexdigest()


def write_all(fd: int, data: bytes) -> None:
    """Writes `data` to the end; a single write may take a part only, for example when the disk gets full."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_chunks(file: BinaryIO, place: object) -> Iterator[bytes]:
    """The rest of `file`, in pieces of CHUNK bytes; `place` is what errors call it."""
    with disk_errors(place):
        while chunk := file.read(CHUNK):
            yield chunk


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable; file systems that cannot are left to do it themselves."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def lock(fd: int, *, wait: bool) -> bool:
    """Takes the exclusive lock of an open file or folder, which ends with its process; False where it can't be had.

    Raises BlockingIOError where someone else holds it and `wait` is false.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def open_temp(folder: Path) -> tuple[Path, int]:
    """A new, locked temporary file in `folder` (made where missing); gives path and descriptor."""
    tries = _FOLDER_TRIES
    while True:
        path = folder / f"{secrets.token_hex(8)}{TEMP_SUFFIX}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            # Not made yet, or `delete` has just removed the empty folder.
            if not (tries := tries - 1):
                raise
            # Both show when another process removes the folder meanwhile; a file in the way fails the next open.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                folder.mkdir(parents=True, exist_ok=True)
            continue
        with contextlib.suppress(BlockingIOError):
            lock(fd, wait=False)
        return path, fd


def sweep_temps(folder: Path) -> None:
    """Removes the temporary files in `folder` whose writers were killed. Never fails."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(TEMP_SUFFIX) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if _abandoned(entry):
                        Path(entry.path).unlink()


def _abandoned(entry: os.DirEntry[str]) -> bool:
    idle = time.time() - entry.stat(follow_symlinks=False).st_mtime
    if idle < QUIET_SECONDS:
        return False
    fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        # A living writer holds the lock: BlockingIOError leaves the file alone.
        return lock(fd, wait=False) or idle > LOST_SECONDS
    finally:
        os.close(fd)


@contextlib.contextmanager
def incoming(path: Path) -> Iterator[BinaryIO]:
    """A file to write `path`'s new content to: it takes the place of `path` when the block ends well, else it goes away.

    Raises StoreError where the disk refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = path.parent / f".{path.name[:200]}.{secrets.token_hex(6)}{TEMP_SUFFIX}"
        try:
            with temp.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temp.replace(path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
