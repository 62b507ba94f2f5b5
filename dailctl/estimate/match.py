"""Which earlier tasks say something about a new one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dail_runtime.spec import DailJob, Task
from dailctl.estimate.facts import Fact


def alike(facts: Sequence[Fact], job: DailJob, task: Task, stage: str) -> Iterator[Fact]:
    """The facts of `stage` that were measured with the job's model: those of the task's own variant first, then newest."""
    there = [fact for fact in facts if fact.task.stage == stage and fact.model == job.spec.model.id]
    yield from sorted(there, key=lambda fact: fact.task.variant != task.variant)


def effort(task: Task) -> str:
    """What decides how much computing a token takes: tasks of equal effort run at equal speed.

    A mixed rewrite decodes two contexts a response. Training goes through three contexts for `contrastive`, two for
    `distill`, one for the cross-entropies.
    """
    match task.stage:
        case "rewrite":
            return task.settings.rewrite.policy.kind
        case "train":
            objective = task.settings.train.objective
            return "cross-entropy" if objective in ("nll", "sft") else objective
    # check and evaluate sample from one context, as direct rewriting does.
    return "direct"
