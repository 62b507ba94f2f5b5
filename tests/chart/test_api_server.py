"""Every golden case, given to a real API server with strict field validation, Pod Security and the training operator's webhook."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from dail_runtime.spec.pool import OWN_ENVIRONMENT
from dailctl.render.chart import render_templates, task_objects
from dailctl.render.check import pods_of
from dailctl.render.of_job import Rendered, render_job
from dailctl.render.parse import parse
from tests.golden import CASES, rendered
from tests.lab.cluster import Cluster, KubectlError
from tests.support.jobs import CONTENT, a_job

pytestmark = pytest.mark.cluster

Object = dict[str, Any]


def sent(cluster: Cluster, objects: Iterable[Object], *words: str) -> str:
    """Server-side apply with strict validation and dailctl's field manager."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    return cluster.kubectl("apply", "--server-side", "--validate=strict", "--field-manager=dailctl", *words, "--filename=-", stdin=listed)


def in_namespace(found: Rendered, namespace: str) -> Rendered:
    """The same run for another namespace."""
    return render_job(found.job, found.content, namespace)


def of_tasks(found: Rendered, namespace: str) -> list[Object]:
    """The objects that the conductor will create, in its namespace."""
    objects = [one for task in found.run.tasks for one in task_objects(found.objects[0], task)]
    return [{**one, "metadata": {**one["metadata"], "namespace": namespace}} for one in objects]


@pytest.fixture(scope="module")
def classes(control_plane: Cluster) -> None:
    """What the cases' pools name."""
    control_plane.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "research"}, "value": 1000},
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
    )


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_takes_every_object_of_a_run_and_of_its_tasks(control_plane: Cluster, namespace: str, case: str) -> None:
    found = in_namespace(rendered(case), namespace)
    objects = [*found.objects, *of_tasks(found, namespace)]
    said = sent(control_plane, objects, "--dry-run=server")
    assert len(said.splitlines()) == len(objects)
    assert "warning" not in said.lower()


@pytest.mark.usefixtures("classes")
@pytest.mark.parametrize("case", CASES)
def test_every_pod_passes_restricted_pod_security(control_plane: Cluster, namespace: str, case: str) -> None:
    found = in_namespace(rendered(case), namespace)
    tests = [one for text in render_templates(found.values, found.run.name, namespace) for one in parse(text) if one["kind"] == "Pod"]
    pods = [(one["kind"], pod) for one in [*found.objects, *of_tasks(found, namespace), *tests] for _, pod in pods_of(one)]
    for account in {pod["serviceAccountName"] for _, pod in pods if "serviceAccountName" in pod}:
        control_plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}, namespace=namespace)
    made = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p-{number}", "namespace": namespace},
            "spec": {"restartPolicy": "Never", **pod},
        }
        for number, (_, pod) in enumerate(pods)
    ]
    said = sent(control_plane, made, "--dry-run=server")
    assert len(said.splitlines()) == len(pods)


def test_the_api_server_refuses_what_the_strict_validation_is_there_for(control_plane: Cluster, namespace: str) -> None:
    job = of_tasks(in_namespace(rendered("mig"), namespace), namespace)[0]
    job["spec"]["template"]["spec"]["containers"][0]["imagePullpolicy"] = "Always"
    with pytest.raises(KubectlError, match="unknown field"):
        sent(control_plane, [job], "--dry-run=server")


def test_applying_a_second_time_changes_nothing(control_plane: Cluster, namespace: str) -> None:
    found = in_namespace(rendered("air_gapped"), namespace)
    sent(control_plane, found.objects)
    before = versions(control_plane, namespace)
    sent(control_plane, found.objects)
    assert versions(control_plane, namespace) == before
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(found.objects)})
    assert control_plane.kubectl("diff", "--server-side", "--field-manager=dailctl", "--filename=-", stdin=listed) == ""


def test_a_second_apply_keeps_what_the_conductor_wrote_into_the_record(control_plane: Cluster, namespace: str) -> None:
    found = in_namespace(rendered("mig"), namespace)
    record = {key: found.objects[0][key] for key in ("apiVersion", "kind")}
    record |= {"metadata": {"name": found.run.name, "namespace": namespace}, "data": {"status.json": "{}"}}
    sent(control_plane, found.objects[:1])
    control_plane.kubectl("apply", "--server-side", "--field-manager=dail-conductor", "--filename=-", stdin=json.dumps(record))
    sent(control_plane, found.objects[:1])
    live = control_plane.get("configmap", found.run.name, namespace)
    assert live["data"].pop("status.json") == "{}"
    assert live["data"] == found.objects[0]["data"]


@pytest.mark.parametrize(
    ("name", "variant"), [("2026", "9"), ("x" * 40, "y" * 40), ("a", "b"), ("0-very-long-name-for-a-run-of-40-letters", "z" * 40)]
)
def test_names_of_any_length_are_taken(control_plane: Cluster, namespace: str, name: str, variant: str) -> None:
    found = render_job(a_job(name=name, variants={variant: {}, f"{variant[:39]}0": {}}, train={"workers": 2}), CONTENT, namespace)
    sent(control_plane, [*found.objects, *of_tasks(found, namespace)], "--dry-run=server")


def test_names_that_yaml_takes_for_numbers_and_truths_stay_names(control_plane: Cluster, namespace: str) -> None:
    pool = {
        "priorityClass": "1000",
        "runtimeClass": "1.5",
        "queue": "on",
        "env": [{"name": "NO", "secret": {"name": "1e3", "key": "0x10"}}],
    }
    cluster = {"serviceAccount": "007", "secrets": {"hfToken": "123", "imagePull": "0o7"}, "cache": {"claim": "12.5"}}
    job = a_job(name="true", storage={"credentialsSecret": "1"}, cluster={**cluster, "pools": {"train": pool, "control": pool}})
    found = render_job(job, CONTENT, namespace)
    sent(control_plane, [*found.objects, *of_tasks(found, namespace)], "--dry-run=server")


def test_hostile_texts_stay_texts(control_plane: Cluster, namespace: str) -> None:
    nasty = "a: {b}\n---\nkind: Pod\n\t\"'`${HOME} {{ .Values }} \\ \u2028 \U0001f600 # no: yes"
    job = a_job(
        prompts={"student": nasty + "{problem}"},
        cluster={"pools": {"train": {"env": [{"name": "NASTY", "value": nasty}], "annotations": {"note": nasty}}}},
        storage={"uri": "s3://runs/a b'\"{{x}}"},
    )
    found = render_job(job, CONTENT, namespace)
    sent(control_plane, [*found.objects, *of_tasks(found, namespace)], "--dry-run=server")
    training = next(one for one in of_tasks(found, namespace) if one["kind"] == "PyTorchJob")
    _, pod = next(pods_of(training))
    assert {"name": "NASTY", "value": nasty} in pod["containers"][0]["env"]
    assert found.run.run_uri in pod["containers"][0]["command"]
    assert "NASTY" not in OWN_ENVIRONMENT


def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Resource version of everything of a run that lies in the namespace, but for what its Job's controller writes."""
    kinds = "configmaps,serviceaccounts,roles,rolebindings,networkpolicies"
    items = cluster.get(kinds, namespace=namespace, selector="app.kubernetes.io/name=dail")["items"]
    found = {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in items}
    jobs = cluster.get("jobs", namespace=namespace)["items"]
    return found | {f"Job/{one['metadata']['name']}": str(one["metadata"]["generation"]) for one in jobs}
