"""Kubernetes objects as the API gives them, for tests without a cluster."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
NOW = "2026-11-24T08:00:00Z"
"""The moment at which tests look."""


def pod(name: str = "qwen-1a2b3c4d-train-nll-master-0", *, component: str = "trainer", stage: str = "train", **fields: Any) -> Object:
    """A pod with one container, `spec` and `status` merged over what every pod has."""
    container = {"name": "pytorch", "image": "registry.example/dail:1", "resources": {"limits": {"nvidia.com/gpu": "8", "memory": "64Gi"}}}
    labels = {"app.kubernetes.io/component": component, "dail.dev/stage": stage, "dail.dev/run": "qwen-1a2b3c4d"}
    meta = {"name": name, "namespace": "ml", "uid": f"uid-{name}", "labels": labels, "creationTimestamp": "2026-11-24T07:50:00Z"}
    spec = {"containers": [container], **fields.pop("spec", {})}
    status = {"phase": "Pending", **fields.pop("status", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, **fields}, "spec": spec, "status": status}


def unschedulable(message: str, **spec: Any) -> Object:
    """A pod that the scheduler found no node for."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(spec=spec, status={"conditions": [condition]})


def waiting(reason: str, message: str = "") -> Object:
    """A pod on a node whose container does not start."""
    status = {"name": "pytorch", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}
    return pod(spec={"nodeName": "gpu-1"}, status={"containerStatuses": [status]})


def ended(code: int, message: str = "", reason: str = "Error", *, restarts: int = 0) -> Object:
    """A pod whose container ended with `code`; `restarts`: it was started again as often, and waits to be so once more."""
    terminated = {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-11-24T07:59:00Z"}
    status: Object = {"name": "pytorch", "ready": False, "restartCount": restarts, "state": {"terminated": terminated}}
    if restarts:
        status |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": terminated}}
    return pod(spec={"nodeName": "gpu-1"}, status={"phase": "Running" if restarts else "Failed", "containerStatuses": [status]})


def turned_away(reason: str, message: str) -> Object:
    """A pod whose node did not start it, or put it out, by its kubelet's own word."""
    return pod(spec={"nodeName": "gpu-1"}, status={"phase": "Failed", "reason": reason, "message": message})


def disrupted(reason: str, message: str) -> Object:
    """A pod that the cluster takes away."""
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return pod(spec={"nodeName": "gpu-1"}, status={"phase": "Failed", "conditions": [condition]})


def job(name: str = "qwen-1a2b3c4d-select", *, kind: str = "Job", **fields: Any) -> Object:
    """A workload; `labels`, `spec` and `status` as given."""
    version = {"Job": "batch/v1", "PyTorchJob": "kubeflow.org/v1", "Deployment": "apps/v1", "ReplicaSet": "apps/v1"}[kind]
    meta = {"name": name, "namespace": "ml", "uid": f"uid-{name}", "creationTimestamp": "2026-11-24T07:50:00Z"}
    meta["labels"] = fields.pop("labels", {})
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": fields.pop("spec", {}), "status": fields.pop("status", {})}


def event(about: Object, reason: str, message: str, *, when: str = "2026-11-24T07:59:00Z", kind: str = "Warning") -> Object:
    """An Event as a controller writes it."""
    meta = about["metadata"]
    involved = {"apiVersion": about["apiVersion"], "kind": about["kind"], "name": meta["name"], "namespace": "ml", "uid": meta["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{reason}", "namespace": "ml", "creationTimestamp": when},
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "type": kind,
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
    }


def node(name: str, gpus: int = 0, taints: list[Object] | None = None, **labels: str) -> Object:
    """A node with so many GPUs."""
    allocatable = {"cpu": "96", "memory": "1Ti", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints or []}, "status": {"allocatable": allocatable}}


def queue_workload(owner: Object, *conditions: Object) -> Object:
    """Kueue's Workload for a Job."""
    reference = {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    meta = {"name": f"job-{owner['metadata']['name']}", "namespace": "ml", "ownerReferences": [reference]}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": meta,
        "spec": {"queueName": "gpu-queue"},
        "status": {"conditions": list(conditions)},
    }
