"""A run on a real control plane from submit to the end: what is applied, in which order it runs, and that nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import dail_runtime
from dail_runtime.errors import TransientError
from dailctl.conductor.archive import Archive
from dailctl.conductor.decide import Live
from dailctl.conductor.hands import Hands, manifests_of
from dailctl.conductor.status import fresh_status
from dailctl.conductor.store import RunStore
from dailctl.kube import Conflict
from dailctl.kube.resources import CONFIG_MAP, JOB, Object, name_of
from dailctl.render.names import RUN_LABEL
from dailctl.render.record import run_of_record
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
    own = next(key for key in logs if key.startswith(f"logs/conductor/{run.name}/"))
    assert f"dail {dail_runtime.__version__} conducts {run.name}".encode() in root.get(own)
    events = {one["reason"] for one in run.lab.get("events", namespace=run.namespace)["items"]}
    assert {"TaskStarted", "TaskDone", "RunDone"} <= events


def test_a_conductor_that_lost_the_run_undoes_nothing(run: ClusterRun) -> None:
    submission, client = run.submission(), run.client()
    seen = client.apply(submission.objects[0], "dailctl")
    record = run_of_record(seen["data"])
    manifests = manifests_of(record, seen["data"])
    status = fresh_status((one.name, one.slug, one.stage) for one in record.tasks)

    def conductor(sure: Callable[[], None]) -> Hands:
        return Hands(client, record, seen, manifests, None, sure)

    def unsure() -> None:
        raise TransientError("the lease was not renewed")

    version = seen["metadata"]["resourceVersion"]
    conductor(lambda: None).write_status(status.model_copy(update={"conductor": "another"}), version)
    # The answer to its first try was lost, or it waited in a partition: it knows the record as it was.
    with pytest.raises(Conflict):
        conductor(lambda: None).write_status(status.model_copy(update={"conductor": "late"}), version)
    now = client.get(CONFIG_MAP, run.name)["metadata"]["resourceVersion"]
    with pytest.raises(TransientError):
        conductor(unsure).write_status(status.model_copy(update={"conductor": "late"}), now)
    with pytest.raises(TransientError):
        conductor(unsure).apply("prepare", 1, Live((), ()), lambda _: None)
    told = run.status()
    assert told is not None
    assert told.conductor == "another"
    assert not client.select(JOB, labels=f"{RUN_LABEL}={run.name}")
    # Whoever holds the lease makes it, and only they remove it.
    made: list[Object] = []
    conductor(lambda: None).apply("prepare", 1, Live((), ()), made.append)
    archive, store = Archive(client, submission.run.root, run.name), RunStore(None, submission.run.root, None)
    with pytest.raises(TransientError):
        conductor(unsure).remove("prepare", 1, Live(tuple(made), ()), archive, store)
    assert [name_of(one) for one in client.select(JOB, labels=f"{RUN_LABEL}={run.name}")] == [name_of(made[0])]
