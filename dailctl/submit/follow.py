"""Follows a run on a cluster until it has ended: its record tells how far it is, its conductor's pod why it is not even begun."""

from __future__ import annotations

import threading
import time

from dail_runtime.errors import ClusterError, TransientError
from dail_runtime.spec.kubernetes import QUEUE_LABEL
from dailctl.conductor.pods import is_over
from dailctl.conductor.status import RunStatus, TaskStatus, read_status
from dailctl.explain import Cause, Seen, why_waiting
from dailctl.explain.endings import ends_of, last_line
from dailctl.explain.refusals import refused
from dailctl.kube import Client, Refusals
from dailctl.kube.cache import Cache
from dailctl.kube.resources import CONFIG_MAP, EVENT, JOB, POD, Object, condition_of, label_of, shown, uid_of
from dailctl.progress import View
from dailctl.render.names import conductor_job, conductor_of
from dailctl.render.record import RunRecord

LOOK = 1.0
"""Seconds between two looks where nothing was heard."""
SILENT = 5.0
"""Seconds after which a run without a conductor's pod is asked why, and between two such questions."""
FIRST_LIST = 15.0


def follow(client: Client, record: RunRecord, view: View, *, generation: int) -> RunStatus:
    """Wait until the run has ended; returns its last status.

    Args:
        generation: statuses of an earlier one are the past, and passed over.

    Raises:
        ClusterError: the run was deleted, or its conductor cannot start, or the user may not look any more; the sentence says why.
        TransientError: the cluster cannot be reached at first.
    """
    changed = threading.Event()
    records = Cache(client, CONFIG_MAP, changed.set, fields=f"metadata.name={record.name}")
    conductors = Cache(client, POD, changed.set, labels=conductor_of(record.name))
    teller = _Teller(view, len(record.tasks))
    refusals = Refusals(client.ready)
    asked = time.monotonic()
    try:
        for cache in (records, conductors):
            cache.start()
        for cache in (records, conductors):
            if not cache.wait(FIRST_LIST):
                raise TransientError(f"the API server does not list {cache.resource.shown}; the run goes on; submit again to follow it")
        while True:
            changed.clear()
            refusals.judge(records.refused)
            held = records.get(record.name)
            if held is None:
                raise ClusterError(f"run {record.name} was deleted; submit it again to start anew, results that were finished are kept")
            status = read_status(held.get("data") or {})
            if status is not None and status.generation >= generation:
                teller.tell(status)
                if status.ended:
                    return status
            pods = conductors.objects()
            silent = time.monotonic() - asked > SILENT
            asked = time.monotonic() if silent else asked
            teller.say(_conductor_waits(client, record, pods, silent=silent))
            changed.wait(LOOK)
    finally:
        records.stop()
        conductors.stop()


def _conductor_waits(client: Client, record: RunRecord, pods: list[Object], *, silent: bool) -> str | None:
    """Why the run's conductor does not work yet, where it is known; raises where the run cannot go on for that."""
    causes = [cause for pod in pods if (cause := why_waiting(pod, Seen(pods=(pod,)), client.now()))]
    for cause in causes:
        if cause.final:
            raise ClusterError(f"the run's conductor does not start: {cause.told}; cancel with dailctl delete {record.name}")
    if pods and not all(is_over(pod) for pod in pods):
        return f"the run's conductor waits: {causes[0].told}" if causes else None
    if not pods and not silent:
        return None
    job = client.find(JOB, conductor_job(record.name))
    failed = condition_of(job, "Failed") if job is not None else None
    if failed:
        ended = [one for pod in pods for one in ends_of(pod)]
        words = last_line(ended[-1].said) if ended else str(failed.get("message", ""))
        raise ClusterError(f"the run's conductor failed: {words}; when that is mended, submit again to go on")
    if job is not None and job["spec"].get("suspend"):
        queue = label_of(job, QUEUE_LABEL)
        waits = f"waits for the queue {queue} to admit it" if queue else "is suspended"
        return f"the run's conductor {waits}; dailctl describe {record.name} says more"
    if not pods and job is not None:
        cause = _refused_pods(client, job)
        if cause is not None and cause.final:
            raise ClusterError(f"the cluster makes no pod for the run's conductor: {cause.told}; the run then starts by itself")
        return f"the run's conductor waits: {cause.told}" if cause is not None else None
    return None


def _refused_pods(client: Client, job: Object) -> Cause | None:
    """Why the Job's controller could make no pod, as its Events have it."""
    events = client.select(EVENT, fields=f"involvedObject.kind=Job,involvedObject.uid={uid_of(job)},reason=FailedCreate")
    said = max(events, key=lambda one: str(one.get("lastTimestamp") or one["metadata"]["creationTimestamp"]), default=None)
    return refused(str(said.get("message", "")), shown(job)) if said is not None else None


class _Teller:
    """Turns statuses into what a local run would show."""

    def __init__(self, view: View, total: int) -> None:
        self._view, self._total = view, total
        self._told: set[str] = set()
        self._current: tuple[str, int] | None = None
        self._message: str | None = None
        self._shown: str | None = None

    def say(self, sentence: str | None) -> None:
        """A sentence about the run, once."""
        if sentence is not None and sentence != self._message:
            self._message = sentence
            self._view.say(sentence)

    def tell(self, status: RunStatus) -> None:
        """What is new in this status."""
        for number, task in enumerate(status.tasks, 1):
            if task.state == "waiting":
                continue
            if task.state == "done":
                self._done(number, task)
                continue
            self._at_work(number, task)
            break
        if status.state == "suspended":
            self.say(status.message)

    def _done(self, number: int, task: TaskStatus) -> None:
        if task.name in self._told:
            return
        self._show(number, task)
        self._told.add(task.name)
        if task.attempts == 0:
            self._view.skipped()
        else:
            self._view.done(task.seconds or 0.0, {})

    def _at_work(self, number: int, task: TaskStatus) -> None:
        self._show(number, task)
        if task.state == "running" and self._current != (task.name, task.attempts):
            self._current = task.name, task.attempts
            self._view.started(task.attempts)
        if task.state != "failed":
            self.say(task.message)
        if task.state == "running" and task.progress.total:
            self._view.progress(task.progress.done, task.progress.total, task.progress.unit, task.progress.figures)

    def _show(self, number: int, task: TaskStatus) -> None:
        if self._shown != task.name:
            self._shown = task.name
            self._view.task(task.name, number, self._total)
