"""Processes of the lab: recorded, restarted, told apart from later ones, killed with their owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.components import Component, LabError, Process, components, owned_by, wait_until


def test_a_component_is_found_again_and_restarts_with_its_command(tmp_path: Path) -> None:
    Component.launch(tmp_path, "late", ["sleep", "3600"])
    first = Component.launch(tmp_path, "early", ["sh", "-c", 'echo "$WORD"; exec sleep 3600'], {"WORD": "hello"})
    try:
        assert [one.name for one in components(tmp_path)] == ["late", "early"]
        again = Component("early", tmp_path)
        old = again.process
        assert old is not None
        assert old == first.process
        again.start()
        assert again.process == old, "starting what runs changes nothing"
        assert wait_until(lambda: first.log.read_text() == "hello\n", 120)
        again.kill()
        assert first.process is None
        again.start()
        assert again.process not in (None, old)
        assert wait_until(lambda: first.log.read_text() == "hello\nhello\n", 120)
    finally:
        for one in components(tmp_path):
            one.kill()
    assert [one.process for one in components(tmp_path)] == [None, None]


def test_a_component_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = Component.launch(tmp_path, "stubborn", ["sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 0.1; done'])
    assert wait_until(lambda: "ready" in stubborn.log.read_text(), 120)
    stubborn.stop(seconds=0.2)
    assert stubborn.process is None


def test_a_component_that_ends_at_once_says_why(tmp_path: Path) -> None:
    broken = Component.launch(tmp_path, "broken", ["sh", "-c", "echo no such flag >&2; exit 2"])
    with pytest.raises(LabError, match="broken ended at its start: no such flag"):
        broken.wait(lambda: False)


def test_a_process_is_not_taken_for_a_later_one_with_its_number() -> None:
    me = Process.of(os.getpid())
    assert me is not None
    assert me.alive
    assert not Process(me.pid, me.started - 1).alive


def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    script = (
        "import ctypes, platform, threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n"
        # exit(2) ends the thread that calls it alone.
        "ctypes.CDLL(None).syscall(60 if platform.machine() == 'x86_64' else 93, 0)"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        status = Path(f"/proc/{process.pid}/stat")
        assert wait_until(lambda: status.read_text().rpartition(")")[2].split()[0] == "Z", 120)
        assert Process.of(process.pid) is not None
        process.kill()
    assert Process.of(process.pid) is None


def test_the_kernel_ends_a_component_with_its_owner(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.lab.components import Component\n"
        "Component.launch(Path(sys.argv[1]), 'child', ['sleep', '3600'])\nprint('up', flush=True)\ntime.sleep(3600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        child = Component("child", tmp_path)
        assert child.process is not None
        owner.kill()
    assert wait_until(lambda: child.process is None, 120)


def test_a_component_whose_owner_died_before_the_kernel_was_told_does_not_start() -> None:
    def run(owner: int) -> str:
        return subprocess.run([*owned_by(owner), "echo", "ran"], stdout=subprocess.PIPE, text=True, check=False).stdout

    assert run(os.getpid()) == "ran\n"
    assert run(os.getppid()) == ""
