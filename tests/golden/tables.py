"""The tables that people read, at 80 and 160 columns and without a terminal: from one run in the middle of its rewriting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from dail_runtime.stages.jobs import ProgressNow
from dailctl.cli.plan import told
from dailctl.conductor.status import RunStatus, summary_of
from dailctl.estimate.total import Estimate, TaskEstimate
from dailctl.explain import Seen
from dailctl.observe.describe import described, description, task_view
from dailctl.observe.model import CheckView, EventView, Leftover
from dailctl.observe.runs import Held, held_of, view_of
from dailctl.observe.seen import Gathered
from dailctl.observe.tables import check_table, event_table, leftover_table, run_table, task_table
from tests.support.played_run import TASKS, record_of
from tests.support.recorded import event, pod

FOLDER = Path(__file__).with_name("tables")
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
WIDTHS: dict[str, int | None] = {"80": 80, "160": 160, "piped": None}
HOSTILE = "\x1b[2J\x1b[31mred\x07\r\nsecond line\ttab"
"""What a stage's message may hold: a terminal must not obey it."""


class _Frozen(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # noqa: ARG003
        return NOW


def a_run(*, message: str | None = None) -> Held:
    """A run that rewrites, a model server of it waiting for a node."""
    record = record_of(*TASKS).model_copy(update={"name": "aime-qwen-62b02cd3", "job": "aime-qwen", "run_uri": "s3://runs/team/aime-qwen"})
    tasks_named = tuple(one.model_copy(update={"object": f"{record.name}-{one.slug}"}) for one in record.tasks)
    record = record.model_copy(update={"tasks": tasks_named})
    meta = {"name": record.name, "namespace": "ml", "uid": "uid-record", "creationTimestamp": "2026-11-24T04:55:00Z"}
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"run.json": record.model_dump_json()}}
    held = held_of(obj)
    said = message or "rewrite/tuned: no node takes its pods"
    tasks = list(held.status.tasks)
    tasks[0] = tasks[0].model_copy(
        update={
            "state": "done",
            "attempts": 1,
            "started": NOW - timedelta(hours=3),
            "finished": NOW - timedelta(hours=2),
            "seconds": 3500.0,
        }
    )
    progress = ProgressNow(done=120, total=1000, unit="problems", figures={"tokens_per_s": 1234.0})
    tasks[1] = tasks[1].model_copy(
        update={
            **{"state": "running", "attempts": 2, "started": NOW - timedelta(hours=2), "progress": progress},
            **{"pods": 5, "ready": 4, "restarts": 1, "message": said},
        }
    )
    status = RunStatus(state="running", started=NOW - timedelta(hours=3), tasks=tuple(tasks), message=said)
    return Held(held.obj, held.record, status, True, held.control)


def gathered(held: Held) -> Gathered:
    """Two of its pods: one runs, one waits for a node."""
    task = held.status.tasks[1]
    labels = {"dail.dev/task": task.slug, "dail.dev/run": held.name, "dail.dev/stage": "rewrite", "app.kubernetes.io/component": "server"}
    name = held.record.task(task.name).object
    running = {"name": "pytorch", "ready": True, "restartCount": 1, "state": {"running": {"startedAt": "2026-11-24T07:00:00Z"}}}
    ready = pod(
        f"{name}-5d4f8-abcde",
        spec={"nodeName": "gpu-node-17.eu-west-1.example.org"},
        status={"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [running]},
    )
    waits = pod(
        f"{name}-5d4f8-fghij",
        status={
            "conditions": [
                {
                    **{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"},
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: none.",
                }
            ]
        },
    )
    for one in (ready, waits):
        one["metadata"]["labels"] = labels
    events = (event(waits, "FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),)
    slugs = {one.slug: one.name for one in held.record.tasks}
    return Gathered(Seen(pods=(ready, waits), events=events), ("nodes",), slugs)


def _describe(width: int | None) -> str:
    held = a_run()
    return described(description(held, gathered(held), NOW), width=width)


def _runs(width: int | None, *, wide: bool) -> str:
    held, other = a_run(), a_run(message=HOSTILE)
    views = [view_of(one.obj, summary_of(one.status)) for one in (held, other)]
    return run_table(views, wide=wide, namespaces=wide, width=width)


def _events(width: int | None) -> str:
    long = "0/128 nodes are available: 64 Insufficient nvidia.com/gpu, 64 node(s) had untolerated taint(s)."
    name = f"pod/{a_run().record.tasks[1].object}-5d4f8-fghij"
    said = [
        EventView(object=f"configmap/{a_run().name}", type="Normal", reason="TaskStarted", message="prepare: attempt 1", count=1, last=NOW),
        EventView(object=name, type="Warning", reason="FailedScheduling", message=long, count=17, last=NOW - timedelta(minutes=4)),
        EventView(
            object=name, type="Warning", reason="BackOff", message=" ".join(HOSTILE.split()), count=3, last=NOW - timedelta(minutes=3)
        ),
    ]
    return event_table(said, width=width)


def _leftovers(width: int | None) -> str:
    made = NOW - timedelta(days=3)
    return leftover_table(
        [
            Leftover(
                **{"name": "job.batch/qwen-1a2b3c4d-train-nll", "namespace": "ml", "run": "qwen-1a2b3c4d", "created": made},
                reason="its run has no record",
                gpus={"nvidia.com/gpu": 8},
            )
        ],
        width=width,
    )


def _checks(width: int | None) -> str:
    missing = "namespace ml has no secret dail-s3; create it with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return check_table(
        [
            CheckView(name="version", result="ok", detail="Kubernetes v1.36.3"),
            CheckView(name="secrets", result="failed", detail=missing),
        ],
        width=width,
    )


def _plan(width: int | None) -> str:
    gpu, amd = "nvidia.com/gpu", "amd.com/gpu"
    tasks = (
        TaskEstimate("prepare", done=True, pods=1, seconds=12.0, gpu_hours={}, cost=0.0, stored=81_000, sources=("measured by a run",)),
        TaskEstimate(
            **{"task": "rewrite/expert-text", "done": False, "objects": 4, "pods": 5, "gpus": {gpu: 16}, "tokens": 61_440_000},
            **{"tokens_at_most": 65_536_000, "seconds": 8_130.0, "gpu_hours": {gpu: 36.13}, "cost": 72.27},
            sources=(
                "1920 tokens a response, as in pilot rewrite/expert-text",
                "measured by pilot rewrite/expert-text on 2 GPUs",
            ),
        ),
        TaskEstimate("train/expert-text", done=False, objects=1, pods=4, gpus={gpu: 32}, tokens_at_most=5_242_880),
        TaskEstimate("evaluate/base", done=False, objects=4, pods=3, gpus={amd: 2}, tokens=900_000, seconds=300.0, gpu_hours={amd: 0.17}),
        TaskEstimate("report", done=False, objects=1, pods=1, gpu_hours={}),
    )
    return told(Estimate("aime-qwen", tasks, {gpu: 2.0}), width=width)


TABLES: dict[str, Callable[[int | None], str]] = {
    "get": lambda width: _runs(width, wide=False),
    "get-wide": lambda width: _runs(width, wide=True),
    "describe": _describe,
    "watch": lambda width: task_table(map(task_view, a_run().status.tasks), width=width, left={"rewrite/tuned": 3600.0}),
    "events": _events,
    "gc": _leftovers,
    "doctor": _checks,
    "plan": _plan,
}


def drawn(table: str, width: str) -> str:
    """A table as it looks at NOW."""
    with patch("dailctl.output.datetime", _Frozen), patch("dailctl.observe.runs.datetime", _Frozen):
        return TABLES[table](WIDTHS[width])


def golden(table: str, width: str) -> Path:
    """Where it is."""
    return FOLDER / f"{table}.{width}.txt"


def update() -> None:
    """Write all of them."""
    for table in TABLES:
        for width in WIDTHS:
            golden(table, width).write_text(drawn(table, width), encoding="utf-8")
