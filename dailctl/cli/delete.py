"""`dailctl delete`: remove runs from a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, Kubeconfig, Namespace, RunFile, Timeout, Wait

if TYPE_CHECKING:
    from dailctl.observe.runs import Held


def delete(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Runs, or jobs that have one run.")] = None,
    file: RunFile = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask, also where a run has not ended yet.")] = False,
    wait: Wait = True,
    timeout: Timeout = 120.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Remove runs and everything they have on the cluster, also while they run: then it asks first.

    Finished results stay in the store, and submitting the job again goes on from them.
    """
    from dail_runtime.errors import UsageError
    from dailctl.observe.reach import file_meant, reach
    from dailctl.observe.runs import find_run
    from dailctl.observe.steer import delete as remove

    first = names[0] if names else None
    if names and file is not None:
        raise UsageError(f"both the run {first!r} and the job file {file} are given; give one of them")
    client = reach(kubeconfig, context, namespace, file_meant(first, file))
    # All are looked up before the first goes: a wrong name removes nothing.
    helds = [find_run(client, name, file, acting=True) for name in (dict.fromkeys(names) if names else (None,))]
    going = [held for held in helds if not held.status.ended]
    if going and not yes and not _confirmed(going):
        raise UsageError("nothing was deleted")
    for held in helds:
        remove(client, held, seconds=timeout if wait else 0.0, tell=output.talk)
        output.data(f"run/{held.name} deleted")
        output.talk(f"its results are kept in {held.record.run_uri}")


def _confirmed(going: list[Held]) -> bool:
    from dail_runtime.errors import UsageError

    told = ", ".join(f"run {held.name} is {held.status.state}" for held in going)
    if not sys.stdin.isatty():
        raise UsageError(f"{told}, and delete asks before it ends a run, but there is no terminal to ask on; say --yes")
    return typer.confirm(f"{told}. Delete?", default=False, err=True)
