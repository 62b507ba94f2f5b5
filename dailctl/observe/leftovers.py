"""Finds and removes what runs left behind: objects without a record, of runs that have ended, and records that are old."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from dailctl import output
from dailctl.conductor.status import ENDED
from dailctl.explain.objects import extended_of
from dailctl.kube import Client, Forbidden, NotFound
from dailctl.kube.resources import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    LEASE,
    NETWORK_POLICY,
    PDB,
    POD,
    PVC,
    PYTORCH_JOB,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    Object,
    Resource,
    label_of,
    name_of,
    shown,
    uid_of,
)
from dailctl.observe.model import Leftover, RunView
from dailctl.observe.runs import list_runs
from dailctl.render.names import COMPONENT_LABEL, RUN_LABEL, TASK_LABEL, conductor_job

KINDS = (JOB, PYTORCH_JOB, DEPLOYMENT, SERVICE, PDB, NETWORK_POLICY, LEASE, ROLE_BINDING, ROLE, SERVICE_ACCOUNT, PVC, POD)
"""Everything that a run may consist of, besides its record. What holds pods goes first."""
GRACE = timedelta(minutes=5)
"""So long after a run's end its conductor, or the cluster, may still be at it; and so long after its helpers its record may come."""


@dataclass(frozen=True)
class Found:
    """One leftover: the object, and what is told of it."""

    resource: Resource
    obj: Object
    view: Leftover


def find_leftovers(client: Client, *, namespace: str | None, older: timedelta | None) -> tuple[list[Found], list[str]]:
    """Leftovers of a namespace (`ALL`: of all), and the kinds that the user may not list.

    Args:
        client: the cluster.
        namespace: where to look; None: the client's.
        older: records of runs that ended so long ago are leftovers, too; None: no record is.

    Raises:
        ApiError: the user may not list records: without them everything would look left over.
    """
    # Objects first: one that is made between the two looks has its record already.
    objects, hidden = _objects(client, namespace)
    runs = {(run.namespace, run.name): run for run in list_runs(client, namespace=namespace)}
    now = client.now()
    conducted = {_run_of(one) for kind, one in objects if kind is JOB and name_of(one) == conductor_job(_run_of(one)[1]) and _works(one)}
    uids = {uid_of(one) for _, one in objects}
    found = []
    for kind, one in objects:
        if uids & {str(reference.get("uid")) for reference in one["metadata"].get("ownerReferences") or ()}:
            # It goes with its owner.
            continue
        reason = reason_of(one, runs.get(_run_of(one)), _run_of(one) in conducted, now)
        if reason is not None:
            found.append(Found(kind, one, _view(one, reason)))
    return [*found, *(_old_records(client, runs.values(), namespace, older, now) if older is not None else ())], hidden


def remove(client: Client, leftovers: Iterable[Found]) -> Iterator[Leftover]:
    """Remove them one after the other; yields each that was asked to go.

    Raises:
        ApiError: the user may not.
    """
    for one in leftovers:
        propagation = "Foreground" if one.resource in (JOB, PYTORCH_JOB, DEPLOYMENT) else "Background"
        where = str(one.obj["metadata"]["namespace"])
        client.delete(one.resource, name_of(one.obj), namespace=where, propagation=propagation, uid=uid_of(one.obj))
        yield one.view


def _objects(client: Client, namespace: str | None) -> tuple[list[tuple[Resource, Object]], list[str]]:
    def ask(kind: Resource) -> list[Object] | None:
        try:
            # Of pods it matters what they hold.
            return client.select(
                kind, namespace=namespace, labels=f"app.kubernetes.io/name=dail,{RUN_LABEL}", metadata_only=kind is not POD
            )
        except Forbidden:
            return None
        except NotFound:
            return []

    with ThreadPoolExecutor(len(KINDS)) as pool:
        answers = list(zip(KINDS, pool.map(ask, KINDS), strict=True))
    objects = [(kind, one) for kind, found in answers for one in found or ()]
    return objects, [kind.shown for kind, found in answers if found is None]


def reason_of(obj: Object, run: RunView | None, conducted: bool, now: datetime) -> str | None:
    """Why an object is a leftover; None where it is none."""
    deleted = obj["metadata"].get("deletionTimestamp")
    if deleted:
        late = now - datetime.fromisoformat(deleted)
        return f"should be gone for {output.duration(late.total_seconds())}" if late > GRACE else None
    if run is None:
        # Helm and GitOps tools apply in orders of their own, and what is no stage's may come before the record.
        young = now - datetime.fromisoformat(obj["metadata"]["creationTimestamp"]) < GRACE
        return None if young and label_of(obj, TASK_LABEL) is None else "its run has no record"
    if run.state not in ENDED or run.finished is None or now - run.finished < GRACE or conducted:
        return None
    return f"its run is {run.state}" if label_of(obj, TASK_LABEL) else f"its run is {run.state} and has no conductor"


def _old_records(client: Client, runs: Iterable[RunView], namespace: str | None, older: timedelta, now: datetime) -> Iterator[Found]:
    old = {(run.namespace, run.name): run for run in runs if run.finished is not None and now - run.finished >= older}
    records = client.select(CONFIG_MAP, namespace=namespace, labels=f"{COMPONENT_LABEL}=record", metadata_only=True)
    for one in records:
        run = old.get((str(one["metadata"]["namespace"]), name_of(one)))
        if run is not None and run.finished is not None:
            since = output.duration((now - run.finished).total_seconds())
            yield Found(CONFIG_MAP, one, _view(one, f"its run is {run.state} since {since}; its results stay in the store"))


def _view(obj: Object, reason: str) -> Leftover:
    meta = obj["metadata"]
    return Leftover(
        name=shown(obj),
        namespace=str(meta["namespace"]),
        run=label_of(obj, RUN_LABEL) or "?",
        reason=reason,
        gpus=extended_of(obj) if obj["kind"] == POD.kind else {},
        created=datetime.fromisoformat(meta["creationTimestamp"]),
    )


def _run_of(obj: Object) -> tuple[str, str]:
    return str(obj["metadata"]["namespace"]), label_of(obj, RUN_LABEL) or ""


def _works(job: Object) -> bool:
    return not job["metadata"].get("deletionTimestamp")
