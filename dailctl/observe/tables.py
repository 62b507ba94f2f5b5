"""The tables of runs, tasks, pods, events and leftovers. Pure: from views to text. NAME first, AGE last; `-` where there is nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dail_runtime.stages.jobs import ProgressNow
from dailctl import output
from dailctl.observe.model import CheckView, EventView, Leftover, PodView, RunView, TaskView
from dailctl.observe.runs import since
from dailctl.progress import figures_told, number_told

ELASTIC = ("NAME", "MESSAGE", "NOW", "PROGRESS", "RATE", "REASON", "DETAIL", "OBJECT", "NODE")
"""Columns that are cut where a terminal is too narrow for all of them. A run's NAME never is: it is what people copy."""


def run_table(runs: Iterable[RunView], *, wide: bool = False, namespaces: bool = False, width: int | None = None) -> str:
    """Runs, a line each; `namespaces`: with the namespace before the name, as kubectl has it."""
    head = [
        *(["NAMESPACE"] if namespaces else []),
        *("NAME", "STATE", "DONE", "NOW", "PROGRESS"),
        *(["TIME", "PODS", "RESTARTS", "MESSAGE"] if wide else []),
        "AGE",
    ]
    rows = [
        [
            *([run.namespace] if namespaces else []),
            *(run.name, run.state, f"{run.done}/{run.total}", run.now or "-", progress_told(run.progress)),
            *([_time(run), pods_told(run), str(run.restarts), run.message or "-"] if wide else []),
            output.age(run.created),
        ]
        for run in runs
    ]
    return output.table(head, rows, width=width, elastic=_elastic(head, "NAME"), spare=["RESTARTS", "PODS"] if wide else [])


def task_table(tasks: Iterable[TaskView], *, width: int | None = None, left: Mapping[str, float] | None = None) -> str:
    """Tasks of a run, a line each; `left`: task -> seconds that it still takes, where that is known (None: a table without them)."""
    head = ["NAME", "STATE", "PROGRESS", "RATE", *(["LEFT"] if left is not None else []), "PODS", "RESTARTS", "ATTEMPTS", "TIME", "AGE"]
    rows = [
        [
            *(task.name, task.state, progress_told(task.progress), rate_told(task.progress)),
            *([output.duration(left[task.name]) if task.name in left else "-"] if left is not None else []),
            *(pods_told(task), str(task.restarts), str(task.attempts), task_time(task), output.age(task.started)),
        ]
        for task in tasks
    ]
    return output.table(head, rows, width=width, elastic=_elastic(head, "NAME"), spare=["ATTEMPTS", "PODS", "TIME"])


def pod_table(pods: Iterable[PodView], *, width: int | None = None) -> str:
    """Pods of a run."""
    head = ["NAME", "TASK", "STATE", "READY", "RESTARTS", "GPUS", "NODE", "AGE"]
    rows = [
        [
            *(pod.name, pod.task, pod.state, "yes" if pod.ready else "no", str(pod.restarts)),
            *(gpus_told(pod.gpus), pod.node or "-", output.age(pod.created)),
        ]
        for pod in pods
    ]
    return output.table(head, rows, width=width, elastic=ELASTIC, spare=["READY", "NODE"])


def event_table(events: Iterable[EventView], *, width: int | None = None) -> str:
    """Events, the oldest first."""
    head = ["NAME", "TYPE", "REASON", "MESSAGE", "COUNT", "AGE"]
    rows = [[one.object, one.type, one.reason, one.message, str(one.count), output.age(one.last)] for one in events]
    return output.table(head, rows, width=width, elastic=("NAME", "MESSAGE"), spare=["COUNT", "TYPE"])


def leftover_table(leftovers: Iterable[Leftover], *, namespaces: bool = False, width: int | None = None) -> str:
    """What `gc` would remove."""
    head = [*(["NAMESPACE"] if namespaces else []), "NAME", "RUN", "GPUS", "REASON", "AGE"]
    rows = [
        [*([one.namespace] if namespaces else []), one.name, one.run, gpus_told(one.gpus), one.reason, output.age(one.created)]
        for one in leftovers
    ]
    return output.table(head, rows, width=width, elastic=("REASON",), spare=["RUN"])


def check_table(checks: Iterable[CheckView], *, width: int | None = None) -> str:
    """What `doctor` found. Details of what failed are told whole, below."""
    return output.table(
        ["NAME", "RESULT", "DETAIL"], [[one.name, one.result, one.detail] for one in checks], width=width, elastic=("DETAIL",)
    )


def progress_told(progress: ProgressNow) -> str:
    """`120/1 000 problems`."""
    if not progress.total:
        return "-"
    return f"{number_told(progress.done)}/{number_told(progress.total)} {progress.unit}".rstrip()


def rate_told(progress: ProgressNow) -> str:
    """The figures of a stage: `1 234 tokens/s, loss 0.412`."""
    return ", ".join(figures_told(progress.figures)) or "-"


def pods_told(one: RunView | TaskView) -> str:
    """`3/4`: ready of all."""
    return f"{one.ready}/{one.pods}" if one.pods else "-"


def gpus_told(gpus: Mapping[str, int]) -> str:
    """`8 nvidia.com/gpu`."""
    return ", ".join(f"{count} {name}" for name, count in gpus.items()) or "-"


def task_time(task: TaskView) -> str:
    """How long it took, or takes already."""
    if task.seconds is not None:
        return output.duration(task.seconds)
    passed = since(task.started, task.finished)
    return output.duration(passed) if passed is not None else "-"


def _time(run: RunView) -> str:
    passed = since(run.started, run.finished)
    return output.duration(passed) if passed is not None else "-"


def _elastic(head: Sequence[str], *whole: str) -> list[str]:
    return [name for name in head if name in ELASTIC and name not in whole]
