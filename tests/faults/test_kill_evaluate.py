"""`evaluate` killed with SIGKILL ends with what an undisturbed evaluation ends with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dail_runtime.evaluate.records import RESPONSES, RESULTS
from dail_runtime.spec import DailJob
from dail_runtime.spec.content import content_of
from dail_runtime.store import open_store
from tests.support.stage_process import SavedRun, assert_same_results, finish_stage, run_stage, save_run
from tests.support.tiny import make_tiny_model

ROWS = [{"id": f"p{n}", "problem": f"What is {n} + {n}?", "solution": f"\\boxed{{{2 * n}}}"} for n in range(6)]


def save(folder: Path, model: Path, name: str) -> SavedRun:
    for file, rows in (("solutions", ROWS[:2]), ("dev", ROWS[2:])):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = DailJob.model_validate(
        {
            "apiVersion": "dail/v1alpha1",
            "kind": "DailJob",
            "metadata": {"name": name},
            "spec": {
                "model": {"id": str(model)},
                "data": {
                    "solutions": str(folder / "solutions.jsonl"),
                    "evaluation": [{"name": "dev", "path": str(folder / "dev.jsonl")}],
                },
                "storage": {"uri": str(folder / "runs")},
                "evaluate": {"samples": 3, "maxTokens": 16, "budgets": [8], "forcedTokens": 4, "temperature": 1.0},
            },
        }
    )
    return save_run(job, content_of(job), str(folder / "runs"))


@pytest.mark.slow
def test_a_killed_evaluation_ends_with_the_same_results(tmp_path: Path) -> None:
    whole = save(tmp_path, make_tiny_model(tmp_path / "model"), "whole")
    finish_stage(whole, "prepare")
    shutil.copytree(tmp_path / "runs" / "whole", tmp_path / "runs" / "killed")
    killed = replace(whole, root=open_store(str(tmp_path / "runs" / "killed")))
    out = killed.at("evaluate/base")
    finish_stage(whole, "evaluate/base")
    # The process records its attempt, the answers of a problem, their grades, and dies with the next answers ungraded.
    assert run_stage(killed, "evaluate/base", kill_after=4).killed
    assert 1 <= len(list(out.list(RESPONSES))) <= 2
    assert len(list(out.list(RESULTS))) < len(ROWS[2:])
    finish_stage(killed, "evaluate/base")
    assert_same_results(whole.at("evaluate/base"), out)
