"""The conductor's small parts: what pods held, what their last words say, what a person wants, what a record holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dail_runtime.errors import ClusterError
from dailctl.conductor.control import Control, read_control
from dailctl.conductor.hands import manifests_of
from dailctl.conductor.usage import Meter
from dailctl.explain.endings import said_error
from dailctl.render.record import is_record, saved_job
from tests.golden.tables import a_run

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def held(uid: str, begin: float, end: float | None, gpus: int = 1) -> dict[str, Any]:
    """A pod with GPUs that was on a node from `begin` to `end` (seconds after BEGIN)."""
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": (BEGIN + timedelta(seconds=begin)).isoformat()}
    status: dict[str, Any] = {"conditions": [placed], "phase": "Running"}
    if end is not None:
        ended = {"exitCode": 0, "finishedAt": (BEGIN + timedelta(seconds=end)).isoformat()}
        status |= {"phase": "Succeeded", "containerStatuses": [{"name": "c", "state": {"terminated": ended}}]}
    limits = {"nvidia.com/gpu": str(gpus), "memory": "1Gi"} if gpus else {"memory": "1Gi"}
    containers = [{"name": "c", "resources": {"limits": limits}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": uid, "uid": uid}, "spec": {"containers": containers}, "status": status}


def test_pods_that_ran_at_once_and_after_each_other() -> None:
    meter = Meter()
    meter.see([held("a", 0, None, 4), held("b", 10, None, 4)], BEGIN + timedelta(seconds=20))
    # One ended, one is gone: what was last seen of it counts.
    meter.see([held("a", 0, 100, 4), held("c", 100, 160, 8)], BEGIN + timedelta(seconds=200))
    usage = meter.usage()
    assert usage is not None
    assert usage.gpu_seconds == {"nvidia.com/gpu": 4 * 100 + 4 * 10 + 8 * 60}
    assert (usage.pods, usage.gpus, usage.seconds) == (2, {"nvidia.com/gpu": 8}, 160)


def test_pods_without_gpus_and_pods_that_never_found_a_node() -> None:
    meter = Meter()
    assert meter.usage() is None
    waiting = held("w", 0, None)
    waiting["status"]["conditions"] = []
    meter.see([waiting, held("a", 0, 5, 0)], BEGIN)
    usage = meter.usage()
    assert usage is not None
    assert (usage.pods, usage.gpus, usage.gpu_seconds) == (1, {}, {})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('talk\n{"event": "error", "message": "no", "exit": 4}\nmore talk', "no"),
        ('2026 prefix {"event": "error", "message": "no", "exit": 4}', "no"),
        ('{"event": "error", "message": "first"}\n{"event": "error", "message": "second"}', "second"),
        ('ge": "cut", "event": "error"}', None),
        ('{"event": "say", "sentence": "an \\"error\\""}', None),
        (f'{{"event": "error", "x": {"[" * 2000}', None),
        ("", None),
    ],
)
def test_a_stages_last_words(text: str, found: str | None) -> None:
    said = said_error(text)
    assert (said or {}).get("message") == found


@pytest.mark.parametrize("text", ["", "{", '{"desired": "explode"}', "[]", "null"])
def test_a_damaged_wish_never_stops_a_run(text: str) -> None:
    assert read_control({"control.json": text}) == Control()


@pytest.mark.parametrize("text", [None, "", "garbage", "{}", "[]", '{"job": 1, "content": {}}', '{"job": {}, "content": {}}'])
def test_a_spoiled_job_in_a_record_is_told_of(text: str | None) -> None:
    with pytest.raises(ClusterError, match=r"job\.json of the record is no job of this version of dail \(.*\); submit the job again"):
        saved_job({} if text is None else {"job.json": text})


@pytest.mark.parametrize("text", [None, "", "garbage", "a: [", "kind: Job"])
def test_spoiled_manifests_in_a_record_are_told_of(text: str | None) -> None:
    record = a_run().record
    data = {task.manifests: "{apiVersion: batch/v1, kind: Job, metadata: {name: x}}" for task in record.tasks}
    assert set(manifests_of(record, data)) == {task.name for task in record.tasks}
    spoiled = record.tasks[1].manifests
    del data[spoiled]
    with pytest.raises(ClusterError, match=f"{spoiled} of the record of {record.name} is no list of objects; submit the job again"):
        manifests_of(record, data if text is None else {**data, spoiled: text})


def test_a_record_is_known_by_its_label_where_its_data_is_gone() -> None:
    meta = {"name": "x", "labels": {"app.kubernetes.io/component": "record"}}
    assert is_record({"metadata": meta})
    assert is_record({"metadata": {"name": "x"}, "data": {"run.json": "{}"}})
    assert not is_record({"metadata": {"name": "x"}, "data": {"key": "of somebody else"}})


def test_a_wish() -> None:
    assert read_control({"control.json": '{"desired": "cancel", "generation": 3, "later": "field"}'}) == Control(
        desired="cancel", generation=3
    )
    assert read_control({}) == Control(desired="run", generation=0)
