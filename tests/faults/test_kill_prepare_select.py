"""prepare and select, killed with SIGKILL after each of their writes and started again, make what an undisturbed run makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime.spec import DailJob
from dail_runtime.stages.run import run_task
from dail_runtime.store import read_manifest
from tests.support.rollouts import data_job, finish_rewrite, rollout, saved, write_rows
from tests.support.stage_process import SavedRun, assert_same_results, finish_stage, run_stage

RIGHT, WRONG = "So it is \\boxed{5}.", "So it is \\boxed{6}."


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> DailJob:
    """A job whose files have something of everything: several sets, bad rows, several solutions."""
    folder = tmp_path_factory.mktemp("data")
    rows: list[object] = [{"id": f"i{n % 12}", "problem": f"problem {n % 12}", "solution": f"Way {n}: \\boxed{{5}}"} for n in range(18)]
    solutions = write_rows(folder / "x.jsonl", [*rows, b"{", {"problem": "p"}])
    sets = [{"name": name, "path": write_rows(folder / f"{name}.jsonl", [{"problem": name, "answer": 1}])} for name in ("one", "two")]
    return data_job({"solutions": solutions, "evaluation": sets, "onBadRow": "skip"})


def with_traces(job: DailJob, folder: Path) -> SavedRun:
    """A run whose prepare and rewrite are done."""
    run = saved(job, folder)
    run_task(run.root, job, {}, "prepare", lambda _: None)
    finish_rewrite(run, (rollout(f"i{n}", WRONG, f"{RIGHT} {n}", f"Or: {RIGHT}") for n in range(12)))
    return run


@pytest.fixture(scope="module")
def undisturbed(job: DailJob, tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    """The run that nothing happens to."""
    run = with_traces(job, tmp_path_factory.mktemp("undisturbed"))
    finish_stage(run, "select/tuned")
    return run


# Writes of prepare: the attempt's record when it starts and as it goes, problems, two sets, bad rows, the record when it ends,
# the manifest.
@pytest.mark.parametrize("writes", range(1, 8))
def test_a_killed_prepare_started_again_makes_the_same(job: DailJob, undisturbed: SavedRun, writes: int, tmp_path: Path) -> None:
    run = saved(job, tmp_path)
    assert run_stage(run, "prepare", kill_after=writes).killed
    assert read_manifest(run.at("prepare")) is None
    finish_stage(run, "prepare")
    assert_same_results(run.at("prepare"), undisturbed.at("prepare"))


# Writes of select: the attempt's record twice, verdicts, kept, the record again, the manifest.
@pytest.mark.parametrize("writes", range(2, 6))
def test_a_killed_select_started_again_makes_the_same(job: DailJob, undisturbed: SavedRun, writes: int, tmp_path: Path) -> None:
    run = with_traces(job, tmp_path)
    assert run_stage(run, "select/tuned", kill_after=writes).killed
    assert read_manifest(run.at("select/tuned")) is None
    finish_stage(run, "select/tuned")
    assert_same_results(run.at("select/tuned"), undisturbed.at("select/tuned"))


def test_a_stage_killed_after_its_last_write_counts_as_done(job: DailJob, undisturbed: SavedRun, tmp_path: Path) -> None:
    run = saved(job, tmp_path)
    assert run_stage(run, "prepare", kill_after=8).killed
    manifest = read_manifest(run.at("prepare"))
    assert manifest is not None
    assert [event["event"] for event in finish_stage(run, "prepare").events] == ["skipped"]
    assert read_manifest(run.at("prepare")) == manifest
    assert_same_results(run.at("prepare"), undisturbed.at("prepare"))
