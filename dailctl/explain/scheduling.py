"""Why the scheduler finds no node for a pod: from its message, and from the nodes where they may be read.

The message (kube-scheduler, framework.FitError) is `0/N nodes are available: COUNT REASON, COUNT REASON. preemption: ...`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dailctl.explain import table
from dailctl.explain.cause import Cause, one_line
from dailctl.explain.objects import conditions_of, extended_of, pool_of, spec_of, status_of
from dailctl.kube.resources import Object, name_of, shown

_COUNTED = re.compile(r"(?:^|, )(\d+) ([^,{]+(?:\{[^}]*\})?)")
_TAINTED = re.compile(r"untolerated taint(?:\(s\)| ?\{(.*?)\})")
_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_UNBOUND = re.compile(
    r"unbound immediate PersistentVolumeClaims|didn't find available persistent volumes|binding volumes|ephemeral volume controller"
    r'|storageclass\S* "[^"]+" not found|persistentvolumeclaim "[^"]+" (?:bound to non-existent|is being deleted)'
)
_VOLUME = re.compile(r"volume|pvc\(s\)|enough free storage", re.IGNORECASE)
PASSING_TAINT = re.compile(
    r"node\.(?:cloudprovider\.)?kubernetes\.io/|(?:ToBeDeletedBy|DeletionCandidateOf)ClusterAutoscaler|karpenter\.sh/(?:disrupt|unregistered)"
    r"|agent-not-ready"
)
"""Taints that say how a node is at the moment: being set up, out of order, about to go. No job should tolerate them."""
_CONTROL_PLANE = re.compile(r"node-role\.kubernetes\.io/(?:control-plane|master)")
_MATCH = re.compile(r"didn't match (?:Pod's node affinity|node selector|pod's node affinity)", re.IGNORECASE)


def unscheduled(pod: Object, nodes: Sequence[Object] | None) -> Cause | None:
    """Why the pod has no node; None where it has one, or where the scheduler has not looked at it yet.

    Args:
        pod: the pod.
        nodes: the cluster's nodes; None where the user may not read them.
    """
    condition = conditions_of(pod).get("PodScheduled", {})
    if condition.get("status") != "False":
        return None
    subject, name, pool = shown(pod), name_of(pod), pool_of(pod)
    if condition.get("reason") == "SchedulingGated":
        gates = ", ".join(str(one.get("name")) for one in spec_of(pod).get("schedulingGates") or ())
        return table.GATED.of(subject, pod=name, gates=gates)
    message = str(condition.get("message") or condition.get("reason") or "not scheduled yet")
    said = one_line(_reasons_only(message))
    if claim := _CLAIM.search(message):
        return table.VOLUME_MISSING.of(subject, pod=name, claim=claim.group(1))
    if unbound := _UNBOUND.search(message):
        reason = "none is bound to it" if unbound.group().startswith("unbound") else said
        return table.VOLUME_UNBOUND.of(subject, pod=name, claim=", ".join(_claims_of(pod)), said=reason)
    if "no nodes available to schedule pods" in message:
        return table.NO_NODES.of(subject, pod=name)
    counts = _counts(message)
    lacking = [reason.removeprefix("Insufficient ") for _, reason in counts if reason.startswith("Insufficient ")]
    if lacking:
        return _too_small(pod, nodes) or table.NO_ROOM.of(subject, pod=name, pool=pool, lacking=", ".join(lacking), said=said)
    if any("Too many pods" in reason for _, reason in counts):
        return table.NO_ROOM.of(subject, pod=name, pool=pool, lacking="place for another pod", said=said)
    if any(_VOLUME.search(reason) for _, reason in counts):
        return table.VOLUME_ELSEWHERE.of(subject, pod=name, said=said)
    return _kept_out(pod, nodes, [reason for _, reason in counts], said)


def _kept_out(pod: Object, nodes: Sequence[Object] | None, reasons: Sequence[str], said: str) -> Cause:
    """Why no node lets the pod in, however empty it is: taints, labels, nodes that are not ready."""
    subject, name, pool = shown(pod), name_of(pod), pool_of(pod)
    tainted = [reason for reason in reasons if _TAINTED.search(reason)]
    chosen = [node for node in nodes or () if _selects(pod, node)]
    if nodes is None or not tainted:
        taints = [taint.group(1) for reason in tainted if (taint := _TAINTED.search(reason)) and taint.group(1)]
    else:
        # Newer schedulers only count. And of the nodes that they count, those that the pod does not ask for do not matter.
        taints = [taint for node in chosen for taint in _told(_untolerated(pod, node))]
    unnamed = len(taints) < len(tainted) and nodes is None
    lasting = [taint for taint in dict.fromkeys(taints) if not PASSING_TAINT.search(taint)]
    elsewhere = any(_MATCH.search(reason) for reason in reasons)
    # Of several reasons the one that keeps most nodes out is worth least: labels usually do, and rightly. Control planes always do.
    if elsewhere and all(_CONTROL_PLANE.search(taint) for taint in lasting) and not unnamed:
        lasting = []
    if lasting:
        return table.TAINT.of(subject, pod=name, pool=pool, taints=", ".join(lasting))
    if unnamed and elsewhere:
        hint = "compare the labels and taints of the nodes (kubectl describe nodes) with nodeSelector, affinity and tolerations of {pool}"
        return table.UNSCHEDULED.of(subject, pod=name, pool=pool, said=said, remedy=hint)
    if unnamed:
        hint = "see kubectl describe nodes: nodes that are not ready are tainted, too; else add a toleration to {pool}"
        return table.TAINT.of(subject, pod=name, pool=pool, taints="the scheduler does not say by what", remedy=hint)
    unready = any("unschedulable" in reason or "not ready" in reason for reason in reasons)
    if unready or any(PASSING_TAINT.search(taint) for taint in taints):
        named = [taint for taint in dict.fromkeys(taints) if taint not in said]
        return table.NODES_NOT_READY.of(subject, pod=name, said="; ".join([said, *named]))
    if elsewhere or (tainted and nodes is not None and not chosen):
        return table.NO_NODE_MATCHES.of(subject, pod=name, pool=pool, selector=_selector(pod))
    return table.UNSCHEDULED.of(subject, pod=name, said=said)


def _reasons_only(message: str) -> str:
    """Without what the scheduler says of preemption: it repeats the same from another side."""
    return re.split(r"[.,] ?(?:no new claims to deallocate,? ?)?(?:preemption: |not found$)", message)[0]


def _counts(message: str) -> list[tuple[int, str]]:
    _, _, reasons = _reasons_only(message).partition("nodes are available: ")
    return [(int(count), reason.strip().rstrip(".")) for count, reason in _COUNTED.findall(reasons)]


def _too_small(pod: Object, nodes: Sequence[Object] | None) -> Cause | None:
    """Where no node that the pod's labels and tolerations let it use has that many GPUs at all, however long it waits."""
    chosen = [node for node in nodes or () if _selects(pod, node)]
    usable = [node for node in chosen if not _untolerated(pod, node)]
    for resource, wanted in extended_of(pod).items():
        most = max((_allocatable(node, resource) for node in usable), default=None)
        if most is None or most >= wanted:
            continue
        # Where it may use nodes with GPUs, others' larger ones are no matter; where it may use none, the taint of those there are is.
        barred = [node for node in chosen if most == 0 and node not in usable and _allocatable(node, resource) >= wanted]
        taints = [taint for node in barred for taint in _told(_untolerated(pod, node))]
        if lasting := [taint for taint in dict.fromkeys(taints) if not PASSING_TAINT.search(taint)]:
            return table.TAINT.of(shown(pod), pod=name_of(pod), pool=pool_of(pod), taints=", ".join(lasting))
        if barred:
            return table.NODES_NOT_READY.of(shown(pod), pod=name_of(pod), said=", ".join(dict.fromkeys(taints)))
        return table.NODE_TOO_SMALL.of(shown(pod), pod=name_of(pod), pool=pool_of(pod), wanted=wanted, resource=resource, most=most)
    return None


def _allocatable(node: Object, resource: str) -> int:
    found = str((status_of(node).get("allocatable") or {}).get(resource, "0"))
    return int(found) if found.isdigit() else 0


def _selects(pod: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (spec_of(pod).get("nodeSelector") or {}).items())


def _untolerated(pod: Object, node: Object) -> list[Object]:
    """Taints of the node that keep the pod away."""
    tolerations = spec_of(pod).get("tolerations") or ()
    taints = [one for one in spec_of(node).get("taints") or () if one.get("effect") in ("NoSchedule", "NoExecute")]
    return [taint for taint in taints if not any(tolerates(one, taint) for one in tolerations)]


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether a toleration matches a taint (core/v1 Toleration)."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint.get("key"):
        return False
    return toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or "")


def _told(taints: Sequence[Object]) -> list[str]:
    """Taints as kubectl writes them."""
    known = [(str(one.get("key")), one.get("value"), one.get("effect")) for one in taints]
    return [f"{key}={value}:{effect}" if value else f"{key}:{effect}" for key, value, effect in known]


def _claims_of(pod: Object) -> list[str]:
    volumes = spec_of(pod).get("volumes") or ()
    return [str(one["persistentVolumeClaim"].get("claimName")) for one in volumes if one.get("persistentVolumeClaim")]


def _selector(pod: Object) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in (spec_of(pod).get("nodeSelector") or {}).items())
    affinity = "its affinity" if (spec_of(pod).get("affinity") or {}).get("nodeAffinity") else ""
    return " and ".join(one for one in (labels, affinity) if one) or "its selector"
