"""The lab's node is a real one: pods run, find each other, reach S3, and end as pods end."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from tests.lab import node as nodes
from tests.lab.cluster import KubectlError, Object
from tests.lab.components import wait_until
from tests.lab.node import Node

pytestmark = [pytest.mark.node, pytest.mark.slow]

SECURE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


def template(*act: str, name: str = "main", **container: Any) -> Object:
    """The spec of a pod that does one act of podtool."""
    main = {"name": name, "image": nodes.TOOL_IMAGE, "args": list(act), "securityContext": SECURE, **container}
    return {"securityContext": POD, "restartPolicy": "Never", "containers": [main]}


def run(node: Node, namespace: str, *act: str, name: str = "pod", **container: Any) -> tuple[str, str]:
    """Phase and output of a pod that does one act."""
    node.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template(*act, **container)}, namespace=namespace)
    assert wait_until(lambda: phase(node, namespace, name) in ("Succeeded", "Failed"), 600), node.kubectl(
        "describe", "pod", "-n", namespace
    )
    return phase(node, namespace, name), node.kubectl("logs", name, f"--namespace={namespace}")


def phase(node: Node, namespace: str, name: str) -> str:
    return str(node.get("pod", name, namespace)["status"].get("phase"))


def terminated(node: Node, namespace: str, name: str) -> Object:
    return dict(node.get("pod", name, namespace)["status"]["containerStatuses"][0]["state"]["terminated"])


def test_a_pod_runs_and_its_output_is_read(node: Node, node_namespace: str) -> None:
    assert run(node, node_namespace, "say", "hello") == ("Succeeded", "hello\n")


def test_exit_codes_and_memory_limits_are_real(node: Node, node_namespace: str) -> None:
    assert run(node, node_namespace, "exit", "7")[0] == "Failed"
    assert terminated(node, node_namespace, "pod")["exitCode"] == 7
    limits = {"limits": {"memory": "64Mi"}}
    assert run(node, node_namespace, "fill", "200", name="greedy", resources=limits)[0] == "Failed"
    assert terminated(node, node_namespace, "greedy")["reason"] == "OOMKilled"


def test_an_image_that_is_nowhere_is_not_pulled(node: Node, node_namespace: str) -> None:
    spec = template("pause", image="registry.example/none:1")
    node.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}, namespace=node_namespace)

    def reason() -> str:
        statuses = node.get("pod", "pod", node_namespace)["status"].get("containerStatuses", [])
        return str(statuses[0]["state"].get("waiting", {}).get("reason")) if statuses else ""

    assert wait_until(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), 600), reason()


def test_a_pytorch_job_of_two_pods_succeeds(node: Node, node_namespace: str) -> None:
    # The worker waits for the master's name before it starts, in an init container of the operator's. The job ends with its master,
    # so the master waits for a name, too: that of a Service which is made when the worker has ended.
    acts = {"Master": ("await", f"worker-has-ended.{node_namespace}.svc"), "Worker": ("sleep", "0.1")}
    replicas = {kind: {"replicas": 1, "restartPolicy": "ExitCode", "template": {"spec": member(*act)}} for kind, act in acts.items()}
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "train"}, "spec": {"pytorchReplicaSpecs": replicas}}
    node.apply(job, namespace=node_namespace)
    for state in ("create", "jsonpath={.status.phase}=Succeeded"):
        node.kubectl("wait", "pod/train-worker-0", f"--for={state}", "--timeout=900s", f"--namespace={node_namespace}")
    name = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "worker-has-ended"}, "spec": {"ports": [{"port": 80}]}}
    node.apply(name, namespace=node_namespace)
    node.kubectl("wait", "pytorchjob/train", "--for=condition=Succeeded", "--timeout=900s", f"--namespace={node_namespace}")
    assert phase(node, node_namespace, "train-master-0") == "Succeeded"


def member(*act: str) -> Object:
    spec = template(*act, name="pytorch")
    del spec["restartPolicy"]  # the operator's to decide
    return spec


def test_pods_find_services_by_name_and_reach_them(node: Node, node_namespace: str) -> None:
    labels = {"app": "server"}
    server = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server", "labels": labels}, "spec": template("serve", "8000")}
    ports = {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]}
    services = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"}, "spec": ports},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "each"}, "spec": {**ports, "clusterIP": "None"}},
    ]
    node.apply(server, *services, namespace=node_namespace)
    node.kubectl("wait", "pod/server", "--for=condition=Ready", "--timeout=600s", f"--namespace={node_namespace}")
    address = node.get("pod", "server", node_namespace)["status"]["podIP"]
    assert run(node, node_namespace, "await", f"each.{node_namespace}.svc", name="wait")[0] == "Succeeded"
    assert run(node, node_namespace, "lookup", f"each.{node_namespace}.svc", name="lookup") == ("Succeeded", f"{address}\n")
    assert run(node, node_namespace, "get", f"http://one.{node_namespace}.svc", name="get") == ("Succeeded", "200\nok\n")
    failed, said = run(node, node_namespace, "lookup", "registry.example", name="outside")
    assert failed == "Failed"
    assert "no such host" in said


def test_s3_is_the_same_from_pods_and_from_this_machine(node: Node, node_namespace: str) -> None:
    environment = node.s3.environment()
    client = boto3.client(
        "s3",
        endpoint_url=node.s3.endpoint,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )
    client.create_bucket(Bucket=node_namespace)
    assert client.list_objects_v2(Bucket=node_namespace)["KeyCount"] == 0
    # Without a signature it answers 403: it was reached.
    state, said = run(node, node_namespace, "get", f"{node.s3.endpoint}/{node_namespace}")
    assert (state, said.splitlines()[0]) == ("Succeeded", "403")


def test_a_probe_that_fails_restarts_its_container(node: Node, node_namespace: str) -> None:
    probe = {"httpGet": {"path": "/", "port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    spec = {**template("pause", livenessProbe=probe, terminationGracePeriodSeconds=1), "restartPolicy": "Always"}
    spec["containers"][0].pop("terminationGracePeriodSeconds")
    node.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}, namespace=node_namespace)

    def restarts() -> int:
        statuses = node.get("pod", "pod", node_namespace)["status"].get("containerStatuses", [])
        return int(statuses[0]["restartCount"]) if statuses else 0

    assert wait_until(lambda: restarts() >= 1, 600)


def test_commands_run_inside_pods(node: Node, node_namespace: str) -> None:
    node.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template("pause")}, namespace=node_namespace)
    node.kubectl("wait", "pod/pod", "--for=condition=Ready", "--timeout=600s", f"--namespace={node_namespace}")
    assert node.kubectl("exec", "pod", f"--namespace={node_namespace}", "--", "/podtool", "say", "inside") == "inside\n"


def test_the_kubelet_asks_who_is_asking(node: Node, node_namespace: str) -> None:
    user = node.user("reader", node_namespace, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    node.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template("say", "secret")}, namespace=node_namespace
    )
    with pytest.raises(KubectlError, match='cannot get resource "pods/log"'):
        node.kubectl("logs", "pod", kubeconfig=user)
