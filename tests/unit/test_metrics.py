"""Metrics of conductor and stages: named by convention, bounded, served over HTTP, and what the dashboard asks for."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dail_runtime.metrics import serve_metrics
from dail_runtime.stages.metrics import MOST_FIGURES, StageMetrics, figure_name
from dailctl.conductor.metrics import RunMetrics
from dailctl.conductor.status import RunStatus, fresh_status
from tests.golden.tables import a_run

LOOKED = datetime(2026, 11, 24, 8, tzinfo=UTC)
DASHBOARD = Path("charts/dail-run/dashboards/dail-runs.json")


def a_stage() -> StageMetrics:
    stage = StageMetrics("aime-qwen-62b02cd3", "train/tuned")
    stage.hear({"event": "start", "task": "train/tuned", "attempt": 2})
    figures = {"tokens_per_s": 1234.5, "loss": 0.4}
    stage.hear({"event": "progress", "done": 3, "total": 8, "unit": "steps", "figures": figures})
    stage.hear({"event": "say", "sentence": "all is well"})
    return stage


def conducted(status: RunStatus | None = None) -> RunMetrics:
    held = a_run()
    return RunMetrics(held.record, lambda: status or held.status, lambda: LOOKED)


def values(source: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value, from the text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(source)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def names(families: Iterable[Metric]) -> set[str]:
    return {f"{one.name}_total" if one.type == "counter" else one.name for one in families}


def test_a_stage_tells_how_far_it_is() -> None:
    found = values(a_stage())
    task = (("run", "aime-qwen-62b02cd3"), ("task", "train/tuned"))
    assert found[("dail_stage_attempt", task)] == 2
    assert found[("dail_stage_units_done", (*task, ("unit", "steps")))] == 3
    assert found[("dail_stage_units", (*task, ("unit", "steps")))] == 8
    assert found[("dail_stage_tokens_per_second", task)] == 1234.5
    assert found[("dail_stage_loss", task)] == 0.4


def test_a_run_tells_its_state_and_that_of_its_tasks() -> None:
    found = values(conducted())
    run = ("run", "aime-qwen-62b02cd3")
    assert found[("dail_run_state", (run, ("state", "running")))] == 1
    assert sum(value for (name, _), value in found.items() if name == "dail_run_state") == 1
    task = ("task", "rewrite/tuned")
    assert found[("dail_task_progress_ratio", (run, task))] == pytest.approx(0.12)
    assert found[("dail_task_state", (run, ("state", "running"), task))] == 1
    assert found[("dail_task_attempts_total", (run, task))] == 2
    assert found[("dail_task_pods_ready", (run, task))] == 4
    # Of a run that waits for days the status stays as it is; that its conductor lives is told apart.
    assert found[("dail_run_look_time_seconds", (run,))] == LOOKED.timestamp()
    assert ("dail_run_update_time_seconds", (run,)) not in found


def test_names_follow_the_conventions() -> None:
    for family in [*conducted().collect(), *a_stage().collect()]:
        assert re.fullmatch(r"dail_(run|task|stage)_[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".")
        # Base units, and `total` for counters alone.
        assert not family.name.endswith(("_ms", "_milliseconds", "_percent", "_per_s", "_count"))
        assert family.name.endswith("_total") is False


def test_the_number_of_series_is_bounded_by_the_plan_whatever_happens() -> None:
    tasks = [(f"train/variant-{number}", f"train-variant-{number}", "train") for number in range(30)]
    fresh = fresh_status(tasks)
    busy = fresh.model_copy(
        update={"tasks": tuple(one.model_copy(update={"failures": {"passing": 9}, "message": "x" * 999}) for one in fresh.tasks)}
    )
    counts = [len(values(conducted(status))) for status in (fresh, busy)]
    assert counts[0] == counts[1] < 30 * len(tasks)
    stage = a_stage()
    for number in range(1000):
        stage.hear({"event": "progress", "done": number, "total": 1000, "unit": "steps", "figures": {f"figure_{number}": 1.0}})
    assert len(values(stage)) <= MOST_FIGURES + 4
    stage.hear({"event": "progress", "done": 1, "total": 2, "unit": 'a"b\n', "figures": {'evil{x="y"} 1\n': 1.0}})
    assert not any("evil" in name for name, _ in values(stage))


def test_metrics_are_served_where_a_port_is_named_and_only_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAIL_METRICS_PORT", raising=False)
    assert serve_metrics(a_stage()) is None
    monkeypatch.setenv("DAIL_METRICS_PORT", "0")
    port = serve_metrics(a_stage())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        assert 'dail_stage_units_done{run="aime-qwen-62b02cd3",task="train/tuned",unit="steps"} 3.0' in answer.read().decode()
    for wrong in (str(port), "port", "99999999"):
        monkeypatch.setenv("DAIL_METRICS_PORT", wrong)
        assert serve_metrics(a_stage()) is None
        assert capfd.readouterr().err.startswith(f"no metrics: DAIL_METRICS_PORT={wrong} cannot be listened on")


def test_the_dashboard_asks_for_what_is_exported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    exported = names(conducted().collect()) | names(a_stage().collect())
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in re.findall(r"\bdail_\w+", target["expr"])}
    asked |= set(re.findall(r"\bdail_\w+", dashboard["templating"]["list"][1]["query"]["query"]))
    assert asked
    assert asked <= exported, asked - exported
    # The choice of runs holds for every panel.
    for expression in (target["expr"] for panel in dashboard["panels"] for target in panel["targets"]):
        assert re.findall(r"\bdail_\w+(.{0,12})", expression) == ['{run=~"$run"'] * len(re.findall(r"\bdail_\w+", expression))
    # What a stage measures: its figures have the names that stages give them.
    assert figure_name("tokens_per_s") in asked


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(dashboard)
    assert len(dashboard["uid"]) <= 40
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        mine = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not mine & cells, f"{panel['title']} lies over another panel"
        cells |= mine
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["expr"].count("{") == target["expr"].count("}")
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource", "run"]
