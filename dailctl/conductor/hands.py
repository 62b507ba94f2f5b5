"""What the conductor does to the cluster. Every act may be done twice: that is what a killed conductor's successor does."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime

from dail_runtime.errors import ClusterError, DailError, SpecError
from dail_runtime.stages.usage import add_usage
from dailctl.conductor.archive import Archive
from dailctl.conductor.decide import ATTEMPT, Live, Note
from dailctl.conductor.lease import DURATION, SURE
from dailctl.conductor.status import KEY, MANAGER, SUMMARY, RunStatus, summary_of
from dailctl.conductor.store import RunStore
from dailctl.conductor.usage import Meter
from dailctl.kube import Client, Conflict, Forbidden, NotFound
from dailctl.kube.resources import (
    JOB,
    LEASE,
    NETWORK_POLICY,
    POD,
    PVC,
    ROLE,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Object,
    Resource,
    name_of,
    owner_reference,
    uid_of,
)
from dailctl.render.names import RUN_LABEL, tasks_of
from dailctl.render.parse import parse
from dailctl.render.record import RunRecord

HELPERS: tuple[tuple[Resource, str], ...] = (
    *((one, "{}") for one in (SERVICE_ACCOUNT, ROLE, ROLE_BINDING, NETWORK_POLICY, LEASE)),
    (NETWORK_POLICY, "{}-offline"),
    (PVC, "{}-cache"),
)
"""What the chart makes once for a run, besides its record and its conductor's Job; `{}` is the run's name."""

WRITE_PATIENCE = (DURATION - SURE) / 2
"""Seconds for which a write is tried again: one that began when the lease was sure is over before another may take it."""

Take = Callable[[Object], None]
"""Hears what the API server answered to a write."""


def manifests_of(record: RunRecord, data: Mapping[str, str]) -> dict[str, tuple[Object, ...]]:
    """Task name -> its objects as the record holds them.

    Raises:
        ClusterError: those of a task are not there, or cannot be read.
    """
    found = {}
    for task in record.tasks:
        try:
            found[task.name] = tuple(parse(data.get(task.manifests, "")))
        except SpecError:
            found[task.name] = ()
        if not found[task.name]:
            raise ClusterError(f"{task.manifests} of the record of {record.name} is no list of objects; submit the job again")
    return found


class Hands:
    """Acts for one run.

    Before each write it asks `sure`, which raises where another conductor may hold the run by now; and a write is tried
    again for a few seconds only. So none that waited in a partition arrives after the run has another conductor.
    """

    def __init__(
        self,
        client: Client,
        record: RunRecord,
        owner: Object,
        manifests: Mapping[str, tuple[Object, ...]],
        pod: str | None,
        sure: Callable[[], None],
    ) -> None:
        self._client, self._record, self._manifests, self._pod = client, record, manifests, pod
        self._brief, self._sure = client.with_patience(WRITE_PATIENCE), sure
        self._owner = owner_reference(owner)
        self._meters: dict[tuple[str, int], Meter] = {}

    def apply(self, task: str, attempt: int, live: Live, take: Take) -> None:
        """Create those of the task's objects that are not there. What is there stays as it is: queues and operators write into it."""
        there = {(one["kind"], name_of(one)) for one in live.objects}
        for manifest in self._manifests[task]:
            if (manifest["kind"], name_of(manifest)) in there:
                continue
            meta = manifest["metadata"]
            annotations = {**(meta.get("annotations") or {}), ATTEMPT: str(attempt)}
            owned = {**manifest, "metadata": {**meta, "annotations": annotations, "ownerReferences": [self._owner]}}
            with contextlib.suppress(Conflict):
                # There after all, and the watch has yet to say so.
                take(self._writer().create(owned, manager=MANAGER))

    def meter(self, task: str, attempt: int) -> Meter:
        """What follows the pods of this attempt."""
        return self._meters.setdefault((task, attempt), Meter())

    def remove(self, task: str, attempt: int, live: Live, archive: Archive, store: RunStore) -> list[str]:
        """Bring the logs of the task's pods to the store, then delete its objects; returns what went wrong with the logs.

        Deleted from the foreground: an object is there until its last pod is gone, so that its name is free only then.
        """
        leaving = [one for one in live.objects if not one["metadata"].get("deletionTimestamp")]
        if not leaving:
            return []
        # Asked anew: the watch of the pods may be behind that of the workload, and this is the last moment.
        pods = self._client.select(POD, labels=tasks_of(self._record.name, self._record.task(task).slug))
        said = archive.finish(archive.take(task, attempt, pods, every=True))
        meter = self._meters.pop((task, attempt), Meter())
        meter.see(pods, self.now())
        used = meter.usage()
        if used is not None:
            # Killed between this and the deletion, the successor adds the same pods again: a little too much, never too little.
            try:
                add_usage(store.at(task), used)
            except DailError as err:
                said.append(f"what {task} used is not recorded: {err}")
        for one in leaving:
            self._writer().delete(self._client.resource_of(one), name_of(one), propagation="Foreground", uid=uid_of(one))
        return said

    def write_status(self, status: RunStatus, version: str) -> Object:
        """Put the status into the record as it was at `version`, its resourceVersion; returns the record.

        Raises:
            Conflict: the record was changed since, is gone, or another of the same name has taken its place.
        """
        annotations = {SUMMARY: summary_of(status).model_dump_json(exclude_defaults=True)}
        meta = {"name": self._record.name, "uid": self._owner["uid"], "resourceVersion": version, "annotations": annotations}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {KEY: status.model_dump_json(indent=1)}}
        return self._writer().apply(body, MANAGER)

    def now(self) -> datetime:
        """The API server's time: pauses and deadlines stand beside its stamps, and another conductor may have to keep them."""
        return self._client.now()

    def tell(self, note: Note) -> None:
        """An Event on the record, as `kubectl describe` and `dailctl events` show it. Lost where the API does not take it."""
        now = self.now()
        name = f"{self._record.name}.{uuid.uuid4().hex[:16]}"
        about = {"apiVersion": "v1", "kind": "ConfigMap", "name": self._record.name, "uid": self._owner["uid"]}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "labels": {RUN_LABEL: self._record.name}},
            "involvedObject": {**about, "namespace": self._client.namespace},
            "reason": note.reason,
            "message": note.sentence[:1000],
            "type": "Warning" if note.warning else "Normal",
            "source": {"component": MANAGER},
            "firstTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "count": 1,
        }
        with contextlib.suppress(DailError):
            self._writer().create(event, manager=MANAGER)

    def hand_over(self) -> None:
        """Make the run's helpers (account, role, lease, ...) go with the conductor's own Job, which goes a while after it ends.

        Where the Job is kept for ever (GitOps tools would make it anew), they stay, too.
        """
        job = self._own_job()
        if job is None or job["spec"].get("ttlSecondsAfterFinished") is None:
            return
        for kind, pattern in HELPERS:
            # Not every run has all of them, and whoever installed one by other means keeps it.
            with contextlib.suppress(NotFound, Forbidden):
                self._writer().merge(kind, pattern.format(self._record.name), {"metadata": {"ownerReferences": [owner_reference(job)]}})

    def _writer(self) -> Client:
        self._sure()
        return self._brief

    def _own_job(self) -> Object | None:
        if self._pod is None:
            return None
        pod = self._client.find(POD, self._pod)
        owners = (pod["metadata"].get("ownerReferences") or ()) if pod is not None else ()
        name = next((one["name"] for one in owners if one["kind"] == JOB.kind), None)
        return None if name is None else self._client.find(JOB, name)
