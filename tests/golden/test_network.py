"""Network policies of rendered runs, read as a network reads them: what each pod needs is let through, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from dailctl.preflight.finding import pods_of
from dailctl.render.chart import task_objects
from tests.golden import CASES, NAMESPACE, rendered

S3_PORT = 9443


@dataclass(frozen=True)
class Peer:
    """A pod, or an address outside where it has no labels."""

    namespace: str = ""
    labels: Mapping[str, str] | None = None


STRANGER, NEIGHBOUR, INTERNET = Peer("kube-system", {"app": "x"}), Peer(NAMESPACE, {"app": "x"}), Peer()


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """LabelSelector (apimachinery), as far as the chart uses it."""
    for one in selector.get("matchExpressions") or ():
        assert one["operator"] == "NotIn"
        if labels.get(one["key"]) in one["values"]:
            return False
    return all(labels.get(name) == value for name, value in (selector.get("matchLabels") or {}).items())


def allowed(policies: list[Any], way: Literal["Ingress", "Egress"], pod: Peer, other: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether policies let `pod` be reached by `other` (Ingress), or reach it (Egress), as networking.k8s.io/v1 says."""
    assert pod.labels is not None
    mine = [one["spec"] for one in policies if way in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], pod.labels)]
    peers, key = ("from", "ingress") if way == "Ingress" else ("to", "egress")
    return not mine or any(_lets(rule, peers, other, port, protocol) for spec in mine for rule in spec.get(key) or ())


def _lets(rule: Mapping[str, Any], peers: str, other: Peer, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    through = not ports or any((one["port"], one["protocol"]) == (port, protocol) for one in ports)
    return through and (peers not in rule or any(_is(one, other) for one in rule[peers]))


def _is(wanted: Mapping[str, Any], other: Peer) -> bool:
    if other.labels is None:
        return False
    if "namespaceSelector" in wanted:
        return selects(wanted["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    return other.namespace == NAMESPACE and selects(wanted["podSelector"], other.labels)


def network(case: str) -> tuple[list[Any], dict[str, Peer]]:
    """The case's policies, and a pod of each of its components."""
    found = rendered(case)
    objects = [*found.objects, *(one for task in found.run.tasks for one in task_objects(found.objects[0], task))]
    templates: Iterator[Any] = (pods.template for pods in pods_of(objects))
    labels = [one["metadata"]["labels"] for one in templates]
    return [one for one in objects if one["kind"] == "NetworkPolicy"], {
        f"{one['app.kubernetes.io/component']} {one.get('dail.dev/task', '')}": Peer(NAMESPACE, one) for one in labels
    }


@pytest.mark.parametrize("case", [case for case in CASES if rendered(case).job.spec.cluster.network_policy])
def test_pods_of_a_run_reach_each_other_and_nobody_else_reaches_them(case: str) -> None:
    policies, pods = network(case)
    assert {"conductor", "stage", "trainer"} <= {name.split()[0] for name in pods} <= {"conductor", "stage", "server", "driver", "trainer"}
    for pod in pods.values():
        for other in pods.values():
            # Servers by their driver, ranks by each other: whatever the ports are.
            for port in (8000, 23456, 29400, 40001):
                assert allowed(policies, "Ingress", pod, other, port)
                assert allowed(policies, "Egress", other, pod, port)
        for other in (STRANGER, NEIGHBOUR, INTERNET):
            assert not allowed(policies, "Ingress", pod, other, 8000)
            assert not allowed(policies, "Ingress", pod, other, 23456)
        # Prometheus may be anywhere.
        assert allowed(policies, "Ingress", pod, STRANGER, rendered(case).job.spec.cluster.metrics_port or 0)


@pytest.mark.parametrize("case", CASES)
def test_only_offline_is_the_way_out_closed_and_never_that_to_names_storage_and_api_server(case: str) -> None:
    policies, pods = network(case)
    offline = rendered(case).job.spec.cluster.offline
    for name, pod in pods.items():
        for protocol in ("UDP", "TCP"):
            assert allowed(policies, "Egress", pod, STRANGER, 53, protocol)
        assert allowed(policies, "Egress", pod, INTERNET, S3_PORT if offline else 443)
        # The API server may be on any port behind its Service; the conductor alone talks to it.
        assert allowed(policies, "Egress", pod, INTERNET, 6443) == (not offline or name.startswith("conductor"))
        assert allowed(policies, "Egress", pod, INTERNET, 22) == (not offline or name.startswith("conductor"))
