"""`dailctl get`: runs on a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, Everywhere, Kubeconfig, Namespace, Output, Selector

if TYPE_CHECKING:
    from dailctl.kube import Client
    from dailctl.observe.model import RunView


def get(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Runs, or jobs whose newest runs are meant.")] = None,
    everywhere: Everywhere = False,
    selector: Selector = "",
    watching: Annotated[bool, typer.Option("-w", "--watch", help="Go on showing them as they change.")] = False,
    form: Output = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List runs on a cluster.

    -o wide adds time, pods, restarts and the message; describe tells everything of one run.
    """
    from dail_runtime.errors import UsageError
    from dailctl.kube.client import ALL
    from dailctl.observe.live import watch_runs
    from dailctl.observe.reach import reach
    from dailctl.observe.runs import list_runs

    if names and (everywhere or selector):
        raise UsageError("-A and -l choose runs, and so do names; leave one of them out")
    client = reach(kubeconfig, context, namespace)
    place = ALL if everywhere else None
    if watching:
        if form not in (None, output.Form.WIDE):
            raise UsageError("-w shows a table; with -o json|yaml|name leave it out")
        watch_runs(client, namespace=place, labels=selector, names=names or (), wide=form is output.Form.WIDE)
        return
    runs = _named(client, names) if names else list_runs(client, namespace=place, labels=selector)
    if not runs and form in (None, output.Form.WIDE):
        where = "in any namespace" if everywhere else f"in namespace {client.namespace}"
        output.talk(f"no runs {where}{' with these labels' if selector else ''}")
        return
    show(runs, form, namespaces=everywhere, single=bool(names) and len(runs) == 1)


def show(runs: list[RunView], form: output.Form | None, *, namespaces: bool, single: bool) -> None:
    """Print runs in the form that was asked for; a `single` one that was named is printed as itself, not as a list."""
    from dailctl.observe.model import RunList
    from dailctl.observe.tables import run_table

    match form:
        case output.Form.JSON | output.Form.YAML:
            output.document(runs[0].document() if single else RunList(items=tuple(runs)).document(), form)
        case output.Form.NAME:
            output.data("".join(f"{run.name}\n" for run in runs))
        case _:
            wide = form is output.Form.WIDE
            output.data(run_table(runs, wide=wide, namespaces=namespaces, width=output.width_of(sys.stdout)))


def _named(client: Client, names: list[str]) -> list[RunView]:
    from dailctl.conductor.status import summary_of
    from dailctl.observe.runs import find_run, view_of

    helds = [find_run(client, name, None) for name in dict.fromkeys(names)]
    return [view_of(held.obj, summary_of(held.status)) for held in helds]
