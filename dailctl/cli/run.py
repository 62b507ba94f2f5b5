"""`dailctl run`: the whole job on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dailctl import output
from dailctl.cli.options import Job, Overrides

if TYPE_CHECKING:
    from dail_runtime.spec import Task

LIBRARIES = ("torch", "transformers", "peft", "safetensors")
"""What the stages import, and the bare install lacks."""


def run(
    file: Job = None,
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
    overrides: Overrides = None,
) -> None:
    """Run a job on this machine.

    What an earlier run finished is kept, and what it began goes on. Ctrl-C lets the stage at work save first.
    """
    from dail_runtime.errors import UsageError
    from dail_runtime.store import read_manifest
    from dailctl.backends.local import LocalBackend, tasks_from
    from dailctl.checks import check_data, check_servers
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
    check_servers(job_run)
    if again or read_manifest(job_run.root.at(job_run.task("prepare").prefix)) is None:
        check_data(job_run)
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
