"""A report to look at: two models, budgets, curves, and texts that try to break out of the page."""

from __future__ import annotations

from typing import Any

from dail_runtime.check.records import Accuracy, TeacherCheck, TraceFigures
from dail_runtime.evaluate.records import BudgetFigure, Interval
from dail_runtime.report.model import ModelFigures, Report, StageFigures, TraceExample
from dail_runtime.report.verdict import verdict

HOSTILE = "<script>console.error('escaped?')</script><img src=x onerror=alert(1)> {{ 7 * 7 }} ]]> \x1b[31mred"


def figures(value: float, *, over_base: Interval | None = None, over_primary: Interval | None = None) -> ModelFigures:
    """A model that solves the share `value` of problems at the first try."""
    pass_at = {k: Interval(value=min(1, value * k), low=max(0, value * k - 0.05), high=min(1, value * k + 0.05)) for k in (1, 2, 4)}
    return ModelFigures(
        problems=50,
        samples=4,
        pass_at=pass_at,
        right={"p": 2},
        mean_tokens=61.5,
        unparsed=0.02,
        truncated=0.0,
        lenient=value,
        budgets={512: BudgetFigure(accuracy=value, low=value, high=value, mean_tokens=300.0, forced=0.4)},
        over_base={1: over_base} if over_base else {},
        over_primary={1: over_primary} if over_primary else {},
    )


def report(models: dict[str, ModelFigures], *, text: str = "plain") -> Report:
    """A whole report about `models`; `text` stands wherever a user's or a model's words do."""
    half = Interval(value=0.5, low=0.4, high=0.6)
    accuracy = Accuracy(temperature=1.0, top_p=1.0, problems=3, samples=6, right=half)
    traces = TraceFigures(traces=3, tokens=90, nll_teacher=0.1, nll_negative=0.4, nll_student=0.9, teacher_top_mass=0.7, cold_tokens=0.02)
    return Report(
        name="demo",
        verdict=verdict("test", "tuned", models),
        variants=models,
        sets={"test": models},
        stages={"train": StageFigures(seconds=12.5, attempts=2, tasks={"train/tuned": 12.5})},
        dropped={"wrong": 12, "leak": 1},
        counts={"prepare": {"problems": 3}},
        teacher={"tuned": TeacherCheck(sentence=text, weak=False, accuracy=accuracy, accuracy_at_one=accuracy, traces=traces)},
        notes=[text],
        examples=[TraceExample(id=text, problem=text, expert=text, rewritten=text, answers={"base": text, "tuned": text})],
        versions={"dail": "0.1.0"},
        job={"spec": {"model": {"id": text}}},
    )


def curve_rows() -> list[dict[str, Any]]:
    """A training curve in which one column is missing, as it is for nll."""
    return [{"step": step, "loss": 1 / step, "kl_teacher": 2 / step, "teacher_top_mass": None} for step in range(1, 30)]
