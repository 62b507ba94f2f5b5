"""train, killed with SIGKILL at several of its writes and started again, makes the adapter of an undisturbed run, bit for bit."""

from __future__ import annotations

import os
import signal
import traceback
from pathlib import Path

import pytest
import torch

from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.stages.run import run_task
from dail_runtime.store import read_manifest
from tests.support.killing import kill_after
from tests.support.stage_process import SavedRun, finish_stage
from tests.support.tiny import make_tiny_model
from tests.support.training import training_run

SETTINGS = {
    "objective": "contrastive",
    "warmup": {"epochs": 1},
    "checkpointEvery": 2,
    "keepCheckpoints": 1,
    "lora": {"r": 4, "dropout": 0.2},
}
"""Six steps; a checkpoint of five objects after every second one."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    run = training_run(model, tmp_path_factory.mktemp("undisturbed"), train=SETTINGS)
    assert forked(run) == 0
    return run


def forked(run: SavedRun, *, killed_after: int | None = None) -> int:
    """Run the stage in a fork of this process, which has paid for the imports; returns its exit code, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # a fork has none of the threads of its parent's pools
            if killed_after is not None:
                kill_after(killed_after)
            job, content = load_saved_job(run.root, run.digest)
            run_task(run.root, job, content, "train/tuned", lambda _: None)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def complete(run: SavedRun) -> list[str]:
    """The checkpoints that have their marker."""
    return sorted(info.key.split("/")[1] for info in run.at("train/tuned").list("checkpoints/") if info.key.endswith("/complete.json"))


def test_killed_again_and_again_training_ends_with_the_same_adapter(model: Path, undisturbed: SavedRun, tmp_path: Path) -> None:
    run = training_run(model, tmp_path, train=SETTINGS)
    store = run.at("train/tuned")
    # The first two writes are the attempt's record. Inside the first checkpoint: nothing is complete.
    assert forked(run, killed_after=5) == -signal.SIGKILL
    assert list(store.list("checkpoints/"))
    assert complete(run) == []
    # From the start again, and just after the marker of the second checkpoint, before the first one is removed.
    assert forked(run, killed_after=12) == -signal.SIGKILL
    assert complete(run) == ["step-00000002", "step-00000004"]
    # Inside the third.
    assert forked(run, killed_after=6) == -signal.SIGKILL
    assert complete(run) == ["step-00000002", "step-00000004"]
    # All steps done, and while the results are being written.
    assert forked(run, killed_after=10) == -signal.SIGKILL
    assert complete(run) == ["step-00000006"]
    assert list(store.list("adapter/"))
    assert read_manifest(store) is None
    # The real process finishes it.
    ended = finish_stage(run, "train/tuned")
    assert ended.events[-1]["counts"]["resumed_at_step"] == 6
    assert not list(store.list("checkpoints/"))
    assert adapters(run) == adapters(undisturbed)


@pytest.mark.parametrize("writes", [3, 7, 8, 15, 17, 18, 21, 25])
def test_killed_once_at_any_write_training_ends_with_the_same_adapter(
    writes: int, model: Path, undisturbed: SavedRun, tmp_path: Path
) -> None:
    run = training_run(model, tmp_path, train=SETTINGS)
    assert forked(run, killed_after=writes) == -signal.SIGKILL
    assert forked(run) == 0
    assert adapters(run) == adapters(undisturbed)


def adapters(run: SavedRun) -> dict[str, str | None]:
    """Digests of all results but the curves, which show the clock."""
    manifest = read_manifest(run.at("train/tuned"))
    assert manifest is not None
    return {info.key: info.sha256 for info in manifest.objects if info.key != "curves.jsonl"}
