"""What every store promises, as functions over a `Case`; tests/unit holds the file store to them, tests/store the S3 store."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import IntegrityError, StoreError
from dail_runtime.store import Manifest, Store, missing_objects, read_manifest, write_manifest

HOSTILE_KEYS = [
    *("", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "a/./b", "a//b", "a/", "/a"),
    *(
        "a\0b",
        "a\nb",
        "a\x1fb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "\ud800",
        "x" * 2000,
        "x" * 241,
        "é" * 121,
        ".dail/x",
        "a/.DAIL",
        "x" * 10_000_000,
    ),
]


@dataclass(frozen=True)
class Case:
    """A store under test, empty, and how the outside world gets at it."""

    store: Store
    scratch: Path
    """A folder for files outside the store."""
    file_of: Callable[[str], Path]
    """Where an object's bytes really are, for damage."""
    endpoint: str | None = None
    """For other processes that open the same store."""


def what_is_put_is_got(case: Case) -> None:
    for data in (b"", b"x", bytes(range(256)) * 5000):
        info = case.store.put("a/b.bin", data)
        assert (info.key, info.size, info.sha256) == ("a/b.bin", len(data), hashlib.sha256(data).hexdigest())
        assert case.store.get("a/b.bin") == data
        assert case.store.head("a/b.bin") == info


def no_object_is_a_key_error(case: Case) -> None:
    case.store.put("folder/x", b"1")
    for key in ("nothing", "folder", "folder/x/y", "folder/y"):
        with pytest.raises(KeyError):
            case.store.get(key)
        with pytest.raises(KeyError):
            case.store.get_file(key, case.scratch / "copy")
        assert case.store.head(key) is None
        case.store.delete(key)
    assert list(case.scratch.iterdir()) == []
    assert case.store.get("folder/x") == b"1"


def create_writes_only_the_first(case: Case) -> None:
    assert case.store.create("once", b"first")
    assert not case.store.create("once", b"second")
    assert case.store.get("once") == b"first"
    case.store.put("once", b"third")
    assert not case.store.create("once", b"fourth")
    case.store.delete("once")
    assert case.store.create("once", b"fifth")
    assert case.store.get("once") == b"fifth"


def files_go_in_and_come_out_whole(case: Case) -> None:
    source, target = case.scratch / "source", case.scratch / "new" / "target"
    source.write_bytes(bytes(range(256)) * 20_000)
    info = case.store.put_file("big/file", source)
    assert info.size == source.stat().st_size
    target.parent.mkdir()
    target.write_bytes(b"old")
    assert case.store.get_file("big/file", target) == info == case.store.head("big/file")
    assert target.read_bytes() == source.read_bytes()
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(StoreError, match=r"absent.*no such file"):
        case.store.put_file("x", case.scratch / "absent")


def lists_are_sorted_and_begin_with_the_prefix(case: Case) -> None:
    keys = ["a-b", "a.b", "a/b", "a/b0", "a/c/d", "a0", "ab", "b", "ü/é", "日本"]
    for key in reversed(keys):
        case.store.put(key, key.encode())
    found = list(case.store.list())
    assert [info.key for info in found] == sorted(keys)
    assert [info.size for info in found] == [len(key.encode()) for key in sorted(keys)]
    for prefix in ("a", "a/", "a/b", "a/c", "a/c/", "a/c/d", "a/c/d/", "b", "ü", "none", "none/x"):
        assert [info.key for info in case.store.list(prefix)] == [key for key in sorted(keys) if key.startswith(prefix)], prefix


def delete_removes_one_object_and_does_not_mind_none(case: Case) -> None:
    for key in ("a/x", "a/xy", "b"):
        case.store.put(key, b"1")
    case.store.delete("a/x")
    case.store.delete("a/x")
    assert [info.key for info in case.store.list()] == ["a/xy", "b"]
    case.store.delete("a/xy")
    assert [info.key for info in case.store.list("a")] == []


def a_store_below_sees_its_own_objects(case: Case) -> None:
    below = case.store.at("x").at("y/z")
    below.put("k", b"1")
    assert case.store.get("x/y/z/k") == b"1"
    assert [info.key for info in below.list()] == ["k"]
    assert below.uri == f"{case.store.uri}/x/y/z"
    case.store.put("x/y/zz", b"2")
    assert [info.key for info in below.list()] == ["k"]


def hostile_keys_are_refused_everywhere(case: Case) -> None:
    store, file = case.store, case.scratch / "file"
    file.write_bytes(b"1")
    calls: list[Callable[[str], Any]] = [
        *(lambda key: store.put(key, b""), lambda key: store.create(key, b""), lambda key: store.put_file(key, file)),
        *(store.get, lambda key: store.get_file(key, file), store.head, store.delete, store.at),
    ]
    for key in HOSTILE_KEYS:
        for call in calls:
            with pytest.raises(StoreError) as caught:
                call(key)
            assert len(str(caught.value)) < 300
            assert "safe_key" in str(caught.value)
    with pytest.raises(StoreError):
        list(store.list("../"))
    assert list(store.list()) == []


def unusual_keys_are_fine(case: Case) -> None:
    keys = [" ", "a b", "..a", "a..", "...", "%2e%2e", "a%2Fb", "a+b", "a?b#c", "~", "\\", "a:b", "é" * 120, "'\"&<>", "-rf", "\U0001f600"]
    for key in keys:
        case.store.put(key, key.encode())
    assert [info.key for info in case.store.list()] == sorted(keys)
    for key in keys:
        assert case.store.get(key) == key.encode()


def changed_bytes_are_noticed(case: Case) -> None:
    data = bytes(range(256)) * 1000
    for key, damage in {"short": data[:-1], "empty": b"", "changed": b"\1" + data[1:], "longer": data + b"x"}.items():
        case.store.put(key, data)
        with case.file_of(key).open("r+b") as file:
            file.write(damage)
            file.truncate(len(damage))
        for read in (lambda key=key: case.store.get(key), lambda key=key: case.store.get_file(key, case.scratch / "copy")):
            with pytest.raises(IntegrityError, match=f"/{key} is not what was written: .*delete it") as caught:
                read()
            assert "\n" not in str(caught.value)
        assert list(case.scratch.iterdir()) == []
        case.store.put(key, data)
        assert case.store.get(key) == data


def manifests_come_back_and_miss_what_is_gone(case: Case) -> None:
    assert read_manifest(case.store) is None
    objects = tuple(case.store.put(key, b"123") for key in ("a", "b/c"))
    now = datetime.now(UTC)
    manifest = Manifest(
        **{"task": "prepare", "digest": "d", "inputs": {}, "objects": objects, "counts": {"rows": 2}, "started": now},
        **{"finished": now, "seconds": 1.5, "attempts": 1, "versions": {"dail": "0"}},
    )
    write_manifest(case.store, manifest)
    assert read_manifest(case.store) == manifest
    assert list(missing_objects(case.store, manifest)) == []
    case.store.delete("b/c")
    case.store.put("a", b"1234")
    assert list(missing_objects(case.store, manifest)) == ["a", "b/c"]
    case.store.put("_manifest.json", b"{}")
    with pytest.raises(IntegrityError, match="is not a manifest"):
        read_manifest(case.store)


def threads_do_not_disturb_one_another(case: Case) -> None:
    versions = [bytes([n]) * 3000 for n in range(8)]
    gate = threading.Barrier(8)

    def work(n: int) -> int:
        gate.wait()
        won = 0
        for turn in range(8):
            case.store.put("shared", versions[n])
            assert case.store.get("shared") in versions
            case.store.put(f"own/{n}-{turn}", versions[n])
            won += case.store.create(f"race/{turn}", versions[n])
        return won

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 8
    assert len(list(case.store.list("own/"))) == 64
    assert case.store.get("shared") in versions


def one_of_several_racing_processes_creates(case: Case) -> None:
    racers, rounds = 3, 12
    arguments = [sys.executable, "-m", "tests.support.store_contract", case.store.uri, case.endpoint or "", str(rounds)]
    processes = [subprocess.Popen([*arguments, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for n in range(racers)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    wins: list[list[int]] = []
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=900)
        wins.append(json.loads(output))
    assert sorted(number for each in wins for number in each) == list(range(rounds))
    for racer, each in enumerate(wins):
        for number in each:
            assert case.store.get(f"race/{number}") == str(racer).encode() * 50_000


PROMISES = [
    *(what_is_put_is_got, no_object_is_a_key_error, create_writes_only_the_first, files_go_in_and_come_out_whole),
    *(lists_are_sorted_and_begin_with_the_prefix, delete_removes_one_object_and_does_not_mind_none, a_store_below_sees_its_own_objects),
    *(hostile_keys_are_refused_everywhere, unusual_keys_are_fine, changed_bytes_are_noticed, manifests_come_back_and_miss_what_is_gone),
    *(threads_do_not_disturb_one_another, one_of_several_racing_processes_creates),
]


def _race(uri: str, endpoint: str, rounds: int, racer: int) -> list[int]:
    from dail_runtime.store import open_store

    store = open_store(uri, endpoint=endpoint or None)
    store.head("warm-up")
    print("ready", flush=True)
    sys.stdin.readline()
    return [number for number in range(rounds) if store.create(f"race/{number}", str(racer).encode() * 50_000)]


if __name__ == "__main__":
    print(json.dumps(_race(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
