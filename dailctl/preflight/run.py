"""All checks of a run at once."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from dail_runtime.errors import DailError
from dail_runtime.spec.storage import StorageSpec
from dail_runtime.store import Store
from dailctl.kube import Client, Forbidden
from dailctl.kube.resources import NODE, Object
from dailctl.preflight.admission import refused_objects
from dailctl.preflight.finding import Finding, Pods, pods_of
from dailctl.preflight.needs import missing_apis, missing_namespace, missing_references, missing_secrets
from dailctl.preflight.nodes import unfit
from dailctl.preflight.rights import missing_rights

HERE = ("localhost", "127.0.0.1", "::1")


def check_cluster(client: Client, objects: Sequence[Object], stages: Sequence[Object], *, nodes: bool = True) -> list[Finding]:
    """What stands against the run: its own `objects`, and those of its `stages`, which the conductor will create.

    Raises:
        ClusterError, TransientError: the cluster cannot be asked at all.
    """
    client.version()
    everything = [*objects, *stages]
    pods = list(pods_of(everything))
    checks: list[Callable[[], list[Finding]]] = [
        lambda: missing_namespace(client),
        lambda: missing_rights(client, objects),
        lambda: missing_apis(client, everything),
        lambda: missing_secrets(client, pods),
        lambda: missing_references(client, everything, pods),
        lambda: refused_objects(client, everything),
    ]
    if nodes:
        checks.append(lambda: _nodes(client, pods))
    with ThreadPoolExecutor(len(checks)) as pool:
        return [finding for found in pool.map(lambda check: check(), checks) for finding in found]


def check_storage(root: Store, storage: StorageSpec) -> list[Finding]:
    """Whether this machine may write below the run's root: the job's data has to go there."""
    found = []
    if storage.endpoint is not None and urlsplit(storage.endpoint).hostname in HERE:
        found.append(
            Finding("storage", f"storage.endpoint {storage.endpoint} is this machine's own address: pods mean themselves by it", False)
        )
    probe = f"probe-{uuid.uuid4().hex}"
    try:
        root.put(probe, b"dailctl submit looks whether it may write here\n")
    except DailError as err:
        return [*found, Finding("storage", str(err), exit_code=err.exit_code)]
    with contextlib.suppress(DailError):
        root.delete(probe)
    return found


def _nodes(client: Client, pods: Sequence[Pods]) -> list[Finding]:
    try:
        there = client.select(NODE)
    except Forbidden:
        sentence = f"whether the pods fit is not known: {client.access.user} may not list the cluster's nodes"
        return [Finding("nodes", sentence, False)]
    return unfit(pods, there)
