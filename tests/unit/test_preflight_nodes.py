"""Which pods fit on which nodes: labels, affinity, taints and size, as the scheduler has them."""

from __future__ import annotations

from typing import Any

import pytest

from dailctl.preflight.finding import Pods
from dailctl.preflight.nodes import unfit

GPU = "nvidia.com/gpu"


def node(name: str = "n", *, labels: dict[str, str] | None = None, taints: Any = (), cordoned: bool = False, **room: str) -> dict[str, Any]:
    has = {"cpu": "16", "memory": "64Gi", **{GPU if key == "gpu" else key: value for key, value in room.items()}}
    spec = {"taints": list(taints), "unschedulable": cordoned}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": {"allocatable": has}}


def pods(count: int = 1, *, together: bool = False, gpus: int = 0, cpu: str = "1", **spec: Any) -> Pods:
    resources: dict[str, Any] = {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    if gpus:
        resources["limits"][GPU] = gpus
    template = {
        "metadata": {"labels": {"app.kubernetes.io/component": "trainer"}},
        "spec": {"containers": [{"resources": resources}], **spec},
    }
    return Pods({"kind": "PyTorchJob"}, count, together, template)


def required(*expressions: dict[str, Any], fields: Any = ()) -> dict[str, Any]:
    term = {"matchExpressions": list(expressions), "matchFields": list(fields)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


NONE = "no node of the cluster takes the pods of trainer (node selector, affinity, taints)"
EXISTS = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (node(), pods()),
        (node(gpu="8"), pods(gpus=8)),
        (node(labels={"pool": "a100"}), pods(nodeSelector={"pool": "a100"})),
        (node(taints=[TAINT]), pods(tolerations=[{"key": "gpu", "operator": "Exists"}])),
        (node(taints=[TAINT]), pods(tolerations=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])),
        (node(taints=[TAINT]), pods(tolerations=[{"operator": "Exists"}])),
        (node(taints=[{**TAINT, "effect": "PreferNoSchedule"}]), pods()),
        (node(taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]), pods()),
        (node(taints=[{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]), pods()),
        (node(labels={"zone": "a"}), pods(affinity=required({"key": "zone", "operator": "In", "values": ["a", "b"]}))),
        (node(labels={"age": "7"}), pods(affinity=required({"key": "age", "operator": "Gt", "values": ["6"]}))),
        (node("n7"), pods(affinity=required(fields=[{"key": "metadata.name", "operator": "In", "values": ["n7"]}]))),
        (node(gpu="8"), pods(4, together=True, gpus=2)),
        (node(cpu="2"), pods(5, cpu="2")),
    ],
)
def test_a_pod_that_fits(there: dict[str, Any], wanted: Pods) -> None:
    assert unfit([wanted], [node("full", cpu="0"), there]) == []


@pytest.mark.parametrize(
    ("there", "wanted", "said"),
    [
        (node(), pods(gpus=1), "is large enough for a pod of trainer"),
        (node(gpu="4"), pods(gpus=8), "is large enough"),
        (node(cpu="500m"), pods(), "is large enough"),
        (node(cordoned=True), pods(), NONE),
        (node(), pods(nodeSelector={"pool": "a100"}), NONE),
        (node(taints=[TAINT]), pods(), NONE),
        (node(taints=[TAINT]), pods(tolerations=[{"key": "gpu", "value": "no"}]), NONE),
        (
            node(taints=[{**TAINT, "effect": "NoExecute"}]),
            pods(tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]),
            NONE,
        ),
        (node(labels={"zone": "c"}), pods(affinity=required({"key": "zone", "operator": "NotIn", "values": ["c"]})), NONE),
        (node(), pods(affinity=required({"key": "zone", "operator": "Exists"})), NONE),
        (node(), pods(affinity=required()), NONE),
        (node(labels={"age": "x"}), pods(affinity=required({"key": "age", "operator": "Lt", "values": ["6"]})), NONE),
        (node(gpu="8"), pods(5, together=True, gpus=2), "take 4 of the 5 pods of trainer"),
    ],
)
def test_a_pod_that_does_not(there: dict[str, Any], wanted: Pods, said: str) -> None:
    (finding,) = unfit([wanted], [there])
    assert said in finding.sentence
    assert "--any-nodes" in finding.sentence


@pytest.mark.parametrize(
    "key",
    [
        "node.kubernetes.io/not-ready",
        "node.cloudprovider.kubernetes.io/uninitialized",
        "karpenter.sh/unregistered",
        "node.cilium.io/agent-not-ready",
    ],
)
def test_a_node_that_is_being_set_up_counts(key: str) -> None:
    assert unfit([pods()], [node(taints=[{"key": key, "effect": "NoSchedule"}])]) == []
