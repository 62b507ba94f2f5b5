"""Faults of the cluster around a run: whatever fails and comes back, the result is that of an undisturbed run.

Each test says with the property `recovered_s` how long the run took to go on once the fault was over.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dail_runtime.errors import TransientError
from tests.lab.control_plane import ControlPlane
from tests.lab.kubeconfig import server_of
from tests.support.cli import dailctl
from tests.support.cluster_run import ClusterRun, cluster_run, scripted
from tests.support.faulty_proxy import Fault, faulty_proxy
from tests.support.process_kubelet import REPOSITORY, as_here
from tests.support.require import require
from tests.support.s3 import Bucket
from tests.support.severed import Cable, cable_to, through
from tests.support.undisturbed import assert_undisturbed, attempts

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults]

Note = Callable[[str, object], None]
STAGES = ("prepare", "rewrite__tuned", "select__tuned", "train__tuned", "evaluate__base", "evaluate__tuned")
MOMENTS = int(os.environ.get("DAIL_FAULT_MOMENTS", "3"))
"""How many random moments are tried; `make faults` tries 20."""


def until_running(run: ClusterRun, task: str) -> None:
    run.until(lambda status: status.task(task).state in ("running", "done"))


def until_changed(run: ClusterRun) -> float:
    """Seconds until the conductor has written a status again."""
    began = time.monotonic()
    before = run.status()
    run.until(lambda status: before is None or status.ended or status.updated != before.updated)
    return round(time.monotonic() - began, 1)


def is_conductor(words: Sequence[str]) -> bool:
    return list(words[:3]) == ["python", "-m", "dailctl.conductor"]


def test_the_api_server_is_down_for_a_minute(run: ClusterRun, record_property: Note) -> None:
    run.script(rewrite__tuned=["slow"])
    assert run.submit().code == 0
    until_running(run, "rewrite/tuned")
    run.lab.component("kube-apiserver").kill()
    time.sleep(60)
    run.lab.start("kube-apiserver")
    record_property("recovered_s", until_changed(run))
    assert_undisturbed(run)


def test_logs_follow_a_run_while_the_api_server_restarts(run: ClusterRun, record_property: Note) -> None:
    run.script(rewrite__tuned=["slow:40"], select__tuned=["slow:20"])
    assert run.submit().code == 0
    reads = {"apiGroups": [""], "resources": ["configmaps", "pods", "pods/log", "events"], "verbs": ["get", "list", "watch"]}
    # Not an administrator: after its restart the API server knows nobody's roles for a moment.
    with run.started("logs", "-f", run.name, kubeconfig=run.lab.user("reader", run.namespace, [reads])) as following:
        for task in ("rewrite/tuned", "select/tuned"):
            run.until_at_work(task)
            run.lab.component("kube-apiserver").kill()
            time.sleep(10)
            run.lab.start("kube-apiserver")
        record_property("recovered_s", until_changed(run))
        assert_undisturbed(run)
        out, err = following.communicate(timeout=120)
    assert following.returncode == 0, err
    lines = out.splitlines()
    # From the first stage that it saw to the last: every line once, whatever broke in between.
    for task in ("rewrite/tuned", "select/tuned", "train/tuned", "evaluate/base", "evaluate/tuned", "report"):
        assert [line for line in lines if line == f"talk of {task}, attempt 1"] == [f"talk of {task}, attempt 1"], out
    begin, end = lines.index("select/tuned: attempt 1 started"), lines.index("train/tuned: attempt 1 started")
    assert [line.split()[0] for line in lines[begin:end] if "/4 problems" in line] == ["1/4", "2/4", "3/4", "4/4"]


def test_the_api_server_does_not_answer_for_a_while(run: ClusterRun, record_property: Note) -> None:
    run.script(rewrite__tuned=["slow"])
    assert run.submit().code == 0
    until_running(run, "rewrite/tuned")
    process = run.lab.component("kube-apiserver").process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(40)
    os.kill(process.pid, signal.SIGCONT)
    record_property("recovered_s", until_changed(run))
    assert_undisturbed(run)


def test_etcd_is_killed_and_comes_back(run: ClusterRun, record_property: Note) -> None:
    run.script(rewrite__tuned=["slow"], train__tuned=["slow"])
    assert run.submit().code == 0
    for task in ("rewrite/tuned", "train/tuned"):
        until_running(run, task)
        run.lab.component("etcd").kill()
        time.sleep(10)
        run.lab.start("etcd")
        record_property("recovered_s", until_changed(run))
    assert_undisturbed(run)


def test_controllers_and_operator_are_killed_and_come_back(run: ClusterRun, record_property: Note) -> None:
    run.write(train={"workers": 2})
    run.script(**{name: ["slow"] for name in STAGES})
    assert run.submit().code == 0
    names = ("kube-controller-manager", "kube-scheduler", "training-operator")
    for task in ("rewrite/tuned", "train/tuned", "evaluate/tuned"):
        until_running(run, task)
        for name in names:
            run.lab.component(name).kill()
        time.sleep(5)
        for name in names:
            run.lab.start(name)
    record_property("recovered_s", until_changed(run))
    assert_undisturbed(run)


@pytest.mark.parametrize("task", ["rewrite/tuned", "train/tuned"])
def test_the_node_is_drained_under(run: ClusterRun, task: str, record_property: Note) -> None:
    run.script(**{task.replace("/", "__"): ["wait", "ok"]})
    assert run.submit().code == 0
    until_running(run, task)
    nodes = [one["metadata"]["name"] for one in run.lab.get("nodes", selector=f"test={run.namespace}")["items"]]
    # Evictions, not deletions: budgets are asked, and pods get their SIGTERM and their time.
    run.lab.kubectl("drain", *nodes, "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
    assert not run.kubelet.pods()
    run.lab.kubectl("uncordon", *nodes)
    record_property("recovered_s", until_changed(run))
    assert_undisturbed(run)


@pytest.fixture
def cable(control_plane: ControlPlane) -> Iterator[Cable]:
    """The conductor's cable to the API server; those of all others are not touched."""
    parts = urlsplit(server_of(control_plane.kubeconfig)[0])
    with cable_to(str(parts.hostname), int(parts.port or 443)) as found:
        yield found


@pytest.fixture
def partitioned(control_plane: ControlPlane, namespace: str, bucket: Bucket, tmp_path: Path, cable: Cable) -> Iterator[ClusterRun]:
    """A run whose conductor reaches the API server by the cable alone."""

    def command(words: Sequence[str]) -> Sequence[str]:
        return through(cable, as_here(words)) if is_conductor(words) else scripted(words)

    with cluster_run(control_plane, namespace, bucket, tmp_path, command) as found:
        yield found


def another_conductor(run: ClusterRun) -> subprocess.Popen[bytes]:
    """A second conductor of the run, beside the one of its Job."""
    environment = {**os.environ, **run.bucket.server.environment(), "POD_NAMESPACE": run.namespace, "POD_NAME": "another"}
    environment |= {"KUBECONFIG": str(run.lab.kubeconfig), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "dailctl.conductor", "--run", run.name]
    with (run.folder / "another.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def test_the_conductor_is_cut_off_and_another_takes_over(partitioned: ClusterRun, cable: Cable, record_property: Note) -> None:
    run = partitioned
    run.script(rewrite__tuned=["slow"], train__tuned=["wait", "ok"])
    assert run.submit().code == 0
    until_running(run, "rewrite/tuned")
    cable.sever()
    began = time.monotonic()
    with another_conductor(run) as other:
        # It waits until the lease of the one that is cut off has run out.
        run.until(lambda status: status.conductor == "another")
        record_property("recovered_s", round(time.monotonic() - began, 1))
        until_running(run, "train/tuned")
        cable.mend()
        time.sleep(10)
        # The one that was cut off has lost the run: it undoes nothing. The new one goes on and ends it.
        status = run.status()
        assert status is not None
        assert status.conductor == "another"
        name = next(name for name in run.kubelet.pods() if "train-tuned" in name)
        run.kubelet.kill(name, signal.SIGTERM)
        assert_undisturbed(run)
        # 75 where this machine was so busy that it lost the lease in turn: then the first one's successor ended the run.
        assert other.wait(60) in (0, TransientError.exit_code)
    assert attempts(run)["rewrite/tuned"] == 1


def test_a_second_conductor_waits_and_does_nothing(run: ClusterRun) -> None:
    run.script(**{name: ["slow"] for name in STAGES})
    assert run.submit().code == 0
    until_running(run, "prepare")
    with another_conductor(run) as other:
        assert_undisturbed(run)
        assert other.wait(120) == 0
    assert set(attempts(run).values()) == {1}
    status = run.status()
    assert status is not None
    assert status.conductor != "another"


def test_a_frozen_conductor_finds_that_another_took_over(run: ClusterRun, record_property: Note) -> None:
    run.script(rewrite__tuned=["slow"], train__tuned=["slow"])
    assert run.submit().code == 0
    until_running(run, "rewrite/tuned")
    run.kubelet.kill(run.conductor(), signal.SIGSTOP)
    frozen, began = run.conductor(), time.monotonic()
    with another_conductor(run) as other:
        run.until(lambda status: status.conductor == "another")
        record_property("recovered_s", round(time.monotonic() - began, 1))
        if frozen in run.kubelet.pods():
            run.kubelet.kill(frozen, signal.SIGCONT)
        assert_undisturbed(run)
        other.wait(120)
    assert set(attempts(run).values()) == {1}


@pytest.fixture(params=["+600s", "-600s"], ids=["ahead", "behind"])
def skewed(
    request: pytest.FixtureRequest, control_plane: ControlPlane, namespace: str, bucket: Bucket, tmp_path: Path
) -> Iterator[ClusterRun]:
    """A run whose conductor's clock is ten minutes off."""
    require(shutil.which("faketime"), "faketime is not here; run tools/test-needs as root")

    def command(words: Sequence[str]) -> Sequence[str]:
        # The clock of the wall alone: what counts seconds is right on a machine whose date is wrong.
        return ["faketime", "--exclude-monotonic", "-f", request.param, *as_here(words)] if is_conductor(words) else scripted(words)

    with cluster_run(control_plane, namespace, bucket, tmp_path, command) as found:
        yield found


def test_the_conductors_clock_is_ten_minutes_off(skewed: ClusterRun) -> None:
    skewed.script(rewrite__tuned=["error:75:the store did not answer", "ok"])
    assert skewed.submit().code == 0
    assert_undisturbed(skewed)
    # The pause before the second attempt is counted on one clock, whatever that clock says.
    assert attempts(skewed)["rewrite/tuned"] == 2


FLAKY = {
    "slow downs": Fault("answer", status=503, code="SlowDown"),
    "resets": Fault("reset"),
    "lost answers": Fault("lose_answer"),
    "cut bodies": Fault("cut"),
    "changed bytes": Fault("change"),
}


@pytest.mark.parametrize("kind", FLAKY)
def test_the_conductors_storage_fails_every_third_time_with(run: ClusterRun, kind: str) -> None:
    dice = random.Random(kind)
    with faulty_proxy(run.bucket.server.endpoint) as proxy:
        run.write(storage={"endpoint": proxy.endpoint})
        run.script()
        said = run.submit()
        assert said.code == 0, said.err
        proxy.plan = lambda _method, _path: FLAKY[kind] if dice.random() < 1 / 3 else None
        run.until(lambda status: status.ended)
        proxy.plan = lambda _method, _path: None
        assert_undisturbed(run)


def test_cancelled_at_random_moments_and_resumed(run: ClusterRun, record_property: Note) -> None:
    run.script(**{name: ["slow"] for name in STAGES})
    dice, where = random.Random(1), ("--kubeconfig", run.kubeconfig, "--namespace", run.namespace)
    assert run.submit().code == 0
    cancelled = 0
    while cancelled < MOMENTS:
        time.sleep(dice.uniform(0.0, 4.0))
        said = dailctl("cancel", run.name, *where)
        if said.code:
            # It was faster.
            assert run.until(lambda status: status.ended).state == "done", said.err
            break
        assert not [name for name in run.kubelet.pods() if "conductor" not in name]
        cancelled += 1
        began = time.monotonic()
        said = dailctl("resume", run.name, *where)
        assert said.code == 0, said.err
        run.until(lambda status: status.state != "cancelled")
        record_property("recovered_s", round(time.monotonic() - began, 1))
    assert cancelled > 0
    assert_undisturbed(run)
