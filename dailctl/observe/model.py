"""What the verbs print with -o json and -o yaml; tables are made from the same. `python -m dailctl.observe.schemas` writes the schemas."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from dail_runtime.stages.jobs import ProgressNow
from dailctl.conductor.status import RunState, TaskWord
from dailctl.explain.cause import When

VERSION = "dail/v1alpha1"


class View(BaseModel):
    """Base of what is printed: camelCase keys, as in Kubernetes."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return self.model_dump(mode="json")


class RunView(View):
    """One run, as `get` lists it."""

    name: str
    """The run."""
    namespace: str
    job: str
    """`metadata.name` of its job."""
    state: RunState | Literal["deleting"]
    """`deleting`: its record is being removed, and everything of it with the record."""
    message: str | None = None
    """One sentence about the state."""
    done: int = 0
    """Tasks that have their result."""
    total: int = 0
    """Tasks of its plan."""
    now: str | None = None
    """The task at work, or the one that failed."""
    progress: ProgressNow = ProgressNow()
    """Of that task."""
    pods: int = 0
    """Pods that task has."""
    ready: int = 0
    """Those of them that are ready."""
    restarts: int = 0
    """Container restarts of those pods."""
    created: datetime
    """When it was submitted."""
    started: datetime | None = None
    """When its first task began."""
    finished: datetime | None = None
    """When it ended."""


class RunList(View):
    """What `get -o json` prints for several runs."""

    api_version: str = VERSION
    kind: Literal["RunList"] = "RunList"
    items: tuple[RunView, ...]


class TaskView(View):
    """One task of a run."""

    name: str
    """As in the plan: `train/nll`."""
    stage: str
    state: TaskWord
    message: str | None = None
    attempts: int = 0
    """How many times its workload was applied."""
    exit_code: int | None = None
    """Of its last failed attempt."""
    progress: ProgressNow = ProgressNow()
    seconds: float | None = None
    """Wall time of its stage over all attempts, once it is done."""
    started: datetime | None = None
    finished: datetime | None = None
    pods: int = 0
    ready: int = 0
    restarts: int = 0


class CauseView(View):
    """Why something does not run (docs/causes.md)."""

    cause: str
    """Its name in the table of causes."""
    when: When
    task: str
    """The task it is about; `conductor` for the conductor."""
    subject: str
    """The object, as kubectl names it."""
    sentence: str
    """What is wrong."""
    remedy: str
    """What to do."""
    final: bool
    """Whether waiting will not help."""


class PodView(View):
    """One pod of a run."""

    name: str
    task: str
    """Task it works for; `conductor` for the conductor's."""
    component: str
    """`driver`, `server`, `trainer`, `stage`, `conductor`."""
    state: str
    """Its phase, or the reason that its container waits or ended with."""
    ready: bool
    restarts: int
    node: str | None = None
    gpus: dict[str, int]
    """Extended resources it holds."""
    created: datetime


class EventView(View):
    """One Event about an object of a run."""

    object: str
    """As kubectl names it: `pod/x`."""
    type: str
    """`Normal` or `Warning`."""
    reason: str
    message: str
    count: int
    """How often it happened."""
    last: datetime
    """When it last happened."""


class EventList(View):
    """What `events -o json` prints."""

    api_version: str = VERSION
    kind: Literal["EventList"] = "EventList"
    items: tuple[EventView, ...]


class RunDescription(RunView):
    """What `describe -o json` prints; `get -o json` of one run prints its first part."""

    api_version: str = VERSION
    kind: Literal["Run"] = "Run"
    store: str
    """Root of its store."""
    job_digest: str
    """Name of its saved job below the store's jobs/."""
    dail_version: str
    """Version that rendered it."""
    desired: Literal["run", "suspend", "cancel"]
    """What a person wants of it."""
    exit_code: int | None = None
    """Of a run that ended."""
    conductor: str | None = None
    """Its conductor's pod, while there is one."""
    tasks: tuple[TaskView, ...]
    causes: tuple[CauseView, ...]
    pods_now: tuple[PodView, ...]
    events: tuple[EventView, ...]
    unknown: tuple[str, ...] = ()
    """What the user may not read, so that causes there stay unknown."""


class Leftover(View):
    """An object that belongs to no run any more, or to one that ended."""

    name: str
    """As kubectl names it: `job.batch/x`."""
    namespace: str
    run: str
    reason: str
    """Why it is a leftover."""
    gpus: dict[str, int]
    """Extended resources that it holds."""
    created: datetime


class LeftoverList(View):
    """What `gc -o json` prints."""

    api_version: str = VERSION
    kind: Literal["LeftoverList"] = "LeftoverList"
    items: tuple[Leftover, ...]


class CheckView(View):
    """One check of `doctor`."""

    name: str
    """What was looked at."""
    result: Literal["ok", "failed", "warning", "unknown"]
    """`unknown`: the user may not look."""
    detail: str
    """What was found; where it failed, with the remedy."""


class CheckList(View):
    """What `doctor -o json` prints."""

    api_version: str = VERSION
    kind: Literal["CheckList"] = "CheckList"
    items: tuple[CheckView, ...]


class PlanTask(View):
    """What one task of a plan takes; null where nobody knows yet."""

    task: str
    """As in the plan: `train/nll`."""
    done: bool
    """Its results are there: it will not run again. Times, GPU-hours and bytes are then what it took."""
    objects: int
    """Kubernetes objects it is given."""
    pods: int
    gpus: dict[str, int]
    """Extended resource -> number held at once."""
    tokens: int | None = None
    """Expected, or real where done."""
    tokens_at_most: int | None = None
    seconds: float | None = None
    """Wall time."""
    gpu_hours: dict[str, float] | None = None
    """Extended resource -> GPU-hours; {} where it needs none."""
    cost: float | None = None
    stored: int | None = None
    """Bytes of its result."""
    sources: tuple[str, ...]
    """Where length and rate come from."""


class PlanSum(View):
    """Tasks together, as far as each is known."""

    seconds: float
    gpu_hours: dict[str, float]
    cost: float | None = None
    """Null where no prices were given."""
    unpriced: tuple[str, ...] = ()
    """Extended resources that the cost leaves out, because none of the prices is for them."""
    unknown: tuple[str, ...] = ()
    """Tasks that all the sums leave out, because nobody knows how long they take."""


class Plan(View):
    """What `plan -o json` prints."""

    api_version: str = VERSION
    kind: Literal["Plan"] = "Plan"
    run: str
    tasks: tuple[PlanTask, ...]
    to_do: PlanSum
    done: PlanSum


DOCUMENTS: dict[str, type[View]] = {
    "plan": Plan,
    "run-item": RunView,
    "run-list": RunList,
    "run": RunDescription,
    "event-list": EventList,
    "leftover-list": LeftoverList,
    "check-list": CheckList,
}
"""Name of the schema file -> what it describes."""
