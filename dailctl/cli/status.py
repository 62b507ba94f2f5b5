"""`dailctl status`: how far runs are."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dailctl import output
from dailctl.cli.options import STORE, JobFile, Name, Output, Storage
from dailctl.progress import figures_told, number_told

if TYPE_CHECKING:
    from dail_runtime.stages.jobs import TaskState
    from dailctl.runs import Run

WORDS = {"absent": "waiting"}


def status(
    name: Name = None,
    file: JobFile = None,
    store: Storage = STORE,
    every: Annotated[bool, typer.Option("-A", "--all", help="All runs below --store.")] = False,
    form: Output = None,
) -> None:
    """Show how far runs are.

    One run stage by stage: that of NAME, -f or ./job.yaml. With -A, or where none of them is there, all runs below --store.
    """
    from dail_runtime.errors import UsageError
    from dailctl.runs import DEFAULT_JOB, find_run, run_names, run_of_name

    if every and (name is not None or file is not None):
        raise UsageError("-A shows all runs; leave it out to see one, or leave out the run's name")
    if every or (name is None and file is None and not DEFAULT_JOB.is_file()):
        runs = [_row(run_of_name(one, store)) for one in run_names(store)]
        if not runs and form is None:
            output.talk(f"no runs below {store}; start one with dailctl run, or say with --store where they are")
            return
        _show(runs, form, {"items": runs}, RUN_COLUMNS, RUN_WIDE)
        return
    found = _row(find_run(name, file, store))
    _show(found["tasks"], form, found, TASK_COLUMNS, TASK_WIDE)


RUN_COLUMNS = ("name", "state", "done", "now", "time", "age")
RUN_WIDE = ("name", "state", "done", "now", "time", "gain", "store", "age")
TASK_COLUMNS = ("name", "state", "progress", "time", "attempts", "age")
TASK_WIDE = ("name", "state", "progress", "rate", "time", "attempts", "prefix", "error", "age")


def _show(
    rows: list[dict[str, Any]], form: output.Form | None, whole: dict[str, Any], columns: tuple[str, ...], wide: tuple[str, ...]
) -> None:
    if form in (output.Form.JSON, output.Form.YAML):
        output.document(whole, form)
    elif form is output.Form.NAME:
        output.data("".join(f"{row['name']}\n" for row in rows))
    else:
        chosen = wide if form is output.Form.WIDE else columns
        output.data(output.table([column.upper() for column in chosen], [[_cell(row, column) for column in chosen] for row in rows]))


def _row(run: Run) -> dict[str, Any]:
    """A run as `-o json` shows it; the table is made from the same."""
    from dailctl.backends.lock import is_held
    from dailctl.summary import read_report

    held = is_held(run.root)
    states = run.states()
    tasks = [_task(state, task.prefix, held) for state, task in zip(states, run.tasks, strict=True)]
    started = [state.started for state in states if state.started is not None]
    return {
        "name": run.name,
        "state": _run_state([task["state"] for task in tasks], held),
        "done": sum(task["state"] == "done" for task in tasks),
        "total": len(tasks),
        "now": next((task["name"] for task in tasks if task["state"] not in ("done", "waiting")), None),
        "seconds": round(sum(task["seconds"] for task in tasks), 3),
        "started": min(started).isoformat() if started else None,
        "gain": read_report(run)["verdict"]["gain"] if states[-1].state == "done" else None,
        "store": run.root.uri,
        "tasks": tasks,
    }


def _task(state: TaskState, prefix: str, held: bool) -> dict[str, Any]:
    word = WORDS.get(state.state, state.state)
    if word == "running" and not held:
        # The last words of an attempt that was killed without a chance to say so.
        word = "interrupted"
    progress = state.progress
    return {
        "name": state.task,
        "state": word,
        "progress": {"done": progress.done, "total": progress.total, "unit": progress.unit, "figures": progress.figures},
        "seconds": round(state.seconds, 3),
        "attempts": state.attempts,
        "started": state.started.isoformat() if state.started else None,
        "error": state.error,
        "prefix": prefix,
        "counts": state.counts,
    }


def _run_state(tasks: list[str], held: bool) -> str:
    if all(word == "done" for word in tasks):
        return "done"
    if held:
        return "running"
    return next((word for word in ("failed", "interrupted") if word in tasks), "waiting" if "done" not in tasks else "interrupted")


def _cell(row: dict[str, Any], column: str) -> str:
    match column:
        case "done":
            return f"{row['done']}/{row['total']}"
        case "time":
            return output.duration(row["seconds"]) if row["started"] else "-"
        case "age":
            return output.age(datetime.fromisoformat(row["started"]) if row["started"] else None)
        case "progress":
            progress = row["progress"]
            return f"{number_told(progress['done'])}/{number_told(progress['total'])} {progress['unit']}" if progress["total"] else "-"
        case "rate":
            return ", ".join(figures_told(row["progress"]["figures"])) or "-"
        case "gain":
            return {True: "yes", False: "no", None: "-"}[row["gain"]]
    value = row[column]
    return "-" if value is None else str(value)
