"""Objects as plain files below a folder: readable with any tool, replaced whole, each with its digest beside it.

How it stays right
- An object is written to a temporary file in `.dail/` of its own folder (so: the same file system), fsynced and renamed.
  A reader, and a machine that lost power, has the old object or the new one.
- Its sha256 is appended to `.dail/NAME.sha256` BEFORE the rename. A reader accepts content whose digest is any of the
  recorded ones, so a writer that is killed between both steps does no harm: the old content's digest is still there.
  Old lines are dropped later, under the folder's lock. This needs nothing but append and rename, hence works on every
  file system (extended attributes do not), and `cp -r` or `mv` of any folder of the store takes the digests along.
- A file without a record was put there by someone else: it is read unchecked.
- fsync: always the content before its rename. The names are fsynced at most every 0.1 s: journals keep the order of
  renames, and the next object's fsync carries the earlier names, so that a power cut can take back the last moment's
  objects but never leaves a manifest without what it lists. An fsync of the folder for each would make writes 3 x slower.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from dail_runtime.errors import IntegrityError, StoreError, TransientError
from dail_runtime.store import disk
from dail_runtime.store.base import ObjectInfo
from dail_runtime.store.digests import KEPT as DIGESTS_KEPT
from dail_runtime.store.digests import add_digest, drop_digests, forget_old_digests, hidden_folder, locked, read_digests
from dail_runtime.store.keys import RESERVED, check_key, join, key_problem

_NAME_SYNC_SECONDS = 0.1
_READ_TRIES = 10

_T = TypeVar("_T")


class FileStore:
    """The objects below `prefix` of `folder`. The folder is made with the first write."""

    def __init__(self, folder: Path, prefix: str = "", _shared: _Shared | None = None) -> None:
        self._folder = os.path.abspath(folder)  # noqa: PTH100 (Path.resolve would follow links, and the URI should read as the user wrote it)
        self._prefix = prefix
        self._shared = _shared or _Shared(self._folder)

    @property
    def uri(self) -> str:
        """`file:///...`, without a trailing slash; special characters are percent-encoded."""
        return Path(join(self._folder, self._prefix) if self._prefix else self._folder).as_uri()

    def __repr__(self) -> str:
        return f"FileStore({self.uri})"

    def at(self, prefix: str) -> FileStore:
        """The store below `prefix`."""
        return FileStore(Path(self._folder), join(self._prefix, check_key(prefix)), self._shared)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write `data`, replacing what was there."""
        info = self._write(key, [data], exclusive=False)
        assert info is not None
        return info

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` only if no object has this key; false if one has."""
        if self._path(key).exists():
            return False  # The usual case: spares the late ones the writing.
        return self._write(key, [data], exclusive=True) is not None

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the content of the file at `path`."""
        with disk.disk_errors(path):
            source = path.open("rb")
        with source:
            info = self._write(key, disk.read_chunks(source, path), exclusive=False)
        assert info is not None
        return info

    def get(self, key: str) -> bytes:
        """The content, checked. Raises KeyError where there is none."""

        def read() -> bytes:
            parts: list[bytes] = []
            self._stream(key, parts.append)
            return b"".join(parts)

        return self._undisturbed(key, read)

    def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the checked content to `path`, whole or not at all."""

        def read() -> ObjectInfo:
            with disk.incoming(path) as target:
                return self._stream(key, target.write)

        return self._undisturbed(key, read)

    def head(self, key: str) -> ObjectInfo | None:
        """Size and sha256 (None for a file that the store did not write), or None where there is no such object."""

        def read() -> ObjectInfo:
            path = self._path(key)
            with self._open(key, path) as file:
                size, digests = os.fstat(file.fileno()).st_size, read_digests(path)
                if _replaced(file, path):
                    raise _ReplacedError
            if len(digests) < 2:
                return ObjectInfo(key=key, size=size, sha256=next(iter(digests), None))
            # The key was written more than once: only the content tells which digest is its own.
            return self._stream(key, len)

        try:
            return self._undisturbed(key, read)
        except KeyError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, sorted by key. Symbolic links and names no key can have are no objects."""
        base = prefix.rpartition("/")[0]
        start = self._path(base) if base else self._inside(self._prefix)
        with disk.disk_errors(self.uri):
            yield from _walk(start, f"{base}/" if base else "", prefix)

    def delete(self, key: str) -> None:
        """Remove the object and folders that are empty then; no error where there is none."""
        path = self._path(key)
        hidden = hidden_folder(path)
        with disk.disk_errors(self._place(key)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if path.is_dir():
                return
            with locked(hidden) if hidden.is_dir() else contextlib.nullcontext():
                path.unlink()
                drop_digests(path)
        self._remove_if_empty(path.parent)

    def _remove_if_empty(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            while True:
                with contextlib.suppress(OSError):
                    (folder / RESERVED).rmdir()
                if folder == self._shared.top:
                    return
                folder.rmdir()
                folder = folder.parent

    def _place(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def _path(self, key: str) -> Path:
        return self._inside(check_key(join(self._prefix, key)))

    def _inside(self, full_key: str) -> Path:
        """The path of a key counted from the top; refuses links that lead out."""
        path = self._shared.top / full_key
        real = os.path.realpath(path)
        if real != str(path) and not Path(real).is_relative_to(self._shared.top):
            raise StoreError(f"{path} leads out of the store through a symbolic link, to {real}; remove the link or change storage.uri")
        return path

    def _write(self, key: str, chunks: Iterable[bytes], *, exclusive: bool) -> ObjectInfo | None:
        path = self._path(key)
        hidden = hidden_folder(path)
        with disk.disk_errors(self._place(key)):
            self._shared.visit(path.parent, hidden)
            temp, fd = disk.open_temp(hidden)
            try:
                size, digest = disk.write_chunks(fd, chunks)
                with locked(hidden) as alone:
                    if exclusive and path.exists():
                        return None
                    count = add_digest(path, digest)
                    if exclusive:
                        try:
                            _link(temp, path)
                        except FileExistsError:
                            return None
                    else:
                        temp.replace(path)
                    if alone and count > DIGESTS_KEPT:
                        forget_old_digests(path, digest)
            finally:
                os.close(fd)
                temp.unlink(missing_ok=True)
            self._shared.settle(path.parent)
        return ObjectInfo(key=key, size=size, sha256=digest)

    def _undisturbed(self, key: str, read: Callable[[], _T]) -> _T:
        """`read()`, again where the object was replaced under its hands."""
        for _ in range(_READ_TRIES):
            with contextlib.suppress(_ReplacedError):
                return read()
        raise TransientError(f"{self._place(key)} was replaced again and again while it was read; try again")

    @contextlib.contextmanager
    def _open(self, key: str, path: Path) -> Iterator[BinaryIO]:
        with disk.disk_errors(self._place(key)):
            try:
                # O_NONBLOCK: a pipe that someone put here must not hang us.
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                raise KeyError(key) from None
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise KeyError(key)
        with os.fdopen(fd, "rb") as file:
            yield file

    def _stream(self, key: str, sink: Callable[[bytes], object]) -> ObjectInfo:
        """Feeds the content to `sink` and checks it. Raises IntegrityError, or _ReplacedError: read again."""
        path, size, sha = self._path(key), 0, hashlib.sha256()
        with self._open(key, path) as file:
            for chunk in disk.read_chunks(file, self._place(key)):
                size += len(chunk)
                sha.update(chunk)
                sink(chunk)
            digest, digests = sha.hexdigest(), read_digests(path)
            if digests and digest not in digests:
                if _replaced(file, path):
                    raise _ReplacedError
                raise IntegrityError(
                    f"{self._place(key)} is not what was written: it has {size} bytes with sha256 {digest[:12]}..., "
                    f"recorded is {' or '.join(d[:12] + '...' for d in sorted(digests))}; delete it so that it is made again"
                )
        return ObjectInfo(key=key, size=size, sha256=digest)


class _ReplacedError(Exception):
    """The object was replaced between reading its content and its digests."""


class _Shared:
    """What a store and all stores below it (`at`) share: the top folder, and which names are not yet durable."""

    def __init__(self, folder: str) -> None:
        self.top = Path(os.path.realpath(folder))
        self._mutex = threading.Lock()
        self._visited: set[Path] = set()
        self._unsynced: set[Path] = set()
        self._next_sync = 0.0

    def visit(self, folder: Path, hidden: Path) -> None:
        """Before the first write to `folder`: clear what killed writers left, and remember to sync the names of its parents."""
        with self._mutex:
            if folder in self._visited:
                return
            self._visited.add(folder)
            while folder != self.top.parent:
                folder = folder.parent
                self._unsynced.add(folder)
        disk.sweep_temps(hidden)

    def settle(self, folder: Path) -> None:
        """After a write to `folder`: make new names durable, at most every _NAME_SYNC_SECONDS."""
        with self._mutex:
            self._unsynced.add(folder)
            if time.monotonic() < self._next_sync:
                return
            due, self._unsynced = self._unsynced, set()
        for each in due:
            disk.sync_folder(each)
        self._next_sync = time.monotonic() + _NAME_SYNC_SECONDS


def _replaced(file: BinaryIO, path: Path) -> bool:
    """Whether `path` is no longer the file that was opened."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return True


def _link(temp: Path, path: Path) -> None:
    """Gives `temp` its name, unless the name is taken: FileExistsError."""
    try:
        path.hardlink_to(temp)
    except OSError as err:
        if err.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise StoreError(f"{path}: this file system has no hard links, which exclusive writes need; change storage.uri") from err
        raise


def _walk(folder: Path, base: str, prefix: str) -> Iterator[ObjectInfo]:
    try:
        with os.scandir(folder) as found:
            # "a-b" sorts before "a/b", so a folder sorts by its name with the slash.
            entries = sorted((f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry) for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in entries:
        key = base + name
        if key_problem(key.rstrip("/")):
            continue
        if name.endswith("/"):
            if key.startswith(prefix) or prefix.startswith(key):
                yield from _walk(Path(entry.path), key, prefix)
        elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                size, digests = entry.stat(follow_symlinks=False).st_size, read_digests(Path(entry.path))
                yield ObjectInfo(key=key, size=size, sha256=digests.pop() if len(digests) == 1 else None)
