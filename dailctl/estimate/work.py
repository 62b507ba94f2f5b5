"""How many tokens each task has to generate or to learn from, expected and at most. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dail_runtime.spec import DailJob, Task
from dail_runtime.spec.rewrite import DirectPolicy
from dailctl.estimate.facts import Fact
from dailctl.estimate.match import alike

CHECKED_PROBLEMS, CHECKED_SAMPLES = 64, 2
"""Of the stage `check` (dail_runtime/stages/check.py): at most so many problems, so many responses each."""


@dataclass(frozen=True)
class Sizes:
    """How much data a job has."""

    problems: int
    """Problems to rewrite."""
    evaluation: Mapping[str, int]
    """Evaluation set -> problems."""


@dataclass(frozen=True)
class Work:
    """Tokens of one task: generated (rewrite, check, evaluate), or response tokens learned from (train), all epochs together."""

    at_most: int
    """With every response as long as the job allows."""
    expected: int | None
    """With responses as long as they were before; None: nothing alike has run yet."""
    source: str | None
    """Where the expected length was measured."""


def work_of(job: DailJob, task: Task, sizes: Sizes, facts: Sequence[Fact]) -> Work | None:
    """The tokens of `task`; None where it generates and learns nothing (prepare, select, report)."""
    match task.stage:
        case "rewrite":
            return _generated(job, task, sizes.problems * task.settings.rewrite.samples, task.settings.rewrite.max_tokens, facts)
        case "check":
            # The rewrite's own settings and temperature 1; what direct rewriting drew is not drawn again.
            rewrite = task.settings.rewrite
            shapes = {(rewrite.temperature, rewrite.top_p), (1.0, 1.0)}
            if isinstance(rewrite.policy, DirectPolicy):
                shapes.discard((rewrite.temperature, rewrite.top_p))
            responses = min(sizes.problems, CHECKED_PROBLEMS) * CHECKED_SAMPLES * len(shapes)
            return _generated(job, task, responses, rewrite.max_tokens, facts) if responses else None
        case "evaluate":
            spec = job.spec.evaluate
            responses = sum(sizes.evaluation.values()) * spec.samples
            endings = sum(sizes.evaluation.values()) * min(spec.budget_samples, spec.samples) * len(spec.budgets) * spec.forced_tokens
            work = _generated(job, task, responses, spec.max_tokens, facts)
            return Work(work.at_most + endings, work.expected, work.source)
        case "train":
            return _learned(job, task, sizes, facts)
    return None


def _generated(job: DailJob, task: Task, responses: int, longest: int, facts: Sequence[Fact]) -> Work:
    """Responses times their length. A check draws what a rewrite draws and keeps no count of its own."""
    for fact in alike(facts, job, task, "rewrite" if task.stage == "check" else task.stage):
        counts = fact.manifest.counts
        if counts.get("samples") and counts.get("tokens"):
            length = min(longest, counts["tokens"] / counts["samples"])
            return Work(responses * longest, round(responses * length), f"{length:.0f} tokens a response, as in {fact.where}")
    return Work(responses * longest, None, None)


def _learned(job: DailJob, task: Task, sizes: Sizes, facts: Sequence[Fact]) -> Work:
    settings = task.settings
    epochs = settings.train.total_epochs()
    most = sizes.problems * min(settings.select.keep, settings.rewrite.samples) * settings.rewrite.max_tokens
    for fact in alike(facts, job, task, "train"):
        counts = fact.manifest.counts
        share = _kept_share(fact, facts)
        if counts.get("tokens") and counts.get("rows") and share is not None:
            expected = counts["tokens"] / counts["rows"] * share * sizes.problems * epochs
            source = f"{share:.2f} traces a problem, {counts['tokens'] / counts['rows']:.0f} tokens each, as in {fact.where}"
            return Work(round(most * epochs), min(round(expected), round(most * epochs)), source)
    return Work(round(most * epochs), None, None)


def _kept_share(train: Fact, facts: Sequence[Fact]) -> float | None:
    """Traces that the training learned from, per problem that its select stage saw."""
    upstream = {digest for name, digest in train.manifest.inputs.items() if name.startswith("select/")}
    for fact in facts:
        if fact.manifest.digest in upstream and fact.manifest.counts.get("problems"):
            return float(train.manifest.counts["rows"] / fact.manifest.counts["problems"])
    return None
