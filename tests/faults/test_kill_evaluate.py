"""An evaluation that is killed with SIGKILL and started again leaves what an undisturbed one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime.evaluate.records import RESPONSES, RESULTS
from dail_runtime.stages.run import run_task
from dail_runtime.store import read_manifest
from tests.support.rollouts import data_job, saved, write_rows
from tests.support.stage_process import assert_same_results, run_stage
from tests.support.tiny import make_tiny_model

PROBLEMS = 6


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_evaluation_gives_the_same_results(tmp_path: Path) -> None:
    rows = [{"problem": f"What is {n} times {n}?", "answer": n * n} for n in range(PROBLEMS)]
    solutions = write_rows(tmp_path / "x.jsonl", [{"problem": "Something else?", "solution": "It is \\boxed{1}."}])
    data = {"solutions": solutions, "evaluation": [{"name": "dev", "path": write_rows(tmp_path / "dev.jsonl", rows)}]}
    measured = {"samples": 3, "maxTokens": 24, "budgets": [8], "forcedTokens": 4, "temperature": 1.0}
    job = data_job(data, model={"id": str(make_tiny_model(tmp_path / "model"))}, evaluate=measured)
    disturbed, calm = (saved(job, tmp_path / name) for name in ("disturbed", "calm"))
    task = "evaluate/base"
    for run in (disturbed, calm):
        run_task(run.root, job, {}, "prepare", lambda _: None)
    run_task(calm.root, job, {}, task, lambda _: None)
    # Its attempt's record, the answers to one problem, their grades and the answers to another are written then.
    assert run_stage(disturbed, task, kill_after=4).killed
    out = disturbed.at(task)
    assert read_manifest(out) is None
    assert 0 < len(list(out.list(RESPONSES))) < PROBLEMS
    assert len(list(out.list(RESULTS))) < PROBLEMS
    run_task(disturbed.root, job, {}, task, lambda _: None)
    assert_same_results(out, calm.at(task))
