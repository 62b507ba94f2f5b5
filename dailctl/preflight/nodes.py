"""Whether the cluster has nodes that the run's pods fit on: labels, taints and size, as the scheduler sees them. Pure.

What else runs there is not looked at: a full node, or one that is not ready just now, is a matter of waiting, a wrong selector is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dail_runtime.spec.kubernetes import quantity
from dailctl.explain.scheduling import PASSING_TAINT, tolerates
from dailctl.kube.resources import Object
from dailctl.preflight.finding import Finding, Pods
from dailctl.render.names import COMPONENT_LABEL

REMEDY = "correct cluster.pools, or submit with --any-nodes where the cluster adds nodes on demand"


def unfit(pods: Iterable[Pods], nodes: Sequence[Object]) -> list[Finding]:
    """A finding for each kind of pod that no node takes, or of which the nodes take too few."""
    found: dict[str, Finding] = {}
    for one in pods:
        spec = one.template["spec"]
        takers = willing(spec, nodes)
        room = sum(_room(node, requests_of(spec)) for node in takers)
        component = (one.template["metadata"].get("labels") or {}).get(COMPONENT_LABEL, one.owner["kind"])
        asked = ", ".join(f"{name}: {amount}" for name, amount in _shown(spec).items())
        if not takers:
            sentence = f"no node of the cluster takes the pods of {component} (node selector, affinity, taints); {REMEDY}"
        elif not room:
            sentence = f"no node of the cluster is large enough for a pod of {component} ({asked}); {REMEDY}"
        elif one.together and room < one.count:
            sentence = f"the cluster's nodes take {room} of the {one.count} pods of {component} ({asked}), which start together; {REMEDY}"
        else:
            continue
        found[sentence] = Finding("nodes", sentence)
    return list(found.values())


def willing(spec: Mapping[str, Any], nodes: Sequence[Object]) -> list[Object]:
    """The nodes that a pod of this spec could be on by its selector, affinity and tolerations, however full they are just now."""
    return [node for node in nodes if _takes(node, spec)]


def requests_of(spec: Mapping[str, Any]) -> dict[str, float]:
    """What the scheduler counts of a pod: the sum of its containers' requests (limits, where only they are given)."""
    total: dict[str, float] = {}
    for container in spec.get("containers") or ():
        resources = container.get("resources") or {}
        for name, amount in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
            total[name] = total.get(name, 0.0) + _amount(amount)
    return total


def _shown(spec: Mapping[str, Any]) -> dict[str, str]:
    first = (spec.get("containers") or [{}])[0].get("resources") or {}
    return {name: str(amount) for name, amount in {**(first.get("limits") or {}), **(first.get("requests") or {})}.items()}


def _takes(node: Object, spec: Mapping[str, Any]) -> bool:
    labels = node["metadata"].get("labels") or {}
    if node["spec"].get("unschedulable") or any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if affinity and not any(_matches(term, node) for term in affinity.get("nodeSelectorTerms") or ()):
        return False
    lasting = (taint for taint in node["spec"].get("taints") or () if not PASSING_TAINT.search(taint["key"]))
    taints = [taint for taint in lasting if taint.get("effect") in ("NoSchedule", "NoExecute")]
    return all(any(tolerates(one, taint) for one in spec.get("tolerations") or ()) for taint in taints)


def _matches(term: Mapping[str, Any], node: Object) -> bool:
    labels, fields = node["metadata"].get("labels") or {}, {"metadata.name": node["metadata"]["name"]}
    wanted = [(one, labels) for one in term.get("matchExpressions") or ()] + [(one, fields) for one in term.get("matchFields") or ()]
    # A term without any requirement matches nothing.
    return bool(wanted) and all(_holds(one, there) for one, there in wanted)


def _holds(requirement: Mapping[str, Any], there: Mapping[str, str]) -> bool:
    key, values = str(requirement["key"]), list(requirement.get("values") or ())
    match requirement["operator"]:
        case "In":
            return there.get(key) in values
        case "NotIn":
            return there.get(key) not in values
        case "Exists":
            return key in there
        case "DoesNotExist":
            return key not in there
        case "Gt" | "Lt" as operator:
            if not str(there.get(key, "")).lstrip("-").isdigit():
                return False
            return int(there[key]) > int(values[0]) if operator == "Gt" else int(there[key]) < int(values[0])
    return True


def _room(node: Object, wanted: Mapping[str, float]) -> int:
    """How many such pods an empty node holds."""
    has = (node.get("status") or {}).get("allocatable") or {}
    return min((int(_amount(has.get(name, 0)) // amount) for name, amount in wanted.items() if amount > 0), default=1)


def _amount(text: object) -> float:
    """A quantity as a number. A job's own are checked before; nodes also have none of something."""
    try:
        return float(quantity(str(text)))
    except ValueError:
        return 0.0
