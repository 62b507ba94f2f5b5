"""One `dailctl run` at a time on a run: a file lock for folders, a numbered lease for everything else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dail_runtime.errors import DailError, StoreError, UsageError
from dail_runtime.store import Store
from dailctl.runs import local_path

FILE = "lock"
LEASES = "locks/"
BEAT = 15.0
"""Seconds between two signs of life of a lease."""
SILENCE = 60.0
"""A lease that was silent for so long may belong to a dead process."""
PROBES = 10
"""A state query holds the lock for an instant; so often a tenth of a second is waited before a run counts as held."""


@contextlib.contextmanager
def hold(run: Store, lost: Callable[[], None]) -> Iterator[tuple[int, ...]]:
    """Hold the run's lock. Gives the file descriptors that child processes must inherit to keep it held while they live.

    `lost` is called, from another thread, where a lease was taken over because this machine slept.

    Raises:
        UsageError: another process holds it; the sentence says which.
    """
    folder = local_path(run)
    if folder is not None:
        with _file_lock(folder) as descriptor:
            yield (descriptor,)
    else:
        with _Lease(run, lost):
            yield ()


def is_held(run: Store) -> bool:
    """True while some `dailctl run` (or a stage process that outlived it) is at work on the run."""
    folder = local_path(run)
    if folder is None:
        newest = _newest(run)
        return newest is not None and not _surely_gone(newest[1]) and not _silent(newest[1])
    import fcntl

    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _file_lock(folder: Path) -> Iterator[int]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as err:
        raise StoreError(f"{folder}: cannot be written ({err.strerror}); choose another storage.uri or make the folder writable") from None
    try:
        _lock(descriptor, folder)
        # Who holds it is only for the refusal's sentence; the lock itself needs no byte on a full disk.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_me()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    import fcntl

    for _ in range(PROBES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.1)
        except OSError as err:
            raise StoreError(
                f"{folder / FILE}: cannot be locked ({err.strerror}); choose a storage.uri on a disk that knows locks"
            ) from None
    raise _refusal(folder.name, _parse(os.pread(descriptor, 4096, 0)))


class _Lease:
    """An object `locks/000007.json` that its holder rewrites every 15 s.

    Taking over means creating the next number, which the store lets exactly one process do. Numbers never go down.
    """

    def __init__(self, run: Store, lost: Callable[[], None]) -> None:
        self._run, self._lost = run, lost
        self._key = ""
        self._end = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> None:
        newest = _newest(self._run)
        number = 1
        if newest is not None:
            number, holder = newest[0] + 1, newest[1]
            if not (_surely_gone(holder) or (_silent(holder) and _still_silent(self._run, holder))):
                raise _refusal(self._run.uri, holder)
        self._key = _key(number)
        if not self._run.create(self._key, _signed(_me())):
            newest = _newest(self._run)
            raise _refusal(self._run.uri, newest[1] if newest is not None else {})
        for info in list(self._run.list(LEASES)):
            if info.key < self._key:
                self._run.delete(info.key)
        self._beats.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._beats.join()
        with contextlib.suppress(DailError):
            self._run.put(self._key, _signed({**_me(), "released": True}))

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            # A missed beat is no reason to stop: the store may answer again before anyone calls this lease dead.
            with contextlib.suppress(DailError):
                newest = _newest(self._run)
                if newest is not None and _key(newest[0]) > self._key:
                    self._lost()
                    return
                self._run.put(self._key, _signed(_me()))


def _newest(run: Store) -> tuple[int, dict[str, Any]] | None:
    while keys := [info.key for info in run.list(LEASES)]:
        key = max(keys)
        # A KeyError: a newer lease came in between, and its holder removed this one.
        with contextlib.suppress(KeyError):
            return int(key.removeprefix(LEASES).removesuffix(".json")), _parse(run.get(key))
    return None


def _surely_gone(holder: dict[str, Any]) -> bool:
    return bool(holder.get("released")) or (holder.get("host") == socket.gethostname() and not _process_exists(int(holder.get("pid", 0))))


def _silent(holder: dict[str, Any]) -> bool:
    # A beat from the future is a clock that runs ahead; it says as little as an old one.
    return abs(time.time() - float(holder.get("beat", 0))) > SILENCE


def _still_silent(run: Store, holder: dict[str, Any]) -> bool:
    # Silent by this machine's clock. Clocks differ, so watch whether it still beats.
    time.sleep(BEAT * 1.5)
    newest = _newest(run)
    return newest is not None and newest[1].get("beat") == holder.get("beat")


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _key(number: int) -> str:
    return f"{LEASES}{number:06d}.json"


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}


def _signed(holder: dict[str, Any]) -> bytes:
    return json.dumps({**holder, "beat": time.time()}).encode()


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(run: str, holder: dict[str, Any]) -> UsageError:
    who = (
        f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
        if {"pid", "host", "since"} <= holder.keys()
        else "another process"
    )
    return UsageError(f"run {run}: another dailctl is at work on it ({who}); wait for it, or stop it, and run the same command again")
