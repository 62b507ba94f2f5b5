"""Training killed twenty times, by SIGTERM and by SIGKILL, at random steps and moments, on one rank and on two: the same adapter."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import DailError
from dail_runtime.stages.base import end_process
from dail_runtime.stages.follow import follow_task
from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.stages.run import run_task
from dail_runtime.store import read_manifest
from dail_runtime.train.ranks import place
from tests.support.ranks import start_ranks, wait_all
from tests.support.stage_process import SavedRun
from tests.support.tiny import make_tiny_model
from tests.support.training import training_run

TASK = "train/tuned"
KILLS = 20
SETTINGS: dict[str, Any] = {
    "objective": "contrastive",
    "warmup": {"epochs": 3},
    "epochs": 147,
    "checkpointEvery": 3,
    "keepCheckpoints": 2,
    "lora": {"r": 4, "dropout": 0.1},
    "saveMerged": False,
}
"""Three hundred steps: more than twenty kills let pass, on however fast a machine."""
MOST_STEPS = 10
"""An attempt is killed while it is at one of so many steps."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@dataclass(frozen=True)
class Kill:
    """What happens to an attempt: after so many of its steps (-1: at any moment before the first) and a moment, one rank gets a signal."""

    steps: int
    moment: float
    victim: int
    number: int


def attempt(run: SavedRun, ranks: int, pids: Path, kill: Kill | None = None) -> list[int]:
    """One attempt at the task; returns the exit codes of its ranks."""

    def body(rank: int) -> None:
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        (pids / str(rank)).write_text(str(os.getpid()))
        job, content = load_saved_job(run.root, run.digest)
        steps = 0

        def emit(event: dict[str, Any]) -> None:
            nonlocal steps
            if event["event"] != "progress":
                return
            # The references are computed before the first step.
            if kill is not None and steps == kill.steps:
                pid = int((pids / str(kill.victim)).read_text())
                threading.Timer(kill.moment, os.kill, (pid, kill.number)).start()
            steps += event["unit"] == "steps"

        try:
            if place().lead:
                # An event for every step: kills come at steps, not after seconds in which one machine does more of them than another.
                run_task(run.root, job, content, TASK, emit, stop, every=0.0)
            else:
                follow_task(run.root, job, content, TASK, stop, end_process)
        except DailError as err:
            end_process(err)

    forks = start_ranks(ranks, body)
    if kill is not None and kill.steps < 0:
        time.sleep(kill.moment * 100)
        forks[kill.victim].kill(kill.number)
        if kill.number == signal.SIGKILL:
            # It may not have met the others yet. They would wait for its successor; the launcher ends them, as this does.
            for fork in forks:
                fork.kill(signal.SIGTERM)
    return wait_all(forks)


def adapter(run: SavedRun) -> dict[str, str | None]:
    manifest = read_manifest(run.at(TASK))
    assert manifest is not None
    return {info.key: info.sha256 for info in manifest.objects if info.key != "curves.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_twenty_times_training_ends_with_the_adapter_of_an_undisturbed_run(ranks: int, model: Path, tmp_path: Path) -> None:
    undisturbed = training_run(model, tmp_path / "undisturbed", train=SETTINGS)
    assert attempt(undisturbed, ranks, tmp_path) == [0] * ranks

    draw = random.Random(ranks)
    run = training_run(model, tmp_path / "killed", train=SETTINGS)
    hit = 0
    for turn in range(KILLS):
        number = signal.SIGTERM if turn % 2 else signal.SIGKILL
        # From "nothing has been said yet" over "the references are being computed" to a few steps on.
        kill = Kill(draw.choice([-1, *range(MOST_STEPS)]), draw.random() * 0.005, draw.randrange(ranks), number)
        codes = attempt(run, ranks, tmp_path, kill)
        # SIGTERM: all save once and say so, unless it came before anyone listened. SIGKILL: the others end for want of one rank.
        asked = {143, -signal.SIGTERM, 75}
        allowed = asked if number == signal.SIGTERM else {75, -signal.SIGKILL, *(asked if kill.steps < 0 else ())}
        assert set(codes) <= allowed, (kill, codes)
        hit += set(codes) <= {143} or -signal.SIGKILL in codes
    assert hit > KILLS // 2
    assert read_manifest(run.at(TASK)) is None
    assert attempt(run, ranks, tmp_path) == [0] * ranks
    assert adapter(run) == adapter(undisturbed)
    assert not list(run.at(TASK).list("checkpoints/"))
    steps = [json.loads(line)["step"] for line in run.at(TASK).get("curves.jsonl").splitlines()]
    assert steps == list(range(1, len(steps) + 1))
