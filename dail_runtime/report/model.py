"""What report.json holds. Other programs read it: keys are only ever added."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dail_runtime.check.records import TeacherCheck
from dail_runtime.evaluate.records import Figure, Interval, SetFigures


class ModelFigures(SetFigures):
    """One model on one evaluation set, and how it compares with others on the same problems."""

    over_base: dict[int, Interval] = Field(default_factory=dict)
    """k -> paired difference to base; empty for base itself and where base was not evaluated."""
    over_primary: dict[int, Interval] = Field(default_factory=dict)
    """k -> paired difference to the variant the verdict is about."""


class Verdict(Figure):
    """Did it help?"""

    gain: bool | None
    """True: better than base, and the interval excludes chance. None: base or the variant was not evaluated."""
    sentence: str
    set: str
    """Evaluation set."""
    variant: str
    k: int = 1
    difference: Interval | None = None
    """pass@k of the variant minus that of base, on the same problems."""


class StageFigures(Figure):
    """One stage, all its tasks together."""

    seconds: float
    """Wall time of all attempts."""
    attempts: int
    tasks: dict[str, float]
    """Task -> seconds."""
    tokens: int = 0
    """Tokens generated (rewrite, evaluate), or response tokens learned from in all epochs (train)."""
    stored: int = 0
    """Bytes of the results."""
    gpu_hours: dict[str, float] = Field(default_factory=dict)
    """Extended resource (`nvidia.com/gpu`) -> GPU-hours held on a cluster; empty on one machine."""


class TraceExample(Figure):
    """One problem, as the expert wrote it, as the model rewrote it, and as students answer."""

    id: str
    problem: str
    expert: str
    rewritten: str | None
    """The kept trace, for a training problem."""
    answers: dict[str, str]
    """Model -> its first answer, for an evaluation problem."""


class Report(Figure):
    """The whole of report.json."""

    name: str
    verdict: Verdict
    variants: dict[str, ModelFigures]
    """Model (`base` too) -> its figures on the first evaluation set."""
    sets: dict[str, dict[str, ModelFigures]]
    """Evaluation set -> model -> figures."""
    stages: dict[str, StageFigures]
    dropped: dict[str, int]
    """Reason -> rows, over all stages."""
    counts: dict[str, dict[str, Any]]
    """Task -> what it counted."""
    teacher: dict[str, TeacherCheck] = Field(default_factory=dict)
    """Variant (the first of those that share a rewrite) -> what the teacher check found."""
    rivals: list[str] = Field(default_factory=list)
    """A sentence for each trained model that does better than the one the verdict is about."""
    notes: list[str]
    """Sentences the stages said; `rivals` first."""
    examples: list[TraceExample]
    versions: dict[str, str]
    job: dict[str, Any]
    """The resolved job."""
