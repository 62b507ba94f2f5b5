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
    from dailctl.observe.reach import file_meant, reach
    from dailctl.observe.runs import find_run
    from dailctl.observe.steer import halt

    client = reach(kubeconfig, context, namespace, file_meant(name, file))
    held = find_run(client, name, file, acting=True)
    halt(client, held, "suspend", seconds=timeout if wait else 0.0, tell=output.talk)
    output.data(f"run/{held.name} {'suspended' if wait else 'is being suspended'}")
    output.talk(f"go on with dailctl resume {held.name}")
