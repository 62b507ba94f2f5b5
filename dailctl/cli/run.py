"""`dailctl run`: the whole job on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dailctl import output

if TYPE_CHECKING:
    from dail_runtime.spec import Task

LIBRARIES = ("torch", "transformers", "peft", "safetensors")
"""What the stages import, and the bare install lacks."""


def run(
    file: Annotated[Path | None, typer.Option("-f", "--file", metavar="JOB", help="The job file; ./job.yaml where left out.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STAGE",
            help="Run this stage (or task, as train/nll) and all after it again.",
            autocompletion=lambda: _stages(),
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run every stage again.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of spec, as train.epochs=3. May be repeated.")
    ] = None,
) -> None:
    """Run a job on this machine; what an earlier run finished is kept, and what it began goes on."""
    from dail_runtime.errors import UsageError
    from dailctl.backends.local import LocalBackend, tasks_from
    from dailctl.checks import check_data
    from dailctl.errors import Stopped
    from dailctl.progress import view_for_stderr
    from dailctl.runs import run_of_file, the_job_file
    from dailctl.summary import local_report, publish, read_report, summary

    path = file if file is not None else the_job_file()
    job_run = run_of_file(path, overrides or ())
    if start is not None and force:
        raise UsageError("--from and --force exclude each other: --force runs every stage again; leave one out")
    again = list(job_run.tasks) if force else []
    if start is not None:
        found = tasks_from(job_run.tasks, start)
        if found is None:
            raise UsageError(f"--from {start}: this job has no such stage or task; it has {', '.join(_choices(job_run.tasks))}")
        again = found
    check_data(job_run.job)
    _require_runtime()
    try:
        with view_for_stderr() as view:
            LocalBackend(job_run, view).execute(again)
    except Stopped as err:
        words = ["dailctl", "run", "-f", str(path), *(word for pair in overrides or () for word in ("--set", pair))]
        err.args = (f"{err}; go on with: {shlex.join(words)}",)
        raise
    publish(job_run)
    output.data(summary(read_report(job_run), local_report(job_run)))


def _require_runtime() -> None:
    from importlib.util import find_spec

    from dail_runtime.errors import SetupError

    missing = [library for library in LIBRARIES if find_spec(library) is None]
    if missing:
        raise SetupError(f"dailctl run needs {', '.join(missing)}, which this Python lacks; install it with: pip install 'dail[runtime]'")


def _stages() -> list[str]:
    from dail_runtime.spec import STAGES

    return list(STAGES)


def _choices(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys([*(task.stage for task in tasks), *(task.name for task in tasks)]))
