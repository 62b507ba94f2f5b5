"""`dailctl watch`: a run on a cluster as it goes on."""

from __future__ import annotations

from dailctl import output
from dailctl.cli.options import Context, Kubeconfig, Namespace, RunFile, RunName


def watch(
    name: RunName = None, file: RunFile = None, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Show a run's tasks, progress, speed, time left and restarts as they change, until it has ended.

    Ends with the run's exit code. Ctrl-C stops watching; the run goes on.
    """
    from dailctl.errors import StageFailed
    from dailctl.observe.live import watch_run
    from dailctl.observe.reach import run_meant

    client, held = run_meant(name, file, kubeconfig, context, namespace)
    held = watch_run(client, held)
    if held.status.state == "done":
        output.talk(f"run {held.name} is done; its report: dailctl report {held.name}")
        return
    raise StageFailed(f"run {held.name} {held.status.state}: {held.status.message or 'no reason is given'}", held.status.exit_code or 1)
