"""The conductor's mind: from what was promised, what is there and what is wanted to the next things to do. Pure.

It is asked after every change and holds nothing itself: everything it must remember is in the status, which is written before
the actions that follow from it are taken. So a conductor may be killed between any two of them, and its successor decides
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dail_runtime.errors import ClusterError, Interrupted, TransientError
from dail_runtime.stages.jobs import Attempt, ProgressNow
from dail_runtime.store import Manifest
from dailctl.backends.kinds import workload_among
from dailctl.backends.workload import Backend, Reading
from dailctl.conductor.control import Control
from dailctl.conductor.failures import (
    UNEXPECTED,
    Failure,
    classify,
    failure_of,
    lost_result,
    may_retry,
    past_deadline,
    pause_before_retry,
    taken_from,
)
from dailctl.conductor.pods import ended_well, is_over, is_ready, restarts_of
from dailctl.conductor.status import RunStatus, TaskStatus
from dailctl.explain import Cause, Seen, why_waiting
from dailctl.explain.endings import ends_of
from dailctl.kube.resources import Object, annotation_of, name_of
from dailctl.render.record import RunRecord, TaskRecord

ATTEMPT = "dail.dev/attempt"
"""Annotation on a task's objects: which attempt they are of."""
CRASHES = 5
"""A server that ended so often by itself will not come up."""


@dataclass(frozen=True)
class Live:
    """What the cluster has of one task now."""

    objects: tuple[Object, ...] = ()
    """Its workload, servers and whatever else its manifests hold, as far as they are watched."""
    pods: tuple[Object, ...] = ()


@dataclass(frozen=True)
class World:
    """What is known at one moment."""

    now: datetime
    control: Control
    live: Mapping[str, Live]
    """By task name; what belongs to no task of the record is not in it."""
    expected: Mapping[str, frozenset[tuple[str, str]]]
    """By task name: (kind, name) of every object that its manifests hold."""
    finished: Callable[[str], Manifest | None]
    """The task's manifest, where the store has its whole result. Asks the store, so only asked when it matters."""
    recorded: Callable[[str], Attempt | None]
    """The task's newest attempt, as its stage recorded it in the store. Asks the store, too."""
    progress: Callable[[str], ProgressNow | None]
    """How far that attempt is; a few seconds old."""


@dataclass(frozen=True)
class Action:
    """One thing to do."""

    kind: Literal["apply", "remove", "end"]
    """`apply`: create the task's objects where they are missing; `remove`: archive its logs, then delete its objects;
    `end`: nothing of the run is left but the record, so leave."""
    task: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class Note:
    """Something worth an Event."""

    reason: str
    sentence: str
    warning: bool = False


@dataclass(frozen=True)
class Decision:
    """What follows. The status is written first, then the notes are told, then the actions are taken."""

    status: RunStatus
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()
    wake: datetime | None = None
    """When to ask again even if nothing changes."""


@dataclass
class _Draft:
    """A decision in the making."""

    record: RunRecord
    world: World
    status: RunStatus
    actions: list[Action] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    wake: datetime | None = None

    def live(self, task: str) -> Live:
        return self.world.live.get(task, Live())

    def note(self, reason: str, sentence: str, *, warning: bool = False) -> None:
        self.notes.append(Note(reason, sentence, warning))

    def remove(self, tasks: Sequence[str]) -> bool:
        """Remove what is left of these tasks; whether anything is."""
        left = [name for name in tasks if self.live(name).objects or self.live(name).pods]
        self.actions += [Action("remove", name) for name in left]
        return bool(left)

    def decision(self) -> Decision:
        return Decision(self.status, tuple(self.actions), tuple(self.notes), self.wake)


def decide(record: RunRecord, status: RunStatus, world: World) -> Decision:
    """What to do next."""
    if status.ended and world.control.generation > status.generation:
        status = _again(status, world)
    draft = _Draft(record, world, status)
    if status.ended:
        _leave(draft)
    elif world.control.desired == "run":
        _go_on(draft)
    else:
        _halt(draft)
    return draft.decision()


def _again(status: RunStatus, world: World) -> RunStatus:
    """A fresh start of a run that had ended: every task that has no result gets all its attempts anew."""
    tasks = tuple(
        one
        if one.state == "done"
        else one.model_copy(
            update={
                "state": "waiting",
                "failures": {},
                "failed_attempt": one.attempts,
                "retry_at": None,
                "message": None,
                "exit_code": None,
            }
        )
        for one in status.tasks
    )
    update = {"state": "waiting", "generation": world.control.generation, "message": None, "exit_code": None, "finished": None}
    return status.model_copy(update={**update, "tasks": tasks})


def _leave(draft: _Draft) -> None:
    if not draft.remove([task.name for task in draft.record.tasks]):
        draft.actions.append(Action("end"))


def _halt(draft: _Draft) -> None:
    """Suspend or cancel: free everything, keep every result."""
    cancel = draft.world.control.desired == "cancel"
    left = draft.remove([task.name for task in draft.record.tasks])
    tasks = [
        one if one.state in ("done", "waiting") else one.model_copy(update={"state": "stopping" if left else "waiting", "message": None})
        for one in draft.status.tasks
    ]
    # What is removed ends without a result, and is no failure.
    tasks = [one.model_copy(update={"failed_attempt": one.attempts, "retry_at": None, "pods": 0, "ready": 0}) for one in tasks]
    update: dict[str, object] = {"tasks": tuple(tasks), "message": f"stopping: {'cancelled' if cancel else 'suspended'} by a user"}
    if not left:
        word = "cancelled" if cancel else "suspended"
        sentence = "cancelled; its results are kept" if cancel else "suspended; resume it to go on"
        update |= {"state": word, "message": sentence}
        if cancel:
            update |= {"exit_code": Interrupted.exit_code, "finished": draft.world.now}
        if draft.status.state != word:
            draft.note("Cancelled" if cancel else "Suspended", sentence)
    draft.status = draft.status.model_copy(update=update)
    if cancel and not left:
        draft.actions.append(Action("end"))


def _go_on(draft: _Draft) -> None:
    if draft.status.state == "suspended":
        draft.note("Resumed", "the run goes on")
    update: dict[str, object] = {"state": "running", "message": None}
    if draft.status.started is None:
        update["started"] = draft.world.now
    draft.status = draft.status.model_copy(update=update)
    for task in draft.record.tasks:
        state = draft.status.task(task.name)
        if state.state != "done":
            state = _advance(draft, task, state)
            draft.status = draft.status.with_task(state)
        if state.state == "failed":
            _fail(draft, state)
            return
        if state.state != "done":
            draft.status = draft.status.model_copy(update={"message": state.message and f"{state.name}: {state.message}"})
            return
        draft.remove([task.name])
    draft.status = draft.status.model_copy(update={"state": "done", "exit_code": 0, "finished": draft.world.now, "message": "done"})
    draft.note("RunDone", "every task has its result")
    _leave_later(draft)


def _fail(draft: _Draft, task: TaskStatus) -> None:
    sentence = f"{task.name}: {task.message}"
    update = {"state": "failed", "message": sentence, "exit_code": task.exit_code or 1, "finished": draft.world.now}
    draft.status = draft.status.model_copy(update=update)
    draft.note("RunFailed", sentence, warning=True)
    _leave_later(draft)


def _leave_later(draft: _Draft) -> None:
    """Asked once more with the status written: only then may the run end."""
    draft.remove([task.name for task in draft.record.tasks if Action("remove", task.name) not in draft.actions])
    draft.wake = draft.world.now


def _advance(draft: _Draft, task: TaskRecord, state: TaskStatus) -> TaskStatus:
    """The task whose turn it is."""
    live = draft.live(task.name)
    state = state.model_copy(
        update={
            "pods": sum(not is_over(pod) for pod in live.pods),
            "ready": sum(is_ready(pod) for pod in live.pods),
            "restarts": sum(restarts_of(pod) for pod in live.pods),
        }
    )
    found = workload_among(live.objects)
    leaving = [one for one in live.objects if one["metadata"].get("deletionTimestamp") or _attempt_of(one) <= state.failed_attempt]
    if leaving:
        # Of an attempt that is over. Its successor has the same names, so it waits until the last of it is gone.
        draft.remove([task.name])
        return state.model_copy(update={"state": "stopping", "message": _trouble(draft, live) or state.message})
    if found is None:
        return _begin(draft, task, state)
    workload, backend = found
    state = state.model_copy(update={"taken": _taken(state, live, workload, backend)})
    reading = backend.read(workload)
    if reading.state == "succeeded":
        result = draft.world.finished(task.name)
        return _failed(draft, task, state, lost_result()) if result is None else _done(draft, state, result)
    if reading.state == "failed":
        failure: Failure | None = classify(workload, reading, live.pods, draft.world.recorded(task.name), state.taken)
    else:
        failure = past_deadline(workload, backend.deadline(workload), draft.world.now) or _stuck(live, draft.world.now)
    if failure is not None:
        # A stage may have finished in the very moment in which its pod was taken away.
        result = draft.world.finished(task.name)
        return _failed(draft, task, state, failure) if result is None else _done(draft, state, result)
    if draft.world.expected[task.name] - {(one["kind"], name_of(one)) for one in live.objects}:
        # The conductor was killed half-way through them, or someone removed one.
        draft.actions.append(Action("apply", task.name, state.attempts))
    return _under_way(draft, state, reading, live)


def _begin(draft: _Draft, task: TaskRecord, state: TaskStatus) -> TaskStatus:
    result = draft.world.finished(task.name)
    if result is not None:
        return _done(draft, state, result)
    live = draft.live(task.name)
    if live.pods and state.failed_attempt == state.attempts:
        # Of an attempt whose objects are gone: the same names come again, so its pods have to end first.
        return state.model_copy(update={"state": "stopping", "message": _trouble(draft, live) or state.message})
    if state.retry_at is not None and draft.world.now < state.retry_at:
        draft.wake = state.retry_at
        return state.model_copy(update={"state": "pending"})
    if state.attempts > state.failed_attempt:
        # Promised and not there: the conductor was killed in between, or someone removed it.
        attempt = state.attempts
    else:
        attempt = state.attempts + 1
        draft.note("TaskStarted", f"{task.name}: attempt {attempt}")
    draft.actions.append(Action("apply", task.name, attempt))
    update: dict[str, object] = {"state": "pending", "attempts": attempt, "retry_at": None, "taken": None}
    update["started"] = state.started or draft.world.now
    return state.model_copy(update=update)


def _done(draft: _Draft, state: TaskStatus, result: Manifest) -> TaskStatus:
    earlier = state.attempts == 0
    draft.note("TaskDone", f"{state.name}: {'has its result from an earlier run' if earlier else 'done'}")
    update: dict[str, object] = {"state": "done", "finished": draft.world.now, "seconds": result.seconds, "pods": 0, "ready": 0}
    update |= {"message": "done before" if earlier else None, "exit_code": None, "retry_at": None}
    return state.model_copy(update={**update, "progress": draft.world.progress(state.name) or state.progress})


def _failed(draft: _Draft, task: TaskRecord, state: TaskStatus, failure: Failure) -> TaskStatus:
    times = state.failures.get(failure.kind, 0) + 1
    update: dict[str, object] = {
        "failures": {**state.failures, failure.kind: times},
        "failed_attempt": state.attempts,
        "message": failure.sentence,
        "exit_code": failure.exit_code,
    }
    draft.remove([task.name])
    if not may_retry(failure.kind, times, task.attempts):
        draft.note("TaskFailed", f"{task.name}: {failure.sentence}", warning=True)
        return state.model_copy(update={**update, "state": "failed"})
    pause = pause_before_retry(failure.kind, times)
    draft.note("TaskRetry", f"{task.name}: attempt {state.attempts} failed and is made again: {failure.sentence}", warning=True)
    draft.wake = draft.world.now + pause
    return state.model_copy(update={**update, "state": "stopping", "retry_at": draft.world.now + pause})


def _under_way(draft: _Draft, state: TaskStatus, reading: Reading, live: Live) -> TaskStatus:
    progress = draft.world.progress(state.name) or state.progress
    message = _trouble(draft, live)
    # When its pod has ended well, no pod of a Job is ready any more, and the Job itself does not say so at once.
    ended = any(map(ended_well, live.pods))
    under_way = "running" if reading.state == "running" or ended else "pending"
    if reading.state == "queued":
        message = "waits for its queue to admit it"
    elif under_way == "pending" and message is None:
        message = reading.message or ("no pod has been made for it yet" if not live.pods else "its pods are starting")
    return state.model_copy(update={"state": under_way, "message": message, "progress": progress})


def _trouble(draft: _Draft, live: Live) -> str | None:
    return next((cause.told for pod in live.pods if (cause := _waits(pod, draft.world.now))), None)


def _waits(pod: Object, now: datetime) -> Cause | None:
    return why_waiting(pod, Seen(pods=(pod,)), now)


def _taken(state: TaskStatus, live: Live, workload: Object, backend: Backend) -> str | None:
    """What took a pod of this attempt away: remembered when the pod is gone, until another is in its place."""
    there = sum(not is_over(pod) for pod in live.pods)
    whole = sum(kind.count for kind in backend.pods(workload))
    return taken_from(live.pods) or (state.taken if there < whole else None)


def _stuck(live: Live, now: datetime) -> Failure | None:
    """Why a task that still tries will never get there."""
    for pod in live.pods:
        waits = _waits(pod, now)
        if waits is not None and waits.final:
            return Failure("final", waits.told, ClusterError.exit_code)
        for ended in ends_of(pod):
            failure = failure_of(ended)
            if is_over(pod) and failure.kind == "memory":
                # Of an elastic group, whose operator would start it again for ever.
                return failure
            if is_over(pod) or pod["metadata"].get("deletionTimestamp"):
                continue
            # A container that is started again and again: a model server, whose Deployment never gives up.
            if failure.kind == "final" and failure.exit_code != UNEXPECTED:
                return failure
            if ended.restarts >= CRASHES:
                code = TransientError.exit_code if ended.code == UNEXPECTED else ended.code
                return Failure("memory" if failure.kind == "memory" else "passing", failure.sentence, code)
    return None


def _attempt_of(obj: Object) -> int:
    found = annotation_of(obj, ATTEMPT)
    return int(found) if found is not None and found.isdigit() else 0
