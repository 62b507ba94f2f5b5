"""`dailctl events`: what Kubernetes and the conductor say of a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, DocumentOutput, Kubeconfig, Namespace, RunFile, RunName


def events(
    name: RunName = None,
    file: RunFile = None,
    warnings: Annotated[bool, typer.Option("--warnings", help="Only what went wrong.")] = False,
    watching: Annotated[bool, typer.Option("-w", "--watch", help="Go on showing them as they come.")] = False,
    form: DocumentOutput = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show the events of a run and of all its objects, the oldest first. Clusters forget them after an hour or so."""
    from dail_runtime.errors import UsageError
    from dailctl.kube.resources import EVENT
    from dailctl.observe.describe import events_of
    from dailctl.observe.live import watch_events
    from dailctl.observe.model import EventList
    from dailctl.observe.reach import run_meant
    from dailctl.observe.tables import event_table

    client, held = run_meant(name, file, kubeconfig, context, namespace)
    fields = "type=Warning" if warnings else ""
    if watching:
        if form is not None:
            raise UsageError("-w shows a table; with -o json|yaml leave it out")
        watch_events(client, held, fields=fields)
        return
    found = events_of(client.select(EVENT, namespace=held.namespace, fields=fields), held.record)
    if form is not None:
        output.document(EventList(items=tuple(found)).document(), form)
    elif found:
        output.data(event_table(found, width=output.width_of(sys.stdout)))
    else:
        output.talk(f"no events of run {held.name} are kept")
