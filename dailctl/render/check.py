"""Checks of rendered objects that no API server makes, so that a run fails here and not after hours in a queue. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

RESTART_POLICIES = ("Always", "OnFailure", "Never", "ExitCode")
"""What a replica of a PyTorchJob may have; its CRD takes any text."""
STANDARD = ("cpu", "memory", "ephemeral-storage")
"""Resources whose request may differ from their limit."""


def check_objects(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each fault.

    GPU request and limit that differ, unknown restart policies, least replicas above most, variables set twice, pods without restricted
    security.
    """
    found: list[str] = []
    for one in objects:
        who = f"{one['kind']} {one['metadata']['name']}"
        for where, pod in pods_of(one):
            found += [f"{who}: {where}{problem}" for problem in _pod_problems(pod)]
        if one["kind"] == "PyTorchJob":
            found += [f"{who}: {problem}" for problem in _training_problems(one["spec"])]
    return found


def pods_of(one: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(what it is for, pod spec) of every pod template in an object."""
    if one["kind"] == "Pod":
        yield "", one["spec"]
    elif one["kind"] == "PyTorchJob":
        for role, replica in one["spec"]["pytorchReplicaSpecs"].items():
            yield f"{role}: ", replica["template"]["spec"]
    elif "template" in one.get("spec", {}):
        yield "", one["spec"]["template"]["spec"]


def _pod_problems(pod: Mapping[str, Any]) -> Iterator[str]:
    if not pod.get("securityContext", {}).get("runAsNonRoot"):
        yield "the pod may run as root; set securityContext.runAsNonRoot"
    for container in pod["containers"]:
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        for name in sorted(set(requests) | set(limits)):
            if name not in STANDARD and (name not in limits or requests.get(name, limits[name]) != limits[name]):
                yield f"the request of {name} is not its limit, which extended resources must have; set both to the same number"
        if container.get("securityContext", {}).get("allowPrivilegeEscalation") is not False:
            yield f"container {container['name']} may gain privileges; set allowPrivilegeEscalation: false"
        names = [variable["name"] for variable in container.get("env", ())]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"the environment variable {name} is set twice; remove one"


def _training_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    for role, replica in spec["pytorchReplicaSpecs"].items():
        policy = replica.get("restartPolicy")
        if policy not in RESTART_POLICIES:
            yield f"{role}: the restart policy {policy!r} is none; write {', '.join(RESTART_POLICIES[:-1])} or {RESTART_POLICIES[-1]}"
    elastic = spec.get("elasticPolicy")
    if elastic is not None:
        least, most = elastic["minReplicas"], elastic["maxReplicas"]
        workers = spec["pytorchReplicaSpecs"].get("Worker", {}).get("replicas", 0)
        if not least <= workers <= most:
            yield f"{workers} workers are outside minReplicas {least} .. maxReplicas {most}; widen the range or change the workers"
