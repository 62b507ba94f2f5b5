"""The end of a run in a terminal: the tables, the verdict and where the report lies, from report.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dail_runtime.errors import IntegrityError, UsageError
from dail_runtime.objects import REPORT_HTML, REPORT_JSON
from dail_runtime.store import Store
from dailctl import output
from dailctl.runs import Run, local_path

SHOWN_KS = 4
"""Most k of pass@k in one table; report.json has all of them."""


def publish(run: Run) -> None:
    """Copy the report from its task's prefix to the run's root, where people look for it.

    Raises:
        UsageError: the run has no report yet.
    """
    out = run.root.at(run.task("report").prefix)
    for name in (REPORT_HTML, REPORT_JSON):
        try:
            content = out.get(name)
        except KeyError:
            raise _no_report(run) from None
        if not _same(run.root, name, content):
            run.root.put(name, content)


def read_report(run: Run) -> dict[str, Any]:
    """report.json of the run.

    Raises:
        UsageError: the run has no report yet.
    """
    try:
        found: dict[str, Any] = json.loads(run.root.at(run.task("report").prefix).get(REPORT_JSON))
    except KeyError:
        raise _no_report(run) from None
    return found


def local_report(run: Run) -> Path:
    """The path of report.html on this machine; a report that lies elsewhere is fetched, and report.json beside it."""
    task = run.task("report")
    out = run.root.at(task.prefix)
    folder = local_path(run.root)
    if folder is not None:
        # The copy at the root may be that of a later job of the same name.
        return folder / REPORT_HTML if _same(run.root, REPORT_HTML, out.get(REPORT_HTML)) else folder / task.prefix / REPORT_HTML
    import platformdirs

    cache = platformdirs.user_cache_path("dail") / run.name
    for name in (REPORT_HTML, REPORT_JSON):
        out.get_file(name, cache / name)
    return cache / REPORT_HTML


def summary(report: Mapping[str, Any], html: Path, *, every_k: bool = False) -> str:
    """The tables of all evaluation sets, the verdict, and `report: PATH` as the last line."""
    parts = []
    for name, models in report["sets"].items():
        any_model = next(iter(models.values()), {"problems": 0, "samples": 0})
        parts.append(f"{name}: {any_model['problems']} problems, {any_model['samples']} samples each; pass@k in % with 95% intervals\n")
        parts.append(models_table(models, every_k=every_k) + "\n")
    return "".join(parts) + f"{output.printable(report['verdict']['sentence'])}\nreport: {html}\n"


def models_table(models: Mapping[str, Any], *, every_k: bool = False) -> str:
    """One line a model: pass@k with intervals, mean tokens, unparsed answers."""
    ks = sorted({int(k) for figures in models.values() for k in figures["passAt"]})
    shown = ks if every_k else _spread(ks, SHOWN_KS)
    head = ["NAME", *(f"PASS@{k}" for k in shown), "TOKENS", "UNPARSED"]
    rows = [
        [name, *(_interval(figures["passAt"].get(str(k))) for k in shown), f"{figures['meanTokens']:.0f}", _percent(figures["unparsed"])]
        for name, figures in models.items()
    ]
    return output.table(head, rows)


def _spread(ks: Sequence[int], count: int) -> list[int]:
    if len(ks) <= count:
        return list(ks)
    return [ks[round(i * (len(ks) - 1) / (count - 1))] for i in range(count)]


def _interval(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _same(root: Store, name: str, content: bytes) -> bool:
    try:
        return root.get(name) == content
    except (KeyError, IntegrityError):
        # Someone edited the copy; it is only a copy.
        return False


def _no_report(run: Run) -> UsageError:
    return UsageError(f"run {run.name} has no report yet; dailctl status shows how far it is, and dailctl run brings it to its end")
