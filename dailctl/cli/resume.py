"""`dailctl resume`: let a run go on."""

from __future__ import annotations

from dailctl import output
from dailctl.cli.options import Context, Kubeconfig, Namespace, RunFile, RunName


def resume(
    name: RunName = None, file: RunFile = None, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Let a suspended, cancelled or failed run go on where it stopped. What it finished is not done again."""
    from dailctl.observe.reach import run_meant
    from dailctl.observe.steer import resume as go_on

    client, held = run_meant(name, file, kubeconfig, context, namespace, acting=True)
    for one in go_on(client, held):
        output.talk(one)
    output.data(f"run/{held.name} resumed")
    output.talk(f"see it with dailctl watch {held.name}")
