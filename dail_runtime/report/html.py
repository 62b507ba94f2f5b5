"""report.json's content as one self-contained page: no script, no request, everything from the run escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dail_runtime.evaluate.records import BudgetFigure, Interval
from dail_runtime.report.charts import Curve, colours, gains_chart, line_chart
from dail_runtime.report.model import ModelFigures, Report

Rows = Sequence[Mapping[str, Any]]

REASONS = {
    "duplicate_id": "two different problems with one id",
    "duplicate_row": "the same row twice",
    "empty_field": "an empty field",
    "prompt_too_long": "problem and solution too long for the model",
    "wrong": "trace with a wrong answer",
    "unparsed": "trace without an answer",
    "truncated": "trace cut at maxTokens",
    "leak": "trace that speaks of the reference",
    "contaminated": "training problem that is in an evaluation set",
    "surplus": "good trace beyond select.keep",
    "no_answer": "problem without a known answer",
}
"""Reasons in words; others are shown as they are counted."""

CURVES = (
    ("loss", "Loss"),
    ("kl_teacher", "KL to the teacher, nats a token"),
    ("teacher_top_mass", "Student's mass on the teacher's first choice"),
)
"""Columns of curves.jsonl that get a chart where any objective has them."""


def render(report: Report, curves: Mapping[str, Rows]) -> str:
    """The page. `curves`: variant -> the rows of its curves.jsonl."""
    loader = PackageLoader("dail_runtime.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"ends": _ends, "signed": _signed, "share": _share}
    names = [name for models in report.sets.values() for name in models] + list(curves)
    palette = colours(list(dict.fromkeys(names)))
    ks = list(dict.fromkeys(k for models in report.sets.values() for figures in models.values() for k in figures.pass_at))
    return environment.get_template("template.html.j2").render(
        report=report,
        ks=ks,
        sizes={name: _size(models) for name, models in report.sets.items()},
        charts={name: _charts(models, palette) for name, models in report.sets.items()},
        training=_training(curves, palette),
        reasons=REASONS,
        gpus=any(figures.gpu_hours for figures in report.stages.values()),
        job_yaml=yaml.safe_dump(report.job, sort_keys=False, allow_unicode=True),
    )


def _ends(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _signed(interval: Interval) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _size(models: Mapping[str, ModelFigures]) -> str:
    figures = next(iter(models.values()))
    return f"{figures.problems} problems, {figures.samples} answer{'s' if figures.samples > 1 else ''} each"


def _charts(models: Mapping[str, ModelFigures], palette: Mapping[str, str]) -> list[tuple[str, Markup]]:
    charts = []
    gains = {name: f.over_base[1] for name, f in models.items() if 1 in f.over_base}
    if gains:
        charts.append(("Gain over base", gains_chart(gains, label="pass@1 minus that of base, in points", colour=palette)))
    # One k alone is a point, which the table tells better.
    by_k = {name: _banded(f.pass_at, [p.value for p in f.pass_at.values()], f.pass_at.values()) for name, f in models.items()}
    if any(len(curve.x) > 1 for curve in by_k.values()):
        charts.append(("pass@k", line_chart(by_k, x_label="samples k", y_label="pass@k", log2=True, percent=True, colour=palette)))
    budgets = {name: f.budgets for name, f in models.items() if f.budgets}
    if budgets:
        lines = {name: _banded(b, [one.accuracy for one in b.values()], b.values()) for name, b in budgets.items()}
        svg = line_chart(lines, x_label="token budget", y_label="accuracy", log2=True, percent=True, colour=palette)
        charts.append(("Accuracy within a token budget", svg))
    # The SVG is ours: labels are model names, which the job file limits to letters, digits and '-'.
    return [(title, Markup(svg)) for title, svg in charts]


def _banded(x: Iterable[int], y: Sequence[float], ends: Iterable[Interval | BudgetFigure]) -> Curve:
    low, high = zip(*((one.low, one.high) for one in ends), strict=True)
    return Curve([float(one) for one in x], y, low, high)


def _training(curves: Mapping[str, Rows], palette: Mapping[str, str]) -> list[tuple[str, Markup]]:
    charts = []
    for column, title in CURVES:
        lines = {}
        for name, rows in curves.items():
            there = [row for row in rows if row.get(column) is not None]
            if there:
                lines[name] = Curve([float(row["step"]) for row in there], [float(row[column]) for row in there])
        if lines:
            charts.append((title, Markup(line_chart(lines, x_label="step", y_label=title, smooth=True, colour=palette))))
    return charts
