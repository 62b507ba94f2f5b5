"""The lease that keeps two machines from working on one run in a bucket, and the logs of such a run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dail_runtime.errors import StoreError, UsageError
from dail_runtime.store import Store, open_store
from dailctl.backends import lock
from dailctl.backends.lock import hold, is_held
from dailctl.backends.logs import Logs, last_words


class Elsewhere:
    """A store that is not a folder of this machine, as far as anyone can tell."""

    uri = "s3://bucket/play"

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A run in a bucket; a lease beats ten times a second."""
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "SILENCE", 1800.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return Elsewhere(open_store(str(tmp_path / "bucket")))


def never() -> None:
    """Called where a lease is lost."""
    pytest.fail("the lease was lost")


def leases(run: Any) -> list[str]:
    """Names of the leases there are."""
    return [info.key for info in run.list("locks/")]


def put(run: Any, number: int, **holder: Any) -> None:
    """A lease left by someone."""
    whole = {"host": "far-away", "pid": 1, "since": "2026-01-01", "beat": time.time(), **holder}
    run.put(f"locks/{number:06d}.json", json.dumps(whole).encode())


def test_one_of_two_gets_the_lease_and_the_next_one_after_it_ended(run: Any) -> None:
    with hold(run, never) as inherit:
        assert inherit == ()
        assert is_held(run)
        with pytest.raises(UsageError, match=rf"another dailctl is at work on it \(process {os.getpid()} on .*, since"), hold(run, never):
            pass
    assert not is_held(run)
    with hold(run, never):
        assert leases(run) == ["locks/000002.json"]


def test_a_lease_shows_new_signs_of_life_while_its_holder_works(run: Any) -> None:
    with hold(run, never):
        first = json.loads(run.get("locks/000001.json"))
        end = time.monotonic() + 300
        while json.loads(run.get("locks/000001.json"))["beat"] == first["beat"]:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_lease_whose_last_sign_of_life_is_old_counts_as_held_by_nobody(run: Any) -> None:
    put(run, 1, beat=time.time() - 900)
    assert is_held(run)
    put(run, 1, beat=time.time() - 1801)
    assert not is_held(run)


def test_of_many_that_race_for_it_exactly_one_gets_the_lease(run: Any) -> None:
    held, refused, done = [], [], threading.Event()

    def race() -> None:
        try:
            with hold(run, never):
                held.append(1)
                done.wait(300)
        except UsageError:
            refused.append(1)
            if len(refused) == 7:
                done.set()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(run: Any) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    put(run, 4, host=socket.gethostname(), pid=dead.pid)
    assert not is_held(run)
    with hold(run, never):
        assert leases(run) == ["locks/000005.json"]


def test_the_lease_of_another_machine_is_taken_over_only_after_it_was_silent_under_watch(run: Any) -> None:
    put(run, 1)
    with pytest.raises(UsageError, match="process 1 on far-away"), hold(run, never):
        pass
    put(run, 1, beat=time.time() - 3600)
    with hold(run, never):
        assert leases(run) == ["locks/000002.json"]


@pytest.mark.parametrize("skew", [-4000, 4000])
def test_a_machine_whose_clock_is_wrong_keeps_its_lease_while_it_beats(run: Any, skew: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def watched(seconds: float) -> None:
        """While it is watched, it beats."""
        assert seconds > lock.BEAT
        put(run, 1, beat=time.time() + skew)

    put(run, 1, beat=time.time() + skew - 10)
    monkeypatch.setattr(lock, "time", SimpleNamespace(time=time.time, sleep=watched))
    with pytest.raises(UsageError, match="process 1 on far-away"), hold(run, never):
        pass


def test_a_holder_that_was_taken_over_is_told(run: Any) -> None:
    lost = threading.Event()
    with hold(run, lost.set):
        put(run, 2)
        assert lost.wait(300)


def test_a_folder_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match=r"file/play: cannot be written \(Not a directory\); choose another"),
        hold(open_store(str(tmp_path / "file" / "play")), never),
    ):
        pass


def test_logs_of_a_run_in_a_bucket_go_there_and_numbers_count_on_from_any_machine(run: Any) -> None:
    run.put("logs/train/a/attempt-3.log", b"of another machine")
    logs = Logs(run, "play")
    for number in (4, 5):
        path = logs.new("train/a")
        assert path.name == f"attempt-{number}.log"
        path.write_text(f"talk {number}")
        logs.keep("train/a", path)
    assert run.get("logs/train/a/attempt-3.log") == b"of another machine"
    assert run.get("logs/train/a/attempt-5.log") == b"talk 5"


def test_the_last_words_of_a_log_are_its_last_line_that_is_no_event(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 20000 + b'\nValueError: b\xff\n{"event": "say", "sentence": "s"}\n\n')
    assert last_words(log) == "ValueError: b\ufffd"
    log.write_bytes(b"")
    assert last_words(log) == ""
