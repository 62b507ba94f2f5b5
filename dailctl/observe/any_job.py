"""A job like any other, for questions that every job raises: which rights and APIs runs need."""

from __future__ import annotations

from dail_runtime.spec import DailJob, plan
from dail_runtime.store import open_store
from dailctl.render.chart import task_objects
from dailctl.render.of_job import render_job
from dailctl.runs import Run
from dailctl.submit.compose import Submission

_MODEL, _DATA = "example/model", "s3://example/expert.jsonl"
_JOB = {
    "apiVersion": "dail/v1alpha1",
    "kind": "DailJob",
    "metadata": {"name": "doctor"},
    "spec": {
        "model": {"id": _MODEL},
        "data": {"solutions": _DATA},
        "storage": {"uri": "s3://example/runs", "credentialsSecret": "example"},
        "cluster": {"image": "registry.example.org/dail/runtime:1"},
    },
}


def any_submission(namespace: str) -> Submission:
    """Its submission to `namespace`. Nothing is read, and nothing of it may be applied."""
    job = DailJob.model_validate(_JOB)
    rendered = render_job(job, {_MODEL: f"{_MODEL}@main", _DATA: "0" * 64}, namespace)
    record = rendered.objects[0]
    return Submission(
        run=Run(rendered.job, rendered.content, plan(rendered.job, rendered.content), open_store("s3://example/runs")),
        record=rendered.run,
        namespace=namespace,
        objects=rendered.objects,
        stages=tuple(one for task in rendered.run.tasks for one in task_objects(record, task)),
        uploads=(),
    )
