"""`dailctl delete`: remove runs from a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, Kubeconfig, Namespace, RunFile, Timeout, Wait


def delete(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Runs, or jobs that have one run.")] = None,
    file: RunFile = None,
    wait: Wait = True,
    timeout: Timeout = 120.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Remove runs and everything they have on the cluster, also while they run.

    Nothing is lost by it: finished results stay in the store, and submitting the job again goes on from them.
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
    for held in [find_run(client, name, file, acting=True) for name in (dict.fromkeys(names) if names else (None,))]:
        remove(client, held, seconds=timeout if wait else 0.0, tell=output.talk)
        output.data(f"run/{held.name} deleted")
        output.talk(f"its results are kept in {held.record.run_uri}")
