"""`status.json` in the run's record: how far a run is, and what the conductor must not forget when it is killed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dail_runtime.stages.jobs import ProgressNow
from dailctl.render.record import RunRecord

KEY = "status.json"
"""Key of the record's data."""
SUMMARY = "dail.dev/summary"
"""Annotation of the record: the status in a line, so that a list of runs need not read whole records (they hold every manifest)."""
MANAGER = "dail-conductor"
"""Field manager of everything the conductor applies."""

RunState = Literal["waiting", "running", "suspended", "done", "failed", "cancelled"]
TaskWord = Literal["waiting", "pending", "running", "stopping", "done", "failed"]
ENDED: tuple[RunState, ...] = ("done", "failed", "cancelled")
MOST_MESSAGE = 300
"""Characters of a message in a summary."""


class TaskStatus(BaseModel):
    """One task of the run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """As in the plan: `train/nll`."""
    slug: str
    """As in object names: `train-nll`."""
    stage: str
    state: TaskWord = "waiting"
    """`waiting`: its turn has not come; `pending`: its pods do not run yet; `stopping`: its pods are being removed."""
    attempts: int = 0
    """How many times its workload was applied."""
    failures: dict[str, int] = Field(default_factory=dict)
    """Class of failure (dailctl/explain/cause.py) -> how often an attempt ended by it."""
    failed_attempt: int = 0
    """The last attempt that ended without a result: its objects go before the next attempt comes."""
    retry_at: datetime | None = None
    """When the next attempt may begin."""
    started: datetime | None = None
    """When its first attempt was applied (UTC)."""
    finished: datetime | None = None
    """When its result was seen to be complete (UTC)."""
    seconds: float | None = None
    """Wall time of the stage's process over all attempts, from its manifest."""
    progress: ProgressNow = ProgressNow()
    """As the stage last recorded it in the store."""
    pods: int = 0
    """Pods it has now."""
    ready: int = 0
    """Those of them that are ready."""
    restarts: int = 0
    """Container restarts of the pods it has now."""
    taken: str | None = None
    """What took a pod of its attempt at work away; the pod itself may be gone when its workload fails for it."""
    message: str | None = None
    """Why it is pending, or why its last attempt failed: one sentence."""
    exit_code: int | None = None
    """Of its last failed attempt."""


class RunStatus(BaseModel):
    """The run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: RunState = "waiting"
    generation: int = 0
    """The control's generation that this status answers to."""
    message: str | None = None
    """One sentence about the state; why the run failed."""
    exit_code: int | None = None
    """Of a run that ended (docs/exit-codes.md)."""
    started: datetime | None = None
    finished: datetime | None = None
    updated: datetime | None = None
    """When the conductor wrote this."""
    conductor: str | None = None
    """The conductor's pod."""
    tasks: tuple[TaskStatus, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether no conductor is at work any more."""
        return self.state in ENDED

    def task(self, name: str) -> TaskStatus:
        """The task called `name`."""
        return next(one for one in self.tasks if one.name == name)

    def with_task(self, task: TaskStatus) -> RunStatus:
        """This status with the task of the same name replaced."""
        return self.model_copy(update={"tasks": tuple(task if one.name == task.name else one for one in self.tasks)})


class RunSummary(BaseModel):
    """The status of a run in a line."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: RunState = "waiting"
    message: str | None = None
    done: int = 0
    """Tasks that have their result."""
    total: int = 0
    now: str | None = None
    """The task at work, or the one that failed."""
    progress: ProgressNow = ProgressNow()
    """Of that task."""
    pods: int = 0
    ready: int = 0
    restarts: int = 0
    started: datetime | None = None
    finished: datetime | None = None


def summary_of(status: RunStatus) -> RunSummary:
    """The line for a status."""
    task = next((one for one in status.tasks if one.state not in ("waiting", "done")), None)
    known = {} if task is None else {name: getattr(task, name) for name in ("progress", "pods", "ready", "restarts")}
    return RunSummary(
        state=status.state,
        message=status.message and status.message[:MOST_MESSAGE],
        done=sum(one.state == "done" for one in status.tasks),
        total=len(status.tasks),
        now=task.name if task is not None else None,
        started=status.started,
        finished=status.finished,
        **known,
    )


def read_summary(annotations: Mapping[str, str]) -> RunSummary | None:
    """The summary among a record's annotations; None where no conductor has written one (or another version of dail did)."""
    try:
        return RunSummary.model_validate_json(annotations[SUMMARY]) if SUMMARY in annotations else None
    except ValidationError:
        return None


def fresh_status(tasks: Iterable[tuple[str, str, str]]) -> RunStatus:
    """The status of a run nothing is known of; `tasks`: (name, slug, stage) in order."""
    return RunStatus(tasks=tuple(TaskStatus(name=name, slug=slug, stage=stage) for name, slug, stage in tasks))


def read_status(data: Mapping[str, str]) -> RunStatus | None:
    """The status in a record's data; None where no conductor has written one yet, and where what is there is none: a conductor at work
    writes it anew."""
    try:
        return RunStatus.model_validate_json(data[KEY]) if KEY in data else None
    except ValidationError:
        return None


def known_status(record: RunRecord, data: Mapping[str, str]) -> RunStatus | None:
    """The status in a record's data, where it speaks of the run's own tasks."""
    known = read_status(data)
    return known if known is not None and [one.name for one in known.tasks] == [one.name for one in record.tasks] else None
