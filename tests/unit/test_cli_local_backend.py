"""The local backend against stage processes that behave as told: order, retries, signals, kills, locks, logs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dail_runtime.errors import UsageError
from dail_runtime.spec import DailJob, plan
from dail_runtime.store import MANIFEST, open_store
from dailctl.backends.local import LocalBackend, Start, drop, tasks_from
from dailctl.backends.lock import hold, is_held
from dailctl.errors import StageFailed, Stopped
from dailctl.progress import View
from dailctl.runs import Run
from tests.lab.components import Process, wait_until
from tests.support.playing import fresh, warm

REPOSITORY = Path(__file__).parents[2]
JOB = {
    "apiVersion": "dail/v1alpha1",
    "kind": "DailJob",
    "metadata": {"name": "play"},
    "spec": {
        "model": {"id": "some/model"},
        "data": {"solutions": "/nowhere/expert.jsonl"},
        "evaluate": {"samples": 1, "teacherCheck": False},
        "variants": {"a": {}, "b": {"train": {"objective": "sft"}}},
    },
}
ALL = ["prepare", "rewrite/a", "select/a", "train/a", "train/b", "evaluate/base", "evaluate/a", "evaluate/b", "report"]


class Stage:
    """A run whose stages follow a script."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
        self.folder, self.start = folder, start
        self.script = folder / "script.json"
        monkeypatch.setenv("SCRIPT", str(self.script))
        monkeypatch.chdir(REPOSITORY)
        job = DailJob.model_validate(JOB)
        self.run = Run(job, {}, plan(job, {}), open_store(str(folder / "runs")).at("play"))
        self.says()

    def says(self, **tasks: list[str]) -> None:
        """Script of tasks; `_` in a name stands for '/'."""
        says = {name.replace("_", "/"): words for name, words in tasks.items()}
        known = {task.name: {"prefix": task.prefix, "digest": task.digest, "inputs": dict(task.inputs)} for task in self.run.tasks}
        self.script.write_text(json.dumps({"plan": known, "files": {}, "says": says}))

    def execute(self, *, again: list[str] | None = None, view: View | None = None) -> None:
        """Run it; `again` as --from."""
        dropped = [task for task in self.run.tasks if task.name in (again or [])]
        LocalBackend(self.run, view or View(), start=self.start, waits=(0.01, 0.01)).execute(dropped)

    @property
    def started(self) -> list[str]:
        """Every stage process so far, in order."""
        marks = Path(f"{self.script}.marks")
        return [line.split()[0] for line in marks.read_text().splitlines()] if marks.exists() else []

    def pids(self) -> list[int]:
        """Their process ids."""
        return [int(line.split()[1]) for line in Path(f"{self.script}.marks").read_text().splitlines()]

    def log(self, task: str, attempt: int) -> str:
        """What an attempt left in its log."""
        return (self.folder / "runs" / "play" / "logs" / task / f"attempt-{attempt}.log").read_text()

    def when_started(self, task: str, then: Callable[[], None]) -> threading.Thread:
        """Call `then` once the task's process is up and listens."""

        def wait() -> None:
            while task not in self.started:
                time.sleep(0.02)
            then()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread


def assert_ended(pids: list[int]) -> None:
    """None of these processes runs any more, as soon as the kernel has ended what it was told to."""
    assert wait_until(lambda: not any(map(Process.of, pids)), 120), pids


@pytest.fixture(params=[fresh, warm], ids=["fresh", "warm"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A scripted run, with each way to start a stage."""
    return Stage(tmp_path, monkeypatch, request.param)


def test_every_task_runs_once_in_the_plans_order_and_never_again(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.execute()
    assert stage.started == ALL
    stage.execute()
    assert stage.started == ALL
    said = capsys.readouterr()
    assert said.out == ""
    assert "[4/9] train/a: done in 0.1s: 4 problems, 1 dropped (wrong)" in said.err
    assert "[1/9] prepare: done before" in said.err


def test_a_passing_fault_is_tried_again_and_each_attempt_keeps_its_own_log(stage: Stage) -> None:
    stage.says(select_a=["exit:75", "exit:65", "ok"])
    stage.execute()
    assert stage.started.count("select/a") == 3
    assert [f"attempt {number}" in stage.log("select/a", number) for number in (1, 2, 3)] == [True] * 3


def test_a_fault_that_does_not_pass_ends_the_run_after_the_last_try(stage: Stage) -> None:
    stage.says(prepare=["error:75:the bucket did not answer"])
    with pytest.raises(StageFailed, match="prepare: the bucket did not answer") as failure:
        stage.execute()
    assert failure.value.exit_code == 75
    assert stage.started == ["prepare"] * 3


def test_a_users_error_is_never_tried_again(stage: Stage) -> None:
    stage.says(prepare=["error:4:expert.jsonl:3: no solution; add one"])
    with pytest.raises(StageFailed) as failure:
        stage.execute()
    assert (failure.value.exit_code, str(failure.value)) == (4, "prepare: expert.jsonl:3: no solution; add one")
    assert stage.started == ["prepare"]


def test_a_killed_stage_is_named_with_its_signal_and_log_and_the_next_run_goes_on(stage: Stage) -> None:
    stage.says(train_a=["kill", "ok"])
    with pytest.raises(StageFailed) as failure:
        stage.execute()
    log = stage.folder / "runs/play/logs/train/a/attempt-1.log"
    assert failure.value.exit_code == 137
    assert "train/a: the stage was killed by SIGKILL (signal 9)" in str(failure.value)
    assert str(log) in str(failure.value)
    stage.execute()
    assert stage.started == [*ALL[:4], *ALL[3:]]


def test_an_unexpected_failure_names_the_exception_and_where_its_traceback_is(stage: Stage) -> None:
    stage.says(prepare=["crash"])
    with pytest.raises(StageFailed, match=r"RuntimeError: the sky fell.*the traceback is in .*attempt-1\.log") as failure:
        stage.execute()
    assert failure.value.exit_code == 1
    assert "Traceback" in stage.log("prepare", 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_lets_the_stage_save_and_ends_with_its_code(stage: Stage, number: signal.Signals, code: int) -> None:
    stage.says(rewrite_a=["wait", "ok"])
    thread = stage.when_started("rewrite/a", lambda: os.kill(os.getpid(), number))
    with pytest.raises(Stopped, match=f"stopped by {number.name} at rewrite/a") as stopped:
        stage.execute()
    thread.join()
    assert stopped.value.exit_code == code
    assert '"message": "saved"' in stage.log("rewrite/a", 1)
    assert not is_held(stage.run.root)
    stage.execute()
    assert stage.started == [*ALL[:2], *ALL[1:]]


def test_a_second_signal_kills_a_stage_that_does_not_listen(stage: Stage) -> None:
    stage.says(prepare=["stubborn"])
    heard = threading.Event()

    class Told(View):
        def stopping(self) -> None:
            heard.set()

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        # Two that come at once may be one to a process.
        assert heard.wait(120)
        os.kill(os.getpid(), signal.SIGINT)

    thread = stage.when_started("prepare", twice)
    with pytest.raises(Stopped):
        stage.execute(view=Told())
    thread.join()
    assert_ended(stage.pids())


def test_a_hang_up_that_is_ignored_stays_ignored(stage: Stage) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stage.says(prepare=["slow"])
        thread = stage.when_started("prepare", lambda: os.kill(os.getpid(), signal.SIGHUP))
        stage.execute()
        thread.join()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stage.started == ALL


def test_no_stage_outlives_a_failure_of_its_supervisor(stage: Stage) -> None:
    stage.says(prepare=["stubborn"])

    class Broken(View):
        def progress(self, *_: object) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        LocalBackend(stage.run, Broken(), start=stage.start).execute()
    assert_ended(stage.pids())


def test_the_signals_own_handlers_are_back_afterwards(stage: Stage) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    stage.execute()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_second_run_at_the_same_time_is_refused_with_a_sentence(stage: Stage) -> None:
    with hold(stage.run.root, lambda: None):
        assert is_held(stage.run.root)
        with pytest.raises(UsageError, match=rf"run play: another dailctl is at work on it \(process {os.getpid()} on .*; wait for it"):
            stage.execute()
    assert stage.started == []
    assert not is_held(stage.run.root)
    stage.execute()


def test_a_stage_that_outlives_a_killed_dailctl_keeps_the_run_locked(stage: Stage) -> None:
    stage.says(prepare=["stubborn", "ok"])
    code = (
        "import sys; from pathlib import Path; from tests.unit.test_cli_local_backend import *\n"
        f"job = DailJob.model_validate(JOB); root = open_store({str(stage.folder / 'runs')!r}).at('play')\n"
        f"LocalBackend(Run(job, {{}}, plan(job, {{}}), root), View(), start={stage.start.__name__}).execute()"
    )
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", code])
    while "prepare" not in stage.started:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pytest.raises(UsageError, match="another dailctl is at work"):
        stage.execute()
    os.killpg(stage.pids()[0], signal.SIGKILL)
    assert wait_until(lambda: not is_held(stage.run.root), 120)
    stage.execute()
    assert stage.started == ["prepare", *ALL]


def test_a_run_that_another_machine_took_over_ends_after_saving(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.says(rewrite_a=["wait"])

    @contextlib.contextmanager
    def hold_for_a_moment(_: object, lost: Callable[[], None]) -> Iterator[tuple[int, ...]]:
        thread = stage.when_started("rewrite/a", lost)
        yield ()
        thread.join()

    monkeypatch.setattr("dailctl.backends.local.hold", hold_for_a_moment)
    with pytest.raises(StageFailed, match="rewrite/a: another machine took this run over") as failure:
        stage.execute()
    assert failure.value.exit_code == 75
    assert '"message": "saved"' in stage.log("rewrite/a", 1)


def test_from_runs_again_what_comes_after_and_nothing_before(stage: Stage) -> None:
    stage.execute()
    stage.execute(again=[task.name for task in tasks_from(stage.run.tasks, "evaluate") or []])
    assert stage.started == [*ALL, *ALL[5:]]


def test_from_a_task_means_it_and_all_that_build_on_it(stage: Stage) -> None:
    names = {
        start: [task.name for task in tasks_from(stage.run.tasks, start) or []] for start in ("train", "train/b", "rewrite/a", "report")
    }
    assert names == {
        "train": ALL[3:],
        "train/b": ["train/b", "evaluate/b", "report"],
        "rewrite/a": [name for name in ALL[1:] if name != "evaluate/base"],
        "report": ["report"],
    }
    assert tasks_from(stage.run.tasks, "trian") is None
    assert tasks_from(stage.run.tasks, "train/c") is None


def test_dropped_results_leave_nothing_behind_and_others_alone(stage: Stage) -> None:
    stage.execute()
    left, gone = stage.run.tasks[3], stage.run.tasks[4]
    drop(stage.run.root, [gone])
    assert list(stage.run.root.list(f"{gone.prefix}/")) == []
    assert stage.run.root.head(f"{left.prefix}/{MANIFEST}") is not None


def test_a_stage_whose_objects_were_removed_runs_again(stage: Stage) -> None:
    stage.execute()
    stage.run.root.delete(f"{stage.run.tasks[2].prefix}/result.txt")
    stage.execute()
    assert stage.started == [*ALL, "select/a"]


def test_talk_of_the_stages_goes_to_their_logs_and_not_to_the_terminal(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.execute()
    said = capfd.readouterr()
    assert "talk of" not in said.err + said.out
    assert "talk of train/b, attempt 1" in stage.log("train/b", 1)
