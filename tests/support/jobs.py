"""Jobs for tests that render or submit them: a whole job file in a few lines."""

from __future__ import annotations

from typing import Any

import yaml

from dail_runtime.spec import DailJob
from dailctl.render.cluster_job import for_cluster
from dailctl.render.size import model_bytes
from dailctl.render.values import run_values

JOB = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata: {name: aime-qwen}
spec:
  model: {id: Qwen/Qwen2.5-7B-Instruct}
  data:
    solutions: s3://data/expert.jsonl
    evaluation: [{name: aime25, path: s3://data/aime25.jsonl}]
  storage: {uri: "s3://runs/team", credentialsSecret: dail-s3}
  cluster: {image: registry.example.org/dail/runtime:1}
"""
CONTENT = {
    "Qwen/Qwen2.5-7B-Instruct": "Qwen/Qwen2.5-7B-Instruct@main",
    "s3://data/expert.jsonl": "a" * 64,
    "s3://data/aime25.jsonl": "b" * 64,
}


def a_job(**spec: Any) -> DailJob:
    """JOB with these sections of `spec` merged in; `name` and `labels` are the run's."""
    tree = yaml.safe_load(JOB)
    tree["metadata"] = {"name": spec.pop("name", "aime-qwen"), "labels": spec.pop("labels", {})}
    tree["spec"] = merged(tree["spec"], spec)
    return DailJob.model_validate(tree)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the fields of `over`, group by group."""
    both = {key: merged(base[key], over[key]) for key in base if isinstance(base[key], dict) and isinstance(over.get(key), dict)}
    return {**base, **over, **both}


def chart_values(job: DailJob, content: dict[str, str] | None = None) -> dict[str, Any]:
    """Values of the chart for a job."""
    moved, renamed, _ = for_cluster(job, CONTENT if content is None else content)
    return run_values(moved, renamed, model_bytes(job.spec.model.id))
