"""Causes as a real control plane shows them: what the scheduler, quotas, admission and the operator's webhook really say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from dailctl.explain import Cause, Seen, explain
from dailctl.explain.refusals import refused
from dailctl.explain.table import ROWS
from dailctl.kube import ApiError, Client, load_access
from dailctl.kube.resources import DEPLOYMENT, EVENT, JOB, NODE, POD, PVC, PYTORCH_JOB
from dailctl.observe.any_job import any_submission
from dailctl.observe.doctor import diagnose
from tests.lab.cluster import KubectlError
from tests.lab.control_plane import ControlPlane
from tests.support.admission import denied
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GPU = "nvidia.com/gpu"
Made = Callable[[ControlPlane, str, list[str]], None]
"""Makes what shows the cause: on the control plane, in a namespace, where there are two nodes of four GPUs (their names)."""


def pod(name: str, gpus: int = 0, **spec: object) -> dict:
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    limits = {"cpu": "100m", "memory": "64Mi", **({GPU: gpus} if gpus else {})}
    container = {"name": "main", "image": "localhost/none:1", "securityContext": secure, "resources": {"limits": limits}}
    context = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    labels = {"dail.dev/stage": "train", "app.kubernetes.io/component": "trainer"}
    body = {"securityContext": context, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": body}


def job(name: str, **spec: object) -> dict:
    template = {"spec": {**pod("-", **spec)["spec"], "restartPolicy": "Never"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}


def full(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    hosts = {"lab.dail.dev/nodes": lab.get("node", nodes[0])["metadata"]["labels"]["lab.dail.dev/nodes"]}
    for number in range(2):
        lab.apply(pod(f"holds-{number}", 4, nodeSelector=hosts), namespace=space)
    while any("nodeName" not in one["spec"] for one in lab.get("pods", namespace=space)["items"]):
        time.sleep(0.2)
    lab.apply(pod("waits", 2, nodeSelector=hosts), namespace=space)


def on(nodes: list[str]) -> dict[str, str]:
    return {"kubernetes.io/hostname": nodes[0]}


def in_force(lab: ControlPlane, space: str, probe: dict, message: str) -> None:
    """Wait until the API server refuses the probe so: it takes a moment to know what was asked of it."""

    def said() -> str:
        try:
            return lab.kubectl("create", "--dry-run=server", f"--namespace={space}", "--filename=-", stdin=json.dumps(probe))
        except KubectlError as err:
            return str(err)

    wait_for(said, lambda words: message in words)


def quota(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    del nodes
    hard = {f"requests.{GPU}": "3"}
    lab.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": hard}}, namespace=space)
    in_force(lab, space, pod("probe", 4), "exceeded quota")
    lab.apply(job("x", gpus=4), namespace=space)


def insecure(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    del nodes
    one = job("x")
    one["spec"]["template"]["spec"].pop("securityContext")
    lab.apply(one, namespace=space)


def unbound(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    lab.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": spec}, namespace=space)
    volume = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    lab.apply(pod("x", nodeSelector=on(nodes), volumes=[volume]), namespace=space)


def missing_claim(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    volume = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    lab.apply(pod("x", nodeSelector=on(nodes), volumes=[volume]), namespace=space)


def tainted(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    lab.kubectl("taint", "node", nodes[0], "team=vision:NoSchedule")
    lab.apply(pod("x", 1, nodeSelector=on(nodes)), namespace=space)


def cordoned(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    lab.kubectl("cordon", nodes[0])
    lab.apply(pod("x", 1, nodeSelector=on(nodes)), namespace=space)


def limited(lab: ControlPlane, space: str, nodes: list[str]) -> None:
    del nodes
    limits = [{"type": "Container", "max": {"memory": "32Mi"}}]
    lab.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": limits}}, namespace=space)
    in_force(lab, space, pod("probe"), "maximum memory usage")
    lab.apply(job("x"), namespace=space)


IN_PODS: dict[str, tuple[Made, tuple[str, ...]]] = {
    "NoNodeHasRoom": (full, (f"no node has {GPU} free for pod waits", "cluster.pools.train")),
    "NodeTooSmall": (
        lambda lab, space, nodes: lab.apply(pod("x", 8, nodeSelector=on(nodes)), namespace=space),
        (f"asks for 8 {GPU}", "has 4"),
    ),
    "NoNodeMatches": (lambda lab, space, _: lab.apply(pod("x", nodeSelector={"gpu": "h900"}), namespace=space), ("gpu=h900",)),
    "Taint": (tainted, ("team=vision:NoSchedule",)),
    "NodesNotReady": (cordoned, ("unschedulable",)),
    "VolumeMissing": (missing_claim, ("models", "does not exist")),
    "VolumeUnbound": (unbound, ("models", "no storage class is set")),
    "Gated": (
        lambda lab, space, _: lab.apply(pod("x", schedulingGates=[{"name": "example.com/wait"}]), namespace=space),
        ("example.com/wait",),
    ),
    "Quota": (quota, ("quota few", f"requests.{GPU}=4", f"requests.{GPU}=3")),
    "PodSecurity": (insecure, ("restricted:latest", "runAsNonRoot")),
    "ServiceAccountMissing": (
        lambda lab, space, _: lab.apply(job("x", serviceAccountName="nobody"), namespace=space),
        ("the ServiceAccount nobody of job.batch/x",),
    ),
    "PriorityClassMissing": (
        lambda lab, space, _: lab.apply(job("x", priorityClassName="gold"), namespace=space),
        ("the PriorityClass gold of job.batch/x",),
    ),
    "LimitRange": (limited, ("maximum memory usage per Container is 32Mi",)),
}


def look(client: Client) -> Seen:
    """Everything in the client's namespace."""
    return Seen(
        objects=tuple(one for kind in (JOB, DEPLOYMENT, PYTORCH_JOB) for one in client.select(kind)),
        pods=tuple(client.select(POD)),
        events=tuple(client.select(EVENT)),
        nodes=tuple(client.select(NODE)),
        claims=tuple(client.select(PVC)),
    )


@pytest.mark.parametrize("name", IN_PODS)
def test_cause(name: str, control_plane: ControlPlane, namespace: str) -> None:
    make, words = IN_PODS[name]
    client = Client(load_access(control_plane.kubeconfig, namespace=namespace), patience=30)
    with control_plane.nodes(2, gpus=4) as nodes:
        make(control_plane, namespace, nodes)
        wait_for(
            lambda: explain(look(client)),
            # What is told on the way to it (a pod that was not looked at yet) is not told any more then.
            lambda causes: (
                any(all(word in cause.told for word in words) for cause in causes if cause.name == name)
                and all(cause.name == name for cause in causes)
            ),
            moves=lambda causes: [cause.told for cause in causes],
            told=lambda causes: [cause.told for cause in causes],
        )


def refusal(client: Client, obj: dict) -> Cause:
    """Why the API server does not take an object."""
    with pytest.raises(ApiError) as caught:
        client.apply(obj, "test", dry_run=True)
    return refused(str(caught.value), f"{obj['kind']} {obj['metadata']['name']}")


def pytorch_job(masters: int) -> dict:
    replicas = {"Master": {"replicas": masters, "restartPolicy": "Never", "template": {"spec": pod("-")["spec"]}}}
    replicas["Master"]["template"]["spec"]["containers"][0]["name"] = "pytorch"  # type: ignore[index]
    meta = {"name": "train"}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": meta, "spec": {"pytorchReplicaSpecs": replicas}}


def test_the_operators_webhook_denies(control_plane: ControlPlane, namespace: str) -> None:
    client = Client(load_access(control_plane.kubeconfig, namespace=namespace), patience=30)
    cause = refusal(client, pytorch_job(2))
    assert (cause.name, cause.final) == ("WebhookDenied", True)
    assert "must be 1" in cause.sentence


def test_an_admission_policy_denies(control_plane: ControlPlane, namespace: str) -> None:
    client = Client(load_access(control_plane.kubeconfig, namespace=namespace), patience=30)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}}
    with denied(control_plane, namespace, "services", "services cost money"):
        cause = refusal(client, service)
    assert cause.name == "PolicyDenied"
    assert "services cost money" in cause.sentence


def test_doctor_takes_nobody_elses_refusal_for_the_operators(control_plane: ControlPlane, namespace: str) -> None:
    client = Client(load_access(control_plane.kubeconfig, namespace=namespace), patience=30)

    def operator() -> str:
        return next(one.detail for one in diagnose(client, any_submission(namespace), real=False) if one.name == "operator")

    assert operator() == "the Kubeflow training operator answers"
    with denied(control_plane, namespace, "pytorchjobs.kubeflow.org", "training costs money"):
        assert operator() != "the Kubeflow training operator answers"


def test_a_missing_right_is_named(control_plane: ControlPlane, namespace: str) -> None:
    user = control_plane.user("reader", namespace, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    cause = refusal(Client(load_access(user, namespace=namespace)), pod("x"))
    assert cause.name == "RightMissing"
    assert f"system:serviceaccount:{namespace}:reader may not patch pods" in cause.sentence


def test_a_webhook_that_does_not_answer(control_plane: ControlPlane, namespace: str) -> None:
    client = Client(load_access(control_plane.kubeconfig, namespace=namespace), patience=1)
    control_plane.component("training-operator").stop()
    try:
        with pytest.raises(Exception, match="failed calling webhook") as caught:
            client.apply(pytorch_job(1), "test", dry_run=True)
    finally:
        control_plane.start("training-operator")
    cause = refused(str(caught.value), "the PyTorchJob")
    assert (cause.name, cause.final) == ("WebhookDown", False)


def test_every_cause_that_is_said_to_be_shown_live_is() -> None:
    elsewhere = {"WebhookDenied", "PolicyDenied", "RightMissing", "WebhookDown"}
    assert {row.name for row in ROWS if row.live} == set(IN_PODS) | elsewhere
