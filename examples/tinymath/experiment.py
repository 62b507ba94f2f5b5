"""Runs variations of job.yaml, stage by stage through dail itself, and reads the figures back. What is done is not done again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dail_runtime.evaluate.records import RESPONSES, SUMMARY, SetFigures, Summary
from dail_runtime.records import Rollout
from dail_runtime.spec import BASE, DailJob, plan
from dail_runtime.spec.content import content_of
from dail_runtime.spec.load import resolve_paths
from dail_runtime.stages.run import run_task
from dail_runtime.store import Store, open_store
from examples.tinymath.problems import HERE, JUMP


@dataclass(frozen=True)
class Outcome:
    """One model on one evaluation set."""

    figures: SetFigures
    jumps: float
    """Share of the answers that state a result without the work (see `problems.JUMP`)."""


def variation(name: str, changes: Mapping[str, Any]) -> DailJob:
    """job.yaml under another name, with whole parts of its `spec` replaced."""
    job = yaml.safe_load((HERE / "job.yaml").read_text(encoding="utf-8"))
    job["metadata"]["name"] = name
    for path, value in changes.items():
        *way, last = path.split(".")
        section = job["spec"]
        for key in way:
            section = section[key]
        section[last] = value
    return resolve_paths(DailJob.model_validate(job), HERE)


def measure(job: DailJob, runs: Path) -> dict[str, dict[str, Outcome]]:
    """Run all of `job` but its report below `runs`; returns target -> evaluation set -> outcome."""
    content = content_of(job)
    run = open_store(str(runs)).at(job.metadata.name)
    outcomes = {}
    for task in plan(job, content):
        if task.stage == "report":
            continue
        manifest = run_task(run, job, content, task.name, _tell)
        print(f"{job.metadata.name}: {task.name}, {manifest.seconds:.0f} s", file=sys.stderr, flush=True)
        if task.stage == "evaluate":
            outcomes[task.variant or BASE] = _outcomes(run.at(task.prefix))
    return outcomes


def _tell(event: dict[str, Any]) -> None:
    if event["event"] == "say":
        print(event["sentence"], file=sys.stderr, flush=True)


def _outcomes(out: Store) -> dict[str, Outcome]:
    summary = Summary.model_validate_json(out.get(SUMMARY))
    jumps: dict[str, list[bool]] = {name: [] for name in summary.sets}
    for info in out.list(RESPONSES):
        rollout = Rollout.model_validate_json(out.get(info.key))
        jumps[rollout.set] += [JUMP + "\\boxed" in sample.text for sample in rollout.samples]
    return {name: Outcome(figures, sum(jumps[name]) / len(jumps[name])) for name, figures in summary.sets.items()}
