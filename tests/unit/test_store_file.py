"""The file store: the contract, kills at every step, full disks, links, leftovers."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dail_runtime.errors import DailError, IntegrityError, StoreError, TransientError
from dail_runtime.store import digests, disk, open_store
from dail_runtime.store.file import FileStore
from tests.support.store_contract import PROMISES, Case


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_file_store_keeps_the_promise(promise: Callable[[Case], None], tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    promise(Case(FileStore(tmp_path / "store"), tmp_path / "scratch", lambda key: tmp_path / "store" / key))


def _killed_before_step(step: int, work: Callable[[], object]) -> bool:
    """Runs `work` in a child that gets SIGKILL just before its step-th change of the file system; whether it was killed."""
    child = os.fork()
    if child == 0:
        left = step

        def watch(event: str, _arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("action", ["first put", "overwrite", "often overwritten", "create", "delete"])
def test_a_writer_killed_before_any_step_leaves_the_old_or_the_new_object(action: str, tmp_path: Path) -> None:
    old, new = b"old" * 1000, b"new" * 2000
    before: set[bytes | None] = {None} if action in ("first put", "create") else {old}
    after: set[bytes | None] = {None} if action == "delete" else {new}
    for step in range(1, 60):
        store = FileStore(tmp_path / str(step))
        store.put("x/other", b"other")
        if action not in ("first put", "create"):
            store.put("x/k", old)
        if action == "often overwritten":
            for n in range(8):
                store.put("x/k", b"%d" % n)
            store.put("x/k", old)
        work = {"create": lambda s=store: s.create("x/k", new), "delete": lambda s=store: s.delete("x/k")}
        killed = _killed_before_step(step, work.get(action, lambda s=store: s.put("x/k", new)))
        fresh = FileStore(tmp_path / str(step))
        there = {info.key: fresh.get(info.key) for info in fresh.list()}
        assert there.pop("x/other") == b"other"
        assert {there.get("x/k")} <= (before | after if killed else after)
        assert set(there) <= {"x/k"}
        # And the next writer is not hindered.
        fresh.put("x/k", b"next")
        assert fresh.get("x/k") == b"next"
        if not killed:
            break
    assert step > 3
    assert not killed


WRITER = """
import itertools, random, sys
from dail_runtime.store import open_store
store, chance = open_store(sys.argv[1]), random.Random(int(sys.argv[2]))
for turn in itertools.count():
    if turn == 10:
        print("at work", flush=True)
    key = f"k{chance.randrange(6)}"
    store.put(key, bytes([chance.randrange(256)]) * chance.randrange(400_000))
    if chance.random() < 0.1:
        store.delete(key)
"""


def test_after_kill_9_of_writers_every_listed_object_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    store = FileStore(tmp_path / "store")
    objects = 0
    for turn in range(5):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, store.uri, str(10 * turn + n)], stdout=subprocess.PIPE, text=True)
            for n in range(2)
        ]
        for writer in writers:
            assert writer.stdout
            writer.stdout.readline()
        time.sleep(0.1 + 0.2 * chance.random())
        for writer in writers:
            writer.kill()
            writer.communicate()
        for info in store.list():
            data = store.get(info.key)
            assert len(data) == info.size
            assert len(set(data)) <= 1
            objects += 1
    assert objects > 5
    # What the killed ones left goes with the next process's first write.
    monkeypatch.setattr(disk, "QUIET_SECONDS", 0.0)
    FileStore(tmp_path / "store").put("k0", b"1")
    assert list((tmp_path / "store").rglob(f"*{disk.TEMP_SUFFIX}")) == []


def test_unfinished_writes_are_never_listed_and_those_of_the_living_stay(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("x/done", b"1")
    temp, fd = disk.open_temp(tmp_path / "store" / "x" / ".dail")
    monkeypatch.setattr(disk, "QUIET_SECONDS", 0.0)
    FileStore(tmp_path / "store").put("x/other", b"2")
    assert temp.exists()
    assert [info.key for info in store.list()] == ["x/done", "x/other"]
    os.close(fd)
    FileStore(tmp_path / "store").put("x/other", b"2")
    assert not temp.exists()


def test_temps_are_swept_by_age_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    FileStore(tmp_path).put("a", b"1")
    young, old = tmp_path / ".dail" / f"young{disk.TEMP_SUFFIX}", tmp_path / ".dail" / f"old{disk.TEMP_SUFFIX}"
    for path, age in ((young, 3600), (old, 90_000)):
        path.write_bytes(b"1")
        os.utime(path, (time.time() - age,) * 2)
    FileStore(tmp_path).put("b", b"1")
    assert young.exists()
    assert not old.exists()
    # Without locks old digests are kept, and everything still verifies.
    store = FileStore(tmp_path)
    for n in range(20):
        store.put("a", b"%d" % n)
    assert store.get("a") == b"19"
    assert store.head("a") is not None


def test_a_full_disk_is_a_sentence_and_the_old_object_stays(store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a/k", b"old")
    real = os.write
    room = 500

    def write(fd: int, data: bytes | memoryview) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, memoryview(data)[:room])
        room -= done
        return done

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        for key in ("a/k", "a/new"):
            for work in (lambda key=key: store.put(key, b"x" * 1000), lambda: store.create("a/new", b"x" * 1000)):
                with pytest.raises(StoreError, match=r"/a/(k|new) cannot be written: the disk or the quota is full.*free space"):
                    work()
        # The disk gets full while the digest is written: the content must not appear.
        room = 1020
        with pytest.raises(StoreError, match="is full"):
            store.put("a/k", b"y" * 1000)
    assert store.get("a/k") == b"old"
    assert [info.key for info in store.list()] == ["a/k"]
    assert list(tmp_path.rglob(f"*{disk.TEMP_SUFFIX}")) == []
    store.put("a/k", b"y" * 1000)
    assert store.get("a/k") == b"y" * 1000


def test_a_full_disk_at_get_file_leaves_the_old_file(store: FileStore, tmp_path: Path) -> None:
    import resource

    store.put("k", b"x" * 100_000)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreError, match="target is larger than this file system allows"):
            store.get_file("k", target)
        with pytest.raises(StoreError, match="/big is larger than"):
            store.put("big", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "target"]
    assert [info.key for info in store.list()] == ["k"]


def test_links_that_lead_out_are_refused(store: FileStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("in/x", b"1")
    (tmp_path / "store" / "out").symlink_to(outside)
    (tmp_path / "store" / "file").symlink_to(outside / "secret")
    (tmp_path / "store" / "alias").symlink_to(tmp_path / "store" / "in")
    for key in ("out/secret", "out/new", "file"):
        for work in (store.get, store.head, store.delete, lambda key: store.put(key, b"2"), lambda key: store.create(key, b"2")):
            with pytest.raises(StoreError, match="leads out of the store through a symbolic link"):
                work(key)
    with pytest.raises(StoreError, match="leads out"):
        list(store.at("out").list())
    assert store.get("alias/x") == b"1"
    assert [info.key for info in store.list()] == ["in/x"]
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_store_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    store = FileStore(tmp_path / "runs")
    store.put("a", b"1")
    assert (tmp_path / "disk" / "a").read_bytes() == b"1"
    assert store.uri == (tmp_path / "runs").as_uri()


def test_digests_travel_with_a_copied_folder(store: FileStore, tmp_path: Path) -> None:
    store.put("run/a/k", b"content")
    subprocess.run(["cp", "-r", tmp_path / "store" / "run", tmp_path / "copy"], check=True)
    copy = FileStore(tmp_path / "copy")
    assert copy.get("a/k") == b"content"
    (tmp_path / "copy" / "a" / "k").write_bytes(b"c0ntent")
    with pytest.raises(IntegrityError):
        copy.get("a/k")


def test_a_file_someone_else_put_there_is_read_unchecked(store: FileStore, tmp_path: Path) -> None:
    store.put("a", b"1")
    (tmp_path / "store" / "foreign").write_bytes(b"hello")
    assert store.get("foreign") == b"hello"
    info = store.head("foreign")
    assert info is not None
    assert (info.size, info.sha256) == (5, None)
    assert [info.key for info in store.list()] == ["a", "foreign"]


def test_content_is_durable_before_it_gets_its_name_and_names_follow(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable: list[int] = []
    named: list[tuple[str, bool]] = []
    real_sync, real_replace, real_link = os.fsync, Path.replace, Path.hardlink_to

    def sync(fd: int) -> None:
        real_sync(fd)
        durable.append(os.fstat(fd).st_ino)

    def replace(temp: Path, path: Path) -> Path:
        named.append((path.name, temp.stat().st_ino in durable))
        return real_replace(temp, path)

    def link(path: Path, temp: Path) -> None:
        named.append((path.name, temp.stat().st_ino in durable))
        real_link(path, temp)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "hardlink_to", link)
    store.put("a/b/put", b"1")
    store.create("a/b/create", b"1")
    store.get_file("a/b/put", tmp_path / "copy")
    assert named == [("put", True), ("create", True), ("copy", True)]
    for folder in ("store/a/b", "store/a", "store", "."):
        assert (tmp_path / folder).stat().st_ino in durable
    # An overwrite needs its digest on the disk, beside the content's.
    durable.clear()
    store.put("a/b/put", b"2")
    assert (tmp_path / "store/a/b/.dail/put.sha256").stat().st_ino in durable


def test_names_no_key_can_have_and_special_files_are_no_objects(store: FileStore, tmp_path: Path) -> None:
    store.put("a", b"1")
    root = tmp_path / "store"
    (root / "line\nbreak").write_bytes(b"1")
    with contextlib.suppress(OSError):
        Path(os.fsdecode(os.fsencode(root) + b"/latin\xe9")).write_bytes(b"1")
    os.mkfifo(root / "pipe")
    assert [info.key for info in store.list()] == ["a"]
    assert store.head("pipe") is None


def test_a_file_and_a_folder_cannot_share_a_name(store: FileStore) -> None:
    store.put("a/b", b"1")
    for key in ("a", "a/b/c"):
        with pytest.raises(StoreError, match=f"/{key}: a file and a folder cannot have the same name"):
            store.put(key, b"2")
    assert [info.key for info in store.list()] == ["a/b"]


def test_a_path_that_is_too_long_is_a_sentence(tmp_path: Path) -> None:
    deep = FileStore(tmp_path)
    for _ in range(8):
        deep = deep.at("/".join(["x" * 120])) if len(deep.uri) < 900 else deep
    with pytest.raises(StoreError, match=r"longer than"):
        FileStore(Path("/" + "y" * 300)).put("k", b"1")
    with pytest.raises(StoreError, match=r"longer than 1024 bytes"):
        deep.put("/".join(["z" * 200] * 6), b"1")


def test_deleting_the_last_object_removes_the_empty_folders(store: FileStore, tmp_path: Path) -> None:
    store.put("a/b/c", b"1")
    store.put("a/d", b"1")
    store.delete("a/b/c")
    assert sorted(path.name for path in (tmp_path / "store" / "a").iterdir()) == [".dail", "d"]
    store.delete("a/d")
    assert list((tmp_path / "store").iterdir()) == []


def test_writers_survive_folders_that_vanish_under_them(store: FileStore) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            store.put("a/b/x", b"1")
            store.delete("a/b/x")

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(churn)
        try:
            for n in range(150):
                store.put("a/b/y", b"%d" % n)
                assert store.get("a/b/y") == b"%d" % n
                store.delete("a/b/y")
        finally:
            stop.set()
        churning.result()


def test_readers_see_a_whole_version_while_writers_replace_it(store: FileStore) -> None:
    versions = [bytes([n]) * (20_000 + n) for n in range(30)]
    store.put("k", versions[0])

    def write() -> None:
        for version in versions * 4:
            store.put("k", version)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            assert store.get("k") in versions
            info = store.head("k")
            assert info is not None
            assert info.sha256 == hashlib.sha256(versions[info.size - 20_000]).hexdigest()
        writing.result()


def test_a_reader_overtaken_by_many_writes_reads_again(store: FileStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = digests.read_digests
    for read in (store.get, store.head, lambda key: store.get_file(key, tmp_path / "copy")):
        store.put("k", b"before")
        overtakes = iter([b"%d" % n for n in range(30)])

        def overtaken(path: Path, overtakes: Iterator[bytes] = overtakes) -> set[str]:
            for data in overtakes:
                store.put("k", data)
            return real(path)

        monkeypatch.setattr("dail_runtime.store.file.read_digests", overtaken)
        found = read("k")
        monkeypatch.undo()
        assert found in (b"29", store.head("k"))
    assert (tmp_path / "copy").read_bytes() == b"29"


def test_a_create_that_loses_late_leaves_no_digest_behind(store: FileStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = disk.write_chunks

    def slower_than_another(fd: int, chunks: Iterable[bytes]) -> tuple[int, str]:
        monkeypatch.undo()
        FileStore(tmp_path / "store").put("k", b"winner")
        return real(fd, chunks)

    monkeypatch.setattr(disk, "write_chunks", slower_than_another)
    assert store.create("k", b"loser") is False
    assert store.get("k") == b"winner"
    assert digests.read_digests(tmp_path / "store" / "k") == {hashlib.sha256(b"winner").hexdigest()}


def test_head_knows_the_digest_also_after_overwrites(store: FileStore) -> None:
    for n in range(30):
        info = store.put("k", b"%d" % n)
        assert store.head("k") == info


def test_disk_errors_that_pass_are_told_from_those_that_stay() -> None:
    def kind(number: int) -> type[DailError]:
        error = disk.disk_error(OSError(number, os.strerror(number)), "file:///x/k")
        assert str(error).startswith("file:///x/k")
        assert "\n" not in str(error)
        assert "; " in str(error) or ", " in str(error)
        return type(error)

    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOENT,
    ):
        assert kind(number) is StoreError
    for number in (errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT, errno.EAGAIN):
        assert kind(number) is TransientError


def test_exclusive_writes_need_hard_links_and_say_so(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StoreError, match="no hard links"):
        store.create("k", b"1")
    assert list(store.list()) == []


@pytest.mark.parametrize("uri", ["{}", "file://{}", "file://localhost{}", "{}/", "file://{}/"])
def test_folders_have_several_addresses(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "a b%41 ü#?"
    given = uri.format(folder.as_uri().removeprefix("file://") if "file:" in uri else folder)
    store = open_store(given)
    store.put("k", b"1")
    assert (folder / "k").read_bytes() == b"1"
    assert open_store(store.uri).get("k") == b"1"
    assert not store.uri.endswith("/")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        *(
            ("", "is empty"),
            ("ftp://x/y", "ftp:// is no store"),
            ("file://host/x", "names the machine 'host'"),
            ("file://x", "names the machine"),
        ),
        *(
            ("s3://", "names no bucket"),
            ("s3:///x", "names no bucket"),
            ("s3://b/../x", "could leave the store"),
            ("a\0b", "NUL"),
            ("file:///a%00b", "no folder on this machine"),
            ("~nobody-here/x", "no folder on this machine"),
        ),
    ],
)
def test_wrong_addresses_are_sentences(uri: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        open_store(uri)


def test_relative_and_home_addresses_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("./runs").uri == (tmp_path / "runs").as_uri()
    assert open_store("~/runs").uri == (tmp_path / "home" / "runs").as_uri()


def test_the_store_package_imports_without_boto3() -> None:
    code = "import sys, dail_runtime.store; print([name for name in ('boto3', 'botocore', 'torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
