"""Applies a run: the record first, everything else owned by it, the conductor last. Doing it twice, or two at once, makes one run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dail_runtime.errors import ClusterError, IntegrityError, TransientError
from dail_runtime.stages.jobs import save_job
from dailctl.conductor.control import KEY as CONTROL
from dailctl.conductor.control import MANAGER as CONTROL_MANAGER
from dailctl.conductor.control import Control, read_control
from dailctl.conductor.status import RunStatus, read_status
from dailctl.kube import Client
from dailctl.kube.resources import CONFIG_MAP, JOB, POD, Object, job_is_over, name_of, owner_reference, shown, uid_of
from dailctl.render.names import conductor_of
from dailctl.render.record import is_record
from dailctl.submit.compose import Submission

MANAGER = "dailctl"
"""Field manager of what submit applies."""
GONE_SECONDS = 60.0
"""So long the conductor of an earlier round may take to be gone."""


@dataclass(frozen=True)
class Applied:
    """What became of one object."""

    obj: Object
    word: str
    """As kubectl says it: created, configured, unchanged."""

    def __str__(self) -> str:
        return f"{shown(self.obj)} {self.word}"


def status_of(client: Client, submission: Submission) -> RunStatus | None:
    """How far this very run is; None where it was never submitted.

    Raises:
        ClusterError: another object has the record's name.
    """
    found = client.find(CONFIG_MAP, submission.name)
    if found is None:
        return None
    if not is_record(found):
        raise ClusterError(f"the ConfigMap {submission.name} in namespace {submission.namespace} is no run's record; rename the job")
    return read_status(found.get("data") or {}) or RunStatus()


def apply_run(client: Client, submission: Submission, status: RunStatus | None) -> Iterator[Applied]:
    """Save the job in the store and apply the run's objects; `status` as `status_of` gave it.

    A run that is done stays as it is. One that failed or was cancelled starts again: the generation of its control is raised, and its
    old conductor makes room for a new one.

    Raises:
        ApiError: the API server refuses an object; those before it are there, and submitting again goes on.
    """
    digest = save_job(submission.run.root, submission.run.job, submission.run.content)
    if digest != submission.record.job_digest:
        raise IntegrityError(f"the job was rendered as {submission.record.job_digest} and saved as {digest}; report this as a bug of dail")
    record, *others = submission.objects
    there = _apply(client, record)
    yield there
    if status is not None and status.state == "done":
        return
    generation = None
    if status is not None and status.ended:
        generation = start_again(client, there.obj, status)
    yield from apply_owned(client, others, owner_reference(there.obj), generation)


def apply_owned(client: Client, objects: Iterable[Object], owner: Object, generation: int | None = None) -> Iterator[Applied]:
    """Apply what a run has beside its record, owned by the record: the conductor's Job, and what that needs.

    `generation`: of an ended run that is to start again; its conductor may just be ending, too, without another look.

    Raises:
        ApiError: the API server refuses an object; those before it are there.
        TransientError: the conductor of before neither ends nor takes the generation up.
    """
    for one in objects:
        if one["kind"] == JOB.kind:
            yield _apply_conductor(client, one, owner, generation)
        else:
            yield _apply(client, _owned(one, owner))


def start_again(client: Client, record: Object, status: RunStatus) -> int:
    """Say in the record of an ended run that it should run, in a new generation, which is returned."""
    control = Control(desired="run", generation=max(status.generation, read_control(record.get("data") or {}).generation) + 1)
    meta = {"name": name_of(record), "uid": uid_of(record)}
    client.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {CONTROL: control.model_dump_json()}}, CONTROL_MANAGER)
    return control.generation


def dry_run(client: Client, submission: Submission) -> Iterator[Applied]:
    """What applying would do, asked of the API server; stage objects included, which the conductor would create later."""
    for one in (*submission.objects, *submission.stages):
        before = client.find(client.resource_of(one), name_of(one))
        after = client.apply(one, MANAGER, dry_run=True)
        yield Applied(after, f"{_word(before, after)} (server dry run)")


def _apply_conductor(client: Client, job: Object, owner: Object, generation: int | None) -> Applied:
    """A Job never runs twice: one that ended makes room for the next. One that is at work is left alone."""
    live = _conductor(client, name_of(job), owner["name"], generation)
    if live is not None and not job_is_over(live):
        return Applied(live, "unchanged")
    if live is not None:
        client.delete(JOB, name_of(job), uid=uid_of(live))
        end = time.monotonic() + GONE_SECONDS
        while (found := client.find(JOB, name_of(job))) is not None and uid_of(found) == uid_of(live):
            if time.monotonic() > end:
                raise TransientError(f"the earlier {shown(live)} does not go; look at its pods, then submit again")
            time.sleep(0.2)
    return Applied(client.apply(_owned(job, owner), MANAGER), "created")


def _conductor(client: Client, job: str, run: str, generation: int | None) -> Object | None:
    """The conductor's Job, once one that is at work has taken the generation up, or has ended."""
    end = time.monotonic() + GONE_SECONDS
    while True:
        live = client.find(JOB, job)
        if live is None or job_is_over(live) or generation is None or _takes_up(client, run, generation):
            return live
        if time.monotonic() > end:
            raise TransientError(f"the conductor of run {run} neither ends nor goes on; dailctl describe {run} says why; then try again")
        time.sleep(0.2)


def _takes_up(client: Client, run: str, generation: int) -> bool:
    """Whether the conductor at work has taken the generation up, or will: its pod has not started yet."""
    if all((pod.get("status") or {}).get("phase") == "Pending" for pod in client.select(POD, labels=conductor_of(run))):
        return True
    status = read_status(client.get(CONFIG_MAP, run).get("data") or {})
    return status is not None and status.generation >= generation


def _apply(client: Client, obj: Object) -> Applied:
    before = client.find(client.resource_of(obj), name_of(obj))
    after = client.apply(obj, MANAGER)
    return Applied(after, _word(before, after))


def _word(before: Object | None, after: Object) -> str:
    if before is None:
        return "created"
    return "unchanged" if _content(before) == _content(after) else "configured"


def _content(obj: Object) -> str:
    """What of an object is not bookkeeping of the API server."""
    meta = {name: value for name, value in obj["metadata"].items() if name not in ("managedFields", "resourceVersion", "generation")}
    return json.dumps({**obj, "metadata": meta, "status": None}, sort_keys=True)


def _owned(obj: Object, owner: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [owner]}}
