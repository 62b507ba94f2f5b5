"""`dailctl suspend`: stop a run for a while."""

from __future__ import annotations

from dailctl import output
from dailctl.cli.options import Context, Kubeconfig, Namespace, RunFile, RunName, Timeout, Wait


def suspend(
    name: RunName = None,
    file: RunFile = None,
    wait: Wait = True,
    timeout: Timeout = 120.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop a run and free its GPUs until resume. Only its conductor stays, which needs no GPU."""
    from dailctl.observe.reach import run_meant
    from dailctl.observe.steer import halt

    client, held = run_meant(name, file, kubeconfig, context, namespace, acting=True)
    halt(client, held, "suspend", seconds=timeout if wait else 0.0, tell=output.talk)
    output.data(f"run/{held.name} {'suspended' if wait else 'is being suspended'}")
    output.talk(f"go on with dailctl resume {held.name}")
