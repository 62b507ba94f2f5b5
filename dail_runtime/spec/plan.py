"""The plan: which tasks a job consists of, in order, and under which digest each keeps its results. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dail_runtime.spec.job import BASE, DailJob, Settings
from dail_runtime.store.manifest import digest_of

STAGES = ("prepare", "rewrite", "select", "check", "train", "evaluate", "report")
"""Stages in the order in which they run."""

FORMAT = 1
"""Raised when a stage's code changes what it would write for the same settings, so that old results are not reused."""


@dataclass(frozen=True)
class Task:
    """One stage for one variant (or for several that share it)."""

    stage: str
    """One of STAGES."""
    variant: str | None
    """The variant (or `base`) it serves; for rewrite, select and check the first of those that share it; None: the whole run."""
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
        """Where below the run's root its objects live."""
        return f"{self.name}/{self.digest[:16]}"


def plan(job: DailJob, content: Mapping[str, str]) -> tuple[Task, ...]:
    """The tasks of `job` in an order in which each comes after its inputs.

    `content` names the outside inputs by content: path or URI -> digest, for the data files and the model.
    Two jobs that agree in everything a task depends on give it the same digest, so its results are shared.
    """
    spec = job.spec
    tasks: list[Task] = []
    own = Settings(rewrite=spec.rewrite, select=spec.select, train=spec.train)

    def add(stage: str, variant: str | None, upstream: list[Task], settings: Settings, depends: dict[str, Any]) -> Task:
        inputs = {task.name: task.digest for task in upstream}
        digest = digest_of({"stage": stage, "format": FORMAT, "inputs": sorted(inputs.values()), "depends": depends})
        for task in tasks:
            if task.stage == stage and task.digest == digest and stage in ("rewrite", "select", "check"):
                return task
        tasks.append(Task(stage, variant, digest, inputs, settings))
        return tasks[-1]

    def dump(section: Any, *without: str) -> dict[str, Any]:
        return section.model_dump(mode="json", exclude=set(without))  # type: ignore[no-any-return]

    model = {"model": dump(spec.model), "weights": content.get(spec.model.id), "prompts": dump(spec.prompts), "seed": spec.seed}
    prepare = add("prepare", None, [], own, {"data": dump(spec.data), "content": dict(content), "seed": spec.seed})
    trained: dict[str, Task] = {}
    checks: list[Task] = []
    selects: list[Task] = []
    for variant in spec.variant_names():
        chosen = spec.settings(variant)
        rewrite = add("rewrite", variant, [prepare], chosen, {**model, "rewrite": dump(chosen.rewrite, "replicas")})
        select = add("select", variant, [prepare, rewrite], chosen, {**model, "select": dump(chosen.select)})
        if select not in selects:
            selects.append(select)
        if spec.evaluate.teacher_check:
            check = add("check", variant, [prepare, rewrite, select], chosen, {**model, "rewrite": dump(chosen.rewrite, "replicas")})
            if check not in checks:
                checks.append(check)
        layout = ("workers", "keep_checkpoints", "checkpoint_every")
        trained[variant] = add("train", variant, [prepare, select], chosen, {**model, "variant": variant, "train": dump(chosen.train, *layout)})
    evaluated = []
    for target in spec.targets():
        upstream = [prepare] if target == BASE else [prepare, trained[target]]
        engine = dump(spec.rewrite.engine)
        evaluated.append(add("evaluate", target, upstream, own, {**model, "target": target, "evaluate": dump(spec.evaluate, "targets", "primary", "teacher_check"), "engine": engine}))
    everything = [prepare, *selects, *checks, *trained.values(), *evaluated]
    add("report", None, everything, own, {"job": dump(job, "spec"), "primary": spec.primary()})
    # Stage by stage, not variant by variant: on a cluster each stage has its own servers.
    return tuple(sorted(tasks, key=lambda task: STAGES.index(task.stage)))
