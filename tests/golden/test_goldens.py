"""Every case renders to its golden, byte for byte, and what it shows is there."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dail_runtime.spec.pool import OWN_ENVIRONMENT, OWN_PATHS, OWN_VOLUMES
from dailctl.explain.objects import pool_of
from dailctl.render.chart import task_objects
from dailctl.render.check import pods_of
from dailctl.render.names import conductor_job, conductor_of, tasks_of
from dailctl.render.texts import as_yaml
from tests.golden import CASES, expected, rendered


def everything(case: str) -> list[dict[str, Any]]:
    """Objects of the run and of all its tasks."""
    found = rendered(case)
    return [*found.objects, *(one for task in found.run.tasks for one in task_objects(found.objects[0], task))]


def pods(case: str) -> list[dict[str, Any]]:
    return [dict(pod) for one in everything(case) for _, pod in pods_of(one)]


@pytest.mark.parametrize("case", CASES)
def test_the_golden_is_what_is_rendered(case: str) -> None:
    assert as_yaml(rendered(case).objects) == expected(case).read_text(encoding="utf-8"), "look at the difference; make golden accepts it"


@pytest.mark.parametrize("case", CASES)
def test_a_golden_reads_back_as_the_same_objects(case: str) -> None:
    assert list(yaml.safe_load_all(expected(case).read_text(encoding="utf-8"))) == list(rendered(case).objects)


@pytest.mark.parametrize("case", CASES)
def test_every_pod_has_what_dail_says_it_sets_and_nothing_a_pool_could_collide_with(case: str) -> None:
    for pod in pods(case):
        container = pod["containers"][0]
        added = {"NCCL_IB_HCA", "WANDB_API_KEY"}
        assert {variable["name"] for variable in container["env"]} - added <= set(OWN_ENVIRONMENT)
        own = {volume["name"] for volume in pod["volumes"]} - {"scratch", "certificates"}
        assert own <= set(OWN_VOLUMES)
        assert {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in own} <= set(OWN_PATHS)
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def templates_of(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Pod templates of an object."""
    replicas = one["spec"].get("pytorchReplicaSpecs", {}).values()
    return [made["template"] for made in (one["spec"], *replicas) if "template" in made]


def selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a label selector (KEY=VALUE or KEY, separated by commas) chooses what has these labels."""
    wanted = [one.partition("=") for one in selector.split(",")]
    return all(key in labels and (not equals or labels[key] == value) for key, equals, value in wanted)


@pytest.mark.parametrize("case", CASES)
def test_what_dailctl_looks_for_is_what_the_chart_makes(case: str) -> None:
    found = rendered(case)
    run = found.run.name
    job = next(one for one in found.objects if one["kind"] == "Job")
    assert job["metadata"]["name"] == conductor_job(run)
    assert selects(conductor_of(run), job["metadata"]["labels"])
    assert selects(conductor_of(run), job["spec"]["template"]["metadata"]["labels"])
    assert not selects(tasks_of(run), job["spec"]["template"]["metadata"]["labels"])
    for task in found.run.tasks:
        for one in task_objects(found.objects[0], task):
            for labels in (made["metadata"]["labels"] for made in (one, *templates_of(one))):
                assert selects(tasks_of(run, task.slug), labels)
                assert not selects(conductor_of(run), labels)


@pytest.mark.parametrize("case", CASES)
def test_only_the_conductor_gets_a_token(case: str) -> None:
    assert sum(pod["automountServiceAccountToken"] for pod in pods(case)) == 1


@pytest.mark.parametrize("case", CASES)
def test_pods_of_a_pool_inherit_all_of_it(case: str) -> None:
    found = rendered(case)
    pools = found.job.spec.cluster.pools
    for task in found.run.tasks:
        for one in task_objects(found.objects[0], task):
            name = "rewrite" if one["kind"] == "Deployment" else task.pool
            pool = getattr(pools, name)
            assert {pool_of(made) for made in templates_of(one)} <= {f"cluster.pools.{name}"}, "what explanations name"
            for _, pod in pods_of(one):
                assert pod.get("nodeSelector", {}) == pool.node_selector
                assert [one["key"] for one in pod.get("tolerations", [])] == [one.key for one in pool.tolerations]
                assert pod.get("runtimeClassName") == pool.runtime_class
                assert pod.get("priorityClassName") == pool.priority_class
                assert pod.get("affinity", {}) == pool.affinity
                assert pod.get("schedulerName") == pool.scheduler
                assert {one.name for one in pool.volumes} <= {volume["name"] for volume in pod["volumes"]}
                limits = pod["containers"][0]["resources"]["limits"]
                assert limits.get(pool.gpu_resource, 0) == pool.gpus
                device = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}["DAIL_DEVICE"]
                assert device == ("cuda" if pool.gpus else "cpu")


def test_a_queue_suspends_what_it_governs_and_leaves_the_conductor_alone() -> None:
    queued = {one["metadata"]["name"]: one for one in everything("kueue") if "kueue.x-k8s.io/queue-name" in one["metadata"]["labels"]}
    assert {one["kind"] for one in queued.values()} == {"Deployment", "Job", "PyTorchJob"}
    for one in queued.values():
        run_policy = one["spec"].get("runPolicy", one["spec"])
        assert one["kind"] == "Deployment" or run_policy["suspend"] is True
    training = next(one for one in queued.values() if one["kind"] == "PyTorchJob")
    assert training["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a-training"
    assert set(training["spec"]["pytorchReplicaSpecs"]) == {"Worker"}
    assert not any(name.endswith("-conductor") for name in queued)


def test_nothing_is_suspended_without_a_queue() -> None:
    assert "suspend" not in expected("a100_pool").read_text()


def test_offline_pods_get_no_way_out_but_the_storage() -> None:
    policies = [one for one in everything("air_gapped") if one["kind"] == "NetworkPolicy"]
    offline = next(one for one in policies if one["spec"]["policyTypes"] == ["Egress"])
    ports = [port["port"] for rule in offline["spec"]["egress"] for port in rule.get("ports", [])]
    assert ports == [53, 53, 5353, 5353, 9443]
    for pod in pods("air_gapped"):
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in pod["containers"][0]["env"]


def test_gitops_keeps_the_conductor_and_others_do_not() -> None:
    jobs = {case: next(one for one in rendered(case).objects if one["kind"] == "Job") for case in ("air_gapped", "mig")}
    assert "ttlSecondsAfterFinished" not in jobs["air_gapped"]["spec"]
    assert jobs["mig"]["spec"]["ttlSecondsAfterFinished"] == 30


def test_the_whole_run_is_on_the_pools_it_names() -> None:
    assert {task.name: (task.component, task.pool) for task in rendered("a100_pool").run.tasks} == {
        "prepare": ("job", "control"),
        "rewrite/tuned": ("servers", "control"),
        "select/tuned": ("job", "control"),
        "check/tuned": ("servers", "train"),
        "train/tuned": ("pytorchjob", "train"),
        "evaluate/base": ("servers", "control"),
        "evaluate/tuned": ("servers", "control"),
        "report": ("job", "control"),
    }
    assert {task.component for task in rendered("mig").run.tasks if task.stage in ("rewrite", "check", "evaluate")} == {"job"}
    assert {task.pool for task in rendered("mig").run.tasks if task.stage in ("rewrite", "check", "evaluate")} == {"rewrite"}
