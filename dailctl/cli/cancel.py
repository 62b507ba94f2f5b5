"""`dailctl cancel`: end a run and free its GPUs; its results stay."""

from __future__ import annotations

from dailctl import output
from dailctl.cli.options import Context, Kubeconfig, Namespace, RunFile, RunName, Timeout, Wait


def cancel(
    name: RunName = None,
    file: RunFile = None,
    wait: Wait = True,
    timeout: Timeout = 120.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """End a run: its pods go, and with them its GPUs. What it finished is kept; resume goes on from there."""
    from dailctl.observe.reach import run_meant
    from dailctl.observe.steer import halt

    client, held = run_meant(name, file, kubeconfig, context, namespace, acting=True)
    halt(client, held, "cancel", seconds=timeout if wait else 0.0, tell=output.talk)
    output.data(f"run/{held.name} {'cancelled' if wait else 'is being cancelled'}")
    output.talk(f"its results are kept; go on with dailctl resume {held.name}, or remove it with dailctl delete {held.name}")
