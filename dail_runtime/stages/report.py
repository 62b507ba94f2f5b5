"""The stage `report`: verdict, tables and charts of everything before it, as report.json and one self-contained report.html."""

from __future__ import annotations

from typing import Any

from dail_runtime.objects import REPORT_HTML, REPORT_JSON
from dail_runtime.report import collect, curves, render
from dail_runtime.stages.base import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Write both files; counts: models compared, evaluation sets."""
    report = collect(ctx.job, ctx.inputs)
    ctx.progress.update(1, 2, "files")
    ctx.out.put(REPORT_JSON, report.model_dump_json(indent=1).encode())
    ctx.out.put(REPORT_HTML, render(report, curves(ctx.inputs)).encode())
    ctx.progress.update(2, 2, "files")
    return {"models": len(report.variants), "sets": len(report.sets)}
