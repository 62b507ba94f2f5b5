"""What submitting a job file would change on the cluster: nothing, or a new run beside the last one of that name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from dail_runtime.store import read_manifest
from dailctl.conductor.status import read_status
from dailctl.kube import Client
from dailctl.kube.resources import CONFIG_MAP, Object, name_of, shown
from dailctl.render.names import JOB_LABEL
from dailctl.render.record import JOB, RUN
from dailctl.submit.apply import MANAGER
from dailctl.submit.compose import Submission

BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "ownerReferences")
"""Of an object's metadata: what the API server and submit keep for themselves."""


@dataclass(frozen=True)
class Difference:
    """The answer."""

    text: str
    """A unified diff; '' where nothing would change."""
    sentence: str


def diff_run(client: Client, submission: Submission) -> Difference:
    """What `dailctl submit` would change. Nothing is written.

    A run that is there is compared object by object, by a dry run of the API server. Where it is not, the job is compared with that of
    the newest run of the same job, and the sentence says which results would be used again.
    """
    live = client.find(CONFIG_MAP, submission.name)
    if live is not None:
        status = read_status(live.get("data") or {})
        # What surrounds a run goes when it ends: of one that is done, the record is all there should be.
        done = status is not None and status.state == "done"
        text = "".join(line for one in submission.objects[: 1 if done else None] for line in _object(client, one))
        told = "submit would change it so" if text else "nothing would change"
        return Difference(text, f"run {submission.name} is there{' and done' if done else ''}: {told}")
    latest = _latest(client, submission)
    kept = [task.name for task in submission.run.tasks if read_manifest(submission.run.root.at(task.prefix)) is not None]
    again = f"{len(kept)} of its {len(submission.run.tasks)} tasks have their results already" + (f" ({', '.join(kept)})" if kept else "")
    if latest is None:
        text = "".join(_lines("", submission.objects[0]["data"][JOB], "nothing", submission.name))
        return Difference(text, f"submit would start the run {submission.name}, the first of this job here; {again}")
    text = "".join(_lines(latest["data"].get(JOB, ""), submission.objects[0]["data"][JOB], name_of(latest), submission.name))
    return Difference(text, f"submit would start the run {submission.name} beside {name_of(latest)}; {again}")


def _object(client: Client, one: Object) -> Iterator[str]:
    before = client.find(client.resource_of(one), name_of(one))
    after = client.apply(one, MANAGER, dry_run=True)
    yield from _lines(_text(before) if before is not None else "", _text(after), f"live {shown(one)}", f"submitted {shown(one)}")


def _latest(client: Client, submission: Submission) -> Object | None:
    """The newest record of a run of the same job."""
    found = client.select(CONFIG_MAP, labels=f"app.kubernetes.io/name=dail,{JOB_LABEL}={submission.record.job}")
    records = [one for one in found if RUN in (one.get("data") or {})]
    return max(records, key=lambda one: str(one["metadata"]["creationTimestamp"]), default=None)


def _text(obj: Object) -> str:
    meta = {name: value for name, value in obj["metadata"].items() if name not in BOOKKEEPING}
    data = obj.get("data")
    kept = {name: value for name, value in {**obj, "metadata": meta, "data": data}.items() if name != "status" and value is not None}
    return yaml.safe_dump(kept, sort_keys=True, allow_unicode=True, width=140)


def _lines(before: str, after: str, named: str, then: str) -> Iterator[str]:
    return difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), named, then)
