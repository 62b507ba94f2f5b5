"""`dailctl describe`: one run on a cluster, and why it waits or fails."""

from __future__ import annotations

import sys

from dailctl import output
from dailctl.cli.options import Context, DocumentOutput, Kubeconfig, Namespace, RunFile, RunName


def describe(
    name: RunName = None,
    file: RunFile = None,
    form: DocumentOutput = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Tell everything of a run: its tasks, why something waits or failed and what to do, its pods and events."""
    from dailctl.observe.describe import described, description
    from dailctl.observe.reach import run_meant
    from dailctl.observe.seen import gather

    client, held = run_meant(name, file, kubeconfig, context, namespace)
    run = description(held, gather(client, held), client.now())
    if form is not None:
        output.document(run.document(), form)
    else:
        output.data(described(run, width=output.width_of(sys.stdout)))
