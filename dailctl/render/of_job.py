"""A whole rendering: from a resolved job to the objects of its run, with all that was made on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dail_runtime.spec import DailJob
from dailctl.render.chart import render
from dailctl.render.cluster_job import Input, for_cluster
from dailctl.render.parse import Object
from dailctl.render.record import RunRecord
from dailctl.render.size import model_bytes
from dailctl.render.values import run_values

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class Rendered:
    """A run before it is applied."""

    job: DailJob
    """The job as its pods read it."""
    content: Mapping[str, str]
    """Digests of its outside inputs, by the names the pods use."""
    inputs: tuple[Input, ...]
    """Local files and folders that must be in the store before the run starts."""
    run: RunRecord
    """Names and plan."""
    values: Mapping[str, Any]
    """Values of the chart."""
    objects: tuple[Object, ...]
    """What is applied, in order; the record is the first."""


def render_job(job: DailJob, content: Mapping[str, str], namespace: str) -> Rendered:
    """Render `job` (resolved; its inputs' digests in `content`) for `namespace`. Reads no cluster and writes nothing.

    Raises:
        SpecError: the job cannot run on a cluster.
        SetupError: Helm's library is not installed.
    """
    moved, renamed, inputs = for_cluster(job, content)
    values = run_values(moved, renamed, model_bytes(job.spec.model.id))
    return Rendered(moved, renamed, inputs, RunRecord.model_validate(values["run"]), values, tuple(render(values, namespace)))


def unpinned(job: DailJob) -> list[str]:
    """A sentence for each image whose name may mean something else tomorrow."""
    cluster = job.spec.cluster
    return [
        f"spec.cluster.{field}: {image} has no digest, so nodes may run different versions; write {image.partition('@')[0]}@sha256:..."
        for field, image in (("image", cluster.image), ("controlImage", cluster.control_image))
        if image is not None and "@sha256:" not in image
    ]
