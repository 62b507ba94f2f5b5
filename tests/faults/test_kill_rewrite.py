"""A rewrite, and a teacher check, that are killed with SIGKILL and started again leave what undisturbed ones leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dail_runtime.models import load_tokenizer
from dail_runtime.records import Problem, Rollout, Sample, from_jsonl
from dail_runtime.spec import DailJob
from dail_runtime.stages.run import run_task
from dail_runtime.store import read_manifest
from tests.support.rollouts import data_job, finish_rewrite, saved, write_rows
from tests.support.stage_process import SavedRun, assert_same_results, run_stage
from tests.support.tiny import make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def job_of(folder: Path, **rewrite: Any) -> DailJob:
    model = make_tiny_model(folder / "model")
    rows = [{"problem": f"What is {n} times {n}?", "solution": f"\\boxed{{{n * n}}}"} for n in range(12)]
    test = write_rows(folder / "t.jsonl", [{"problem": "Something else?", "answer": 1}])
    data = {"solutions": write_rows(folder / "x.jsonl", rows), "evaluation": [{"name": "test", "path": test}]}
    engine = {"kind": "transformers", "batchSize": 16}
    return data_job(data, model={"id": str(model)}, rewrite={"samples": 3, "maxTokens": 60, "engine": engine, **rewrite})


def finish(run: SavedRun, job: DailJob, task: str) -> None:
    run_task(run.root, job, {}, task, lambda _: None)


def test_a_killed_rewrite_gives_the_same_traces(tmp_path: Path) -> None:
    # 36 responses in 16 slots: at the kill some problems are done, some under way and some not begun.
    job = job_of(tmp_path, policy={"kind": "mixed", "tau": 0.05, "tries": 2})
    disturbed, calm = (saved(job, tmp_path / name) for name in ("disturbed", "calm"))
    for run in (disturbed, calm):
        finish(run, job, "prepare")
    task = "rewrite/tuned"
    finish(calm, job, task)
    # Its attempt's record, the engine's facts and some rollouts are written then.
    assert run_stage(disturbed, task, kill_after=5).killed
    assert read_manifest(disturbed.at(task)) is None
    assert 0 < len(list(disturbed.at(task).list("rollouts/"))) < 12
    finish(disturbed, job, task)
    assert_same_results(disturbed.at(task), calm.at(task))
    for info in calm.at(task).list("rollouts/"):
        assert disturbed.at(task).get(info.key) == calm.at(task).get(info.key)


def test_a_killed_teacher_check_gives_the_same_figures(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    eos = load_tokenizer(job.spec.model).eos_token_id
    disturbed, calm = (saved(job, tmp_path / name) for name in ("disturbed", "calm"))
    for run in (disturbed, calm):
        finish(run, job, "prepare")
        trace = Sample(index=0, ids=(40, 41, eos), text="\\boxed{9}", finish="stop", logprob=-1.0)
        problems = from_jsonl(Problem, run.at("prepare").get("problems.jsonl"))
        finish_rewrite(run, [Rollout(id=problem.id, samples=(trace,)) for problem in problems])
        finish(run, job, "select/tuned")
    task = "check/tuned"
    finish(calm, job, task)
    # Killed between drawing and scoring: the drawn responses are taken up again.
    assert run_stage(disturbed, task, kill_after=2).killed
    assert read_manifest(disturbed.at(task)) is None
    finish(disturbed, job, task)
    assert_same_results(disturbed.at(task), calm.at(task))
