"""Queues of a Kueue whose API has moved on: the objects are the same, under another version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dailctl.kube import Client, load_access
from dailctl.kube.resources import JOB, LOCAL_QUEUE
from dailctl.observe.seen import WORKLOAD
from dailctl.preflight.finding import Pods
from dailctl.preflight.needs import missing_references
from tests.lab.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"


def definition(kind: str, plural: str) -> dict:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    spec = {"group": GROUP, "scope": "Namespaced", "names": names}
    versions = [{"name": VERSION, "served": True, "storage": True, "schema": schema}]
    meta = {"name": f"{plural}.{GROUP}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": meta,
        "spec": {**spec, "versions": versions},
    }


@pytest.fixture
def kueue(control_plane: ControlPlane) -> Iterator[None]:
    """Its kinds, served in a version that dail does not name."""
    definitions = [definition("LocalQueue", "localqueues"), definition("Workload", "workloads")]
    names = [f"crd/{one['metadata']['name']}" for one in definitions]
    control_plane.apply(*definitions)
    control_plane.kubectl("wait", "--for=condition=Established", *names, "--timeout=600s")
    try:
        yield
    finally:
        control_plane.kubectl("delete", *names, "--wait=true")


@pytest.mark.usefixtures("kueue")
def test_queues_are_found_in_the_version_that_is_there(control_plane: ControlPlane, namespace: str) -> None:
    client = Client(load_access(control_plane.kubeconfig, namespace=namespace), patience=30)
    assert client.served(JOB) == JOB
    assert client.served(WORKLOAD).api_version == f"{GROUP}/{VERSION}"
    assert client.select(client.served(WORKLOAD)) == []
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x", "labels": {"kueue.x-k8s.io/queue-name": "gpu"}}}
    pods = [Pods(job, 1, False, {"metadata": {}, "spec": {}})]
    assert [one.sentence for one in missing_references(client, [], pods)] == [
        "there is no LocalQueue gpu; create it, or correct cluster.queue"
    ]
    control_plane.apply({"apiVersion": f"{GROUP}/{VERSION}", "kind": "LocalQueue", "metadata": {"name": "gpu"}}, namespace=namespace)
    assert missing_references(client, [], pods) == []


def test_a_cluster_without_queues_is_told_so(control_plane: ControlPlane, namespace: str) -> None:
    client = Client(load_access(control_plane.kubeconfig, namespace=namespace), patience=30)
    assert client.served(LOCAL_QUEUE) == LOCAL_QUEUE
