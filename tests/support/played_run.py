"""A run played in memory: what the conductor's decisions do to a cluster and a store that obey at once. For tests of decisions alone;
the real API server, real operators and real stages are in tests/cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dail_runtime.stages.jobs import Attempt, ProgressNow
from dail_runtime.store import Manifest
from dailctl.conductor.control import Control
from dailctl.conductor.decide import ATTEMPT, Action, Decision, Live, World, decide
from dailctl.conductor.status import RunStatus, fresh_status
from dailctl.render.record import RunRecord, TaskRecord

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = ("prepare", "rewrite/tuned", "train/tuned", "report")
COMPONENTS = {"prepare": "job", "rewrite": "servers", "train": "pytorchjob", "report": "job"}


def record_of(*names: str, attempts: int = 4) -> RunRecord:
    """The record of a run of these tasks."""
    tasks = tuple(
        TaskRecord.model_validate(
            {
                **{"name": name, "slug": name.replace("/", "-"), "stage": name.split("/")[0], "attempts": attempts, "pool": "control"},
                **{"component": COMPONENTS[name.split("/")[0]], "object": f"r-{name.replace('/', '-')}", "manifests": f"{name}.yaml"},
            }
        )
        for name in names
    )
    return RunRecord(name="r", job="job", run_uri="s3://bucket/job", job_digest="0" * 16, dail_version="0", tasks=tasks)


def manifest_of(task: str) -> Manifest:
    """A result."""
    return Manifest(
        task=task, digest="0", inputs={}, objects=(), counts={}, started=START, finished=START, seconds=1.0, attempts=1, versions={}
    )


def condition(kind: str, reason: str = "", message: str = "") -> dict[str, str]:
    """A condition that is true."""
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def pod(name: str, *, phase: str = "Running", code: int | None = None, **more: Any) -> dict[str, Any]:
    """A pod; with `code`, its one container ended with it. `more`: reason, message, waiting, restarts, conditions, deleted."""
    state: dict[str, Any] = {"running": {}}
    if code is not None:
        ended = {"exitCode": code, "reason": more.get("reason", "Error"), "message": more.get("message", "")}
        state = {"terminated": {**ended, "finishedAt": "2026-01-01T00:00:10Z"}}
    if "waiting" in more:
        state = {"waiting": {"reason": more["waiting"], "message": more.get("message", "")}}
    status: dict[str, Any] = {"name": "stage", "image": "image:1", "state": state, "restartCount": more.get("restarts", 0)}
    if more.get("last") is not None:
        status["lastState"] = {"terminated": {"exitCode": more["last"], "reason": "Error", "message": more.get("message", "")}}
    metadata = {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    if "deleted" in more:
        metadata["deletionTimestamp"] = more["deleted"]
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "node-1", "containers": [{"name": "stage"}]},
        "status": {"phase": phase, "conditions": [placed, *more.get("conditions", ())], "containerStatuses": [status]},
    }


@dataclass
class Played:
    """The cluster and the store."""

    record: RunRecord = field(default_factory=lambda: record_of(*TASKS))
    status: RunStatus = field(default_factory=lambda: fresh_status(()))
    control: Control = field(default_factory=Control)
    now: datetime = START
    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pods: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: set[str] = field(default_factory=set)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    applied: list[tuple[str, int]] = field(default_factory=list)
    """Every (task, attempt) whose workload was made."""
    notes: list[str] = field(default_factory=list)
    over: bool = False

    def __post_init__(self) -> None:
        if not self.status.tasks:
            self.status = fresh_status((one.name, one.slug, one.stage) for one in self.record.tasks)

    def world(self) -> World:
        """As the conductor sees it."""
        names = {*self.objects, *self.pods}
        return World(
            now=self.now,
            control=self.control,
            live={name: Live(tuple(self.objects.get(name, ())), tuple(self.pods.get(name, ()))) for name in names},
            expected={
                task.name: frozenset((one["kind"], one["metadata"]["name"]) for one in self.made(task, 0)) for task in self.record.tasks
            },
            finished=lambda task: manifest_of(task) if task in self.results else None,
            recorded=self.attempts.get,
            progress=lambda _: ProgressNow(),
        )

    def made(self, task: TaskRecord, attempt: int) -> list[dict[str, Any]]:
        """A task's objects."""
        kinds = {"job": [("batch/v1", "Job")], "pytorchjob": [("kubeflow.org/v1", "PyTorchJob")]}
        kinds["servers"] = [("apps/v1", "Deployment"), ("v1", "Service"), ("batch/v1", "Job")]
        replica = {"replicas": 1, "template": {}}
        specs = {"Job": {"template": {}}, "PyTorchJob": {"pytorchReplicaSpecs": {"Master": replica, "Worker": replica}}}
        return [
            {
                **{"apiVersion": version, "kind": kind, "spec": dict(specs.get(kind, {}))},
                "metadata": {"name": task.object, "uid": f"{kind}-{task.object}-{attempt}", "annotations": {ATTEMPT: str(attempt)}},
            }
            for version, kind in kinds[task.component]
        ]

    def decide(self) -> Decision:
        """What the conductor decides now. Nothing happens yet."""
        return decide(self.record, self.status, self.world())

    def step(self, *, upto: int | None = None) -> Decision:
        """One turn of the conductor. With `upto`, it is killed after so many acts (0: before the status is written)."""
        decision = self.decide()
        if upto == 0:
            return decision
        self.status = decision.status
        self.notes += [note.reason for note in decision.notes]
        for action in decision.actions[: None if upto is None else upto - 1]:
            self.act(action)
        return decision

    def act(self, action: Action) -> None:
        """What an action does."""
        if action.kind == "end":
            self.over = True
        elif action.kind == "remove":
            self.objects.pop(action.task, None)
            self.pods.pop(action.task, None)
        else:
            there = {one["kind"] for one in self.objects.get(action.task, ())}
            new = [one for one in self.made(self.record.task(action.task), action.attempt) if one["kind"] not in there]
            if any(one["kind"] in ("Job", "PyTorchJob") for one in new):
                self.applied.append((action.task, action.attempt))
            self.objects.setdefault(action.task, []).extend(new)

    def workload(self, task: str) -> dict[str, Any]:
        """The task's Job or PyTorchJob."""
        return next(one for one in self.objects[task] if one["kind"] in ("Job", "PyTorchJob"))

    def running(self) -> str | None:
        """The task whose workload is there."""
        return next((name for name, objects in self.objects.items() if any(one["kind"] in ("Job", "PyTorchJob") for one in objects)), None)

    def succeed(self, task: str, *, result: bool = True) -> None:
        """Its stage ends well."""
        if result:
            self.results.add(task)
        kind = "Succeeded" if self.workload(task)["kind"] == "PyTorchJob" else "Complete"
        self.workload(task)["status"] = {"conditions": [condition(kind)]}
        self.pods[task] = [pod(f"{task}-0", phase="Succeeded", code=0)]

    def fail(self, task: str, code: int, **more: Any) -> None:
        """Its stage ends with a code."""
        self.workload(task)["status"] = {"conditions": [condition("Failed", "BackoffLimitExceeded", "it failed")]}
        self.pods[task] = [pod(f"{task}-0", phase="Failed", code=code, **more)]

    def settle(self, turns: int = 50) -> None:
        """Turns, time passing in between, every stage ending well, until the run is over or waits for a person."""
        for _ in range(turns):
            decision = self.step()
            if self.over:
                return
            self.now = max(self.now, decision.wake or self.now) + timedelta(seconds=1)
            task = self.running()
            if task is not None and not self.workload(task).get("status"):
                self.succeed(task)
