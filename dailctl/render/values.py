"""From a job to the values of the chart charts/dail-run. Pure: the same job gives the same values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

import dail_runtime
from dail_runtime.errors import SpecError
from dail_runtime.spec import DailJob, Task, plan
from dail_runtime.spec.kubernetes import quantity
from dail_runtime.spec.pool import Pool
from dail_runtime.stages.jobs import job_record
from dailctl.render.names import TASK_NAME, run_name, shortened, task_object, task_slug
from dailctl.render.record import JOB, SAVED_JOB, Component, PoolName, RunRecord, TaskRecord
from dailctl.render.size import start_seconds

MODEL_STAGES = ("rewrite", "check", "evaluate")
"""Stages that need the model's answers."""
SHM_SHARE = 4
"""/dev/shm is this part of a pod's memory, where a pool names no size."""
MEBI = 1024 * 1024
RECORD_LIMIT = 1_000_000
"""Bytes of a ConfigMap that the API server takes (1 MiB), less room for the status."""

# The C emitter, where PyYAML has it, is ten times faster.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def run_record(job: DailJob, content: Mapping[str, str]) -> RunRecord:
    """What the record says of a run: its names and its plan. `job` is as `for_cluster` made it."""
    return _record(job, content, job_record(job, content)[0])


def _record(job: DailJob, content: Mapping[str, str], digest: str) -> RunRecord:
    storage, tasks = job.spec.storage, plan(job, content)
    return RunRecord(
        name=run_name(job.metadata.name, digest),
        job=job.metadata.name,
        run_uri=f"{storage.uri.rstrip('/')}/{job.metadata.name}",
        endpoint=storage.endpoint,
        region=storage.region,
        job_digest=digest,
        dail_version=dail_runtime.__version__,
        tasks=tuple(_task(job, digest, number, task) for number, task in enumerate(tasks, 1)),
    )


def run_values(job: DailJob, content: Mapping[str, str], size: int | None) -> dict[str, Any]:
    """Values of the chart for `job` (as `for_cluster` made it).

    Args:
        job: the job as pods see it.
        content: digests of its outside inputs.
        size: bytes of the model's weights, where known.

    Raises:
        SpecError: the job is too large for a record.
    """
    cluster = job.spec.cluster.model_dump(mode="json", exclude={"namespace", "retries"})
    cluster["timeouts"]["serverStart"] = cluster["timeouts"]["serverStart"] or start_seconds(size)
    for name, pool in (("rewrite", job.spec.cluster.pools.rewrite), ("train", job.spec.cluster.pools.train)):
        cluster["pools"][name] = _pool(pool)
    cluster["pools"]["control"] = _pool(job.spec.cluster.pools.control)
    digest, text = job_record(job, content)
    for_people = yaml.dump(
        job.model_dump(mode="json", exclude_defaults=True), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000
    )
    if len(text.encode()) + len(for_people.encode()) > RECORD_LIMIT // 2:
        raise SpecError("the job is too large for a run record (half a megabyte); move worked examples and long texts out of it")
    return {
        "run": _record(job, content, digest).model_dump(mode="json", exclude_none=True),
        "record": {SAVED_JOB: text, JOB: for_people},
        "labels": dict(job.metadata.labels),
        "storage": {"credentialsSecret": job.spec.storage.credentials_secret},
        **cluster,
    }


def _pool(pool: Pool) -> dict[str, Any]:
    values = pool.model_dump(mode="json")
    if pool.shm_size is None:
        size = max(64, int(quantity(pool.memory) / SHM_SHARE / MEBI))
        # As the API server writes it, or tools that compare the cluster with Git would see a difference for ever.
        values["shmSize"] = f"{size}Mi" if size % 1024 else f"{size // 1024}Gi"
    return values


def _task(job: DailJob, digest: str, number: int, task: Task) -> TaskRecord:
    name, slug = job.metadata.name, task_slug(task.name)
    component = _component(task)
    return TaskRecord(
        name=task.name,
        slug=slug,
        stage=task.stage,
        component=component,
        object=task_object(name, digest, task.name),
        manifests=f"{number:02d}-{slug}.yaml",
        pool=_pool_of(task, component),
        replicas=task.settings.rewrite.replicas if component == "servers" else 0,
        workers=task.settings.train.workers if component == "pytorchjob" else 0,
        attempts=job.spec.cluster.retries + 1,
        reason=f"<run>-{slug} has more than the {TASK_NAME} characters that leave room for pods' suffixes"
        if shortened(name, task.name)
        else None,
    )


def _component(task: Task) -> Component:
    if task.stage == "train":
        return "pytorchjob"
    return "servers" if task.stage in MODEL_STAGES and task.settings.rewrite.engine.kind == "vllm-http" else "job"


def _pool_of(task: Task, component: Component) -> PoolName:
    if task.stage == "train":
        return "train"
    if component == "servers":
        # The check's driver scores traces itself, with the model loaded as in training.
        return "train" if task.stage == "check" else "control"
    return "rewrite" if task.stage in MODEL_STAGES else "control"
