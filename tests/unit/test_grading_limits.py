"""Answers that are bombs: what comparing them may cost, and that the next answer is graded as ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dail_runtime.errors import SetupError
from dail_runtime.evaluate.grading import Grader, pool
from dail_runtime.evaluate.grading.compare import MAX_TEXT, same
from dail_runtime.evaluate.grading.extract import last_boxed
from tests.lab.components import Process, wait_until
from tests.support.machine import slowness

LIMIT = 3.0
"""Seconds of a processor: far more than an honest comparison takes on a slow one."""
ROOT_OF_18 = (r"3\sqrt{2}", r"\sqrt{18}")


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1, seconds=LIMIT, megabytes=512) as one:
        yield one


def worker_of(grader: Grader) -> pool.Worker:
    worker = grader._pool._places.queue[-1]
    assert worker is not None
    return worker


@pytest.mark.parametrize("bomb", ["9^{9^{9^{9}}}", r"\sum_{i=1}^{10^{9}} \sin(i^i)", r"(1+x)^{10^{7}}+1"])
def test_a_comparison_that_takes_too_long_is_wrong_and_counted(grader: Grader, bomb: str) -> None:
    before = grader.timeouts + grader.crashes
    started = time.process_time()
    grade = grader.grade(rf"\boxed{{{bomb}}}", r"\sqrt{2}")
    assert grade.verdict == "wrong"
    assert grade.timed_out == (grader.timeouts + grader.crashes > before)
    assert grader.same(*ROOT_OF_18)
    assert time.process_time() - started < LIMIT / 2  # the cost is the worker's


def test_the_time_limit_ends_the_worker_and_says_so(grader: Grader) -> None:
    before = grader.timeouts
    assert grader.grade(r"\boxed{7^{7^{7^{7}}}}", r"\sqrt{2}").timed_out
    assert grader.timeouts == before + 1
    assert grader.grade(r"\boxed{7^{7^{7^{7}}}}", r"\sqrt{2}").timed_out
    assert grader.timeouts == before + 1  # a known bomb is not lit again


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_the_memory_limit_ends_an_allocation_not_the_machine() -> None:
    code = "from dail_runtime.evaluate.grading.worker import limit_memory as f; f(512); {}"
    small, large = (
        subprocess.run([sys.executable, "-c", code.format(f"bytearray({size} << 20)")], capture_output=True, check=False)
        for size in (64, 1024)
    )
    assert small.returncode == 0
    assert b"MemoryError" in large.stderr


@pytest.mark.parametrize(("deaths", "same"), [(1, True), (2, False)])
def test_a_worker_that_dies_is_replaced_and_asked_once_more(
    grader: Grader, monkeypatch: pytest.MonkeyPatch, deaths: int, same: bool
) -> None:
    grader.same(str(deaths), "x")
    before = grader.crashes
    left = deaths
    write = pool.Worker.ask

    def dying(self: pool.Worker, gold: str, answer: str) -> pool.Outcome:
        nonlocal left
        if left:
            left -= 1
            os.kill(self._process.pid, signal.SIGKILL)
        return write(self, gold, answer)

    monkeypatch.setattr(pool.Worker, "ask", dying)
    assert grader.same(rf"{5 + deaths}\sqrt{{2}}", rf"\sqrt{{{2 * (5 + deaths) ** 2}}}") is same
    assert grader.crashes == before + (not same)
    assert grader.same(r"17\sqrt{2}", r"\sqrt{578}")


def test_a_worker_outlives_the_signals_that_ask_the_stage_to_stop(grader: Grader) -> None:
    assert grader.same(r"18\sqrt{2}", r"\sqrt{648}")
    worker = worker_of(grader)
    os.kill(worker._process.pid, signal.SIGTERM)
    assert os.getpgid(worker._process.pid) != os.getpgid(0)  # Ctrl-C goes to a process group
    assert grader.same(r"19\sqrt{2}", r"\sqrt{722}")
    assert worker_of(grader) is worker


def test_an_interrupt_never_leaves_a_reply_for_the_next_question(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    grader.same("3", "x")
    with monkeypatch.context() as patch:

        def interrupted(_self: pool.Worker, _seconds: float) -> bytes:
            raise KeyboardInterrupt

        patch.setattr(pool.Worker, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            grader.same(r"11\sqrt{2}", r"\sqrt{242}")
    assert not grader.same(r"11\sqrt{2}", r"\sqrt{243}")


def test_a_worker_that_served_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_SERVED_MOST", 1)
    with Grader(workers=1) as grader:
        assert grader.same(*ROOT_OF_18)
        first = worker_of(grader)
        assert not grader.same(r"3\sqrt{2}", r"\sqrt{19}")
        assert worker_of(grader) is not first


def test_workers_get_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with Grader(workers=1) as fresh:
        fresh.same(*ROOT_OF_18)
        environment = Path(f"/proc/{worker_of(fresh)._process.pid}/environ")
        if not environment.exists():
            pytest.skip("no /proc here")
        assert b"hidden" not in environment.read_bytes()


def test_without_math_verify_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Grader(workers=1) as grader:
        assert grader.same("1", "1.0")
        with pytest.raises(SetupError, match="install the extra"):
            grader.same("1", "x")


def test_a_busy_worker_does_not_outlive_a_killed_parent() -> None:
    code = """
import threading
from dail_runtime.evaluate.grading import Grader
grader = Grader(workers=1, seconds=4)
grader.same("1", "x")
print(grader._pool._places.queue[-1]._process.pid, flush=True)
grader.same("1", "9^{9^{9^{9}}}")
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: Process.of(worker) is None, 300)


SIZE = MAX_TEXT - 10
HOSTILE = [
    *("{", "}", "(", "1,", " ", "\\", "\\text{", r"\frac{1}{", "((1,2),", "1 ", "a ", r"\pm", "x=", "x=1,", "5", "0.1", "-", r"\,", r" \,"),
    *(
        "sqrt(",
        r"\{",
        "and ",
        r"\cup ",
        "^{",
        "1,000",
        "a_{",
        "/",
        "1/",
        "'",
        "é",
        "½",
        "²",
        "\ud800",
        "\x00",
        "5\n",
        "%",
        "°",
        "(A)",
        "A. ",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_reading_hostile_text_takes_no_time(piece: str) -> None:
    text = (piece * SIZE)[:SIZE]
    started = time.process_time()
    for gold in ("5", r"\{1,2\}", "C", text + "1"):
        assert same(gold, text, lambda _gold, _answer: False) in (True, False)
    last_boxed(text + r"\boxed{" + text)
    # What reads the text again from each of its characters takes minutes.
    assert time.process_time() - started < 5 * slowness(time.process_time)


@pytest.mark.parametrize(("opening", "closing"), [("(", ")"), (r"\{", r"\}"), ("((1,2),", ")"), ("{", "}"), (r"\text{", "}")])
def test_reading_brackets_nested_hundreds_deep_takes_no_time(opening: str, closing: str) -> None:
    depth = SIZE // len(opening + closing) - 1
    text = opening * depth + "1" + closing * depth
    started = time.process_time()
    assert same("5", text, lambda _gold, _answer: False) is False
    assert same(text, text.replace("1", "3"), lambda _gold, _answer: False) is False
    assert time.process_time() - started < 2 * slowness(time.process_time)
