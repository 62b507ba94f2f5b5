"""What a run survives: its conductor killed in every stage, the API server restarted, pods killed, people who remove things."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dailctl.conductor.status import RunStatus
from dailctl.kube.resources import CONFIG_MAP, DEPLOYMENT, JOB, LEASE, POD, ROLE, ROLE_BINDING, job_is_over, uid_of
from dailctl.render.names import conductor_job, tasks_of
from tests.lab.control_plane import ControlPlane
from tests.support.cli import dailctl
from tests.support.cluster_run import ClusterRun, cluster_run, scripted
from tests.support.process_kubelet import as_here
from tests.support.s3 import Bucket
from tests.support.undisturbed import assert_undisturbed, attempts
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults]


@pytest.fixture
def restarting(control_plane: ControlPlane, namespace: str, bucket: Bucket, tmp_path: Path) -> Iterator[ClusterRun]:
    """A run whose conductor's container is started again at once when it is killed."""

    def command(words: Sequence[str]) -> Sequence[str]:
        if list(words[:3]) == ["python", "-m", "dailctl.conductor"]:
            return [sys.executable, "-m", "tests.support.restarting", str(tmp_path / "conductors"), *as_here(words)]
        return scripted(words)

    with cluster_run(control_plane, namespace, bucket, tmp_path, command) as found:
        yield found


def kill_conductor(run: ClusterRun) -> None:
    """SIGKILL to the conductor at work."""
    marks = run.folder / "conductors"
    if marks.exists() and marks.read_text().split():
        try:
            os.kill(int(marks.read_text().split()[-1]), signal.SIGKILL)
        except ProcessLookupError:
            return


def test_the_conductor_is_killed_in_every_stage(restarting: ClusterRun) -> None:
    run = restarting
    run.script(
        **{name: ["slow"] for name in ("prepare", "rewrite__tuned", "select__tuned", "train__tuned", "evaluate__base", "evaluate__tuned")}
    )
    assert run.submit().code == 0
    killed: list[str] = []

    def over(status: RunStatus) -> bool:
        now = next((one.name for one in status.tasks if one.state in ("pending", "running")), None)
        if now is not None and now not in killed:
            killed.append(now)
            kill_conductor(run)
        return status.ended

    run.until(over)
    assert len(killed) >= 6, killed
    assert_undisturbed(run)
    status = run.status()
    assert status is not None
    assert set(attempts(run).values()) == {1}, "a killed conductor costs no attempt"


@pytest.mark.parametrize("seed", [1, 2])
def test_the_conductor_is_killed_at_random_moments(restarting: ClusterRun, seed: int) -> None:
    run = restarting
    run.script()
    assert run.submit().code == 0
    dice = random.Random(seed)
    for _ in range(12):
        time.sleep(dice.uniform(0.2, 3.0))
        kill_conductor(run)
    assert_undisturbed(run)


def test_the_api_server_restarts_in_the_middle(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["slow:10"], train__tuned=["slow:10"])
    assert run.submit().code == 0
    for task in ("rewrite/tuned", "train/tuned"):
        run.until(lambda status, task=task: status.task(task).state in ("running", "done"))  # type: ignore[misc]
        run.lab.component("kube-apiserver").kill()
        time.sleep(5)
        run.lab.start("kube-apiserver")
    assert_undisturbed(run)


def test_a_lost_conductors_pod_is_replaced(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["slow:20"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    run.kubelet.kill(run.conductor())
    assert_undisturbed(run)
    assert sum(name.startswith(f"{run.name}-conductor") for name, _ in run.kubelet.started) == 2


def test_a_passing_fault_in_training_makes_the_job_anew(run: ClusterRun) -> None:
    run.write(train={"workers": 2})
    run.script(train__tuned=["error:75:the store did not answer", "ok"])
    assert run.submit().code == 0
    assert_undisturbed(run)
    status = run.status()
    assert status is not None
    assert (status.task("train/tuned").attempts, status.task("train/tuned").failures) == (2, {"passing": 1})
    logs = {info.key.split("/")[4] for info in run.submission().run.root.list(f"logs/train/tuned/{run.name}/")}
    assert logs == {"attempt-1", "attempt-2"}


def started(run: ClusterRun, part: str) -> int:
    """How often a container was started in pods with this in their name."""
    return sum(part in name for name, _ in run.kubelet.started)


def test_a_killed_worker_ends_the_attempt_of_its_group(run: ClusterRun) -> None:
    run.write(train={"workers": 2})
    run.script(train__tuned=["wait", "ok"])
    assert run.submit().code == 0
    run.until_at_work("train/tuned")
    run.kubelet.kill(next(name for name in run.kubelet.pods() if name.endswith("-worker-0")))
    assert_undisturbed(run)
    status = run.status()
    assert status is not None
    assert (status.task("train/tuned").attempts, status.task("train/tuned").failures) == (2, {"passing": 1})
    assert (started(run, "-master-0"), started(run, "-worker-0")) == (2, 2)


def test_a_killed_worker_of_an_elastic_group_is_started_again_by_the_operator(run: ClusterRun) -> None:
    run.write(train={"workers": 2}, cluster={"elastic": {"maxWorkers": 2}})
    run.script(train__tuned=["slow:30"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("train/tuned").ready == 2)
    run.kubelet.kill(next(name for name in run.kubelet.pods() if name.endswith("-worker-1")))
    assert_undisturbed(run)
    assert started(run, "-worker-1") == 2
    assert attempts(run)["train/tuned"] == 1


@pytest.mark.parametrize(("task", "word", "code"), [("select/tuned", "exit:75", 75), ("train/tuned", "kill", 137)])
def test_there_are_as_many_attempts_as_the_job_says(run: ClusterRun, task: str, word: str, code: int) -> None:
    run.write(cluster={"retries": 1})
    run.script(**{task.replace("/", "__"): [word]})
    assert run.submit("--wait").code == code
    assert attempts(run)[task] == 2
    assert started(run, task.replace("/", "-")) == 2


def test_a_status_that_someone_spoiled_is_written_anew(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["wait", "ok"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    for text in ("garbage", "", None):
        run.client().merge(CONFIG_MAP, run.name, {"data": {"status.json": text}})
        wait_for(run.status, lambda status: status is not None and status.task("rewrite/tuned").state == "running")
    said = dailctl("cancel", run.name, "--kubeconfig", run.kubeconfig, "-n", run.namespace)
    assert said.code == 0, said.err


def test_a_lease_that_someone_removed_is_made_anew(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["wait", "ok"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    client = run.client()
    held = client.get(LEASE, run.name)
    client.delete(LEASE, run.name)
    again = wait_for(lambda: client.find(LEASE, run.name), lambda one: one is not None and uid_of(one) != uid_of(held))
    assert again is not None
    assert again["spec"]["holderIdentity"] == held["spec"]["holderIdentity"]
    client.delete(JOB, run.submission().record.task("rewrite/tuned").object)
    assert_undisturbed(run)


def test_a_conductor_whose_rights_were_taken_ends_and_leaves_the_run_to_its_user(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["wait", "ok"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    client, conductor = run.client(), run.conductor()
    for kind in (ROLE_BINDING, ROLE):
        client.delete(kind, run.name)
    wait_for(lambda: run.kubelet.log_of(conductor), lambda said: "has no right to" in said)
    wait_for(lambda: client.find(JOB, conductor_job(run.name)), lambda job: job is None or job_is_over(job))
    said = dailctl("cancel", run.name, "--kubeconfig", run.kubeconfig, "-n", run.namespace)
    assert said.code == 0, said.err
    assert "has no conductor that could stop it; its objects are removed from here" in said.err
    assert not client.select(POD, labels=tasks_of(run.name))
    assert run.submit("--wait").code == 0
    assert_undisturbed(run)


def test_what_someone_removed_comes_back(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["wait", "ok"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    task = run.submission().record.task("rewrite/tuned")
    client = run.client()
    client.delete(DEPLOYMENT, task.object)
    client.delete(JOB, task.object)
    assert_undisturbed(run)
