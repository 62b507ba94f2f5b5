"""The warm process: sound to fork from, and never outlived by what it forked."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dailctl.backends.process import Event, Exited, Inbox, StageProcess
from dailctl.backends.starters import Fresh, Starter, Warm
from tests.lab.components import Process, wait_until
from tests.support.playing import REPOSITORY, Play, fresh, warm

LOADING = """
import socket, sys, time
sys.path.insert(0, {repository!r})
from dail_runtime.stages.warm import serve
serve(socket.socket(fileno=int(sys.argv[1])), lambda _: 0, lambda _: time.sleep(3600))
"""
BROKEN = LOADING.replace("time.sleep(3600)", "print(1 / 0)").replace("lambda _: 0", "lambda arguments: len(arguments)")


def play(starter: Starter, folder: Path, word: str) -> tuple[StageProcess, Inbox]:
    """A task that does what `word` says (see scripted_stage.py)."""
    plan = {"prepare": {"prefix": "prepare/1", "digest": "1", "inputs": {}}}
    Path(os.environ["SCRIPT"]).write_text(json.dumps({"plan": plan, "files": {}, "says": {"prepare": [word]}}))
    inbox: Inbox = queue.SimpleQueue()
    return StageProcess(starter, ["prepare", "--run", folder.as_uri(), "--job", "1"], inbox, folder / "log"), inbox


def until_exit(inbox: Inbox, seconds: float = 300) -> tuple[list[dict[str, Any]], int]:
    """The events of a process, and its exit code."""
    events: list[dict[str, Any]] = []
    while True:
        item = inbox.get(timeout=seconds)
        if isinstance(item, Exited):
            return events, item.code
        assert isinstance(item, Event)
        events.append(item.body)


def gone(pid: int) -> bool:
    """True where the process ends."""
    return wait_until(lambda: Process.of(pid) is None, 120)


@pytest.fixture(params=[fresh, warm], ids=["fresh", "warm"])
def starter(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    monkeypatch.setenv("SCRIPT", str(tmp_path / "script.json"))
    with closing(request.param({}, ())) as starter:
        yield starter


@pytest.mark.slow
def test_all_stages_load_without_a_thread_or_a_device() -> None:
    code = (
        "import json, os, sys\nfrom dail_runtime.spec import STAGES\nfrom dail_runtime.stages import warm\n"
        "for stage in STAGES: warm.load([stage])\n"
        "import torch\nprint(json.dumps([len(os.listdir('/proc/self/task')), torch.cuda.is_initialized(), *sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    threads, device, *loaded = json.loads(said.splitlines()[-1])
    assert (threads, device) == (1, False)
    assert {"torch", "transformers", "peft", "matplotlib"} <= set(loaded)


def test_tasks_follow_each_other_and_each_is_a_process_of_its_own(starter: Starter, tmp_path: Path) -> None:
    for _ in range(2):
        _, inbox = play(starter, tmp_path, "ok")
        events, code = until_exit(inbox)
        assert (events[0]["event"], events[-1]["event"], code) == ("start", "done", 0)
    pids = [int(line.split()[1]) for line in (tmp_path / "script.json.marks").read_text().splitlines()]
    assert len(set(pids)) == 2
    assert all(gone(pid) for pid in pids)
    assert (tmp_path / "log").read_text().count("talk of prepare") == 2


def test_a_task_heads_a_process_group_and_has_none_of_the_starters_descriptors(starter: Starter, tmp_path: Path) -> None:
    process, inbox = play(starter, tmp_path, "wait")
    while not isinstance(item := inbox.get(timeout=300), Event) or item.body["event"] != "progress":
        pass
    pid = int((tmp_path / "script.json.marks").read_text().split()[1])
    assert os.getpgid(pid) == pid
    targets = [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [target for target in targets if target.startswith("socket:")]
    process.ask_to_stop()
    assert until_exit(inbox)[1] == 143


def test_nothing_ended_is_signalled_again(starter: Starter, tmp_path: Path) -> None:
    process, inbox = play(starter, tmp_path, "ok")
    assert until_exit(inbox)[1] == 0
    process.kill()
    process.ask_to_stop()
    assert until_exit(play(starter, tmp_path, "ok")[1])[1] == 0


def test_a_killed_warm_process_takes_its_child_along_and_the_next_task_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPT", str(tmp_path / "script.json"))
    with closing(warm({}, ())) as starter:
        _, inbox = play(starter, tmp_path, "stubborn")
        while not isinstance(item := inbox.get(timeout=300), Event) or item.body["event"] != "progress":
            pass
        pid = int((tmp_path / "script.json.marks").read_text().split()[1])
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        assert until_exit(inbox)[1] == -signal.SIGKILL
        assert gone(pid)
        assert until_exit(play(starter, tmp_path, "ok")[1])[1] == 0


@pytest.mark.parametrize("end", ["ask_to_stop", "kill"])
def test_a_stop_while_libraries_load_ends_at_once(tmp_path: Path, end: str) -> None:
    with closing(Warm({}, (), (sys.executable, "-c", LOADING.format(repository=str(REPOSITORY))))) as starter:
        inbox: Inbox = queue.SimpleQueue()
        process = StageProcess(starter, ["prepare"], inbox, tmp_path / "log")
        threading.Timer(1.0, getattr(process, end)).start()
        assert until_exit(inbox) == ([], -signal.SIGKILL)


def test_what_fails_to_load_is_left_to_the_child(tmp_path: Path) -> None:
    with closing(Warm({}, (), (sys.executable, "-c", BROKEN.format(repository=str(REPOSITORY))))) as starter:
        inbox: Inbox = queue.SimpleQueue()
        StageProcess(starter, ["prepare", "--run", "x"], inbox, tmp_path / "log")
        assert until_exit(inbox) == ([], 3)


def descriptors() -> set[tuple[str, str]]:
    """Number and file of each that this process has open; not that of the look itself."""
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add((one.name, str(one.readlink())))
    return {(number, file) for number, file in found if not file.startswith("/proc/")}


@pytest.mark.parametrize("kind", [Fresh, Warm])
def test_a_program_that_is_not_there_is_an_error_and_leaves_no_descriptor(kind: type[Fresh] | type[Warm], tmp_path: Path) -> None:
    before = descriptors()
    with closing(kind({}, (), (str(tmp_path / "nothing"),))) as starter, pytest.raises(FileNotFoundError):
        StageProcess(starter, ["prepare"], queue.SimpleQueue(), tmp_path / "log")
    # What earlier tests left may be closed meanwhile.
    assert descriptors() <= before


def test_a_stage_saves_and_ends_when_its_dailctl_is_killed(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.says(prepare=["wait"])
    process = play.process("run")
    while not play.started:
        time.sleep(0.05)
    pid = int(Path(f"{play.script}.marks").read_text().split()[1])
    process.kill()
    process.communicate()
    assert gone(pid)
    play.says()
    again = play.process("run")
    again.communicate()
    assert again.returncode == 0
