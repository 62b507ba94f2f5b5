"""Whether what the run's pods refer to is there: APIs, secrets and their keys, volumes, classes, queues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dail_runtime.spec.kubernetes import QUEUE_LABEL
from dailctl.kube import Client, Forbidden, NotFound
from dailctl.kube.resources import (
    CONFIG_MAP,
    LOCAL_QUEUE,
    NAMESPACE,
    PRIORITY_CLASS,
    PVC,
    PYTORCH_JOB,
    RUNTIME_CLASS,
    SECRET,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
    Object,
    Resource,
    label_of,
    name_of,
)
from dailctl.preflight.finding import GET_OPERATOR, Finding, Pods


def missing_namespace(client: Client) -> list[Finding]:
    """The namespace is not there."""
    try:
        if client.find(NAMESPACE, client.namespace) is not None:
            return []
    except Forbidden:
        # Users of a shared cluster often may not read namespaces. Whether theirs is there, the first apply tells.
        return []
    return [Finding("api", f"the cluster has no namespace {client.namespace}; create it, or choose another with -n")]


def missing_apis(client: Client, objects: Iterable[Object]) -> list[Finding]:
    """Kinds that the cluster does not know."""
    found = []
    for api_version in sorted({one["apiVersion"] for one in objects}):
        kinds = {one["kind"] for one in objects if one["apiVersion"] == api_version}
        there = {one["kind"] for one in client.resources(api_version) or ()}
        for kind in sorted(kinds - there):
            remedy = "install what brings it"
            if (api_version, kind) == (PYTORCH_JOB.api_version, PYTORCH_JOB.kind):
                remedy = GET_OPERATOR
            found.append(Finding("api", f"the cluster has no {kind} ({api_version}); {remedy}"))
    return found


def missing_secrets(client: Client, pods: Sequence[Pods]) -> list[Finding]:
    """Secrets, or keys in them, that pods would wait for in vain."""
    registries = {pull["name"] for one in pods for pull in one.template["spec"].get("imagePullSecrets") or ()}
    wanted: dict[str, set[str]] = {name: set() for name in registries}
    for one in pods:
        spec = one.template["spec"]
        for name in _secret_volumes(spec):
            wanted.setdefault(name, set())
        for reference in _secret_keys(spec):
            if not reference.get("optional"):
                wanted.setdefault(reference["name"], set()).add(reference["key"])
    found = []
    for name, keys in sorted(wanted.items()):
        try:
            secret = client.find(SECRET, name)
        except Forbidden:
            found.append(
                Finding("secrets", f"whether the secret {name} is there is not known: {client.access.user} may not read it", False)
            )
            continue
        if secret is None:
            has = f" with {' and '.join(sorted(keys))}" if keys else " of type kubernetes.io/dockerconfigjson" if name in registries else ""
            found.append(Finding("secrets", f"namespace {client.namespace} has no secret {name}; create it{has}"))
            continue
        lacking = sorted(keys - set(secret.get("data") or {}))
        if lacking:
            found.append(Finding("secrets", f"the secret {name} in namespace {client.namespace} lacks {' and '.join(lacking)}; add it"))
    return found


def missing_references(client: Client, objects: Sequence[Object], pods: Sequence[Pods]) -> list[Finding]:
    """Claims, config maps, classes, accounts and queues that are named and are not there."""
    own = {(one["kind"], name_of(one)) for one in objects}
    named: dict[tuple[str, str], tuple[Resource, str]] = {}

    def name(resource: Resource, one: str | None, field: str) -> None:
        if one and (resource.kind, one) not in own:
            named[resource.kind, one] = resource, field

    for kind in pods:
        spec = kind.template["spec"]
        name(PRIORITY_CLASS, spec.get("priorityClassName"), "cluster.pools.*.priorityClass")
        name(RUNTIME_CLASS, spec.get("runtimeClassName"), "cluster.pools.*.runtimeClass")
        name(SERVICE_ACCOUNT, spec.get("serviceAccountName"), "cluster.serviceAccount")
        name(LOCAL_QUEUE, label_of(kind.owner, QUEUE_LABEL), "cluster.queue")
        for volume in spec.get("volumes") or ():
            name(PVC, (volume.get("persistentVolumeClaim") or {}).get("claimName"), "cluster.cache.claim, or the pools' volumes")
            if not (source := volume.get("configMap") or {}).get("optional"):
                name(CONFIG_MAP, source.get("name"), "the pools' volumes")
    for one in objects:
        if one["kind"] == PVC.kind:
            name(STORAGE_CLASS, one["spec"].get("storageClassName"), "cluster.cache.storageClass")
    return [finding for (_, one), (resource, field) in sorted(named.items()) for finding in _look(client, resource, one, field)]


def _look(client: Client, resource: Resource, name: str, field: str) -> Iterator[Finding]:
    try:
        there = client.find(client.served(resource) if resource == LOCAL_QUEUE else resource, name)
    except Forbidden:
        return
    except NotFound:
        yield Finding(
            "api", f"the cluster has no {resource.kind} ({resource.api_version}), which {field} needs; install it or leave {field} out"
        )
        return
    if there is None:
        yield Finding("api", f"there is no {resource.kind} {name}; create it, or correct {field}")


def _secret_keys(spec: Object) -> Iterator[Object]:
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for variable in container.get("env") or ():
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if reference:
                yield reference


def _secret_volumes(spec: Object) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        source = volume.get("secret") or {}
        if source.get("secretName") and not source.get("optional"):
            yield source["secretName"]
