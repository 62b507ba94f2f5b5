"""The plan: which tasks a job consists of, in order, and under which digest each keeps its results. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dail_runtime.spec.base import Section
from dail_runtime.spec.job import BASE, DailJob, Settings
from dail_runtime.spec.rewrite import RewriteSpec
from dail_runtime.store.manifest import digest_of

STAGES = ("prepare", "rewrite", "select", "check", "train", "evaluate", "report")
"""Stages in the order in which they run."""

SHARED = ("rewrite", "select", "check")
"""Stages whose tasks serve every variant that agrees so far."""

FORMAT = 1
"""Raised when a stage's code changes what it would write for the same settings, so that old results are not reused."""


PIECES = (
    "workers",
    "keep_checkpoints",
    "checkpoint_every",
    "micro_batch_tokens",
    "chunk_tokens",
    "gradient_checkpointing",
    "cache_references",
    "shard",
)
"""Fields of `train` that say in which pieces the work is done, not what is computed: a training that ran out of memory goes on from
its checkpoint with smaller ones."""


@dataclass(frozen=True)
class Task:
    """One stage for one variant (or for several that share it)."""

    stage: str
    """One of STAGES."""
    variant: str | None
    """The variant (or `base`) it serves; for rewrite, select and check the first of those that share it; None: the
    whole run."""
    digest: str
    """Digest of everything its result depends on."""
    inputs: Mapping[str, str]
    """Upstream task name -> digest."""
    settings: Settings
    """The variant's settings (the job's own for tasks of the whole run)."""

    @property
    def name(self) -> str:
        """`stage` or `stage/variant`."""
        return self.stage if self.variant is None else f"{self.stage}/{self.variant}"

    @property
    def prefix(self) -> str:
        """Where below the run's root its objects live. What variants share goes without their names: another variant before
        the others, or another name, must not have all traces drawn again."""
        return f"{self.stage if self.stage in SHARED else self.name}/{self.digest[:16]}"


def plan(job: DailJob, content: Mapping[str, str]) -> tuple[Task, ...]:
    """The tasks of `job` in an order in which each comes after its inputs.

    `content` names the outside inputs by content: path, URI or model id -> digest (`content_of`). What an input is called
    does not enter a digest, only what is in it: a moved folder keeps its results. Two jobs that agree in everything a task
    depends on give it the same digest, so its results are shared.
    """
    spec = job.spec
    tasks: list[Task] = []
    own = Settings(rewrite=spec.rewrite, select=spec.select, train=spec.train)

    def add(stage: str, variant: str | None, upstream: list[Task], settings: Settings, depends: dict[str, Any]) -> Task:
        inputs = {task.name: task.digest for task in upstream}
        digest = digest_of({"stage": stage, "format": FORMAT, "inputs": sorted(inputs.values()), "depends": depends})
        for task in tasks:
            # Variants that agree so far share one task: its name is that of the first of them.
            if task.stage == stage and task.digest == digest:
                return task
        tasks.append(Task(stage, variant, digest, inputs, settings))
        return tasks[-1]

    model = {
        "model": _dump(spec.model, "id"),
        "weights": content.get(spec.model.id, spec.model.id),
        "prompts": _dump(spec.prompts),
        "seed": spec.seed,
    }
    sets = [{**_dump(one, "path"), "content": content.get(one.path, one.path)} for one in spec.data.evaluation]
    solutions = content.get(spec.data.solutions, spec.data.solutions)
    data = {"data": _dump(spec.data, "solutions", "evaluation"), "solutions": solutions, "evaluation": sets, "seed": spec.seed}
    prepare = add("prepare", None, [], own, data)
    trained: dict[str, Task] = {}
    for variant in spec.variant_names():
        chosen = spec.settings(variant)
        # How many servers or workers share the work does not change its result, nor does in which pieces they do it.
        sampling = {**model, "rewrite": {**_dump(chosen.rewrite, "replicas"), "engine": _engine(chosen.rewrite)}}
        learning = {**model, "train": _dump(chosen.train, *PIECES)}
        rewrite = add("rewrite", variant, [prepare], chosen, sampling)
        select = add("select", variant, [prepare, rewrite], chosen, {**model, "select": _dump(chosen.select)})
        if spec.evaluate.teacher_check:
            add("check", variant, [prepare, rewrite, select], chosen, sampling)
        # The name keeps two variants of equal settings apart: asking for both asks for two trainings.
        trained[variant] = add("train", variant, [prepare, select], chosen, {**learning, "variant": variant})
    measuring = {**model, "evaluate": _dump(spec.evaluate, "targets", "primary", "teacher_check"), "engine": _engine(spec.rewrite)}
    for target in spec.targets():
        upstream = [prepare] if target == BASE else [prepare, trained[target]]
        add("evaluate", target, upstream, own, {**measuring, "target": target})
    add("report", None, list(tasks), own, {"job": _dump(job, "spec"), "primary": spec.primary()})
    # Stage by stage, not variant by variant: on a cluster each stage has its own servers.
    return tuple(sorted(tasks, key=lambda task: STAGES.index(task.stage)))


def _dump(section: Section, *without: str) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=set(without))


def _engine(rewrite: RewriteSpec) -> dict[str, Any]:
    """The engine's settings, without where its servers are and how busy they are kept: a cluster fills those in anew each time."""
    return _dump(rewrite.engine, "servers", "in_flight")
