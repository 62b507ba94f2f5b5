"""What the conductor asks of the run's store: whether a task has its result, and how far its stage is."""

from __future__ import annotations

import time
from collections.abc import Mapping

from dail_runtime.errors import DailError, IntegrityError, UsageError
from dail_runtime.spec import plan
from dail_runtime.stages.jobs import Attempt, ProgressNow, attempts_of, load_saved_job, save_job
from dail_runtime.stages.run import finished
from dail_runtime.store import Manifest, Store, open_store
from dailctl.render.record import RunRecord, saved_job
from dailctl.runs import Run
from dailctl.summary import publish

EVERY = 8.0
"""Seconds between two looks at the progress of a task."""


class RunStore:
    """The store of one run. A store that `refused` can only be asked for its root."""

    def __init__(self, run: Run | None, root: Store, refused: DailError | None = None) -> None:
        self.root = root
        self._run, self._refused = run, refused
        self._tasks = {task.name: task for task in run.tasks} if run is not None else {}
        self._finished: dict[str, Manifest] = {}
        self._progress: dict[str, tuple[float, ProgressNow | None]] = {}

    def at(self, task: str) -> Store:
        """The task's prefix."""
        if self._refused is not None:
            raise self._refused
        return self.root.at(self._tasks[task].prefix)

    def finished(self, task: str) -> Manifest | None:
        """The task's manifest, where everything it lists is there. Seen once, it is believed."""
        if task not in self._finished:
            found = finished(self.at(task))
            if found is None:
                return None
            self._finished[task] = found
        return self._finished[task]

    def recorded(self, task: str) -> Attempt | None:
        """The task's newest attempt."""
        attempts = attempts_of(self.at(task))
        return attempts[-1] if attempts else None

    def progress(self, task: str) -> ProgressNow | None:
        """How far the newest attempt is, at most some seconds ago."""
        known = self._progress.get(task)
        if known is None or time.monotonic() - known[0] > EVERY:
            last = self.recorded(task)
            known = self._progress[task] = (time.monotonic(), last.progress if last is not None else None)
        return known[1]

    def publish_report(self) -> None:
        """Put the report where people look for it: at the root."""
        if self._run is not None:
            publish(self._run)


def run_store(record: RunRecord, data: Mapping[str, str]) -> RunStore:
    """The store of the run, the job saved in it: whoever applied the record (Helm, Argo CD) may not have been there.

    Raises:
        IntegrityError: the record does not hold together.
        StoreError, TransientError: the store refuses, or does not answer.
    """
    root = open_store(record.run_uri, endpoint=record.endpoint, region=record.region)
    try:
        job, content = load_saved_job(root, record.job_digest)
    except UsageError:
        job, content = saved_job(data)
        digest = save_job(root, job, content)
        if digest != record.job_digest:
            raise IntegrityError(
                f"the record of {record.name} holds the job {digest}, not {record.job_digest}; submit the job again"
            ) from None
    run = Run(job, content, plan(job, content), root)
    if [task.name for task in run.tasks] != [task.name for task in record.tasks]:
        raise IntegrityError(
            f"the record of {record.name} was made by dail {record.dail_version}, whose plan differs; submit the job again"
        )
    return RunStore(run, root)
