"""The lab's control plane is a real one: it schedules, runs the operator, refuses what a cluster refuses, and survives restarts."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.lab import folders
from tests.lab.cluster import Cluster, KubectlError, Object
from tests.lab.components import components, wait_until
from tests.lab.kubeconfig import server_of
from tests.lab.simulated import EXIT_CODE

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GPU = "nvidia.com/gpu"


def pod(name: str, **container: object) -> Object:
    """A pod that the restricted Pod Security standard lets in."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "image": "localhost/none:1", "securityContext": secure, **container}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def pytorch_job(name: str, *, masters: int = 1, workers: int = 1, gpus: int = 1) -> Object:
    """A PyTorchJob of pods with GPUs."""
    spec = pod("-", resources={"limits": {GPU: gpus}})["spec"]
    spec["containers"][0]["name"] = "pytorch"
    replicas = {
        kind: {"replicas": count, "restartPolicy": "ExitCode", "template": {"spec": spec}}
        for kind, count in (("Master", masters), ("Worker", workers))
    }
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": name}, "spec": {"pytorchReplicaSpecs": replicas}}


def phase(cluster: Cluster, namespace: str, name: str) -> str:
    return str(cluster.get("pod", name, namespace)["status"].get("phase"))


def conditions(cluster: Cluster, namespace: str, name: str) -> list[str]:
    status = cluster.get("pytorchjob", name, namespace).get("status", {})
    return [one["type"] for one in status.get("conditions", []) if one["status"] == "True"]


def end(cluster: Cluster, namespace: str, name: str, code: int) -> None:
    cluster.kubectl("annotate", "pod", name, f"--namespace={namespace}", f"{EXIT_CODE}={code}")


def test_a_pytorch_job_runs_on_simulated_gpu_nodes_and_succeeds(control_plane: Cluster, namespace: str) -> None:
    with control_plane.nodes(2, gpus=1) as nodes:
        control_plane.apply(pytorch_job("train", workers=1), namespace=namespace)
        assert wait_until(lambda: "Running" in conditions(control_plane, namespace, "train"), 600)
        names = ("train-master-0", "train-worker-0")
        assert wait_until(lambda: {phase(control_plane, namespace, name) for name in names} == {"Running"}, 600)
        pods = control_plane.get("pods", namespace=namespace)["items"]
        # One GPU a node: the scheduler had to spread the two.
        assert sorted(one["spec"]["nodeName"] for one in pods) == sorted(nodes)
        for one in pods:
            end(control_plane, namespace, one["metadata"]["name"], 0)
        assert wait_until(lambda: "Succeeded" in conditions(control_plane, namespace, "train"), 600)


def test_an_exit_code_of_a_user_error_fails_a_pytorch_job(control_plane: Cluster, namespace: str) -> None:
    with control_plane.nodes(1):
        control_plane.apply(pytorch_job("train", workers=1), namespace=namespace)
        assert wait_until(lambda: "Running" in conditions(control_plane, namespace, "train"), 600)
        end(control_plane, namespace, "train-worker-0", 3)
        assert wait_until(lambda: "Failed" in conditions(control_plane, namespace, "train"), 600)


def test_the_operators_webhook_refuses_two_masters(control_plane: Cluster, namespace: str) -> None:
    with pytest.raises(KubectlError, match=r"validator\.pytorchjob.*must be 1"):
        control_plane.apply(pytorch_job("train", masters=2), namespace=namespace)


def test_unknown_fields_are_refused(control_plane: Cluster, namespace: str) -> None:
    with pytest.raises(KubectlError, match="imagePullPolice"):
        control_plane.apply(pod("typo", imagePullPolice="Always"), namespace=namespace)


def test_restricted_pod_security_is_enforced(control_plane: Cluster, namespace: str) -> None:
    open_pod = {**pod("open"), "spec": {"containers": [{"name": "main", "image": "localhost/none:1"}]}}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted:latest"'):
        control_plane.apply(open_pod, namespace=namespace)


def test_played_pods_run_until_told_and_others_are_only_bound(control_plane: Cluster, namespace: str) -> None:
    with control_plane.nodes(1, gpus=1, resource="amd.com/gpu"), control_plane.nodes(1, gpus=1, resource="example.com/gpu", played=False):
        played, idle = (
            pod(name, resources={"limits": {kind: 1}}) for name, kind in (("played", "amd.com/gpu"), ("idle", "example.com/gpu"))
        )
        control_plane.apply(played, idle, namespace=namespace)
        assert wait_until(lambda: phase(control_plane, namespace, "played") == "Running", 600)
        assert wait_until(lambda: "nodeName" in control_plane.get("pod", "idle", namespace)["spec"], 600)
        end(control_plane, namespace, "played", 3)
        assert wait_until(lambda: phase(control_plane, namespace, "played") == "Failed", 600)
        state = control_plane.get("pod", "played", namespace)["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (state["exitCode"], state["reason"]) == (3, "Error")
        assert phase(control_plane, namespace, "idle") == "Pending"


def test_a_user_can_do_what_the_rules_say_and_no_more(control_plane: Cluster, namespace: str) -> None:
    user = control_plane.user("reader", namespace, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}])
    assert json.loads(control_plane.kubectl("get", "pods", "-ojson", kubeconfig=user))["items"] == []
    with pytest.raises(KubectlError, match='cannot list resource "secrets"'):
        control_plane.kubectl("get", "secrets", kubeconfig=user)
    with pytest.raises(KubectlError, match='in the namespace "default"'):
        control_plane.kubectl("get", "pods", "--namespace=default", kubeconfig=user)
    # What was asked is in the audit log; refusals too.
    asked = f"system:serviceaccount:{namespace}:reader"

    def answered() -> set[tuple[str, int]]:
        events = control_plane.requests(asked)
        return {(one["objectRef"]["resource"], one["responseStatus"]["code"]) for one in events if "objectRef" in one}

    # The last of them is written down after it was answered.
    assert wait_until(lambda: answered() == {("pods", 200), ("secrets", 403), ("pods", 403)}, 120), answered()


def test_the_api_server_is_known_by_the_labs_authority_only(control_plane: Cluster) -> None:
    server, authority = server_of(control_plane.kubeconfig)
    with urllib.request.urlopen(f"{server}/livez", context=ssl.create_default_context(cadata=authority.decode()), timeout=120) as answer:
        assert answer.read() == b"ok"
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{server}/livez", timeout=120)


@pytest.mark.parametrize(
    ("name", "how"), [("kube-apiserver", signal.SIGKILL), ("kube-apiserver", signal.SIGTERM), ("etcd", signal.SIGKILL)]
)
def test_objects_survive_the_restart_of(name: str, how: signal.Signals, control_plane: Cluster, namespace: str) -> None:
    component = control_plane.component(name)
    kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"by": name}}
    control_plane.apply(kept, namespace=namespace)
    component.stop(how)
    assert component.process is None
    with pytest.raises(KubectlError):
        control_plane.kubectl("--request-timeout=2s", "get", "configmap", "kept", f"--namespace={namespace}")
    control_plane.start(name)
    assert control_plane.get("configmap", "kept", namespace)["data"] == {"by": name}
    # The controllers have found back as well.
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-after"}})
    assert wait_until(lambda: control_plane.get("serviceaccounts", namespace=f"{namespace}-after")["items"], 600)
    control_plane.kubectl("delete", "namespace", f"{namespace}-after", "--wait=false")


def test_a_killed_test_leaves_no_process_and_the_next_lab_removes_its_folder(tmp_path: Path) -> None:
    script = (
        "import time\nfrom tests.lab import control_plane\n"
        "with control_plane.running() as lab:\n    print(lab.folder, flush=True)\n    time.sleep(600)"
    )
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        process.kill()
    assert line, log.read_text()
    folder = Path(line)
    found = components(folder / "components")
    assert {one.name for one in found} >= {"etcd", "kube-apiserver", "training-operator"}
    assert wait_until(lambda: not any(one.process for one in found), 120)
    folders.sweep()
    assert not folder.exists()


def test_a_lab_for_people_outlives_its_starter_until_down() -> None:
    command = [sys.executable, "-m", "tests.lab"]
    kubeconfig = Path(subprocess.run([*command, "up"], check=True, capture_output=True, text=True).stdout.strip())
    try:
        folders.sweep()
        assert Cluster(kubeconfig).kubectl("get", "--raw", "/readyz") == "ok"
        found = [one.process for one in components(kubeconfig.parent / "components")]
    finally:
        subprocess.run([*command, "down", str(kubeconfig)], check=True)
    assert not any(one.alive for one in found if one)
    assert not kubeconfig.parent.exists()
    refused = subprocess.run([*command, "down", str(kubeconfig)], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "is not the kubeconfig of a lab" in refused.stderr
