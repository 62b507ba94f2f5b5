"""A rewrite that is killed with SIGKILL and started again leaves what an undisturbed one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime.store import read_manifest
from tests.support.rollouts import data_job, saved, write_rows
from tests.support.stage_process import assert_same_results, finish_stage, run_stage
from tests.support.tiny import make_tiny_model

TASK = "rewrite/tuned"


@pytest.mark.slow
def test_a_killed_rewrite_gives_the_same_traces(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    rows = [{"problem": f"What is {n} times {n}?", "solution": f"\\boxed{{{n * n}}}"} for n in range(12)]
    data = {"solutions": write_rows(tmp_path / "x.jsonl", rows), "evaluation": [{"name": "test", "path": str(tmp_path / "x.jsonl")}]}
    sections = {
        "model": {"id": str(model)},
        # 36 responses in 16 slots: at the kill some problems are done, some under way and some not begun.
        "rewrite": {
            "policy": {"kind": "mixed", "tau": 0.05, "tries": 2},
            "samples": 3,
            "maxTokens": 80,
            "engine": {"kind": "transformers", "batchSize": 16},
        },
    }
    disturbed, calm = (saved(data_job(data, **sections), tmp_path / name) for name in ("disturbed", "calm"))
    for run in (disturbed, calm):
        finish_stage(run, "prepare")
    finish_stage(calm, TASK)
    # Its attempt's record, the engine's facts and two rollouts are written then.
    assert run_stage(disturbed, TASK, kill_after=4).killed
    assert read_manifest(disturbed.at(TASK)) is None
    there = {info.key for info in disturbed.at(TASK).list("rollouts/")}
    assert 2 <= len(there) < 12
    finish_stage(disturbed, TASK)
    assert_same_results(disturbed.at(TASK), calm.at(TASK))
    for info in calm.at(TASK).list("rollouts/"):
        assert disturbed.at(TASK).get(info.key) == calm.at(TASK).get(info.key)
