"""How runs end other than well, and that they begin again when they are submitted again."""

from __future__ import annotations

import time

import pytest

from dailctl.kube.refusals import REFUSALS
from dailctl.kube.resources import CONFIG_MAP
from tests.support.cli import dailctl
from tests.support.cluster_run import ClusterRun
from tests.support.undisturbed import assert_undisturbed, attempts
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_user_error_ends_the_run_with_its_sentence_and_frees_everything(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["error:4:line 7 has no answer; add one"])
    said = run.submit("--wait")
    assert said.code == 4
    assert said.errors[-1] == "error: rewrite/tuned: line 7 has no answer; add one"
    run.until_only_the_record_is_left()


def test_a_run_from_git_whose_last_task_the_api_server_would_refuse_ends_before_its_first(run: ClusterRun) -> None:
    volume = {"name": "data", "mountPath": "/data", "source": {"persistentVolumeClaim": {"claim": "x"}}}
    pool = {"cpu": "100m", "memory": "64Mi", "nodeSelector": {"test": run.namespace}}
    run.write(train={"workers": 2}, cluster={"pools": {"control": pool, "rewrite": pool, "train": {**pool, "volumes": [volume]}}})
    run.script()
    run.lab.apply(*run.submission().objects, namespace=run.namespace)
    status = run.until(lambda status: status.ended)
    assert (status.state, status.exit_code) == ("failed", 9)
    assert f"the API server refuses pytorchjob.kubeflow.org/{run.name}-train-tuned" in str(status.message)
    assert str(status.message).endswith("correct cluster.pools.train")
    assert set(attempts(run).values()) == {0}
    assert "RunFailed" in {one["reason"] for one in run.lab.get("events", namespace=run.namespace)["items"]}
    run.until_only_the_record_is_left()


@pytest.mark.parametrize("task", ["select/tuned", "train/tuned"])
def test_a_stage_that_takes_longer_than_it_may_ends_the_run(run: ClusterRun, task: str) -> None:
    run.write(cluster={"timeouts": {"stage": 60}})
    run.script(**{task.replace("/", "__"): ["wait"]})
    said = run.submit("--wait")
    assert said.code == 9
    assert "took longer than it may" in said.errors[-1]
    assert "raise cluster.timeouts.stage" in said.errors[-1]
    assert attempts(run)[task] == 1
    run.until_only_the_record_is_left()


def test_what_hinders_the_conductor_is_told_and_waited_for(run: ClusterRun) -> None:
    run.script(select__tuned=["slow:5"])
    assert run.submit().code == 0
    run.until_at_work("select/tuned")
    operator = run.lab.component("training-operator")
    operator.stop()
    try:
        # The training's object cannot be made while the operator's webhook is down.
        run.until(lambda status: "admission webhook" in str(status.message) and "does not answer" in str(status.message))
    finally:
        run.lab.start("training-operator")
    assert_undisturbed(run)
    assert run.until(lambda status: status.ended).message == "done"


def test_a_quota_that_is_used_up_is_waited_for(run: ClusterRun) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"count/jobs.batch": "1"}}}
    run.lab.apply(quota, namespace=run.namespace)
    wait_for(lambda: run.lab.get("resourcequota", "few", run.namespace).get("status", {}).get("used"), bool)
    run.script()
    assert run.submit().code == 0
    # The conductor's own Job is the one.
    told = "the namespace's quota few lets nothing more of"
    run.until(lambda status: told in str(status.message))
    time.sleep(REFUSALS + 10)
    status = run.status()
    assert status is not None
    assert (status.state, told in str(status.message)) == ("running", True)
    run.lab.apply({**quota, "spec": {"hard": {"count/jobs.batch": "10"}}}, namespace=run.namespace)
    assert_undisturbed(run)
    assert run.until(lambda status: status.ended).message == "done"


def test_a_cancelled_run_goes_on_when_it_is_submitted_again(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["wait", "ok"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    assert dailctl("cancel", run.name, "--kubeconfig", run.kubeconfig, "--namespace", run.namespace).code == 0
    status = run.until(lambda status: status.ended)
    assert (status.state, status.exit_code) == ("cancelled", 143)
    assert not [name for name in run.kubelet.pods() if "conductor" not in name]
    said = run.submit("--wait")
    assert said.code == 0, said.err
    assert_undisturbed(run)
    status = run.until(lambda status: status.ended)
    assert (status.generation, status.task("prepare").attempts) == (1, 1)


def test_deleting_the_record_frees_everything(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["wait"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    run.client().delete(CONFIG_MAP, run.name)
    wait_for(run.left, lambda left: not left)
    assert not run.kubelet.pods()
