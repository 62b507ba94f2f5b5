"""A run on a real control plane from submit to the end: what is applied, in which order it runs, and that nothing is left."""

from __future__ import annotations

import json

import pytest

from tests.support.cluster_run import ClusterRun

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_run_comes_to_its_end_and_only_its_record_is_left(run: ClusterRun) -> None:
    run.script()
    said = run.submit("--wait")
    assert said.code == 0, said.err + run.kubelet.log_of(run.name + "-conductor")
    status = run.status()
    assert status is not None
    assert (status.state, status.exit_code) == ("done", 0)
    assert [task.attempts for task in status.tasks] == [1] * len(status.tasks)
    assert "It is better." in said.out
    run.until_only_the_record_is_left()
    root = run.submission().run.root
    assert json.loads(root.get("report.json"))["verdict"]["gain"] is True
    logs = {info.key for info in root.list("logs/")}
    for task in status.tasks:
        assert any(key.startswith(f"logs/{task.name}/{run.name}/attempt-1/") for key in logs), logs
    assert any(key.startswith(f"logs/conductor/{run.name}/") for key in logs)
    events = {one["reason"] for one in run.lab.get("events", namespace=run.namespace)["items"]}
    assert {"TaskStarted", "TaskDone", "RunDone"} <= events
